"""Lateness of the event loop."""

import asyncio
import time
from collections.abc import Callable

import pytest

from kvservice.latency_buckets import bucket_of
from kvservice.loop_lag import INTERVAL_SECONDS, LoopLag


async def until(condition: Callable[[], bool], bound_seconds: float = 5.0) -> None:
    """Wait for a condition with a bound."""
    deadline = time.monotonic() + bound_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


async def test_a_stall_shows_as_one_sample_of_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("kvservice.loop_lag.perf_counter", lambda: now_s)
    lag = LoopLag()
    lag.start()
    now_s += INTERVAL_SECONDS + 0.25
    await until(lambda: sum(lag.histogram) >= 1)
    lag.stop()
    assert lag.total_seconds == pytest.approx(0.25)
    assert sum(lag.histogram) == lag.histogram[bucket_of(250_000)] == 1


async def test_sampling_goes_on_until_it_is_stopped() -> None:
    lag = LoopLag()
    lag.start()
    await until(lambda: sum(lag.histogram) >= 3)
    lag.stop()
    lag.stop()
    taken = sum(lag.histogram)
    other = LoopLag()
    other.start()
    await until(lambda: sum(other.histogram) >= 2)
    other.stop()
    assert sum(lag.histogram) == taken
