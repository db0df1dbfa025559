"""Which deadlines come next: the index behind active expiry, and the slices in which due keys are removed.

Layout: a wheel of two rims. Deadlines of the rim that is near lie in buckets of 128 ms, later ones in buckets of
17.5 minutes, each an insertion-ordered dict key → deadline. When the clock reaches a far bucket, its keys move to near
buckets, some at each call. A bucket of more than 8,192 keys continues in a further dict, because growing a dict of
1 million keys takes 35 ms, and one of 8,192 a quarter of a millisecond.

Measured (bench/ttl_index.py, 1 million keys, deadlines over a day; ns a key, slowest call in ms, bytes a key):
    ============  ===========  ===========  ============  =====
    index         new key      renewal      due           bytes
    ============  ===========  ===========  ============  =====
    heap, lazy    1069, 36     1977, 69     14487, 5.5    64–129
    slot minima   1497, 0.2    2798, 0.4    16745, 7.0    5
    this wheel    880, 0.4     2524, 1.2    2162, 1.3     36–84
    ============  ===========  ===========  ============  =====
The heap must be made anew when stale entries outweigh the rest, which is what its slow calls are. Slot minima keep one
number a slot and search the slot's own deadlines: next to no memory, but what is due costs seven times as much.

Guarantees: no stale entries: what was discarded is gone, so renewing a deadline for ever takes no memory. ``due`` names
each key once, at most 128 ms after its deadline, in bounded slices; no call depends on how many keys there are.
Leaves to the caller: hiding a key from the moment of its deadline (Database.is_expired).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from kvservice.keyspace.slots import slot_of

if TYPE_CHECKING:
    from kvservice.keyspace.database import Database

NEAR_BITS: Final = 7
"""A near bucket spans 128 ms: the period of the housekeeping, which cannot make use of more."""
FAR_BITS: Final = 20
"""A far bucket spans 17.5 minutes: 8,192 near buckets, and 30,000 far buckets for a year of deadlines."""
TURN_AHEAD_MS: Final = 1 << 18
"""Keys of a far bucket begin to move this long before it begins: time for 1 million keys at 400 each 100 ms."""
CHUNK_KEYS_MAX: Final = 8192
STALE_NUMBERS_MAX: Final = 1024
"""Numbers of emptied buckets that a heap may hold beyond the number of buckets before it is made anew."""

Bucket = dict[bytes, int]


class Rim:
    """Buckets of one width. ``buckets`` holds the chunk that takes new keys, ``full`` the chunks before it."""

    __slots__ = ("bits", "buckets", "full", "numbers")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.buckets: dict[int, Bucket] = {}
        self.full: dict[int, list[Bucket]] = {}
        """Invariant: its numbers are also in ``buckets``."""
        self.numbers: list[int] = []
        """A heap of the numbers in ``buckets``, and of some that are gone."""

    def add(self, key: bytes, deadline_ms: int) -> None:
        """Put a key that is not in this rim into the bucket of its deadline; hot."""
        number = deadline_ms >> self.bits
        bucket = self.buckets.get(number)
        if bucket is None:
            self.buckets[number] = {key: deadline_ms}
            heappush(self.numbers, number)
            if len(self.numbers) > 2 * len(self.buckets) + STALE_NUMBERS_MAX:
                self.numbers = list(self.buckets)
                heapify(self.numbers)
            return
        bucket[key] = deadline_ms
        if len(bucket) >= CHUNK_KEYS_MAX:
            self.full.setdefault(number, []).append(bucket)
            self.buckets[number] = {}

    def discard(self, key: bytes, deadline_ms: int) -> bool:
        """Take a key out of the bucket of its deadline; tell whether it was there. Hot."""
        number = deadline_ms >> self.bits
        bucket = self.buckets.get(number)
        if bucket is None:
            return False
        if bucket.pop(key, None) is not None:
            if not bucket and number not in self.full:
                self.remove(number)
            return True
        chunks = self.full.get(number, ())
        for position, chunk in enumerate(chunks):
            if chunk.pop(key, None) is not None:
                if not chunk:
                    self._drop_chunk(number, position)
                return True
        return False

    def _drop_chunk(self, number: int, position: int) -> None:
        chunks = self.full[number]
        del chunks[position]
        if not chunks:
            del self.full[number]
            if not self.buckets[number]:
                self.remove(number)

    def remove(self, number: int) -> None:
        """Remove a bucket."""
        del self.buckets[number]
        self.full.pop(number, None)

    def first_number(self) -> int | None:
        """Return the lowest number of a bucket, or None if there is none."""
        numbers = self.numbers
        while numbers and numbers[0] not in self.buckets:
            heappop(numbers)
        return numbers[0] if numbers else None

    def count_before(self, time_ms: int) -> int:
        """Return how many keys are in buckets that end before a time."""
        past = [number for number in self.buckets if (number + 1) << self.bits <= time_ms]
        return sum(len(self.buckets[number]) + sum(map(len, self.full.get(number, ()))) for number in past)

    def take(self, number: int, limit: int, taken: list[tuple[int, bytes]]) -> None:
        """Move keys of a bucket to ``taken`` until that has ``limit`` entries or the bucket is gone."""
        while len(taken) < limit:
            chunks = self.full.get(number)
            bucket = chunks[-1] if chunks else self.buckets[number]
            for _ in range(min(limit - len(taken), len(bucket))):
                key, deadline_ms = bucket.popitem()
                taken.append((deadline_ms, key))
            if bucket:
                return
            if not chunks:
                self.remove(number)
                return
            self._drop_chunk(number, len(chunks) - 1)
            if number not in self.buckets:
                return


class ExpiryIndex:
    """The keys with a deadline of one database."""

    __slots__ = ("far", "near", "turned")

    def __init__(self) -> None:
        self.near = Rim(NEAR_BITS)
        self.far = Rim(FAR_BITS)
        self.turned = -1
        """Highest number of a far bucket whose keys are in the near rim, or on their way to it."""

    def add(self, key: bytes, deadline_ms: int) -> None:
        """Remember that ``key``, which has no deadline here, is due at ``deadline_ms``; hot."""
        if deadline_ms >> FAR_BITS > self.turned:
            self.far.add(key, deadline_ms)
        else:
            self.near.add(key, deadline_ms)

    def add_many(self, deadlines: Bucket) -> None:
        """Remember the deadlines of keys that have none here yet."""
        add = self.add
        for key, deadline_ms in deadlines.items():
            add(key, deadline_ms)

    def discard(self, key: bytes, deadline_ms: int) -> None:
        """Forget a deadline that was added before, or taken by ``due`` since; hot."""
        number = deadline_ms >> FAR_BITS
        if number > self.turned or not self.near.discard(key, deadline_ms):
            self.far.discard(key, deadline_ms)

    def next_deadline_ms(self) -> int | None:
        """Return the time from which on ``due`` has something to do, or None if there are no deadlines."""
        near = self.near.first_number()
        far = self.far.first_number()
        if near is None:
            return None if far is None else far << FAR_BITS
        near_ms = ((near + 1) << NEAR_BITS) - 1
        return near_ms if far is None else min(near_ms, far << FAR_BITS)

    def count_due(self, now_ms: int) -> int:
        """Return how many keys are certainly due and not taken: those in buckets that have ended."""
        next_ms = self.next_deadline_ms()
        if next_ms is None or next_ms > now_ms:
            return 0
        return self.near.count_before(now_ms + 1) + self.far.count_before(now_ms + 1)

    def due(self, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Take at most ``limit`` (deadline, key) whose deadline is not after ``now_ms``."""
        self._turn(now_ms, limit)
        taken: list[tuple[int, bytes]] = []
        while len(taken) < limit:
            number = self.near.first_number()
            if number is None or ((number + 1) << NEAR_BITS) - 1 > now_ms:
                break
            self.near.take(number, limit, taken)
        return taken

    def _turn(self, now_ms: int, limit: int) -> None:
        """Move keys of a far bucket that has begun, or soon will, to the near rim: two for the price of a removal."""
        number = self.far.first_number()
        if number is None or number << FAR_BITS > now_ms + TURN_AHEAD_MS:
            return
        if number > self.turned:
            self.turned = number
        moved: list[tuple[int, bytes]] = []
        self.far.take(number, 2 * limit, moved)
        add = self.near.add
        for deadline_ms, key in moved:
            add(key, deadline_ms)


def _no_hook(_slot: int) -> None:
    """Do nothing before a key is removed."""


def expire_slice(
    databases: Sequence[Database], stamp_ms: int, limit: int, before_change: Callable[[int], None] = _no_hook
) -> tuple[int, bool]:
    """Remove at most ``limit`` keys for each database that are due by the stamp.

    Return how many were removed, and whether more are due.

    ``before_change`` is called with the slot of each key before it goes, so that a running snapshot can save it.
    No command can observe the removal, so nodes need not do it at the same time.
    """
    removed = 0
    left = False
    for db in databases:
        if not db.expiry_count:
            continue
        due = db.expiry.due(stamp_ms, limit)
        for _deadline_ms, key in due:
            slot = slot_of(key)
            before_change(slot)
            db.remove(slot, key)
        removed += len(due)
        if not left:
            next_ms = db.expiry.next_deadline_ms()
            left = next_ms is not None and next_ms <= stamp_ms
    return removed, left
