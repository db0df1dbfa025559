"""The keyspace as bytes, written while commands go on, and read back.

A walk keeps the dicts of the moment it began and encodes them slot by slot. Before a slot that it has not reached
changes, it keeps a shallow copy of it: values that cannot change are shared, others are frozen at once. So a writer
pays some microseconds for a slot of 60 keys once in a snapshot, and the bytes are those of the moment the walk began.

Layout of a chunk: msgpack [parts, answers, end]. A part is [database, slot, {key: int | bytes | nil}, deadlines,
others]: ``deadlines`` is nil or one deadline (ms) or nil for each key in order, ``others`` holds [key, code of its
kind, frozen value] for each nil. Chunks with answers (keyspace/once), oldest first, come behind those with parts.
``end`` is nil but in the last chunk, where it is [{database: number of keys}, state of the digest's chain or nil].
Version 1 wrote [parts, {database: number of keys} or nil]; that is read too.

Guarantees: loading gives the same keys in the same order inside each slot. A chunk has some more than 256 KiB at most,
but for a single larger value or answer. A flush or SWAPDB meanwhile does not touch the walk.
Leaves to the caller: calling ``save_before`` ahead of every change; checksums and compression (persistence/snapshot).
Cost (1 million keys of 16 bytes with values of 64, one core): 0.5 s to encode, at most 0.9 ms a slice of 1,000 keys; a
writer pays 9 us for each slot; 0.4 s to load, 1.1 s with a deadline on every key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import compress, islice
from sys import getsizeof
from typing import Any, Final

import google_crc32c
import msgspec

from kvservice.keyspace.crowded import CROWDED_MIN, CrowdedSlot
from kvservice.keyspace.database import NO_DEADLINES, NO_VALUES, Database, TooFewDatabases
from kvservice.keyspace.digest import ChainState
from kvservice.keyspace.kinds import KINDS_BY_CODE, kind_of
from kvservice.keyspace.once import Answer, OnceTable
from kvservice.keyspace.slots import SLOTS
from kvservice.keyspace.values import DEADLINE_BYTES, Value, cost_of

CHUNK_BYTES: Final = 256 * 1024
"""A chunk is closed when it has this size: a piece that a thread compresses in about a millisecond."""
SLOT_KEYS_MAX: Final = 1024
"""A slot of more keys (one hash tag) is encoded in several parts, so that no slice takes much longer than asked."""

PASSED_MAX: Final = 256
"""Empty slots passed at once: looking at so many together takes a microsecond, at each alone a tenth."""
ONES: Final = b"\x01" * PASSED_MAX

OPENING: Final = b"\x93\xdd\x00\x00\x00\x00"
"""An array of three, and an array whose length is filled in when the chunk is closed."""
OPENING_1: Final = 0x92
"""First byte of a chunk of version 1: an array of two."""

DIGEST_MASK: Final = (1 << 64) - 1

PLAIN: Final = frozenset({bytes, int})
NOTHING: Final[dict[bytes, Value]] = {}

Other = tuple[bytes, int, Any]
Plain = dict[bytes, int | bytes | None]
Part = tuple[int, int, Plain, list[int | None] | None, list[Other] | None]

End = tuple[dict[int, int], ChainState | None]

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[list[Part], list[Answer], End | None])
_decoder_1: Final = msgspec.msgpack.Decoder(tuple[list[Part], dict[int, int] | None])


class ImageDamaged(Exception):  # noqa: N818 - says what is the case
    """A chunk is not what a walk writes, or chunks are missing."""


def parts_of(chunk: bytes) -> Iterator[tuple[int, dict[bytes, Value], Sequence[int | None]]]:
    """Yield (database, values by key, deadline in ms or None of each key) of a chunk that a walk gave."""
    for index, _slot, plain, deadlines, others in _decoder.decode(chunk)[0]:
        for key, code, frozen in others or ():
            plain[key] = KINDS_BY_CODE[code].thawed(frozen)
        values: dict[bytes, Value] = plain  # type: ignore[assignment]  # no nil is left
        yield index, values, deadlines if deadlines is not None else [None] * len(values)


class KeptSlot:
    """A slot as it was when the walk began."""

    __slots__ = ("db", "deadlines", "items", "others", "slot", "values")

    def __init__(self, db: int, slot: int, values: dict[bytes, Value], deadlines: dict[bytes, int] | None) -> None:
        self.db = db
        self.slot = slot
        self.deadlines = dict(deadlines) if deadlines else None
        self.others: dict[bytes, Other] = {}
        self.values: dict[bytes, Any] = dict(values)
        if not PLAIN.issuperset(map(type, values.values())):
            for key, value in values.items():
                if type(value) not in PLAIN:
                    kind = kind_of(value)
                    self.others[key] = (key, kind.code, kind.frozen(value))
                    self.values[key] = None
        self.items: Iterator[tuple[bytes, Any]] = iter(self.values.items())
        """What of ``values`` is not encoded yet, if it is encoded in parts."""

    def is_small(self) -> bool:
        """Tell whether the slot fits into one part."""
        if len(self.values) > SLOT_KEYS_MAX or self.others:
            return False
        return sum(map(getsizeof, self.values.values())) <= CHUNK_BYTES

    def next_part(self, keys_max: int) -> Plain:
        """Return some more keys; none at the end."""
        part: Plain = {}
        size = 0
        for key, value in islice(self.items, keys_max):
            part[key] = value
            size += getsizeof(self.others[key][2] if value is None else value)
            if size >= CHUNK_BYTES:
                break
        return part


class SnapshotWalk:
    """The state at one moment, given out in chunks: databases, remembered answers, the chain of the digest."""

    def __init__(
        self, databases: Sequence[Database], answers: Sequence[Answer] = (), chain: ChainState | None = None
    ) -> None:
        self._answers = deque(answers)
        self._chain = chain
        self._captured = [
            (db.index, list(db.values), list(db.expires)) for db in databases if db.values is not NO_VALUES
        ]
        """Dicts of each database by slot; taken out once they are saved, so that what was flushed can be freed."""
        self._is_saved = bytearray(SLOTS)
        self._next_slot = 0
        self._kept: deque[KeptSlot] = deque()
        self._key_counts = {index: 0 for index, _values, _expires in self._captured}
        self.is_finished = False
        self.digest = 0
        """Sum of the CRC-32C of all chunks, modulo 2^64."""

    @property
    def items(self) -> int:
        """Return how many keys are encoded so far."""
        return sum(self._key_counts.values())

    def save_before(self, slot: int) -> None:
        """Keep what a slot holds, unless it is saved already; call before a key in it changes. Hot."""
        if self._is_saved[slot]:
            return
        self._is_saved[slot] = 1
        for index, values, expires in self._captured:
            if values[slot]:
                self._kept.append(KeptSlot(index, slot, values[slot], expires[slot]))
                values[slot] = NOTHING
                expires[slot] = None

    def next_slice(self, budget_keys: int) -> bytes | None:
        """Return the next chunk after encoding about ``budget_keys`` keys at most, or None after the last one."""
        if self.is_finished:
            return None
        chunk = bytearray(OPENING)
        parts = 0
        budget = budget_keys
        while budget > 0 and len(chunk) < CHUNK_BYTES:
            if self._kept:
                added = self._encode_kept(self._kept[0], budget, chunk)
                parts += added > 0
                budget -= added
            elif self._next_slot < SLOTS:
                budget -= self._pass_slots(budget) * len(self._captured)
            else:
                break
        chunk[2:6] = parts.to_bytes(4, "big")
        answers = [] if parts else self._some_answers(budget)
        self.is_finished = self._next_slot == SLOTS and not self._kept and not self._answers
        _encoder.encode_into(answers, chunk, -1)
        _encoder.encode_into((self._key_counts, self._chain) if self.is_finished else None, chunk, -1)
        encoded = bytes(chunk)
        self.digest = (self.digest + int(google_crc32c.value(encoded))) & DIGEST_MASK
        return encoded

    def _pass_slots(self, budget: int) -> int:
        """Pass over empty slots, or keep the one that is next; return how many slots that were."""
        first = self._next_slot
        end = min(first + PASSED_MAX, SLOTS)
        if self._captured:
            end = min(end, first + -(-budget // len(self._captured)))
            end = min([next(compress(range(first, end), values[first:end]), end) for _, values, _ in self._captured])
        if end == first:
            self.save_before(first)
            end = first + 1
        else:
            self._is_saved[first:end] = ONES[: end - first]
        self._next_slot = end
        return end - first

    def _some_answers(self, budget: int) -> list[Answer]:
        """Return the next answers, once all keys are encoded."""
        answers: list[Answer] = []
        if self._next_slot == SLOTS and not self._kept:
            size = 0
            while self._answers and len(answers) < budget and size < CHUNK_BYTES:
                answers.append(self._answers.popleft())
                size += answers[-1].cost
        return answers

    def _encode_kept(self, kept: KeptSlot, budget: int, chunk: bytearray) -> int:
        """Encode a slot, or a part of it; return how many keys that were."""
        if kept.is_small():
            part = kept.values
            self._kept.popleft()
        else:
            part = kept.next_part(budget)
            if not part:
                self._kept.popleft()
                return 0
        deadlines = list(map(kept.deadlines.get, part)) if kept.deadlines else None
        others = [kept.others[key] for key, value in part.items() if value is None] if kept.others else None
        _encoder.encode_into((kept.db, kept.slot, part, deadlines, others), chunk, -1)
        self._key_counts[kept.db] += len(part)
        return len(part)


class ImageLoader:
    """Reads the chunks of a walk, in order, into databases and a table of answers that are empty."""

    def __init__(self, databases: Sequence[Database], once: OnceTable) -> None:
        self._databases = databases
        self._once = once
        self.is_finished = False
        """Whether the last chunk was loaded."""
        self.chain: ChainState | None = None
        """State of the digest's chain, once finished; None if the snapshot does not carry it."""
        self._digest = 0

    def load(self, chunk: bytes) -> bool:
        """Add what a chunk holds; tell whether it was the last.

        Raise ImageDamaged if it cannot be a chunk, or if keys are missing at the end; TooFewDatabases.
        """
        self._digest = (self._digest + int(google_crc32c.value(chunk))) & DIGEST_MASK
        answers: list[Answer] = []
        end: End | None = None
        try:
            if self.is_finished:
                raise ImageDamaged("a chunk follows the last one")
            if chunk[:1] == bytes((OPENING_1,)):
                parts, counts = _decoder_1.decode(chunk)
                end = (counts, None) if counts is not None else None
            else:
                parts, answers, end = _decoder.decode(chunk)
        except msgspec.MsgspecError as error:
            raise ImageDamaged(f"not a chunk of a snapshot: {error}") from None
        for index, slot, values, deadlines, others in parts:
            if index >= len(self._databases):
                raise TooFewDatabases(index, len(self._databases))
            if not (index >= 0 and 0 <= slot < SLOTS):
                raise ImageDamaged(f"no place for database {index}, slot {slot}")
            _load_part(self._databases[index], slot, values, deadlines, others)
        for answer in answers:
            if self._once.knows(answer.request_id):
                raise ImageDamaged("a request is answered twice")
            self._once.load(answer)
        if end is not None:
            counts, self.chain = end
            self._check_counts(counts)
            self.is_finished = True
        return self.is_finished

    def _check_counts(self, counts: dict[int, int]) -> None:
        for index, count in counts.items():
            found = self._databases[index].key_count if 0 <= index < len(self._databases) else 0
            if found != count:
                raise ImageDamaged(f"database {index} has {found} keys of {count}")

    def check(self, item_count: int, digest: bytes) -> None:
        """Raise ImageDamaged unless all was loaded that the snapshot's footer says."""
        if not self.is_finished:
            raise ImageDamaged("the last chunk is missing")
        found = sum(db.key_count for db in self._databases)
        if found != item_count:
            raise ImageDamaged(f"{found} keys are there, the footer says {item_count}")
        if digest != self._digest.to_bytes(8, "big"):
            raise ImageDamaged("the digest of the content does not match")


