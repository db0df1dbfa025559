"""CLIENT PAUSE's clockwork."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvservice.commands.registry import TABLE
from kvservice.holds import Holds
from kvservice.session import Session
from tests.kvservice.fake_node import START_MS, Peer


class Clockwork:
    """Holds with a clock and timers in a test's hands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = START_MS
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.released: list[int] = []
        monkeypatch.setattr("kvservice.holds.time_ns", lambda: self.now_ms * 1_000_000)
        self.holds = Holds(self._release, self._call_later)

    def _release(self, session: Session) -> None:
        self.released.append(session.id)

    def _call_later(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers.append((self.now_ms + round(seconds * 1000), act))

    def pass_ms(self, duration_ms: int) -> None:
        """Let time pass, and what is due happen at its time."""
        end_ms = self.now_ms + duration_ms
        for _ in range(100):
            due = [timer for timer in self.timers if timer[0] <= end_ms]
            if not due:
                break
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now_ms = max(self.now_ms, timer[0])
            timer[1]()
        self.now_ms = end_ms


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    return Clockwork(monkeypatch)


def held(holds: Holds) -> set[str]:
    """Return which of three typical commands are held."""
    rows = [TABLE.by_name[name] for name in (b"GET", b"SET", b"CLIENT")]
    return {row.name for row in rows if holds.holds(row)}


def test_a_pause_ends_by_itself_and_releases_in_order(clockwork: Clockwork) -> None:
    clockwork.holds.pause(START_MS + 100, writes_only=False)
    for number in (3, 1, 2):
        clockwork.holds.add(Peer(number))
    clockwork.pass_ms(99)
    assert (clockwork.holds.is_paused, clockwork.released) == (True, [])
    clockwork.pass_ms(1)
    assert (clockwork.holds.is_paused, clockwork.released) == (False, [3, 1, 2])


def test_a_second_pause_lengthens_and_widens_and_never_shortens(clockwork: Clockwork) -> None:
    clockwork.holds.pause(START_MS + 100, writes_only=True)
    assert held(clockwork.holds) == {"set"}
    clockwork.holds.pause(START_MS + 50, writes_only=False)
    assert held(clockwork.holds) == {"get", "set"}
    clockwork.holds.pause(START_MS + 200, writes_only=True)
    assert held(clockwork.holds) == {"get", "set"}
    clockwork.pass_ms(199)
    assert clockwork.holds.is_paused
    clockwork.pass_ms(1)
    assert not clockwork.holds.is_paused


def test_after_a_pause_a_new_one_starts_afresh(clockwork: Clockwork) -> None:
    clockwork.holds.pause(START_MS + 100, writes_only=False)
    clockwork.holds.unpause()
    clockwork.holds.pause(START_MS + 10, writes_only=True)
    assert held(clockwork.holds) == {"set"}
    clockwork.pass_ms(10)
    assert not clockwork.holds.is_paused


def test_the_timer_of_a_pause_that_ended_early_ends_no_later_one(clockwork: Clockwork) -> None:
    clockwork.holds.pause(START_MS + 100, writes_only=True)
    clockwork.holds.unpause()
    clockwork.pass_ms(60)
    clockwork.holds.pause(START_MS + 160, writes_only=True)
    clockwork.pass_ms(99)
    assert clockwork.holds.is_paused
    clockwork.pass_ms(1)
    assert not clockwork.holds.is_paused


def test_a_pause_that_is_over_already_ends_at_the_next_turn(clockwork: Clockwork) -> None:
    clockwork.holds.pause(START_MS - 5, writes_only=True)
    clockwork.pass_ms(0)
    assert not clockwork.holds.is_paused


def test_a_session_is_released_once(clockwork: Clockwork) -> None:
    clockwork.holds.pause(START_MS + 100, writes_only=True)
    peer = Peer(7)
    clockwork.holds.add(peer)
    clockwork.holds.add(peer)
    clockwork.holds.unpause()
    clockwork.holds.unpause()
    clockwork.pass_ms(200)
    assert clockwork.released == [7]
