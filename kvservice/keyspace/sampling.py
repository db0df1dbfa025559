"""Keys drawn at random: for RANDOMKEY, and for eviction, which looks at a few keys and not at all of them.

``Sampler`` draws every key with the same chance: it keeps the running sums of the slots' sizes for some thousand draws.
Each draw is apart from the last, because neighbours in a slot are of similar age, and five neighbours tell an LRU
policy hardly more than one. ``draw_key`` keeps nothing and prefers keys of slots that have few, and keys behind gaps.

Guarantees: a draw is bounded: one pass over the slots, and ``WALK_MAX`` keys of one slot. In a slot of more keys (one
hash tag) only those near its ends are drawn, for a dict cannot be entered in its middle without walking there.
Leaves to the caller: whether the keys are live.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, Final

from kvservice.keyspace.slots import SLOTS

RandRange = Callable[[int, int], int]
Fraction = Callable[[], float]
Slots = Sequence[Mapping[bytes, Any] | None]

WALK_MAX: Final = 2048
TRIES_MAX: Final = 8
DRAWS_MAX: Final = 4096
"""Draws from one set of sums: taking the sums costs 0.5 ms, which is an eighth of a microsecond for each draw."""


class Sampler:
    """Draws keys of one list of slots, each with the same chance. ``fraction()`` is a random number in [0, 1)."""

    __slots__ = ("draws_left", "fraction", "slots", "sums")

    def __init__(self, fraction: Fraction) -> None:
        self.fraction = fraction
        self.slots: Slots = ()
        self.sums: list[int] = []
        """Keys in slots 0..i when the sums were taken."""
        self.draws_left = 0

    def draw(self, slots: Slots) -> bytes | None:
        """Return a random key, or None only if all slots are empty."""
        slot = self.draw_slot(slots)
        return None if slot is None else key_at(slots[slot], self.fraction())

    def draw_slot(self, slots: Slots) -> int | None:
        """Return a random slot that is not empty, the likelier the more keys it has; None only if all are empty."""
        if slots is not self.slots or self.draws_left <= 0:
            self._take_sums(slots)
        for _ in range(TRIES_MAX):
            self.draws_left -= 1
            slot = bisect_right(self.sums, int(self.fraction() * self.sums[-1]))
            if slot < SLOTS and slots[slot]:
                return slot
        # Most of what the sums counted is gone.
        self._take_sums(slots)
        slot = bisect_right(self.sums, int(self.fraction() * self.sums[-1]))
        return slot if slot < SLOTS else None

    def _take_sums(self, slots: Slots) -> None:
        self.slots = slots
        self.sums = list(accumulate([len(keys) if keys else 0 for keys in slots]))
        self.draws_left = DRAWS_MAX


def draw_key(slots: Slots, randrange: RandRange) -> bytes | None:
    """Return a random key, or None only if all slots are empty."""
    for _ in range(TRIES_MAX):
        if keys := slots[randrange(0, SLOTS)]:
            return _key_of(keys, randrange)
    start = randrange(0, SLOTS)
    for slot in range(start, start + SLOTS):
        if keys := slots[slot & (SLOTS - 1)]:
            return _key_of(keys, randrange)
    return None


def _key_of(keys: Any, randrange: RandRange) -> bytes:
    return key_at(keys, randrange(0, 1 << 32) / (1 << 32))


def key_at(keys: Any, fraction: float) -> bytes:
    """Return the key that lies at a fraction, in [0, 1), of one slot that is not empty."""
    position = int(fraction * min(len(keys), 2 * WALK_MAX))
    from_end = position - WALK_MAX
    key: bytes = next(islice(keys, position, None) if from_end < 0 else islice(reversed(keys), from_end, None))
    return key
