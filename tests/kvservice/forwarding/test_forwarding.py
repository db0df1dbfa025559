"""A node that does not lead: what it sends, what it answers, and what it never does.

The first tests are one for each defect that RedisRaft had with proxied commands and failovers (Jepsen, 2020).
"""

from __future__ import annotations

from typing import Any

import pytest

from kvservice.commands.reply import OK, ErrorReply
from kvservice.errors import LeadershipLost, NoLeader, Overloaded
from kvservice.forwarding import forwarded as forwarded_module
from kvservice.forwarding import forwarder as forwarder_module
from kvservice.forwarding.reply_codec import decode_replies
from redan.raft.v1 import raft_pb2
from replication.errors import NotLeading, Stopped
from tests.kvservice.fake_node import START_MS, Peer, resp, texts
from tests.kvservice.forwarding.fake_cluster import FakeCluster, WireLink


def cluster_led_by_n1(**settings: Any) -> FakeCluster:
    cluster = FakeCluster(**settings)
    cluster.elect("n1")
    cluster.tell_all()
    for link in cluster.links:
        link.open()
    return cluster


def link_from(cluster: FakeCluster, name: str) -> WireLink:
    """Return the newest link of a follower."""
    return [link for link in cluster.links if link.name == name and not link.is_closed][-1]


def error_of(peer: Peer) -> type[Exception]:
    [reply] = peer.taken()
    assert isinstance(reply, ErrorReply)
    return type(reply.cause)


# -- the defects -------------------------------------------------------------------------------------------------------


def test_forwarding_repeats_nothing_that_may_have_run() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "APPEND k x")
    link = link_from(cluster, "n2")
    link.send()
    link.arrive()
    cluster.turn()
    link.cut()
    assert error_of(peer) is LeadershipLost
    cluster.settle()
    cluster.pass_time(10)
    cluster.settle()
    assert cluster.benches["n1"].machine.databases[0].get(b"k") == b"x"
    assert [entry.payload for entry in cluster.log if entry.payload] == [resp("APPEND k x")]


def test_what_a_link_had_not_yet_taken_is_sent_on_the_next_one() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "APPEND k x")
    link_from(cluster, "n2").cut()
    assert peer.taken() == []
    cluster.pass_time()
    cluster.settle()
    assert peer.taken() == [1]


def test_replies_go_to_the_caller_that_asked_in_its_order() -> None:
    cluster = cluster_led_by_n1()
    peers = []
    for name in ("n2", "n3", "n1"):
        bench = cluster.benches[name]
        for _ in range(3):
            peer = bench.peer()
            peers.append(peer)
            # The ids of callers are the same on every node.
            for number in range(3):
                bench.send(peer, f"SET {name}:{peer.id} {number}", f"GET {name}:{peer.id}")
    cluster.settle()
    for peer in peers:
        assert peer.taken() == [OK, b"0", OK, b"1", OK, b"2"]


def test_no_stale_read_before_the_no_op_of_a_new_leader() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    writer, local, remote = n1.peer(), n2.peer(), cluster.benches["n3"].peer()
    n1.send(writer, "SET k new")
    cluster.turn()
    cluster.commit()
    assert writer.taken() == [OK]
    cluster.elect("n2")
    cluster.tell_all()
    n2.send(local, "GET k")
    cluster.benches["n3"].send(remote, "GET k")
    link = link_from(cluster, "n3")
    link.open()
    for _ in range(3):
        link.carry()
        cluster.turn()
    assert (local.taken(), remote.taken()) == ([], []), "n2 has not applied the write"
    cluster.settle()
    assert (local.taken(), remote.taken()) == ([b"new"], [b"new"])


