"""BITFIELD: a string as an array of integers of any width, signed up to 64 bits, unsigned up to 63.

Guarantees: all operations are read and checked before the first one changes anything.
Reference: the Redis command pages of BITFIELD and BITFIELD_RO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kvservice.commands.context import Context
from kvservice.commands.lookup import current_string, raw_of, read_string, writable
from kvservice.commands.options import BAD_BIT_OFFSET, SYNTAX_ERROR, bit_offset, integer
from kvservice.commands.reply import Reply
from kvservice.commands.rows import Family
from kvservice.commands.table import ONE_KEY, Args
from kvservice.errors import RequestError
from kvservice.keyspace.values import INT64_MAX, compact

BAD_TYPE: Final = "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
UINT64_MAX: Final = (1 << 64) - 1
ARGUMENTS: Final = {b"GET": 2, b"SET": 3, b"INCRBY": 3, b"OVERFLOW": 1}
"""What follows each word, at least."""


class Width(NamedTuple):
    """An integer type such as ``i16`` or ``u8``."""

    signed: bool
    bits: int

    @property
    def lowest(self) -> int:
        """The smallest number of this type."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest number of this type."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1

    def wrapped(self, number: int) -> int:
        """Return the lowest bits of ``number``, read as this type."""
        number &= (1 << self.bits) - 1
        return number - (1 << self.bits) if number > self.highest else number


class Operation(NamedTuple):
    """One GET, SET or INCRBY."""

    word: bytes
    width: Width
    offset: int
    operand: int
    overflow: bytes
    """WRAP, SAT or FAIL."""


def width_of(text: bytes) -> Width:
    """Return the type that ``text`` names. Raise RequestError."""
    sign, bits = text[:1], compact(text[1:])
    if sign not in (b"i", b"u") or type(bits) is not int or not 1 <= bits <= (64 if sign == b"i" else 63):
        raise RequestError(BAD_TYPE)
    return Width(sign == b"i", bits)


def operations_of(args: Args) -> list[Operation]:
    """Read the operations from ``args[2]`` on. Raise RequestError."""
    operations: list[Operation] = []
    overflow = b"WRAP"
    position = 2
    while position < len(args):
        word = args[position].upper()
        if word not in ARGUMENTS or position + ARGUMENTS[word] >= len(args):
            raise RequestError(SYNTAX_ERROR)
        if word == b"OVERFLOW":
            overflow = args[position + 1].upper()
            if overflow not in (b"WRAP", b"SAT", b"FAIL"):
                raise RequestError("Invalid OVERFLOW type specified")
        else:
            width = width_of(args[position + 1])
            offset = bit_offset(args[position + 2], width.bits)
            operand = 0 if word == b"GET" else integer(args[position + 3])
            operations.append(Operation(word, width, offset, operand, overflow))
        position += 1 + ARGUMENTS[word]
    return operations


def field_at(raw: bytes | bytearray, offset: int, width: Width) -> int:
    """Return the integer that starts at bit ``offset``; bits after the end are 0."""
    first, stop = offset >> 3, (offset + width.bits + 7) >> 3
    covered = int.from_bytes(raw[first:stop].ljust(stop - first, b"\x00"), "big")
    return width.wrapped(covered >> (stop * 8 - offset - width.bits))


def set_field(buffer: bytearray, offset: int, width: Width, number: int) -> None:
    """Overwrite the integer that starts at bit ``offset`` and lies within the buffer."""
    first, stop = offset >> 3, (offset + width.bits + 7) >> 3
    shift = stop * 8 - offset - width.bits
    mask = ((1 << width.bits) - 1) << shift
    covered = int.from_bytes(buffer[first:stop], "big")
    buffer[first:stop] = (covered & ~mask | (number << shift) & mask).to_bytes(stop - first, "big")


def fitted(number: int, operation: Operation) -> int | None:
    """Return ``number`` as the operation's overflow rule makes it fit, or None if it must not be stored."""
    width = operation.width
    if width.lowest <= number <= width.highest:
        return number
    if operation.overflow == b"WRAP":
        return width.wrapped(number)
    if operation.overflow == b"FAIL":
        return None
    return width.highest if number > width.highest else width.lowest


def set_operand(operation: Operation) -> int:
    """Return the number that a SET asks for, as Redis's 64-bit arithmetic sees it.

    It takes the operand of an unsigned SET for unsigned, so that -1 is too large and not too small. The distance from a
    signed operand to the highest number may not fit in 64 bits; then it is too large as well.
    """
    number, width = operation.operand, operation.width
    if not width.signed:
        return number & UINT64_MAX
    return number + UINT64_MAX + 1 if width.bits < 64 and width.highest - number > INT64_MAX else number


def change(buffer: bytearray, operation: Operation) -> int | None:
    """Run a SET or INCRBY; return its reply."""
    old = field_at(buffer, operation.offset, operation.width)
    wanted = old + operation.operand if operation.word == b"INCRBY" else set_operand(operation)
    new = fitted(wanted, operation)
    if new is None:
        return None
    set_field(buffer, operation.offset, operation.width, new)
    return new if operation.word == b"INCRBY" else old


def read_only(ctx: Context, key: bytes, operations: list[Operation]) -> Reply:
    """Run operations that are all GET."""
    raw = raw_of(read_string(ctx, key))
    return [field_at(raw, operation.offset, operation.width) for operation in operations]


def bitfield(ctx: Context, args: Args) -> Reply:
    """Read, set and add to integers within a string, in order; answer one number or null for each."""
    key = args[1]
    operations = operations_of(args)
    ends = [operation.offset + operation.width.bits for operation in operations if operation.word != b"GET"]
    if not ends:
        return read_only(ctx, key, operations)
    buffer = writable(ctx.db, key, current_string(ctx, key), (max(ends) + 7) >> 3)
    return [
        field_at(buffer, operation.offset, operation.width) if operation.word == b"GET" else change(buffer, operation)
        for operation in operations
    ]


def check_bitfield(args: Args, _length_of: Callable[[bytes], int], bytes_max: int) -> None:
    """Raise RequestError if BITFIELD would make a string too long, or is no BITFIELD."""
    for operation in operations_of(args):
        if operation.word != b"GET" and operation.offset + operation.width.bits > bytes_max * 8:
            raise RequestError(BAD_BIT_OFFSET)


def bitfield_ro(ctx: Context, args: Args) -> Reply:
    """Read integers within a string."""
    operations = operations_of(args)
    if any(operation.word != b"GET" for operation in operations):
        raise RequestError("BITFIELD_RO only supports the GET subcommand")
    return read_only(ctx, args[1], operations)


_row = Family("bitmap", "bitmap").row
_COST: Final = "O(N) where N is the number of integers named"

ROWS: Final = [
    _row(
        "bitfield",
        bitfield,
        -2,
        "write denyoom",
        ONE_KEY,
        "3.2.0",
        "Reads and changes integers within a string.",
        _COST,
        check_growth=check_bitfield,
    ),
    _row(
        "bitfield_ro",
        bitfield_ro,
        -2,
        "readonly fast",
        ONE_KEY,
        "6.0.0",
        "Reads integers within a string.",
        _COST,
        quick=False,
    ),
]
