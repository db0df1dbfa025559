"""The event loop's own counts: turns, and time that it was not asleep."""

import asyncio
from time import perf_counter

import pytest
import uvloop

from kvservice.loop_meter import LoopMeter


async def turns_and_work() -> tuple[tuple[int, int], tuple[int, int], float]:
    """Return what is read after ten sleeps, after half a second of work behind them, and how long all took."""
    started = perf_counter()
    meter = LoopMeter(asyncio.get_running_loop())
    for _ in range(10):
        await asyncio.sleep(0.02)
    slept = meter.read()
    deadline = perf_counter() + 0.5
    while perf_counter() < deadline:
        pass
    await asyncio.sleep(0)
    return slept, meter.read(), perf_counter() - started


def test_every_turn_and_all_work_are_counted_and_sleep_is_not() -> None:
    (turns, slept_ns), (more_turns, worked_ns), seconds = uvloop.run(turns_and_work())
    assert turns >= 10
    assert more_turns > turns
    assert worked_ns - slept_ns >= 500_000_000
    assert worked_ns <= (seconds - 0.19) * 1e9, "the sleep of ten times 20 ms is not work"


def test_nothing_is_invented_where_there_is_no_libuv(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(turns_and_work())[1] == (0, 0)
    monkeypatch.setattr(uvloop.loop, "__file__", "/nowhere/loop.so")
    assert uvloop.run(turns_and_work())[1] == (0, 0)
