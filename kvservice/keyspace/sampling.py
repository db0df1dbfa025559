"""Keys drawn at random: for RANDOMKEY and for eviction, which looks at a few keys and not at all of them.

A slot is drawn, then keys inside it. Where most slots are empty the next one that is not empty is taken, which prefers
keys behind gaps; Redis's sampling has the same bias within its hash buckets. In a slot of very many keys (one hash tag)
only those near its ends are drawn, for a dict cannot be entered in its middle without walking there.

Guarantees: every draw is bounded: one pass over the slots, and ``WALK_MAX`` keys of one slot.
Leaves to the caller: whether the keys are live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from kvservice.keyspace.slots import SLOTS

RandRange = Callable[[int, int], int]

WALK_MAX: Final = 2048
TRIES_MAX: Final = 8


def draw_slot(slots: Sequence[Mapping[bytes, Any] | None], randrange: RandRange) -> int | None:
    """Return a random slot that is not empty, or None if all are."""
    for _ in range(TRIES_MAX):
        slot = randrange(0, SLOTS)
        if slots[slot]:
            return slot
    start = randrange(0, SLOTS)
    for slot in range(start, start + SLOTS):
        if slots[slot & (SLOTS - 1)]:
            return slot & (SLOTS - 1)
    return None


def draw_keys(slots: Sequence[Mapping[bytes, Any] | None], count: int, randrange: RandRange) -> list[bytes]:
    """Return up to ``count`` neighbouring keys of one random slot; none only if all slots are empty."""
    slot = draw_slot(slots, randrange)
    if slot is None:
        return []
    keys: Any = slots[slot]
    size = len(keys)
    start = randrange(0, max(1, size - count + 1))
    if start <= WALK_MAX:
        return list(islice(keys, start, start + count))
    from_end = size - count - start
    if from_end > WALK_MAX:
        from_end = randrange(0, WALK_MAX)
    return list(islice(reversed(keys), from_end, from_end + count))
