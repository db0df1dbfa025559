"""When replies leave: behind a batch, or at the end of the turn that brought them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kvservice.gateway.outbox import Outbox


class Noting:
    """A connection that notes how often it was flushed."""

    def __init__(self) -> None:
        self.flushes = 0

    def flush(self) -> None:
        """Note it."""
        self.flushes += 1


def test_replies_leave_at_the_end_of_the_turn_each_connection_once() -> None:
    soon: deque[Callable[[], object]] = deque()
    outbox = Outbox(soon.append)
    writers = [Noting() for _ in range(3)]
    for writer in writers:
        outbox.add(writer)
    assert [writer.flushes for writer in writers] == [0, 0, 0]
    assert len(soon) == 1
    soon.popleft()()
    assert [writer.flushes for writer in writers] == [1, 1, 1]


def test_replies_leave_at_once_behind_a_batch_and_later_ones_with_their_turn() -> None:
    soon: deque[Callable[[], object]] = deque()
    outbox = Outbox(soon.append)
    first, second = Noting(), Noting()
    outbox.add(first)
    outbox.flush()
    assert first.flushes == 1
    outbox.add(second)
    while soon:
        soon.popleft()()
    assert (first.flushes, second.flushes) == (1, 1)
