"""What a node that does not lead sends to the leader, and what waits there for a leader."""

from __future__ import annotations

import pytest

from kvservice.commands.reply import OK, ErrorReply
from kvservice.errors import LeadershipLost, NoLeader, Overloaded
from kvservice.forwarding import forwarder as forwarder_module
from redan.raft.v1 import raft_pb2
from tests.kvservice.fake_node import resp, texts
from tests.kvservice.forwarding.fake_cluster import (
    FakeCluster,
    cluster_led_by_n1,
    error_of,
    link_from,
)

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


def test_one_call_that_is_longer_than_all_that_may_wait_is_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "BYTES_MAX", 2000)
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer, other = n2.peer(), n2.peer()
    n2.send(peer, f"SET k {'v' * 5000}")
    n2.send(other, "GET k")
    n2.turn()
    assert error_of(other) is Overloaded
    cluster.settle()
    assert peer.taken() == [OK]
    n2.send(other, "STRLEN k")
    cluster.settle()
    assert other.taken() == [5000]


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
