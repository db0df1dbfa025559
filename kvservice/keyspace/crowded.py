"""The keys of a crowded slot in the order of their positions, so that SCAN need not sort the whole slot at each call.

All keys with one hash tag share a slot: a queue's jobs, say, and there may be a million. Sorting them took 0.4 s at
each call. From ``CROWDED_MIN`` keys on, a slot has an index: lists of keys by the upper half of their position.

Guarantees: adding and removing a key takes a fraction of a microsecond for up to a million keys; a walk visits no more
than the keys it returns and the lists that are empty.
Leaves to the caller: telling about every key that comes and goes (Database).
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable
from typing import Final

CROWDED_MIN: Final = 4096
"""Making the index takes a millisecond at this size, and sorting would from here on take longer at each call."""
SPARSE_MAX: Final = 1024
"""The index is dropped when so few keys are left; far below the other bound, so that a slot does not waver."""
LIST_BITS: Final = 16
LISTS: Final = 1 << 16
BYTES_PER_KEY: Final = 100
"""A list for each key at the worst; 16 bytes when there are a million."""


class CrowdedSlot:
    """An index of the keys of one slot."""

    __slots__ = ("lists",)

    def __init__(self, keys: Iterable[bytes]) -> None:
        self.lists: dict[int, list[bytes]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: bytes) -> None:
        """Note a key that is new in the slot."""
        number = crc32(key) >> LIST_BITS
        keys = self.lists.get(number)
        if keys is None:
            self.lists[number] = [key]
        else:
            keys.append(key)

    def remove(self, key: bytes) -> None:
        """Forget a key that has left the slot."""
        number = crc32(key) >> LIST_BITS
        keys = self.lists[number]
        keys.remove(key)
        if not keys:
            del self.lists[number]

    def some_from(self, position: int, count: int) -> list[bytes]:
        """Return at least ``count`` keys, if there are as many, from a position on and round the end; in no order."""
        found: list[bytes] = []
        first = position >> LIST_BITS
        for number in range(first, first + LISTS):
            found += self.lists.get(number & (LISTS - 1), ())
            if len(found) >= count:
                break
        return found

    def from_position(self, position: int, count: int) -> list[tuple[int, bytes]]:
        """Return at least ``count`` (position, key) from a position on, in order, if there are as many."""
        found: list[tuple[int, bytes]] = []
        for number in range(position >> LIST_BITS, LISTS):
            keys = self.lists.get(number)
            if keys:
                found += sorted([(place, key) for key in keys if (place := crc32(key)) >= position])
                if len(found) > count:
                    break
        return found
