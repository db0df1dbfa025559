"""Time that moves only when the next thing happens, and the queue of what will happen.

Guarantees: what is due at the same moment happens in the order it was asked for, so a run is a function of its seed.
Leaves to the caller: not doing what it no longer wants done when its moment comes (there is no way to take it back).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Act = Callable[..., object]


class VirtualClock:
    """Microseconds since the run began."""

    __slots__ = ("_last", "_queue", "happened", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self.happened = 0
        """How many things have happened."""
        self._last = 0
        self._queue: list[tuple[int, int, Act, tuple[Any, ...]]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def after(self, delay_us: int, act: Act, *arguments: object) -> None:
        """Do something later, at this moment at the earliest."""
        self._last += 1
        heappush(self._queue, (self.now_us + max(0, delay_us), self._last, act, arguments))

    def at(self, due_us: int, act: Act, *arguments: object) -> None:
        """Do something at a moment that is not over."""
        self._last += 1
        heappush(self._queue, (due_us, self._last, act, arguments))

    def run_until(self, end_us: int) -> None:
        """Let everything happen that is due up to and at a moment, and stand there."""
        queue = self._queue
        happened = 0
        while queue and queue[0][0] <= end_us:
            self.now_us, _, act, arguments = heappop(queue)
            happened += 1
            act(*arguments)
        self.happened += happened
        self.now_us = max(self.now_us, end_us)
