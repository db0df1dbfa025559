"""What calls of grpc.aio leave behind is collected before there is much of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from kvservice.gc_policy import CALLS, CALLS_FOR_EACH_RUNNING, CallSweep, suspend


class Left:
    """An object in a cycle, as each call leaves one."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def no_collection_by_itself() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    yield
    gc.set_threshold(*thresholds)
    gc.enable()


def swept_after(sweep: CallSweep, running: int) -> int:
    """Return how many calls begin until what was left before them is gone."""
    left = weakref.ref(Left())
    for calls in range(1, 100_000):
        sweep.count(running)
        if left() is None:
            return calls
    raise AssertionError("never")


@pytest.mark.usefixtures("no_collection_by_itself")
def test_what_calls_leave_is_collected_some_hundred_calls_at_a_time() -> None:
    sweep = CallSweep()
    assert [swept_after(sweep, 0) for _ in range(3)] == [CALLS] * 3


@pytest.mark.usefixtures("no_collection_by_itself")
def test_nothing_is_collected_while_a_data_set_is_loaded() -> None:
    suspend()
    left = weakref.ref(Left())
    sweep = CallSweep()
    for _ in range(2 * CALLS):
        sweep.count(0)
    assert left() is not None


@pytest.mark.usefixtures("no_collection_by_itself")
def test_the_more_calls_are_running_the_rarer_it_is() -> None:
    sweep = CallSweep()
    swept_after(sweep, 100)
    assert swept_after(sweep, 100) == CALLS + 100 * CALLS_FOR_EACH_RUNNING
