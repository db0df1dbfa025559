"""One database: keys, values and deadlines by hash slot. Only commands and housekeeping change it.

Layout: ``values[slot]`` is a dict key → value, ``expires[slot]`` None or a dict key → deadline in ms. 16,384 small
dicts instead of one: SCAN cursors and snapshots go by slot, no dict is ever so large that growing it is felt (1 million
keys: 217 bytes a key, longest insert under 0.1 ms; one dict: 219 bytes and 35 ms; 16 dicts: 220 bytes and 1.9 ms).

Guarantees: a key whose deadline is not after ``clock.stamp_ms`` does not exist for any method. A read that meets a key
whose deadline lies between the stamp and the wall clock raises ``StampNeeded``: only the log moves time.
Leaves to the caller: saving a slot before changing it while a snapshot runs (keyspace/machine).
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kvservice.keyspace.access import AccessTable
from kvservice.keyspace.crowded import CROWDED_MIN, SPARSE_MAX, CrowdedSlot
from kvservice.keyspace.expiry import ExpiryIndex
from kvservice.keyspace.slots import OPENING, SLOTS, slot_of
from kvservice.keyspace.values import DEADLINE_BYTES, INT_TEXT_BYTES_MAX, Value, compact, cost_of

SlotValues = list[dict[bytes, Value]]
SlotDeadlines = list[dict[bytes, int] | None]

EMPTY_SLOT: Final[dict[bytes, Value]] = {}
"""What a slot has before its first key, one for all slots: an empty database would have a megabyte of empty dicts."""
NO_VALUES: Final[SlotValues] = [EMPTY_SLOT] * SLOTS
NO_DEADLINES: Final[SlotDeadlines] = [None] * SLOTS

RETIRED_MAX: Final = 16
"""Dropped keyspaces that may wait for the reaper; a flood of FLUSHALL frees older ones at once instead."""

SWAPPED: Final = ("values", "expires", "expiry", "key_count", "expiry_count", "bytes_used", "access", "crowded")
"""What belongs to the keys of a database and not to its number."""


class StampNeeded(Exception):  # noqa: N818 - not an error: the read has to wait for an entry that moves time
    """A deadline has passed on the wall clock but not yet in the log."""


class TooFewDatabases(Exception):  # noqa: N818 - says what is the case
    """The data on disk uses a database that the settings do not have."""

    def __init__(self, index: int, databases: int) -> None:
        super().__init__(
            f"the data uses database {index}, but there are {databases}: start with --databases {index + 1} or more"
        )


class Clock:
    """Time as commands see it, in ms since the epoch."""

    __slots__ = ("now_ms", "stamp_ms")

    def __init__(self) -> None:
        self.stamp_ms = 0
        """Stamp of the last applied entry; never decreases."""
        self.now_ms = 0
        """What commands take for now: the stamp while an entry is applied, else max(stamp, wall clock)."""


class Database:
    """The keys of one database (SELECT number)."""

    __slots__ = (
        "access", "bytes_used", "clock", "crowded", "expires", "expiry", "expiry_count", "flushed_keys",
        "index", "key_count", "retired", "values",
    )  # fmt: skip

    def __init__(self, index: int, clock: Clock) -> None:
        self.index = index
        self.clock = clock
        self.values: SlotValues = NO_VALUES
        self.expires: SlotDeadlines = NO_DEADLINES
        self.expiry = ExpiryIndex()
        self.access: AccessTable | None = None
        """When keys were used (keyspace/access), local to this node; None while nobody asks."""
        self.retired: list[tuple[SlotValues, SlotDeadlines, ExpiryIndex]] = []
        """What ``clear`` dropped, for the reaper to free in slices."""
        self.key_count = self.flushed_keys = 0
        self.clear()

    def clear(self) -> None:
        """Drop every key. The old slots stay intact for whoever still holds them (snapshots, the reaper)."""
        if self.values is not NO_VALUES:
            # The lists of the first moment are shared by all databases and stay out of the reaper's hands.
            expires = self.expires if self.expires is not NO_DEADLINES else []
            self.retired.append((self.values, expires, self.expiry))
            del self.retired[:-RETIRED_MAX]
            self.flushed_keys += self.key_count
        if self.access is not None:
            self.access.clear()
        self.values = NO_VALUES
        self.expires = NO_DEADLINES
        self.expiry = ExpiryIndex()
        self.crowded: dict[int, CrowdedSlot] = {}
        """Slots of very many keys, for SCAN. Invariant: the same keys as ``values`` has there."""
        self.key_count = 0
        """Keys stored, also those expired but not yet removed, as DBSIZE counts them."""
        self.expiry_count = 0
        self.bytes_used = 0
        """Bytes of keys, values and deadlines; the slot dicts are counted apart (keyspace/memory)."""

    def swap(self, other: Database) -> None:
        """Exchange the keys of two databases, as SWAPDB does."""
        for name in SWAPPED:
            ours = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, ours)

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Value | None:
        """Return the value of a live key, or None."""
        slot = slot_of(key)
        expires = self.expires[slot]
        if expires is not None and key in expires and self.is_expired(expires[key]):
            return None
        return self.values[slot].get(key)

    def is_expired(self, deadline_ms: int) -> bool:
        """Tell whether a deadline has passed in the log; raise StampNeeded if it has only on the wall clock."""
        clock = self.clock
        if deadline_ms > clock.now_ms:
            return False
        if deadline_ms <= clock.stamp_ms:
            return True
        raise StampNeeded

    def deadline_of(self, key: bytes) -> int | None:
        """Return the deadline in ms of a live key that has one, or None."""
        slot = slot_of(key)
        expires = self.expires[slot]
        if expires is None:
            return None
        deadline = expires.get(key)
        return None if deadline is None or self.is_expired(deadline) else deadline

    def live_keys(self, slot: int) -> list[bytes]:
        """Return the live keys of one slot, in insertion order."""
        return self.live_among(slot, list(self.values[slot]))

    def live_among(self, slot: int, keys: list[bytes]) -> list[bytes]:
        """Return those of the stored ``keys`` of one slot that are live."""
        expires = self.expires[slot]
        if not expires:
            return keys
        return [key for key in keys if key not in expires or not self.is_expired(expires[key])]

    def items(self) -> Iterator[tuple[bytes, Value]]:
        """Yield all live keys with their values, slot by slot."""
        for slot, values in enumerate(self.values):
            if values:
                for key in self.live_keys(slot):
                    yield key, values[key]

    # -- changing -----------------------------------------------------------------------------------------------------

    def set(self, key: bytes, value: Value) -> None:
        """Store a value and drop the key's deadline, as SET does."""
        slot = slot_of(key)
        expires = self.expires[slot]
        if expires is not None and key in expires:
            self.drop_deadline(slot, key)
        values = self.values[slot]
        old = values.get(key)
        if type(old) is bytes and type(value) is bytes and len(old) == len(value):
            values[key] = value
        else:
            self.store(slot, key, value)

    def set_all(self, commands: Iterable[Sequence[bytes]]) -> None:
        """Store the text of each command ``SET key text`` in turn, as ``set`` does; hot.

        `slot_of` and `set` are spelled out for the usual case, a text as long as the one before: 200 ns less each.
        """
        values, expires = self.values, self.expires
        for _, key, text in commands:
            if len(text) > INT_TEXT_BYTES_MAX and OPENING not in key:
                slot = crc_hqx(key, 0) & 16383
                if expires is NO_DEADLINES or expires[slot] is None:
                    keys = values[slot]
                    old = keys.get(key)
                    if type(old) is bytes and len(old) == len(text):
                        keys[key] = text
                        continue
            self.set(key, compact(text))
            values, expires = self.values, self.expires

    def put(self, key: bytes, value: Value) -> None:
        """Store a value and keep the key's deadline, as APPEND and INCR do."""
        slot = slot_of(key)
        expires = self.expires[slot]
        if expires is not None and key in expires and self.is_expired(expires[key]):
            self.drop_deadline(slot, key)
        self.store(slot, key, value)

    def store(self, slot: int, key: bytes, value: Value) -> None:
        """Put a value into its slot and account for it; hot."""
        values = self.values[slot]
        old = values.get(key)
        if old is None:
            if values is EMPTY_SLOT:
                values = self._first_in(slot)
            self.key_count += 1
            self.bytes_used += ((len(key) + 48) & -16) + cost_of(value)  # key_cost, spelled out
            # Between the two bounds a slot has an index if it was fuller once.
            if len(values) >= SPARSE_MAX and (len(values) >= CROWDED_MIN or slot in self.crowded):
                self.crowd(slot, key)
        elif type(old) is not type(value) or (type(old) is not int and len(old) != len(value)):  # type: ignore[arg-type]
            self.bytes_used += cost_of(value) - cost_of(old)
        values[key] = value

    def _first_in(self, slot: int) -> dict[bytes, Value]:
        """Give a slot a dict of its own."""
        if self.values is NO_VALUES:
            self.values = NO_VALUES.copy()
        values = self.values[slot] = {}
        return values

    def crowd(self, slot: int, key: bytes) -> None:
        """Note a key that is about to be new in a slot of very many."""
        if slot not in self.crowded:
            self.crowded[slot] = CrowdedSlot(self.values[slot])
        self.crowded[slot].add(key)

    def resized(self, before: int, after: int) -> None:
        """Account for a value that was changed in place and whose cost went from ``before`` to ``after`` bytes."""
        self.bytes_used += after - before

    def delete(self, key: bytes) -> bool:
        """Remove a key; tell whether it was live."""
        slot = slot_of(key)
        if key not in self.values[slot]:
            return False
        expires = self.expires[slot]
        live = expires is None or key not in expires or not self.is_expired(expires[key])
        self.remove(slot, key)
        return live

    def remove(self, slot: int, key: bytes) -> None:
        """Remove a stored key, live or expired, and its deadline."""
        expires = self.expires[slot]
        if expires is not None and key in expires:
            self.drop_deadline(slot, key)
        value = self.values[slot].pop(key)
        if self.crowded and slot in self.crowded:
            if len(self.values[slot]) < SPARSE_MAX:
                del self.crowded[slot]
            else:
                self.crowded[slot].remove(key)
        self.key_count -= 1
        self.bytes_used -= ((len(key) + 48) & -16) + cost_of(value)  # key_cost, spelled out

    def set_deadline(self, key: bytes, deadline_ms: int) -> None:
        """Give a live key a deadline; a deadline not after the stamp makes it vanish."""
        slot = slot_of(key)
        # All three dicts shall hold one object as the key: EXPIRE brings a copy, 64 bytes for 20 letters. After
        # SET … EX of a new key it is the same already.
        values = self.values[slot]
        if next(reversed(values)) is not key:
            values[key] = values.pop(key)
        if self.expires is NO_DEADLINES:
            self.expires = [None] * SLOTS
        expires = self.expires[slot]
        if expires is None:
            expires = self.expires[slot] = {}
        old = expires.pop(key, None)
        if old is None:
            self.expiry_count += 1
            self.bytes_used += DEADLINE_BYTES
        else:
            self.expiry.discard(key, old)
        expires[key] = deadline_ms
        self.expiry.add(key, deadline_ms)

    def persist(self, key: bytes) -> bool:
        """Drop the deadline of a live key; tell whether it had one."""
        if self.deadline_of(key) is None:
            return False
        self.drop_deadline(slot_of(key), key)
        return True

    def drop_deadline(self, slot: int, key: bytes) -> None:
        """Forget the deadline that ``key`` has in ``slot``."""
        expires = self.expires[slot]
        assert expires is not None
        self.expiry.discard(key, expires.pop(key))
        if not expires:
            self.expires[slot] = None
        self.expiry_count -= 1
        self.bytes_used -= DEADLINE_BYTES
