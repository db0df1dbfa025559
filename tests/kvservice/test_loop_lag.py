"""Lateness of the event loop."""

import asyncio
import time
from collections.abc import Callable

from kvservice.loop_lag import INTERVAL_SECONDS, LoopLag


async def until(condition: Callable[[], bool], bound_seconds: float = 5.0) -> None:
    """Wait for a condition with a bound."""
    deadline = time.monotonic() + bound_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


async def test_a_stall_shows_as_one_sample_of_its_length() -> None:
    lag = LoopLag()
    lag.start()
    stalled_seconds = INTERVAL_SECONDS + 0.1
    time.sleep(stalled_seconds)  # noqa: ASYNC251 - the stall itself
    await until(lambda: sum(lag.histogram) >= 1)
    lag.stop()
    assert 0.08 < lag.longest_seconds < 5.0
    assert lag.total_seconds >= lag.longest_seconds
    assert sum(lag.histogram) == 1


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
