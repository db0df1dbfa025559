"""How much memory the keyspace takes: what ``maxmemory`` is compared with.

The databases add up keys, values and deadlines as they change. What the dicts of the slots take is asked of the dicts
themselves, one shard of 1,024 slots at a time, because a dict grows by leaps that nobody is told of. Nor does it shrink
when keys go; so a dict that is mostly empty is replaced by a copy, on the same round. Few rounds look at a shard of a
database that has as many keys as before: a look takes more than a millisecond when the dicts are not in the caches.

Guarantees: ``used_bytes`` costs an addition for each database; it is within 15 % of the growth of the process for keys
and values of all sizes (tests/kvservice/keyspace/test_memory.py measures it).
Leaves to the caller: calling ``refresh_shard`` ten times a second. Buffers of connections and the log are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import Final

from kvservice.keyspace.crowded import BYTES_PER_KEY
from kvservice.keyspace.database import EMPTY_SLOT, NO_DEADLINES, NO_VALUES, Database
from kvservice.keyspace.slots import SHARDS, SLOTS_PER_SHARD

LIST_BYTES: Final = getsizeof(NO_VALUES)

SHRINK_BYTES_MIN: Final = 1024
"""Dicts below this size are left alone."""
EMPTY_ENTRY_BYTES: Final = 256
"""A dict that has just grown takes up to 110 bytes for each key; one that takes this many is mostly empty."""
SLACK_BYTES: Final = 2 * SLOTS_PER_SHARD * SHRINK_BYTES_MIN // 8
USUAL_ENTRY_BYTES: Final = 2 * EMPTY_ENTRY_BYTES // 3
"""A shard that takes more than these for its keys has mostly empty dicts in it; looking for them costs 0.3 ms."""
ROUNDS_UNSEEN: Final = 8
"""One round in so many looks at a shard whatever is counted: as many keys may have come as have gone."""


class MemoryMeter:
    """Sums of bytes over all databases."""

    def __init__(self, databases: Sequence[Database]) -> None:
        self._databases = databases
        self._dict_bytes = [[0] * SHARDS for _ in databases]
        self._counts = [[(0, 0)] * SHARDS for _ in databases]
        """How many keys and deadlines each database had when a shard of it was measured."""
        self._next_shard = 0
        self._round = 0

    @property
    def used_bytes(self) -> int:
        """Return the bytes of all keys; what the slot dicts take is up to 1.6 s old, 13 s if keys only take turns."""
        return sum([db.bytes_used for db in self._databases]) + self.overhead_bytes

    @property
    def overhead_bytes(self) -> int:
        """Return the bytes of the slot dicts and of what is known about the use of keys."""
        tables = sum([db.access.bytes_used for db in self._databases if db.access is not None])
        return tables + sum(map(sum, self._dict_bytes)) + sum(map(crowded_bytes, self._databases))

    def refresh_shard(self) -> None:
        """Measure the slot dicts of the next shard: 0.1 to 1.3 ms a database, if its keys are more or fewer."""
        shard = self._next_shard
        self._measure(shard, is_due=(self._round + shard) % ROUNDS_UNSEEN == 0)
        self._next_shard = (shard + 1) % SHARDS
        self._round += self._next_shard == 0

    def refresh(self) -> None:
        """Measure all slot dicts: some milliseconds."""
        for shard in range(SHARDS):
            self._measure(shard, is_due=True)

    def _measure(self, shard: int, is_due: bool) -> None:
        for db, totals, counts in zip(self._databases, self._dict_bytes, self._counts, strict=True):
            count = db.key_count, db.expiry_count
            if counts[shard] == count and not is_due:
                continue
            counts[shard] = count
            totals[shard] = shard_bytes(db, shard)
            if totals[shard] > SLACK_BYTES + USUAL_ENTRY_BYTES * shard_keys(db, shard):
                shrink(db, shard)
                totals[shard] = shard_bytes(db, shard)


def crowded_bytes(db: Database) -> int:
    """Return the bytes of the indexes of crowded slots."""
    return sum([BYTES_PER_KEY * len(db.values[slot]) for slot in db.crowded])


def shard_keys(db: Database, shard: int) -> int:
    """Return the number of keys in one shard."""
    first = shard * SLOTS_PER_SHARD
    return sum(map(len, db.values[first : first + SLOTS_PER_SHARD]))


def shrink(db: Database, shard: int) -> None:
    """Replace the dicts of a shard that are mostly empty. No command and no running snapshot can tell."""
    first = shard * SLOTS_PER_SHARD
    for slot in range(first, first + SLOTS_PER_SHARD):
        keys = db.values[slot]
        if getsizeof(keys) > SHRINK_BYTES_MIN + EMPTY_ENTRY_BYTES * len(keys):
            db.values[slot] = dict(keys)
        deadlines = db.expires[slot]
        if deadlines and getsizeof(deadlines) > SHRINK_BYTES_MIN + EMPTY_ENTRY_BYTES * len(deadlines):
            db.expires[slot] = dict(deadlines)


def shard_bytes(db: Database, shard: int) -> int:
    """Return the bytes of the slot dicts of one shard."""
    if db.values is NO_VALUES:
        return 0
    first = shard * SLOTS_PER_SHARD
    own = [keys for keys in db.values[first : first + SLOTS_PER_SHARD] if keys is not EMPTY_SLOT]
    size = LIST_BYTES // SHARDS + sum(map(getsizeof, own))
    if db.expires is not NO_DEADLINES:
        deadlines = [slot for slot in db.expires[first : first + SLOTS_PER_SHARD] if slot is not None]
        size += LIST_BYTES // SHARDS + sum(map(getsizeof, deadlines))
    return size
