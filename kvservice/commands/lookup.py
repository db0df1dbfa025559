"""String values as commands look them up and change them in place.

Guarantees: a key that holds another type raises WrongType before anything changed; every change of size is accounted.
Leaves to the caller: overwriting, but never resizing, the buffer that ``writable`` returns.
"""

from __future__ import annotations

from kvservice.commands.context import Context
from kvservice.errors import WrongType
from kvservice.keyspace.database import Database
from kvservice.keyspace.values import STRING_TYPES, Value, cost_of, text_of


def read_string(ctx: Context, key: bytes) -> Value | None:
    """Return the string at ``key`` or None, and count the hit or miss. Raise WrongType."""
    value = ctx.db.get(key)
    if value is None:
        ctx.misses += 1
        return None
    ctx.hits += 1
    if type(value) not in STRING_TYPES:
        raise WrongType
    return value


def current_string(ctx: Context, key: bytes) -> Value | None:
    """Return the string at ``key`` or None for a command that is about to change it. Raise WrongType."""
    value = ctx.db.get(key)
    if value is not None and type(value) not in STRING_TYPES:
        raise WrongType
    return value


def raw_of(value: Value | None) -> bytes | bytearray:
    """Return the bytes of a string without copying them; a missing key counts as empty."""
    if value is None:
        return b""
    return b"%d" % value if type(value) is int else value  # type: ignore[return-value]


def writable(db: Database, key: bytes, value: Value | None, bytes_min: int) -> bytearray:
    """Return the string at ``key`` as a stored buffer of at least ``bytes_min`` bytes, padded with zero bytes.

    ``value`` is what the key holds now. The key keeps its deadline. From here on the string is Redis's raw encoding.
    """
    if type(value) is bytearray:
        missing = bytes_min - len(value)
        if missing > 0:
            before = cost_of(value)
            value.extend(bytes(missing))
            db.resized(before, cost_of(value))
        return value
    text = b"" if value is None else text_of(value)
    buffer = bytearray(max(bytes_min, len(text)))
    buffer[: len(text)] = text
    db.put(key, buffer)
    return buffer
