"""How late the event loop is: the time by which a timer fires after it was due.

Guarantees: one sample every INTERVAL_SECONDS while it runs; a stall shows as one sample of about its length, because
    the next timer is set only when the last has fired. A stall of STALL_SECONDS or more is logged.
Leaves to the caller: `start` and `stop` on the loop's thread. The clock of uvloop's timers has steps of 1 ms, so
    lateness below that says nothing.
"""

import asyncio
from time import perf_counter
from typing import Final

from kvservice.latency_buckets import bucket_of, new_histogram
from kvservice.logs import Event, Log

INTERVAL_SECONDS: Final = 0.1
STALL_SECONDS: Final = 0.5  # no slice of work is meant to take more than 1 ms: this is a defect or a starved machine

_log = Log("loop_lag")


class LoopLag:
    """Samples of one event loop."""

    def __init__(self) -> None:
        self.histogram = new_histogram()
        self.total_seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin to sample the running loop."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """End sampling; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = perf_counter() + INTERVAL_SECONDS
        self._timer = loop.call_later(INTERVAL_SECONDS, self._fired, loop)

    def _fired(self, loop: asyncio.AbstractEventLoop) -> None:
        late = max(0.0, perf_counter() - self._due)
        self.histogram[bucket_of(int(late * 1e6))] += 1
        self.total_seconds += late
        if late >= STALL_SECONDS:
            _log.warning(Event.EVENT_LOOP_STALLED, stalled_seconds=round(late, 3))
        self._schedule(loop)