def test_no_error_for_a_committed_write_whose_outcome_is_known() -> None:
    """The leader that proposed it lost its leadership before it committed; the next one has it."""
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    local, remote = n1.peer(), n2.peer()
    n1.send(local, "INCR a")
    n2.send(remote, "INCR b")
    link_from(cluster, "n2").carry()
    cluster.turn()
    cluster.elect("n3", surviving=1)
    cluster.tell_all()
    cluster.settle()
    assert local.taken() == [1]
    assert remote.taken() == [1]
    assert len(cluster.log) == 1


def test_a_write_that_is_certainly_void_is_done_by_the_next_leader_and_no_error_is_told() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    local, remote = n1.peer(), n2.peer()
    n1.send(local, "INCR a")
    n2.send(remote, "INCR b")
    link_from(cluster, "n2").carry()
    cluster.turn()
    cluster.elect("n3", surviving=0)
    cluster.tell_all()
    cluster.settle()
    assert (local.taken(), remote.taken()) == ([1], [1])


def test_a_write_whose_outcome_is_unknown_is_told_so_and_a_read_is_done_again() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    writer, reader = n1.peer(), n1.peer()
    n1.send(writer, "INCR a")
    n1.send(reader, "GET b")
    cluster.turn()
    cluster.elect("n3", surviving=0)
    cluster.tell_all()
    cluster.give_up("n1")
    n1.turn()
    assert error_of(writer) is LeadershipLost
    assert reader.taken() == []
    cluster.settle()
    assert reader.taken() == [None]
    assert cluster.log == []


# -- what stays here ---------------------------------------------------------------------------------------------------


def test_server_commands_are_answered_by_the_node_that_is_asked_behind_what_is_pending() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k 1", "CLIENT SETNAME me", "CLIENT GETNAME", "GET k", "SELECT 3", "GET k")
    assert peer.taken() == []
    assert peer.held
    cluster.settle()
    assert texts(peer.taken()) == ["OK", "OK", b"me", b"1", "OK", None]
    assert peer.name == b"me"


def test_a_pause_of_the_leader_holds_its_own_clients_only() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    local, remote = n1.peer(), n2.peer()
    n1.send(local, "CLIENT PAUSE 100000")
    n1.send(local, "SET a 1")
    n2.send(remote, "SET b 1")
    cluster.settle()
    assert remote.taken() == [OK]
    assert local.taken() == [OK], "to the pause"
    n2.send(remote, "CLIENT PAUSE 100000", "SET b 2")
    cluster.settle()
    assert remote.taken() == [OK]
    assert remote.held


def test_a_node_that_drains_sends_nothing_on() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    n2.service.drain()
    peer = n2.peer()
    n2.send(peer, "SET k 1")
    n2.turn()
    assert texts(peer.taken()) == ["CLUSTERDOWN The node is shutting down"]


def test_refusals_keep_their_place_among_forwarded_commands() -> None:
    cluster = cluster_led_by_n1(key_bytes_max=16)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "NOSUCH")
    assert len(peer.taken()) == 1, "there is nothing to wait for"
    n2.send(peer, "SET k 1", "NOSUCH", "INCR k", "GET", "GET k", "GET " + "x" * 17)
    n2.send(peer, "STRLEN")
    n2.send(peer, "INCR k")
    cluster.settle()
    assert texts(peer.taken()) == [
        "OK", "ERR unknown command 'NOSUCH', with args beginning with: ", 2,
        "ERR wrong number of arguments for 'get' command", b"2",
        "ERR key is 17 bytes long, allowed are 0..16 (key-bytes-max)",
        "ERR wrong number of arguments for 'strlen' command", 3,
    ]  # fmt: skip


def test_the_leader_alone_decides_about_memory() -> None:
    cluster = cluster_led_by_n1(maxmemory=1)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k 1")
    cluster.settle()
    assert peer.taken() == [OK], "nothing was stored yet"
    n2.send(peer, "SET k 2", "GET k")
    n2.turn()
    assert peer.taken() == []
    cluster.settle()
    assert texts(peer.taken()) == ["OOM command not allowed when used memory > 'maxmemory'.", b"1"]
    assert n2.run(peer, "CONFIG SET maxmemory 2") == [OK]
    assert n2.node.log == [], "a follower evicts nothing"


