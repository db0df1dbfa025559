"""The digest that DEBUG DIGEST and DEBUG DIGEST-VALUE show: 160 bits of keys, values and which keys have a deadline.

The same data gives the same digits here and in Redis 7, whatever the order in which it was written; an empty keyspace
gives zeros. Not to be confused with keyspace/digest, which is cheap, goes on for ever and compares members.

Guarantees: a pure function of the live keys: expired ones do not count, whether they are removed already or not.
Leaves to the caller: a state that stands still meanwhile: a walk (keyspace/image), or one command's turn.
Cost (one core): 10 us a key with a short value, the walk included.
Reference: Redis ``debug.c``, computeDatasetDigest.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from hashlib import sha1
from typing import Final

from kvservice.keyspace.image import parts_of
from kvservice.keyspace.values import STRING_TYPES, Value, text_of

DIGEST_BYTES: Final = 20
TYPE_OF_STRINGS: Final = bytes(4)
"""Redis's number of the type, in network order."""

_hash: Final = partial(sha1, usedforsecurity=False)


def _number(text: bytes) -> int:
    return int.from_bytes(_hash(text).digest(), "big")


def _mixed(digest: int, text: bytes) -> int:
    """Return a digest that depends on all that was mixed in, and on the order."""
    return _number((digest ^ _number(text)).to_bytes(DIGEST_BYTES, "big"))


_OF_STRINGS: Final = _number(TYPE_OF_STRINGS)
_OF_DEADLINES: Final = _number(b"!!expire!!")


def value_digest(value: Value, *, has_deadline: bool, start: int = 0) -> int:
    """Return the digest of a value, mixed into ``start``."""
    assert type(value) in STRING_TYPES, f"no digest of {type(value).__name__}"
    digest = _mixed(_number((start ^ _OF_STRINGS).to_bytes(DIGEST_BYTES, "big")), text_of(value))
    return digest ^ _OF_DEADLINES if has_deadline else digest


def shown(digest: int) -> bytes:
    """Return a digest as 40 hexadecimal digits."""
    return b"%040x" % digest


class DatasetDigest:
    """Adds up the chunks of one walk."""

    def __init__(self, stamp_ms: int) -> None:
        self._stamp_ms = stamp_ms
        self._totals: dict[int, int] = {}
        """Digest of the keys of each database that has any."""

    def add(self, chunk: bytes) -> None:
        """Take in a chunk of a walk."""
        totals, stamp_ms = self._totals, self._stamp_ms
        for database, values, deadlines in parts_of(chunk):
            total = totals.get(database)
            for (key, value), due_ms in zip(values.items(), deadlines, strict=True):
                if due_ms is None or due_ms > stamp_ms:
                    digest = value_digest(value, has_deadline=due_ms is not None, start=_mixed(0, key))
                    digest = _number(digest.to_bytes(DIGEST_BYTES, "big"))
                    total = digest if total is None else total ^ digest
            if total is not None:
                totals[database] = total

    def total(self) -> int:
        """Return the digest of all that was taken in."""
        digest = 0
        for database, keys in sorted(self._totals.items()):
            digest = _mixed(digest, database.to_bytes(4, "big")) ^ keys
        return digest


def key_digests(found: Iterable[tuple[Value | None, bool]]) -> list[bytes]:
    """Return DIGEST-VALUE's reply for values and whether each has a deadline; zeros where there is no value."""
    return [
        shown(0 if value is None else value_digest(value, has_deadline=has_deadline)) for value, has_deadline in found
    ]
