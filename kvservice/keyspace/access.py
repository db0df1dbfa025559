"""When keys were used, and how often: what LRU and LFU eviction, OBJECT IDLETIME and OBJECT FREQ go by.

Layout: an array of 32-bit cells, a key's cell chosen by the CRC-32 of the key; at least four cells for each key. Two
keys that share a cell look as recent as the younger of them: that only makes a key stay that might have gone. In return
a key costs 16 to 32 bytes, where a dict takes 90, deleting needs no cleaning up, and the table grows by doubling.
A cell holds the time of the last use in steps of 64 ms, or under LFU the minute (24 bits) and Redis's counter (8 bits).
Zero means never used since tracking began.

Guarantees: nothing here is part of the replicated state: it is not in digests or snapshots, and no write depends on it.
Leaves to the caller: a clock that does not run backwards.
Reference: Redis's LFU: a logarithmic counter that loses one each decay time; "Using Redis as an LRU cache".
"""

from __future__ import annotations

from array import array
from binascii import crc32
from collections.abc import Callable
from typing import Final

CELLS_MIN: Final = 1024
CELLS_PER_KEY: Final = 4
STEP_BITS: Final = 6
"""A step of 64 ms: finer than Redis's second, and 32 bits of it last for 8 years."""
MINUTE_MS: Final = 60_000
LFU_START: Final = 5
"""Counter of a key that is new, so that it is not the first to go."""
LFU_MAX: Final = 255


class AccessTable:
    """The cells of one database. ``fraction()`` is a random number in [0, 1)."""

    __slots__ = ("asked_ms", "cells", "fraction", "lfu", "lfu_decay_minutes", "lfu_log_factor", "mask", "origin_ms")

    def __init__(
        self,
        now_ms: int,
        *,
        lfu: bool = False,
        fraction: Callable[[], float] = lambda: 0.0,
        lfu_log_factor: int = 10,
        lfu_decay_minutes: int = 1,
    ) -> None:
        self.origin_ms = now_ms - (1 << STEP_BITS)
        """Time of step 0; tracking began one step later."""
        self.asked_ms = now_ms
        """When OBJECT IDLETIME last asked; a table that nobody asks is dropped where no policy needs it."""
        self.lfu = lfu
        self.fraction = fraction
        self.lfu_log_factor = lfu_log_factor
        self.lfu_decay_minutes = lfu_decay_minutes
        self.clear()

    def clear(self) -> None:
        """Forget all keys, but not when tracking began."""
        self.cells = array("I", bytes(4 * CELLS_MIN))
        self.mask = CELLS_MIN - 1

    @property
    def bytes_used(self) -> int:
        """Bytes of the cells."""
        return 4 * len(self.cells)

    def is_short_of(self, key_count: int) -> bool:
        """Tell whether ``key_count`` keys have fewer than four cells each."""
        return len(self.cells) < CELLS_PER_KEY * key_count

    def reserve(self, key_count: int) -> None:
        """Grow until ``key_count`` keys have four cells each; every key keeps what is known of it."""
        while len(self.cells) < CELLS_PER_KEY * key_count:
            self.cells *= 2
        self.mask = len(self.cells) - 1

    def touch(self, key: bytes, now_ms: int) -> None:
        """Note that a key is used now; hot while tracking."""
        cell = crc32(key) & self.mask
        if self.lfu:
            self.cells[cell] = self._used(self.cells[cell], now_ms)
        else:
            self.cells[cell] = (now_ms - self.origin_ms) >> STEP_BITS & 0xFFFFFFFF

    def _used(self, cell: int, now_ms: int) -> int:
        minute = self._minute(now_ms)
        counter = self._decayed(cell, now_ms) if cell else LFU_START
        if cell and counter < LFU_MAX:
            odds = max(counter - LFU_START, 0) * self.lfu_log_factor + 1
            if self.fraction() * odds < 1:
                counter += 1
        return minute << 8 | counter

    def _minute(self, now_ms: int) -> int:
        # From 1 on, so that a cell that is in use is never zero.
        return ((now_ms - self.origin_ms) // MINUTE_MS + 1) & 0xFFFFFF

    def _decayed(self, cell: int, now_ms: int) -> int:
        counter = cell & 0xFF
        if not self.lfu_decay_minutes:
            return counter
        idle_minutes = (self._minute(now_ms) - (cell >> 8)) & 0xFFFFFF
        return max(0, counter - idle_minutes // self.lfu_decay_minutes)

    def idle_ms(self, key: bytes, now_ms: int) -> int:
        """Return how long ago a key was used: at least that long, since nothing is known from before tracking began."""
        assert not self.lfu
        steps = self.cells[crc32(key) & self.mask] or 1
        return max(0, now_ms - self.origin_ms - (steps << STEP_BITS))

    def frequency(self, key: bytes, now_ms: int) -> int:
        """Return Redis's logarithmic counter of use, 0..255, decayed to now."""
        assert self.lfu
        cell = self.cells[crc32(key) & self.mask]
        return self._decayed(cell, now_ms) if cell else LFU_START

    def set_idle(self, key: bytes, idle_ms: int, now_ms: int) -> None:
        """Note that a key was last used ``idle_ms`` ago, as RESTORE … IDLETIME says."""
        if not self.lfu:
            steps = (now_ms - idle_ms - self.origin_ms) >> STEP_BITS
            self.cells[crc32(key) & self.mask] = max(1, steps) & 0xFFFFFFFF

    def set_frequency(self, key: bytes, counter: int, now_ms: int) -> None:
        """Set a key's counter, as RESTORE … FREQ says."""
        if self.lfu:
            self.cells[crc32(key) & self.mask] = self._minute(now_ms) << 8 | counter
