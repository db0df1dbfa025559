"""What the node does by itself, ten times a second: time for due deadlines, removal of expired keys, samples, limits.

Guarantees: each tick does bounded work; no command can observe that expired keys are removed (only DBSIZE counts).
Leaves to the caller: nothing; it runs from ``start`` until ``stop``.
Reference: Redis ``serverCron`` and its hz of 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns, time, time_ns
from typing import Final

from kvservice.gateway.listener import Listener
from kvservice.keyspace.expiry import expire_slice
from kvservice.logs import Event, Log
from kvservice.service import Service

log = Log("housekeeping")

TICK_SECONDS: Final = 0.1
CLOCK_STEP_SECONDS: Final = 0.25
"""From here on a change of the wall clock is a step and no drift: it happened within one tick."""
EXPIRE_KEYS: Final = 200
"""Keys removed before the clock is looked at: about 0.2 ms."""
EXPIRE_SECONDS: Final = 0.002
"""Time for removal in one turn; more follows in the next turns of the loop until all is done."""


class Housekeeping:
    """The ticker of a node."""

    def __init__(self, service: Service, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._listener = listener
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._due_s = 0.0
        self._clock_offset_s = 0.0
        """Wall clock less the loop's steady clock, at the last tick."""
        self.each_tick: list[Callable[[], None]] = []
        """Further work of a tick: snapshots that are due, memory accounting."""

    def start(self) -> None:
        """Begin ticking."""
        self._due_s = self._loop.time() + TICK_SECONDS
        self._clock_offset_s = time() - self._loop.time()
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._ticks += 1
        service = self._service
        if service.stats.is_cron_paused:
            self._due_s = now_s + TICK_SECONDS
            return
        service.stats.latency.note("event-loop", (now_s - self._due_s) * 1000)
        service.stats.latency.note("aof-fsync-always", service.wal_stats.take_longest_sync_seconds() * 1000)
        self._due_s = now_s + TICK_SECONDS
        self._watch_clock(now_s)
        machine = service.machine
        if service.refusal is None and service.stats.is_expiring_actively and not service.holds.is_paused:
            self._move_time_if_due()
            self._expire()
        machine.memory.refresh_shard()
        service.stats.sample(self._loop.time(), machine.memory.used_bytes)
        for act in self.each_tick:
            act()
        if self._ticks % 10 == 0:
            self._listener.close_idle(self._loop.time())

    def _watch_clock(self, now_s: float) -> None:
        """Log a wall clock that was set: deadlines come early or late by as much."""
        offset_s = time() - now_s
        if abs(offset_s - self._clock_offset_s) > CLOCK_STEP_SECONDS:
            log.warning(Event.CLOCK_STEPPED, seconds=round(offset_s - self._clock_offset_s, 3))
        self._clock_offset_s = offset_s

    def _move_time_if_due(self) -> None:
        """Propose an empty entry when a deadline has passed on the wall clock: only the log moves time."""
        machine = self._service.machine
        now_ms = time_ns() // 1_000_000
        for database in machine.databases:
            due_ms = database.expiry.next_deadline_ms()
            if due_ms is not None and machine.clock.stamp_ms < due_ms <= now_ms:
                self._service.move_time()
                return

    def _expire(self) -> None:
        """Remove keys whose deadline the log has passed, in slices; the rest in later turns."""
        service = self._service
        machine = service.machine
        started_ns = perf_counter_ns()
        while True:
            removed, has_more = expire_slice(
                machine.databases, machine.clock.stamp_ms, EXPIRE_KEYS, machine.save_before
            )
            service.stats.expired_keys += removed
            spent_ns = perf_counter_ns() - started_ns
            if not has_more:
                service.stats.expire_nanoseconds += spent_ns
                return
            if spent_ns > EXPIRE_SECONDS * 1e9:
                service.stats.expire_nanoseconds += spent_ns
                service.stats.expire_cuts += 1
                service.stats.latency.note("expire-cycle", spent_ns / 1e6)
                self._loop.call_soon(self._expire)
                return
