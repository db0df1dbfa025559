"""The pulse: what is late by little is made up for, a standstill is one tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from kvservice.cluster.ticks import Ticks


class Loop:
    """A clock that a test moves, and the one timer that is set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due = 0.0
        self.fire: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, fire: Callable[[], None]) -> Any:
        self.due, self.fire = when, fire
        return self

    def cancel(self) -> None:
        self.due = 0.0

    def reach(self, late: float = 0.0) -> None:
        """Come to the timer's moment, or later."""
        self.now = self.due + late
        self.fire()


class Counted:
    """Ticks that are counted."""

    def __init__(self, *, has_leases: bool = False) -> None:
        self.count = 0
        self.loop = Loop()
        self.ticks = Ticks(cast(asyncio.AbstractEventLoop, self.loop), self._tick, has_leases=has_leases)
        self.ticks.start()

    def _tick(self) -> None:
        self.count += 1


def test_ticks_come_every_ten_milliseconds() -> None:
    counted = Counted()
    for _ in range(100):
        counted.loop.reach()
    assert counted.count == 100
    assert counted.loop.now == pytest.approx(101.0)


def test_what_was_late_by_little_is_made_up_for() -> None:
    counted = Counted()
    counted.loop.reach(late=0.035)
    assert counted.count == 4
    counted.loop.reach()
    assert counted.count == 5
    assert counted.loop.now == pytest.approx(100.05)


def test_nothing_is_made_up_for_where_a_promise_would_end_early_by_it() -> None:
    counted = Counted(has_leases=True)
    counted.loop.reach(late=0.035)
    assert counted.count == 1
    counted.loop.reach()
    assert counted.count == 2
    assert counted.loop.now == pytest.approx(100.055)


def test_a_standstill_is_one_tick_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[object, dict[str, object]]] = []
    monkeypatch.setattr("kvservice.logs.Log.warning", lambda _self, event, **fields: said.append((str(event), fields)))
    counted = Counted()
    counted.loop.reach(late=5.0)
    assert counted.count == 1
    assert said == [("ticks_late", {"seconds": 5.0})]
    counted.loop.reach()
    assert counted.count == 2
    assert counted.loop.now == pytest.approx(105.02)


def test_nothing_comes_after_the_stop() -> None:
    counted = Counted()
    counted.ticks.stop()
    counted.ticks.stop()
    assert counted.loop.due == 0.0
