"""The event loop's own counts: turns, and time that it was not asleep."""

import asyncio
from time import perf_counter, perf_counter_ns

import pytest
import uvloop

from kvservice.loop_meter import LoopMeter

BOUND_SECONDS = 60.0
SLEEP_NS = 50_000_000


async def work_and_sleep() -> None:
    started_ns = perf_counter_ns()
    meter = LoopMeter(asyncio.get_running_loop())
    deadline = perf_counter() + 0.1
    while perf_counter() < deadline:
        pass
    for _ in range(10):
        await asyncio.sleep(0)
    turns, worked_ns = meter.read()
    assert turns >= 10
    assert worked_ns >= 100_000_000
    async with asyncio.timeout(BOUND_SECONDS):
        # What is asleep is not counted: the difference to the time that goes by grows.
        while perf_counter_ns() - started_ns - meter.read()[1] < SLEEP_NS:
            await asyncio.sleep(0.02)
    assert meter.read()[0] > turns


def test_every_turn_and_all_work_are_counted_and_sleep_is_not() -> None:
    uvloop.run(work_and_sleep())


async def nothing() -> None:
    meter = LoopMeter(asyncio.get_running_loop())
    await asyncio.sleep(0)
    assert meter.read() == (0, 0)


def test_nothing_is_invented_where_there_is_no_libuv(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(nothing())
    monkeypatch.setattr(uvloop.loop, "__file__", "/nowhere/loop.so")
    uvloop.run(nothing())
