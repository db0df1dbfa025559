"""Values of the keyspace, and what they cost in memory.

A string has no wrapper object. Its Python type is its encoding: ``int`` is Redis's int, ``bytes`` is embstr or raw by
length, ``bytearray`` is raw: a string that was changed in place (APPEND, SETRANGE, SETBIT), which stays raw.

Guarantees: ``cost_of`` follows CPython's allocator (16-byte steps), so that the sums agree with the process's growth.
Leaves to the caller: never storing a ``bytes`` that spells a canonical 64-bit integer where Redis would store an int.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Value: TypeAlias = bytes | bytearray | int

STRING_TYPES: Final = (bytes, int, bytearray)
STRING_BYTES_MAX: Final = 512 * 1024 * 1024
"""A string never grows beyond this, on any node, whatever its configuration says: Redis's proto-max-bulk-len."""

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1

INT_TEXT_BYTES_MAX: Final = 20
"""A longer text spells no 64-bit integer."""

DEADLINE_BYTES: Final = 76
"""What a deadline costs: an int object (32) and an entry of the expiry index (measured: 20 to 52). The entry of the
slot's dict is measured with that dict (keyspace/memory)."""


def key_cost(key: bytes) -> int:
    """Return the bytes that CPython allocates for ``key``. Hot paths spell it out: they save the call."""
    return (len(key) + 48) & -16


def cost_of(value: Value) -> int:
    """Return the bytes that CPython allocates for ``value``."""
    kind = type(value)
    if kind is bytes:
        return (len(value) + 48) & -16  # type: ignore[arg-type]
    if kind is int:
        return 32
    return 64 + ((len(value) + 16) & -16)  # type: ignore[arg-type]


def compact(text: bytes) -> bytes | int:
    """Return the stored form of a string that a client sent: an int if it spells a canonical 64-bit integer."""
    size = len(text)
    if size > INT_TEXT_BYTES_MAX or size == 0:
        return text
    first = text[0]
    if first > 57 or (first < 48 and first != 45):
        return text
    digits = text[1:] if first == 45 else text
    if not digits.isdigit() or (digits[0] == 48 and size > 1):
        return text
    number = int(text)
    return number if INT64_MIN <= number <= INT64_MAX else text


def text_of(value: Value) -> bytes:
    """Return the bytes of a string value, as GET answers them."""
    if type(value) is bytes:
        return value
    if type(value) is int:
        return b"%d" % value
    return bytes(value)
