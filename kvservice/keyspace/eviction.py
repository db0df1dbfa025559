"""Which keys go when memory is short.

Redis's way: a handful of keys is drawn at random, and the best candidates of this and earlier draws are kept in a pool
of 16; the best of the pool goes. Measured (bench/eviction.py: reads by a Zipf law, room for a tenth of the keys): exact
LRU finds 73.2 % of the keys, 5 samples 72.8 %, 10 samples 72.9 %, random choice 69.7 %; knowing the future, 83.3 %.
Exact LRU takes 88 bytes for each key and moves it at every read; sampling takes 26, and works when keys have to go.

When many keys have to go at once, whole slots are drawn: by their hash the keys of a slot are a random sample of all,
and the best fifth of some slots goes (one in ``samples``). That takes 12 microseconds a victim instead of 36.

Guarantees: a key is chosen once until it is ``settled``. Work is bounded by ``VICTIMS_MAX`` victims a call.
Leaves to the caller: deleting the victims through the log, so that all nodes delete the same; calling ``settled`` once
that is done or has failed; telling ``touch`` what is used while ``is_tracking``.
Reference: Redis, "Key eviction"; ``evict.c`` for the pool.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from heapq import nlargest
from itertools import accumulate
from typing import Final, NamedTuple

from kvservice.keyspace.access import AccessTable
from kvservice.keyspace.database import Database
from kvservice.keyspace.sampling import Fraction, Sampler
from kvservice.keyspace.slots import slot_of
from kvservice.keyspace.values import DEADLINE_BYTES, cost_of, key_cost

POOL_SIZE: Final = 16
VICTIMS_MAX: Final = 1024
"""About ten milliseconds of choosing; as many keys as a chunk of pipelined writes brings."""
ONE_BY_ONE_MAX: Final = 8
"""Up to so many victims come from the pool, which needs fewer samples for a few than whole slots are."""
CROWD_SAMPLE: Final = 256
"""Keys looked at in a slot of very many."""
ENTRY_BYTES: Final = 40
"""What an entry of a slot's dict takes on average."""
FRUITLESS_MAX: Final = 32
"""Draws in a row that may bring nothing new before a call gives up."""

UNASKED_MS: Final = 3_600_000

NOT_USE: Final = frozenset({"exists", "type", "ttl", "pttl", "expiretime", "pexpiretime", "object"})
"""Commands that look at a key without using it, as in Redis."""


Victim = tuple[int, bytes]
"""Number of the database, and key."""


class Candidate(NamedTuple):
    """A key in the pool; the highest score goes first."""

    score: int
    db: int
    key: bytes


