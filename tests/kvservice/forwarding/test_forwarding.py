"""A node that does not lead: what it sends, what it answers, and what it never does.

RedisRaft had these defects when Jepsen looked at it in 2020; against each stand, here at first:

    every failover lost all data                  test_a_killed_leader_costs_no_acknowledged_write (real processes)
    a forwarded RPUSH ran again and again         test_forwarding_repeats_nothing_that_may_have_run
                                                  test_a_write_with_a_request_id_runs_once_on_whatever_node_it_comes_again
    replies went to the wrong client              test_replies_go_to_the_caller_that_asked_in_its_order
    stale reads, as a new leader wrote no no-op   test_no_stale_read_before_the_no_op_of_a_new_leader
                                                  test_a_read_waits_for_a_commit_of_the_own_term (core)
    an error for a write that had committed       test_no_error_for_a_committed_write_whose_outcome_is_known
                                                  test_a_write_whose_outcome_is_unknown_is_told_so_and_a_read_is_done_again
    empty reads after a change of members         test_no_empty_read_from_a_node_that_has_applied_nothing_yet
                                                  test_a_node_joins_gets_a_vote_and_another_is_removed (real processes)
    split brain                                   test_a_leader_that_is_cut_off_acknowledges_nothing (real processes)
    snapshot and log index disagree               test_a_received_snapshot_restarts_the_log_and_then_the_machine
                                                  test_a_snapshot_brings_back_all_that_is_replicated

All of them at once, in random order: test_random_conversations_through_every_node.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvservice.commands.reply import OK
from kvservice.errors import LeadershipLost
from tests.kvservice.fake_node import START_MS, resp, texts
from tests.kvservice.forwarding.fake_cluster import (
    cluster_led_by_n1,
    error_of,
    link_from,
)

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


def test_no_empty_read_from_a_node_that_has_applied_nothing_yet() -> None:
    cluster = cluster_led_by_n1()
    n1, n3 = cluster.benches["n1"], cluster.benches["n3"]
    writer, reader = n1.peer(), n3.peer()
    n1.send(writer, "SET k v")
    cluster.turn()
    cluster.commit()
    n3.send(reader, "GET k", "DBSIZE", "EXISTS k")
    link = link_from(cluster, "n3")
    for _ in range(3):
        link.carry()
        cluster.turn()
        cluster.end_rounds()
    assert reader.taken() == [b"v", 1, 1]
    assert not n3.machine.databases[0].key_count


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


def test_every_test_that_stands_against_a_defect_is_there() -> None:
    named = set(re.findall(r"test_\w+", __doc__ or ""))
    sources = [path.read_text() for path in Path(__file__).parents[2].rglob("test_*.py")]
    assert len(named) == 14
    assert named == {name for name in named if any(f"def {name}(" in source for source in sources)}


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
    n1 = cluster.benches["n1"]
    assert n1.run(n1.peer(), "CONFIG SET maxmemory 0") == [OK]
    n2.send(peer, "SET k 3")
    cluster.settle()
    assert peer.taken() == [OK], "the limit of a follower is not in force"


def test_a_follower_evicts_nothing_also_when_its_limit_is_lowered() -> None:
    cluster = cluster_led_by_n1(maxmemory_policy="allkeys-lru")
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k 1", "SET j 2")
    cluster.settle()
    assert peer.taken() == [OK, OK]
    assert n2.run(peer, "CONFIG SET maxmemory 1") == [OK]
    cluster.settle()
    assert n2.node.log == []
    assert len(cluster.log) == 1
    n1.send(n1.peer(), "CONFIG SET maxmemory 1")
    cluster.settle()
    assert not n2.machine.databases[0].key_count, "the leader evicts for all"


def test_only_the_leader_moves_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_led_by_n1()
    for bench in cluster.benches.values():
        bench.service.move_time()
    assert [len(bench.soon) for bench in cluster.benches.values()] == [1, 0, 0]
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


def test_what_needs_no_state_is_answered_by_any_node_also_while_nobody_leads() -> None:
    cluster = cluster_led_by_n1()
    for name, bench in cluster.benches.items():
        peer = bench.peer()
        if name == "n3":
            bench.lead(None, 1, is_leader=False)
        bench.send(peer, "PING")
        bench.send(peer, "PING", "ECHO x")
        assert texts(peer.taken()) == ["PONG", "PONG", b"x"]
        bench.send(peer, "TIME")
        assert len(peer.taken()) == 1
        assert bench.service.forwarder.calls_pending == 0


def test_what_needs_no_state_stays_behind_what_its_caller_waits_for() -> None:
    cluster = cluster_led_by_n1()
    for bench in cluster.benches.values():
        peer = bench.peer()
        bench.send(peer, "SET k 1")
        bench.send(peer, "PING")
        assert peer.taken() == []
        cluster.settle()
        assert texts(peer.taken()) == ["OK", "PONG"]
