"""The latency monitor: for each kind of event, the times it took when it took too long.

Events: ``command`` and ``fast-command`` (one command's run), ``aof-fsync-always`` (a sync of the log), ``snapshot``
    (one slice of a running snapshot), ``expire-cycle``, ``eviction-cycle``, ``event-loop`` (lateness of a timer).
Guarantees: at most 160 samples an event and one a second, the worst of that second; at most 64 kinds of events.
Leaves to the caller: measuring.
Reference: Redis `latency.c`.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final, NamedTuple

from kvservice.config import Config

SAMPLES_MAX: Final = 160
EVENTS_MAX: Final = 64
"""Far above the seven kinds named above: a bound, so that a caller's mistake cannot fill memory."""


class LatencySample(NamedTuple):
    """The worst of one second."""

    unix_s: int
    milliseconds: int


class LatencyEvent:
    """Samples of one kind of event, oldest first."""

    __slots__ = ("max_ms", "samples")

    def __init__(self) -> None:
        self.samples: deque[LatencySample] = deque(maxlen=SAMPLES_MAX)
        self.max_ms = 0


class LatencyMonitor:
    """All events of a node."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.events: dict[str, LatencyEvent] = {}

    @property
    def threshold_ms(self) -> int:
        """Least time that is kept; 0 means that nothing is."""
        return self._config.latency_monitor_threshold

    def note(self, event: str, milliseconds: float) -> None:
        """Keep the time that an event took if it reaches ``latency_monitor_threshold``."""
        threshold_ms = self._config.latency_monitor_threshold
        if not threshold_ms or milliseconds < threshold_ms:
            return
        kept = self.events.get(event)
        if kept is None:
            if len(self.events) >= EVENTS_MAX:
                return
            kept = self.events[event] = LatencyEvent()
        sample = LatencySample(int(time.time()), int(milliseconds))
        kept.max_ms = max(kept.max_ms, sample.milliseconds)
        if kept.samples and kept.samples[-1].unix_s == sample.unix_s:
            if sample.milliseconds > kept.samples[-1].milliseconds:
                kept.samples[-1] = sample
            return
        kept.samples.append(sample)

    def forget(self, events: list[str]) -> int:
        """Drop the samples of some events, or of all when none is named; return how many had samples."""
        chosen = events or list(self.events)
        return sum(self.events.pop(event, None) is not None for event in chosen)
