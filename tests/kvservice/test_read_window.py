"""When reads ask for a round: not while one is under way, and not before most callers are back."""

from __future__ import annotations

from kvservice.read_window import ROUNDS_OFF_MAX, ReadWindow
from replication.errors import NotLeading, Stopped
from tests.kvservice.fake_node import Bench, Peer, texts


def readers(count: int) -> tuple[Bench, list[Peer]]:
    """Return a leader with peers, and so many callers, who have been answered in one round."""
    bench = Bench()
    bench.node.reads_at_once = False
    callers = [bench.peer() for _ in range(count)]
    ask(bench, callers)
    bench.end_round()
    for caller in callers:
        assert caller.taken() == [None]
    return bench, callers


def ask(bench: Bench, callers: list[Peer]) -> None:
    """Let callers read, each in a turn of its own, the first turn at the end."""
    for caller in callers:
        bench.send(caller, "GET k")
    bench.turn()


def rounds(bench: Bench) -> list[int]:
    """Return how many reads each round under way has."""
    return [len(batch.calls) for batch in bench.node.reads]  # type: ignore[attr-defined]


def test_a_round_waits_for_most_of_those_who_were_answered() -> None:
    bench, callers = readers(16)
    for caller in callers[:13]:
        ask(bench, [caller])
        assert rounds(bench) == []
    ask(bench, callers[13:14])
    assert rounds(bench) == [14]
    # Who comes late, and the next round of the others, share one.
    ask(bench, callers[14:])
    assert rounds(bench) == [14]
    bench.end_round()
    ask(bench, callers[:13])
    assert rounds(bench) == [15]


def test_a_round_waits_no_longer_than_the_window() -> None:
    bench, callers = readers(4)
    ask(bench, callers[:3])
    assert rounds(bench) == []
    bench.fire_timers()
    bench.turn()
    assert rounds(bench) == [3]


def test_a_single_caller_never_waits() -> None:
    bench, callers = readers(1)
    assert not bench.timers
    ask(bench, callers)
    assert rounds(bench) == [1]


def test_a_timer_of_a_window_that_is_closed_changes_nothing() -> None:
    bench, callers = readers(2)
    timers, bench.timers = bench.timers, []
    ask(bench, callers)
    bench.end_round()
    ask(bench, callers[:1])
    for _seconds, act in timers:
        act()
    bench.turn()
    assert rounds(bench) == []


def test_reads_go_with_a_write_and_wait_for_nobody() -> None:
    bench, callers = readers(4)
    ask(bench, callers[:1])
    assert rounds(bench) == []
    bench.send(bench.peer(), "SET k v")
    bench.turn()
    assert rounds(bench) == [1]


def test_reads_that_wait_are_tried_again_when_the_leadership_is_lost() -> None:
    bench, callers = readers(2)
    ask(bench, callers)
    ask(bench, callers[:1])
    bench.lead("n2", 2)
    bench.refuse_reads()
    bench.lead("n1", 3, is_leader=True)
    for _ in range(2):
        bench.turn()
        bench.commit()
        bench.end_round()
    assert [caller.taken() for caller in callers] == [[None, None], [None]]


def test_reads_behind_a_round_of_a_stopped_node_are_refused() -> None:
    bench, callers = readers(2)
    ask(bench, callers[:1])
    bench.fire_timers()
    bench.turn()
    assert rounds(bench) == [1]
    bench.node.is_stopped = True
    ask(bench, callers[1:])
    assert texts(callers[1].taken()) == ["CLUSTERDOWN The node is shutting down"]


def test_a_refused_round_is_not_waited_for() -> None:
    bench, callers = readers(2)
    ask(bench, callers)
    bench.service.runner.refused(bench.node.reads.popleft(), NotLeading("n2"))
    assert bench.service.router.calls_open == 0
    ask(bench, [bench.peer()])
    assert rounds(bench) == [1]


def test_a_stop_waits_for_no_reads() -> None:
    bench, callers = readers(4)
    ask(bench, callers[:1])
    assert rounds(bench) == []
    bench.service.flush()
    assert rounds(bench) == [1]
    bench.node.is_stopped = True
    bench.service.runner.refused(bench.node.reads.popleft(), Stopped())
    assert texts(callers[0].taken()) == ["CLUSTERDOWN The node is shutting down"]


def test_windows_that_are_of_no_use_become_rare() -> None:
    timers = []
    window = ReadWindow(lambda _seconds, act: timers.append(act), lambda: 0)
    opened = []
    for round_number in range(200):
        if window.open(4, 0):
            opened.append(round_number)
            timers.pop()()
        else:
            assert window.enough == 0
    assert opened == [0, 2, 5, 10, 19, 36, 69, 134, 199]
    assert opened[-1] - opened[-2] == ROUNDS_OFF_MAX + 1
    # One that fills makes them usual again.
    while not window.open(4, 0):
        pass
    window.close(4)
    assert window.open(4, 0)
    timers.pop()()
    assert not window.open(4, 0)
    assert window.open(4, 0)