def test_only_the_leader_moves_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_led_by_n1()
    for bench in cluster.benches.values():
        bench.service.move_time()
    cluster.turn()
    assert [len(bench.node.log) for bench in cluster.benches.values()] == [1, 0, 0]
    peer = cluster.benches["n2"].peer()
    cluster.benches["n2"].send(peer, "SET k v PX 500", "SET j w")
    cluster.settle()
    monkeypatch.setattr("kvservice.runner.time_ns", lambda: (START_MS + 1000) * 1_000_000)
    cluster.benches["n1"].node.now_ms = START_MS + 1000
    cluster.benches["n2"].send(peer, "GET j", "GET k", "GET j")
    cluster.settle()
    assert peer.taken() == [OK, OK, b"w", None, b"w"]


# -- sending -----------------------------------------------------------------------------------------------------------


def test_all_calls_of_a_turn_are_one_request() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    for number in range(4):
        peer = n2.peer()
        peer.db = number
        n2.send(peer, f"SET k{number} v")
    link = link_from(cluster, "n2")
    link.send()
    [encoded] = link.requests
    request = raft_pb2.ForwardRequest.FromString(encoded)
    assert request.term == 1
    assert [(call.db, call.commands) for call in request.calls] == [
        (number, resp(f"SET k{number} v")) for number in range(4)
    ]
    assert len({call.session_id for call in request.calls}) == 4


def test_a_request_is_closed_when_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "REQUEST_BYTES_MAX", 100)
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    for number in range(8):
        n2.send(peer, f"SET k{number} {'v' * 30}")
    link = link_from(cluster, "n2")
    link.send()
    assert len(link.requests) > 2
    cluster.settle()
    assert peer.taken() == [OK] * 8


def test_more_than_may_wait_is_refused_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "BYTES_MAX", 2000)
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer, other = n2.peer(), n2.peer()
    for number in range(6):
        n2.send(peer, f"SET k {number}")
    n2.send(other, "GET k")
    n2.turn()
    assert error_of(other) is Overloaded
    assert peer.taken() == [], "what it asked before is not answered"
    assert n2.service.forwarder.bytes_pending < 6000
    cluster.settle()
    replies = peer.taken()
    assert replies[:4] == [OK] * 4
    assert all(isinstance(reply, ErrorReply) and type(reply.cause) is Overloaded for reply in replies[4:])
    n2.send(other, "GET k")
    cluster.settle()
    assert other.taken() == [b"3"]
    assert n2.service.forwarder.bytes_pending == 0


def test_forwarded_commands_are_counted_where_they_were_asked() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k v", "INCR k", "NOSUCH")
    n2.send(peer, "GET k")
    cluster.settle()
    counts = {row.name: (stats.calls, stats.failed) for row, stats in n2.stats.told()}
    assert counts == {"set": (1, 0), "incr": (1, 1), "get": (1, 0)}


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_without_a_leader_commands_wait_in_order_and_none_fails() -> None:
    cluster = FakeCluster()
    bench = cluster.benches["n2"]
    bench.lead(None, 1)
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    bench.send(peer, "INCR k", "CLIENT SETNAME me", "GET k")
    cluster.turn()
    cluster.pass_time(1.0)
    assert peer.taken() == []
    cluster.elect("n1")
    cluster.tell_all()
    cluster.settle()
    assert peer.taken() == [OK, 2, OK, b"2"]


def test_what_waited_for_a_leader_is_run_here_if_this_node_is_elected() -> None:
    cluster = FakeCluster()
    bench = cluster.benches["n2"]
    bench.lead(None, 1)
    peer = bench.peer()
    bench.send(peer, "SET k 1", "NOSUCH", "INCR k")
    bench.send(peer, "GET k")
    cluster.turn()
    cluster.elect("n2")
    cluster.tell_all()
    cluster.settle()
    assert texts(peer.taken()) == ["OK", "ERR unknown command 'NOSUCH', with args beginning with: ", 2, b"2"]
    bench.send(peer, "INCR k")
    cluster.settle()
    assert peer.taken() == [3]


