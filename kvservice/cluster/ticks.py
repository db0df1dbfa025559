"""The pulse of the consensus core: a tick every 10 ms on the event loop.

Guarantees: ticks that were due while the loop was busy for a moment are made up for, so timers keep their length; after
a standstill of LATE_SECONDS or more there is one tick and no more, because the time went by for this process alone: its
peers spoke meanwhile, and what they said is still to be read. A standstill is logged.
Nothing is made up for where reads rest on leases: what a follower promised by a heartbeat that it has just read would
end that much early. The leader's side of it is measured by a clock.
Leaves to the caller: what a tick does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kvservice.logs import Event, Log

TICK_SECONDS: Final = 0.01
LATE_SECONDS: Final = 0.1
"""A heartbeat interval: less is no reason for an election, so it may be made up for."""

log = Log("cluster")


class Ticks:
    """Calls ``tick`` every TICK_SECONDS."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: Callable[[], None], *, has_leases: bool = False) -> None:
        self._loop = loop
        self._tick = tick
        self._made_up_seconds_max = 0.0 if has_leases else LATE_SECONDS
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, with the first tick in TICK_SECONDS."""
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._fire)

    def stop(self) -> None:
        """End; may be called twice, and without a start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self._loop.time()
        late = now - self._due
        if late >= LATE_SECONDS:
            log.warning(Event.TICKS_LATE, seconds=round(late, 3))
        count = 1
        if late >= self._made_up_seconds_max:
            self._due = now + TICK_SECONDS
        else:
            count += max(0, int(late / TICK_SECONDS))
            self._due += count * TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._fire)
        for _ in range(count):
            self._tick()
