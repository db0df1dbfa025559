"""When replies leave: behind a batch, or at the end of the turn that brought them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from kvservice.gateway.outbox import Outbox


class Noting:
    """A connection that notes how often it was flushed, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.flushes = 0
        self._error = error

    def flush(self) -> None:
        """Note it."""
        self.flushes += 1
        if self._error is not None:
            raise self._error


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


def test_one_that_fails_holds_up_neither_the_others_nor_who_flushes_and_the_loop_hears_of_it() -> None:
    soon: deque[Callable[[], object]] = deque()
    outbox = Outbox(soon.append)
    writers = [Noting(), Noting(ZeroDivisionError("it broke")), Noting()]
    for writer in writers:
        outbox.add(writer)
    soon.clear()
    outbox.flush()
    assert [writer.flushes for writer in writers] == [1, 1, 1]
    [report] = soon
    with pytest.raises(ZeroDivisionError, match="it broke"):
        report()
