"""What calls of grpc.aio leave behind is collected before there is much of it."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from typing import ClassVar

import pytest

from kvservice import gc_policy


class Call:
    """An object in a cycle, as each call leaves one."""

    alive: ClassVar = 0

    def __init__(self) -> None:
        self.itself = self
        Call.alive += 1

    def __del__(self) -> None:
        Call.alive -= 1


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.collect()
    gc_policy.suspend()
    gc_policy.settle()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()


@pytest.mark.parametrize("running", [0, 50, 1000])
def test_what_calls_leave_is_collected_some_thousand_at_a_time(running: int) -> None:
    calls: deque[Call] = deque(maxlen=running)
    most = 0
    for _ in range(100_000):
        calls.append(Call())
        most = max(most, Call.alive)
    # Each is an object and its dict; those that were running when the young were collected are left for later.
    assert most <= gc_policy.YOUNG_THRESHOLD + running * (gc_policy.MIDDLE_THRESHOLD + 3)


def test_nothing_is_collected_while_a_data_set_is_loaded() -> None:
    gc_policy.suspend()
    for _ in range(50_000):
        Call()
    assert Call.alive >= 50_000