class Evictor:
    """Chooses victims by one of Redis's policies."""

    def __init__(self, databases: Sequence[Database], fraction: Fraction) -> None:
        self._databases = databases
        self._fraction = fraction
        """A random number in [0, 1); ``random.Random().random``."""
        self._samplers = [Sampler(fraction) for _ in databases]
        self._pool: list[Candidate] = []
        """Invariant: sorted by score, no longer than POOL_SIZE."""
        self._leaving: dict[Victim, int] = {}
        """Chosen and not yet deleted, and the bytes that each will free."""
        self.leaving_bytes = 0
        """Sum of these bytes."""
        self._next_db = 0
        self._policy = "noeviction"
        self._needs_use = False
        self._samples = 5
        self._now_ms = 0

    @property
    def is_tracking(self) -> bool:
        """Whether somebody needs to know when keys are used: the policy, or OBJECT IDLETIME within the last hour."""
        return self._needs_use or any(db.access is not None for db in self._databases)

    def drop_unasked(self, now_ms: int) -> None:
        """End the tracking that OBJECT IDLETIME began, if it has not come back; call now and then."""
        if not self._needs_use:
            for db in self._databases:
                if db.access is not None and now_ms - db.access.asked_ms > UNASKED_MS:
                    db.access = None

    def configure(
        self, policy: str, samples: int, now_ms: int, lfu_log_factor: int = 10, lfu_decay_minutes: int = 1
    ) -> None:
        """Take over the settings; what was known of use is kept while lru stays lru and lfu stays lfu."""
        was_lfu = self._policy.endswith("lfu")
        self._policy = policy
        self._needs_use = policy.endswith(("lru", "lfu"))
        self._samples = samples
        self._pool.clear()
        for db in self._databases:
            if not self._needs_use:
                if db.access is not None and db.access.lfu:
                    db.access = None
            elif db.access is None or was_lfu != policy.endswith("lfu"):
                db.access = AccessTable(now_ms, lfu=policy.endswith("lfu"), fraction=self._fraction)
                db.access.reserve(db.key_count)
            if db.access is not None:
                db.access.lfu_log_factor = lfu_log_factor
                db.access.lfu_decay_minutes = lfu_decay_minutes

    def touch(self, db_index: int, keys: Sequence[bytes], now_ms: int) -> None:
        """Note that keys are used now; hot while tracking."""
        db = self._databases[db_index]
        access = db.access
        if access is None:
            return
        if access.is_short_of(db.key_count):
            access.reserve(db.key_count)
        for key in keys:
            access.touch(key, now_ms)

    def victims(self, bytes_needed: int, now_ms: int, count_max: int = VICTIMS_MAX) -> list[Victim]:
        """Choose keys whose removal frees about ``bytes_needed``; fewer if there are none left, or too many."""
        if self._policy == "noeviction":
            return []
        self._now_ms = now_ms
        chosen: list[Victim] = []
        while bytes_needed > 0 and len(chosen) < count_max:
            found = self._choose(bytes_needed, count_max - len(chosen))
            if not found:
                break
            for victim in found:
                if bytes_needed <= 0:
                    break
                freed = self._cost(*victim)
                self._leaving[victim] = freed
                self.leaving_bytes += freed
                bytes_needed -= freed
                chosen.append(victim)
        return chosen

    def settled(self, victims: Sequence[Victim]) -> None:
        """Note that victims were deleted, or will not be."""
        for victim in victims:
            self.leaving_bytes -= self._leaving.pop(victim, 0)

    def _choose(self, bytes_needed: int, count_max: int) -> list[Victim]:
        """Return some victims, the best first."""
        databases = self._eligible()
        if not databases:
            return []
        if not self._policy.endswith("random"):
            keys = sum([db.key_count for db in databases])
            average = sum([db.bytes_used for db in databases]) // max(1, keys) + ENTRY_BYTES
            count = min(count_max, bytes_needed // average + 1)
            if count > ONE_BY_ONE_MAX:
                return self._choose_from_slots(databases, count)
        victim = self._choose_random(databases) if self._policy.endswith("random") else self._choose_scored()
        return [] if victim is None else [victim]

    def _choose_from_slots(self, databases: list[Database], count: int) -> list[Victim]:
        """Return the best ``count`` keys, or fewer, of some whole slots that have ``samples`` times as many."""
        candidates: list[Candidate] = []
        seen: set[tuple[int, int]] = set()
        sums = list(accumulate(map(self._count, databases)))
        fruitless = 0
        while len(candidates) < count * self._samples and fruitless < FRUITLESS_MAX:
            db = databases[bisect_right(sums, int(self._fraction() * sums[-1]))]
            slot = self._samplers[db.index].draw_slot(self._slots(db))
            crowded = slot is not None and slot in db.crowded
            if slot is None or ((db.index, slot) in seen and not crowded):
                fruitless += 1
                continue
            fruitless = 0
            seen.add((db.index, slot))
            score, index = self._score_of(db), db.index
            candidates += [
                Candidate(score(key), index, key)
                for key in self._keys_in(db, slot)
                if (index, key) not in self._leaving
            ]
        best = nlargest(count, set(candidates))
        return [(candidate.db, candidate.key) for candidate in best]

    def _keys_in(self, db: Database, slot: int) -> Sequence[bytes]:
        """Return the eligible keys of a slot, or some of them if there are very many."""
        keys = self._slots(db)[slot] or {}
        crowded = db.crowded.get(slot)
        if crowded is None:
            return list(keys)
        start = int(self._fraction() * (1 << 32))
        return [key for key in crowded.some_from(start, CROWD_SAMPLE) if key in keys]

    def _slots(self, db: Database) -> Sequence[dict[bytes, object] | None]:
        slots: Sequence[object] = db.expires if self._policy.startswith("volatile") else db.values
        return slots  # type: ignore[return-value]

    def _count(self, db: Database) -> int:
        """Return how many keys of a database the policy may choose."""
        return db.expiry_count if self._policy.startswith("volatile") else db.key_count

    def _eligible(self) -> list[Database]:
        return [db for db in self._databases if self._count(db)]

    def _choose_random(self, databases: list[Database]) -> Victim | None:
        for _ in range(FRUITLESS_MAX):
            self._next_db = (self._next_db + 1) % len(databases)
            db = databases[self._next_db]
            key = self._samplers[db.index].draw(self._slots(db))
            if key is not None and (db.index, key) not in self._leaving:
                return db.index, key
        return None

    def _choose_scored(self) -> Victim | None:
        for _ in range(FRUITLESS_MAX):
            databases = self._eligible()
            if not databases:
                return None
            for db in databases:
                self._populate(db)
            while self._pool:
                candidate = self._pool.pop()
                victim = candidate.db, candidate.key
                if victim not in self._leaving and self._still_deserves(candidate):
                    return victim
        return None

    def _populate(self, db: Database) -> None:
        """Draw keys of a database into the pool."""
        pool = self._pool
        score = self._score_of(db)
        sampler, slots = self._samplers[db.index], self._slots(db)
        for _ in range(self._samples):
            key = sampler.draw(slots)
            if key is None or (db.index, key) in self._leaving:
                continue
            candidate = Candidate(score(key), db.index, key)
            if len(pool) >= POOL_SIZE:
                if candidate <= pool[0]:
                    continue
                del pool[0]
            if candidate not in pool:
                insort(pool, candidate)

    def _score_of(self, db: Database) -> Callable[[bytes], int]:
        """Return what makes keys of ``db`` worth evicting under the policy: idleness, rareness, nearness of the end."""
        access, now_ms, expires = db.access, self._now_ms, db.expires
        if self._policy == "volatile-ttl":
            return lambda key: -(expires[slot_of(key)] or {}).get(key, 1 << 63)
        assert access is not None, "the policy tracks use, but no table was made"
        if access.lfu:
            return lambda key: 255 - access.frequency(key, now_ms)
        return lambda key: access.idle_ms(key, now_ms)

    def _still_deserves(self, candidate: Candidate) -> bool:
        """Tell whether a pooled key still exists and was not used since it was drawn."""
        db = self._databases[candidate.db]
        slots = self._slots(db)[slot_of(candidate.key)]
        if not slots or candidate.key not in slots:
            return False
        return self._score_of(db)(candidate.key) >= candidate.score

    def _cost(self, db_index: int, key: bytes) -> int:
        db = self._databases[db_index]
        slot = slot_of(key)
        value = db.values[slot][key]
        expires = db.expires[slot]
        deadline_bytes = DEADLINE_BYTES + ENTRY_BYTES if expires is not None and key in expires else 0
        return key_cost(key) + cost_of(value) + ENTRY_BYTES + deadline_bytes
