"""When batches are sent off: what they wait for, and for how long."""

from __future__ import annotations

import pytest

from kvservice.commands.reply import OK
from kvservice.router import APPLY_SECONDS, APPLY_SECONDS_MAX, APPLY_SECONDS_PER_CALL, CALLS_ENOUGH, TURNS_MAX
from replication.core.messages import EntryKind
from replication.errors import NotLeading
from tests.kvservice.fake_node import Bench, resp


def one_turn(bench: Bench) -> None:
    """Run what waits for the end of this turn, and not what that asks for."""
    for _ in range(len(bench.soon)):
        bench.soon.popleft()()


def test_a_batch_is_sent_off_when_a_turn_brings_nothing_more() -> None:
    bench = Bench()
    peers = [bench.peer() for _ in range(3)]
    for number, peer in enumerate(peers):
        bench.send(peer, f"SET k{number} v")
        one_turn(bench)
        assert bench.node.log == []
    one_turn(bench)
    assert bench.payloads() == [resp("SET k0 v", "SET k1 v", "SET k2 v")]
    assert not bench.soon
    bench.commit()
    assert [peer.taken() for peer in peers] == [[OK]] * 3


def test_calls_are_open_until_their_batch_is_sent_off() -> None:
    bench = Bench()
    one, another = bench.peer(), bench.peer()
    assert bench.service.router.calls_open == 0
    bench.send(one, "SET k v")
    bench.turn()
    assert (bench.service.router.calls_open, len(bench.node.log)) == (0, 1)
    # It waits for the one before.
    bench.send(another, "SET k v")
    bench.turn()
    assert (bench.service.router.calls_open, len(bench.node.log)) == (1, 1)
    bench.commit()
    bench.turn()
    assert (bench.service.router.calls_open, len(bench.node.log)) == (0, 2)


def test_callers_that_keep_coming_hold_nothing_back_for_long() -> None:
    bench = Bench()
    turns = 0
    while not bench.node.log:
        bench.send(bench.peer(), "SET k v")
        one_turn(bench)
        turns += 1
    assert turns == TURNS_MAX + 1


def test_a_batch_that_is_large_enough_waits_for_no_more() -> None:
    bench = Bench()
    for _ in range(CALLS_ENOUGH):
        bench.send(bench.peer(), "SET k v")
    one_turn(bench)
    assert len(bench.node.log) == 1


def test_writes_wait_until_those_before_are_applied() -> None:
    bench = Bench()
    first, *others = [bench.peer() for _ in range(3)]
    bench.send(first, "SET k 1")
    bench.turn()
    for peer in others:
        bench.send(peer, "INCR k")
        bench.turn()
    assert len(bench.node.log) == 1
    bench.commit()
    bench.turn()
    assert bench.payloads() == [resp("SET k 1"), resp("INCR k", "INCR k")]
    bench.commit()
    assert [peer.taken() for peer in others] == [[2], [3]]
    bench.send(first, "GET k")
    assert first.taken() == [OK, b"3"]


def test_writes_wait_no_longer_when_those_before_take_their_time() -> None:
    bench = Bench()
    peers = [bench.peer() for _ in range(3)]
    for number, peer in enumerate(peers):
        bench.send(peer, f"SET k{number} v")
        bench.turn()
    assert len(bench.node.log) == 1
    assert len(bench.timers) == 1, "one timer for all that waits"
    bench.fire_timers()
    bench.turn()
    assert bench.payloads() == [resp("SET k0 v"), resp("SET k1 v", "SET k2 v")]
    # A timer of what has been sent off meanwhile changes nothing.
    bench.send(bench.peer(), "SET late v")
    bench.turn()
    timers, bench.timers = bench.timers, []
    bench.commit()
    bench.turn()
    bench.send(bench.peer(), "SET later v")
    bench.turn()
    for _seconds, act in timers:
        act()
    bench.turn()
    assert len(bench.node.log) == 3


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [(1, APPLY_SECONDS), (4, APPLY_SECONDS), (10, 10 * APPLY_SECONDS_PER_CALL), (60, APPLY_SECONDS_MAX)],
)
def test_writes_wait_longer_behind_many(calls: int, seconds: float) -> None:
    bench = Bench()
    for number in range(calls):
        bench.send(bench.peer(), f"SET k{number} v")
    bench.turn()
    assert len(bench.node.log) == 1
    bench.send(bench.peer(), "SET k v")
    bench.turn()
    [(waited, _act)] = bench.timers
    assert waited == seconds


def test_reads_do_not_wait_for_writes_of_others() -> None:
    bench = Bench()
    bench.node.reads_at_once = False
    writer, reader = bench.peer(), bench.peer()
    for line in ("SET k 1", "SET k 2"):
        bench.send(writer, line)
        bench.turn()
    bench.send(reader, "GET k")
    bench.turn()
    assert len(bench.node.reads) == 1
    assert len(bench.node.log) == 1


def test_what_was_not_sent_off_is_not_lost_with_the_leadership() -> None:
    bench = Bench()
    first, second = bench.peer(), bench.peer()
    bench.send(first, "SET k 1")
    bench.turn()
    bench.send(second, "INCR k")
    bench.turn()
    bench.lead("n2", 2)
    bench.refuse(NotLeading("n2"))
    assert (first.taken(), second.taken()) == ([], [])
    bench.lead("n1", 3, is_leader=True)
    for _ in range(3):
        bench.turn()
        bench.commit()
    assert (first.taken(), second.taken()) == ([OK], [2])


def test_a_flush_waits_for_nothing() -> None:
    bench = Bench()
    for number in range(2):
        bench.send(bench.peer(), f"SET k{number} v")
        bench.service.flush()
        assert len(bench.node.log) == number + 1
    bench.turn()
    assert [entry.kind for entry in bench.node.log] == [EntryKind.COMMANDS] * 2