def _load_part(
    db: Database, slot: int, plain: Plain, deadlines: list[int | None] | None, others: list[Other] | None
) -> None:
    for key, code, frozen in others or ():
        if code not in KINDS_BY_CODE:
            raise ImageDamaged(f"kind {code} is unknown; a newer version wrote this snapshot")
        plain[key] = KINDS_BY_CODE[code].thawed(frozen)
    values: dict[bytes, Value] = plain  # type: ignore[assignment]
    if db.values is NO_VALUES:
        db.values = NO_VALUES.copy()
    db.key_count += len(values)
    # key_cost, spelled out: once for every key of a start.
    db.bytes_used += sum([(len(key) + 48) & -16 for key in values]) + sum(map(cost_of, values.values()))
    present = db.values[slot]
    if present:
        present.update(values)
        if slot in db.crowded:
            for key in values:
                db.crowded[slot].add(key)
        elif len(present) > CROWDED_MIN:
            db.crowded[slot] = CrowdedSlot(present)
    else:
        db.values[slot] = values
    if deadlines is not None:
        # The keys of both dicts are the same objects, as they are after SET … EX.
        _load_deadlines(db, slot, {key: due for key, due in zip(values, deadlines, strict=True) if due is not None})


def _load_deadlines(db: Database, slot: int, deadlines: dict[bytes, int]) -> None:
    if db.expires is NO_DEADLINES:
        db.expires = [None] * SLOTS
    db.expiry.add_many(deadlines)
    db.expiry_count += len(deadlines)
    db.bytes_used += DEADLINE_BYTES * len(deadlines)
    present = db.expires[slot]
    if present is None:
        db.expires[slot] = deadlines
    else:
        present.update(deadlines)
