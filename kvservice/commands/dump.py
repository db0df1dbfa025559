"""DUMP and RESTORE: one value as bytes that Redis reads and writes too.

Layout of a payload: type byte 0, the string, RDB version (2 bytes), CRC-64/Redis of all before it (8 bytes), both
little endian. A string is an integer of 1, 2 or 4 bytes, LZF-compressed bytes, or a length and bytes. The version
written is 10: Redis 7.0 and everything after it restores that; versions up to 11 (Redis 7.2) are read.

Guarantees: RESTORE accepts or raises RequestError, whatever the payload; no length it names is believed beyond what the
payload can hold.
Reference: Redis RDB format, "Length encoding" and "String encoding"; CRC-64/Redis.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import anycrc  # type: ignore[import-untyped]
import lzf  # type: ignore[import-not-found]

from kvservice.commands.context import Context
from kvservice.commands.keys import dangerous
from kvservice.commands.lookup import raw_of
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.reply import OK, Reply
from kvservice.commands.rows import OF_VALUE, Family
from kvservice.commands.table import ONE_KEY, Args
from kvservice.errors import BusyKey, RequestError
from kvservice.keyspace.values import INT64_MAX, STRING_BYTES_MAX, STRING_TYPES, Value, compact

VERSION_WRITTEN: Final = 10
VERSION_READ_MAX: Final = 11
TYPE_STRING: Final = 0
FOOTER_BYTES: Final = 10
COMPRESSED_BYTES_MIN: Final = 21
"""Redis does not try to compress shorter strings."""
LZF_RATIO_MAX: Final = 90
"""Three bytes of LZF stand for 264 bytes at most."""

BAD_CHECKSUM: Final = "DUMP payload version or checksum are wrong"
BAD_FORMAT: Final = "Bad data format"

ENCODED: Final = 0xC0
INT8, INT16, INT32, LZF = range(ENCODED, ENCODED + 4)
LENGTH_32: Final = 0x80
LENGTH_64: Final = 0x81
INTEGERS: Final = {INT8: Struct("<b"), INT16: Struct("<h"), INT32: Struct("<i")}

_crc64: Final = anycrc.Model("CRC64-REDIS").calc


class BadPayload(Exception):  # noqa: N818 - becomes RequestError where the command is known
    """The bytes are not a string of the RDB format."""


def dumped(value: Value) -> bytes:
    """Return the payload of a string."""
    body = bytes((TYPE_STRING,)) + _encoded_string(value) + VERSION_WRITTEN.to_bytes(2, "little")
    return body + int(_crc64(body)).to_bytes(8, "little")


def _encoded_string(value: Value) -> bytes:
    text = bytes(raw_of(value))
    number = compact(text)
    if type(number) is int:
        for code, form in INTEGERS.items():
            if -(1 << (8 * form.size - 1)) <= number < 1 << (8 * form.size - 1):
                return bytes((code,)) + form.pack(number)
    if len(text) >= COMPRESSED_BYTES_MIN:
        packed: bytes | None = lzf.compress(text, len(text) - 4)
        if packed:
            return bytes((LZF,)) + _encoded_length(len(packed)) + _encoded_length(len(text)) + packed
    return _encoded_length(len(text)) + text


def _encoded_length(size: int) -> bytes:
    if size < 1 << 6:
        return bytes((size,))
    if size < 1 << 14:
        return bytes((0x40 | size >> 8, size & 0xFF))
    return bytes((LENGTH_32,)) + size.to_bytes(4, "big")


def restored(payload: bytes) -> Value:
    """Return the value of a payload. Raise RequestError."""
    version = int.from_bytes(payload[-FOOTER_BYTES:-8], "little")
    if len(payload) < FOOTER_BYTES or version > VERSION_READ_MAX:
        raise RequestError(BAD_CHECKSUM)
    if int(_crc64(payload[:-8])) != int.from_bytes(payload[-8:], "little"):
        raise RequestError(BAD_CHECKSUM)
    try:
        if payload[0] != TYPE_STRING or len(payload) == FOOTER_BYTES:
            raise BadPayload
        return compact(_string_at(payload[:-FOOTER_BYTES], 1))
    except BadPayload:
        raise RequestError(BAD_FORMAT) from None


def _string_at(body: bytes, position: int) -> bytes:
    first = _byte_at(body, position)
    form = INTEGERS.get(first)
    if form is not None:
        if position + 1 + form.size > len(body):
            raise BadPayload
        return b"%d" % int(form.unpack_from(body, position + 1)[0])
    if first == LZF:
        packed_size, position = _length_at(body, position + 1)
        size, position = _length_at(body, position)
        return _decompressed(_bytes_at(body, position, packed_size), size)
    size, position = _length_at(body, position)
    return _bytes_at(body, position, size)


def _decompressed(packed: bytes, size: int) -> bytes:
    if not 0 < size <= min(STRING_BYTES_MAX, len(packed) * LZF_RATIO_MAX):
        raise BadPayload
    try:
        text: bytes | None = lzf.decompress(packed, size)
    except ValueError:
        raise BadPayload from None
    if text is None or len(text) != size:
        raise BadPayload
    return text


def _length_at(body: bytes, position: int) -> tuple[int, int]:
    first = _byte_at(body, position)
    position += 1
    if first < 0x40:
        return first, position
    if first < LENGTH_32:
        return (first & 0x3F) << 8 | _byte_at(body, position), position + 1
    width = {LENGTH_32: 4, LENGTH_64: 8}.get(first)
    if width is None:
        raise BadPayload
    return int.from_bytes(_bytes_at(body, position, width), "big"), position + width


def _byte_at(body: bytes, position: int) -> int:
    if position >= len(body):
        raise BadPayload
    return body[position]


def _bytes_at(body: bytes, position: int, size: int) -> bytes:
    if position + size > len(body):
        raise BadPayload
    return body[position : position + size]


def dump(ctx: Context, args: Args) -> Reply:
    """Answer the payload of the value at a key, or null."""
    value = ctx.db.get(args[1])
    if value is None:
        ctx.misses += 1
        return None
    ctx.hits += 1
    assert type(value) in STRING_TYPES, f"no payload form for {type(value).__name__}"
    return dumped(value)


class RestoreOptions:
    """The option words of a RESTORE."""

    __slots__ = ("absolute", "counter", "idle_seconds", "replaces")

    def __init__(self, args: Args) -> None:
        self.replaces = False
        self.absolute = False
        self.idle_seconds: int | None = None
        self.counter: int | None = None
        position = 4
        while position < len(args):
            word = args[position].upper()
            has_argument = position + 1 < len(args)
            if word == b"REPLACE":
                self.replaces = True
            elif word == b"ABSTTL":
                self.absolute = True
            elif word == b"IDLETIME" and has_argument and self.counter is None:
                position += 1
                self.idle_seconds = integer(args[position])
                if self.idle_seconds < 0:
                    raise RequestError("Invalid IDLETIME value, must be >= 0")
            elif word == b"FREQ" and has_argument and self.idle_seconds is None:
                position += 1
                self.counter = integer(args[position])
                if not 0 <= self.counter <= 255:
                    raise RequestError("Invalid FREQ value, must be >= 0 and <= 255")
            else:
                raise RequestError(SYNTAX_ERROR)
            position += 1


def restore(ctx: Context, args: Args) -> Reply:
    """Store the value of a payload at a key."""
    key, db, now_ms = args[1], ctx.db, ctx.clock.now_ms
    options = RestoreOptions(args)
    if not options.replaces and db.get(key) is not None:
        raise BusyKey
    ttl_ms = integer(args[2])
    deadline_ms = ttl_ms if options.absolute or not ttl_ms else ttl_ms + now_ms
    if ttl_ms < 0 or deadline_ms > INT64_MAX:
        raise RequestError("Invalid TTL value, must be >= 0")
    value = restored(args[3])
    db.delete(key)
    if deadline_ms and deadline_ms <= now_ms:
        return OK
    db.set(key, value)
    if deadline_ms:
        db.set_deadline(key, deadline_ms)
    _restore_use(ctx, key, options)
    return OK


def _restore_use(ctx: Context, key: bytes, options: RestoreOptions) -> None:
    # Local to this node and outside the state, as all of keyspace/access.
    access = ctx.db.access
    if access is None:
        return
    if options.idle_seconds is not None:
        access.set_idle(key, options.idle_seconds * 1000, ctx.clock.now_ms)
    if options.counter is not None:
        access.set_frequency(key, options.counter, ctx.clock.now_ms)


_row = Family("generic", "keyspace").row

ROWS = [
    _row("dump", dump, 2, "readonly", ONE_KEY, "2.6.0", "Answers a value as bytes that RESTORE takes.", OF_VALUE),
    dangerous(
        _row(
            "restore",
            restore,
            -4,
            "write denyoom",
            ONE_KEY,
            "2.6.0",
            "Stores a value from the bytes of DUMP.",
            OF_VALUE,
        )
    ),
]