def test_who_waits_too_long_for_a_leader_is_told_so_and_others_after_it() -> None:
    cluster = FakeCluster(leader_wait_ms=2000)
    bench = cluster.benches["n2"]
    bench.lead(None, 1)
    early, late = bench.peer(), bench.peer()
    bench.send(early, "SET k 1")
    bench.send(early, "GET k")
    cluster.turn()
    cluster.pass_time(1.5)
    bench.send(late, "GET k")
    cluster.turn()
    cluster.pass_time(1.0)
    assert texts(early.taken()) == ["CLUSTERDOWN The cluster has no leader"] * 2
    assert late.taken() == []
    cluster.pass_time(1.5)
    cluster.turn()
    assert error_of(late) is NoLeader
    assert cluster.log == []
    assert bench.service.forwarder.calls_pending == 0


def test_a_node_that_learns_of_a_leader_by_trying_sends_there() -> None:
    cluster = FakeCluster()
    cluster.elect("n1")
    n2 = cluster.benches["n2"]
    n2.node.is_leader, n2.node.leader_id, n2.node.term = False, "n1", 1
    peer = n2.peer()
    n2.send(peer, "SET k 1")
    n2.turn()
    cluster.settle()
    assert peer.taken() == [OK]


def test_a_dial_that_fails_is_tried_again() -> None:
    cluster = FakeCluster()
    cluster.elect("n1")
    cluster.tell_all()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k 1")
    for _ in range(5):
        link_from(cluster, "n2").cut()
        cluster.pass_time()
    assert not n2.service.forwarder.is_linked
    cluster.pass_time(0.5)
    cluster.settle()
    assert peer.taken() == [OK]


# -- refusals of the leader --------------------------------------------------------------------------------------------


def test_a_leader_of_another_term_runs_nothing_and_all_is_sent_again_in_order() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k 1")
    n2.send(peer, "INCR k")
    link = link_from(cluster, "n2")
    link.send()
    cluster.elect("n1")
    link.carry()
    assert peer.taken() == []
    assert cluster.benches["n1"].node.log == []
    assert n2.service.forwarder.calls_returned == 2
    cluster.tell_all()
    cluster.settle()
    assert peer.taken() == [OK, 2]


def test_what_follows_a_refusal_on_the_same_stream_is_refused_too() -> None:
    """Else a later write of a caller would run before an earlier one, which its node sends again."""
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    peer = n2.peer()
    link = link_from(cluster, "n2")
    n2.send(peer, "APPEND k a")
    link.send()
    n2.send(peer, "APPEND k b")
    link.send()
    assert len(link.requests) == 2
    n1.service.drain()
    link.arrive()
    n1.service.refusal = None
    link.arrive()
    n1.turn()
    assert n1.node.log == []
    cluster.settle()
    assert peer.taken() == [1, 2]


def test_a_hand_over_that_is_under_way_delays_and_refuses_nothing() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    from_before, local, remote = n1.peer(), n1.peer(), n2.peer()
    n1.send(from_before, "APPEND k a")
    cluster.turn()
    n1.node.refuses = forwarder_refusal()
    n1.send(from_before, "APPEND k b")
    n1.send(local, "INCR n")
    n2.send(remote, "INCR m")
    link_from(cluster, "n2").carry()
    cluster.turn()
    for _ in range(3):
        cluster.pass_time()
        cluster.turn()
    assert (from_before.taken(), local.taken(), remote.taken()) == ([], [], [])
    cluster.elect("n3")
    cluster.tell_all()
    n1.node.refuses = None
    cluster.settle()
    assert (from_before.taken(), local.taken(), remote.taken()) == ([1, 2], [1], [1])


