"""Which deadline comes next: the index behind active expiry.

Guarantees: ``due`` names every key whose deadline has passed at most once per deadline added, in bounded slices.
Leaves to the caller: checking that the deadline it is given still is the key's (entries may be stale).
"""

from __future__ import annotations

from heapq import heappop, heappush


class ExpiryIndex:
    """A min-heap of (deadline, key) with lazy deletion."""

    __slots__ = ("heap",)

    def __init__(self) -> None:
        self.heap: list[tuple[int, bytes]] = []

    def add(self, key: bytes, deadline_ms: int) -> None:
        """Remember that ``key`` is due at ``deadline_ms``."""
        heappush(self.heap, (deadline_ms, key))

    def discard(self, key: bytes, deadline_ms: int) -> None:
        """Forget a deadline that was added before."""

    def next_deadline_ms(self) -> int | None:
        """Return the earliest deadline, which may be stale, or None."""
        return self.heap[0][0] if self.heap else None

    def due(self, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Take at most ``limit`` entries whose deadline is not after ``now_ms``."""
        heap = self.heap
        taken: list[tuple[int, bytes]] = []
        while heap and heap[0][0] <= now_ms and len(taken) < limit:
            taken.append(heappop(heap))
        return taken