def test_a_hand_over_that_failed_lets_the_old_leader_go_on() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    peer = n1.peer()
    n1.node.refuses = forwarder_refusal()
    n1.send(peer, "APPEND k a")
    n1.send(peer, "GET k")
    cluster.turn()
    assert peer.taken() == []
    n1.node.refuses = None
    cluster.settle()
    assert peer.taken() == [1, b"a"]
    assert not n1.service.is_away


def test_a_leader_that_goes_silent_is_asked_no_more_and_its_last_writes_end_as_unknown() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    writer, reader = n2.peer(), n2.peer()
    n2.send(writer, "SET k 1")
    n2.send(reader, "GET k")
    link_from(cluster, "n2").send()
    cluster.elect("n3", surviving=0)
    cluster.tell("n2")
    new = cluster.links[-1]
    new.open()
    cluster.turn()
    new.carry()
    cluster.turn()
    cluster.end_rounds()
    new.carry()
    n2.turn()
    assert reader.taken() == [None], "reads do not wait for the old leader"
    assert writer.taken() == []
    n2.send(writer, "GET k")
    cluster.pass_time(0.4)
    n2.turn()
    assert error_of(writer) is LeadershipLost
    cluster.settle()
    assert writer.taken() == [None]


def test_while_nobody_leads_the_last_leader_may_take_its_time() -> None:
    cluster = cluster_led_by_n1(outcome_timeout_ms=3000)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    old = link_from(cluster, "n2")
    old.carry()
    n2.lead(None, 1)
    cluster.pass_time(2.9)
    n2.lead("n1", 1)
    cluster.turn()
    cluster.pass_time()
    assert not old.is_closed, "it leads again, in the same term"
    cluster.commit()
    old.carry()
    n2.turn()
    assert peer.taken() == [1]


def test_a_write_does_not_wait_for_ever_while_nobody_leads() -> None:
    cluster = cluster_led_by_n1(outcome_timeout_ms=3000)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    link_from(cluster, "n2").carry()
    n2.lead(None, 1)
    cluster.pass_time(3.0)
    n2.turn()
    assert error_of(peer) is LeadershipLost


def test_an_old_leader_may_still_tell_what_became_of_a_write() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    old = link_from(cluster, "n2")
    old.carry()
    cluster.turn()
    cluster.elect("n3", surviving=1)
    cluster.tell("n2")
    assert not old.is_closed
    cluster.tell("n1")
    cluster.learn("n1")
    old.carry()
    n2.turn()
    assert peer.taken() == [1]
    assert old.is_closed, "it has said all that there was to say"


def test_an_answer_that_is_none_ends_the_link() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    writer = n2.peer()
    for damage in (b"\xc1", b"\x93\x01\x02\x03"):
        n2.send(writer, "SET k 1")
        n2.turn()
        link = link_from(cluster, "n2")
        link.send()
        call_id = raft_pb2.ForwardRequest.FromString(link.requests[0]).calls[0].call_id
        answer = raft_pb2.ForwardReply(call_id=call_id, replies=damage)
        n2.service.forwarder.received(link, raft_pb2.ForwardResponse(replies=[answer]))
        assert link.is_closed
        assert error_of(writer) is LeadershipLost
        cluster.pass_time()
        cluster.links[-1].open()


def test_an_answer_to_a_call_that_is_not_there_is_dropped() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    answer = raft_pb2.ForwardReply(call_id=99, replies=b"\x91\x01")
    link = link_from(cluster, "n2")
    n2.service.forwarder.received(link, raft_pb2.ForwardResponse(replies=[answer]))
    assert not link.is_closed
    assert n2.service.forwarder.calls_pending == 0


def forwarder_refusal() -> NotLeading:
    """Return what a leader that hands over says to a proposal."""
    return NotLeading("n1")


# -- the leader's side -------------------------------------------------------------------------------------------------


def test_a_database_that_the_leader_does_not_have_is_an_error_of_the_call() -> None:
    cluster = cluster_led_by_n1(databases=16)
    link = link_from(cluster, "n2")
    calls = [raft_pb2.ForwardCall(call_id=7, session_id=1, db=16, commands=resp("GET k", "GET j"))]
    link.stream.received(raft_pb2.ForwardRequest(term=1, calls=calls))
    response = link.stream.next_response()
    assert response is not None
    [answer] = response.replies
    assert answer.call_id == 7
    assert texts(decode_replies(answer.replies)) == ["ERR DB index is out of range"] * 2


def test_a_reply_that_no_message_can_carry_is_an_error_and_the_others_of_its_call_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarded_module, "RESPONSE_BYTES_MAX", 1000)
    monkeypatch.setattr(forwarded_module, "REPLY_BYTES_MAX", 3000)
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, f"SET k {'v' * 1900}")
    n2.send(peer, "GET k", "MGET k k", "GET none", "GET k", "STRLEN k")
    cluster.settle()
    replies = texts(peer.taken())
    assert isinstance(replies[2], str)
    assert "too long to be passed on" in replies[2]
    assert replies[:2] + replies[3:] == ["OK", b"v" * 1900, None, b"v" * 1900, 1900]


def test_commands_about_the_node_are_not_run_for_another_one() -> None:
    """No node sends any; if one of another version did, they would act on the wrong connection."""
    cluster = cluster_led_by_n1()
    link = link_from(cluster, "n2")
    commands = resp("CONFIG SET maxmemory 1", "STRLEN k", "CLIENT NOSUCH", "SHUTDOWN")
    call = raft_pb2.ForwardCall(call_id=1, session_id=1, commands=commands)
    link.stream.received(raft_pb2.ForwardRequest(term=1, calls=[call]))
    cluster.turn()
    cluster.end_rounds()
    response = link.stream.next_response()
    assert response is not None
    replies = texts(decode_replies(response.replies[0].replies))
    assert replies[0] == "ERR 'config|set' is a matter of the node that is asked"
    assert replies[1] == 0
    assert all(isinstance(reply, str) and reply.startswith("ERR") for reply in replies[2:])
    assert cluster.benches["n1"].service.config.maxmemory == 0


def test_callers_that_left_are_forgotten() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    for _ in range(20):
        peer = n2.peer()
        n2.send(peer, "SET k 1")
        n2.send(peer, "GET k")
    link = link_from(cluster, "n2")
    link.carry()
    assert link.stream.callers == 20
    cluster.settle()
    assert link.stream.callers == 0
    n2.send(n2.peer(), "SET k 2")
    link.carry()
    cluster.turn()
    link.stream.ended()
    cluster.commit()
    assert link.stream.callers == 0
    assert link.stream.next_response() is None
    assert n1.machine.databases[0].get(b"k") == 2


def test_a_read_that_a_leader_cannot_begin_is_sent_to_the_next_one() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    peer = n1.peer()
    cluster.elect("n3")
    n1.node.is_leader, n1.node.leader_id, n1.node.term = False, "n3", 2
    n1.send(peer, "GET k")
    n1.turn()
    assert n1.service.is_away
    cluster.settle()
    assert peer.taken() == [None]


def test_what_a_stopped_node_had_taken_is_refused() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    writer, reader, late = n1.peer(), n1.peer(), n1.peer()
    n1.send(writer, "SET k 1")
    n1.send(reader, "GET k")
    n1.turn()
    n1.refuse(Stopped())
    n1.node.is_stopped = True
    n1.send(late, "GET k")
    n1.turn()
    assert texts(writer.taken()) == ["CLUSTERDOWN The node is shutting down"]
    assert texts(late.taken()) == ["CLUSTERDOWN The node is shutting down"]
    assert reader.taken() == []
