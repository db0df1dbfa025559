"""Bit commands: strings as arrays of bits, the first bit being the highest of the first byte.

Guarantees: the work on a long string is done by C code of the interpreter (integers, ``translate``, ``lstrip``), not by
a loop over its bits or bytes.
Reference: the Redis command pages of the bitmap group. BITFIELD is in ``bitfield``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.lookup import current_string, raw_of, read_string, writable
from kvservice.commands.options import BAD_BIT_OFFSET, SYNTAX_ERROR, bit_offset, integer
from kvservice.commands.reply import Reply
from kvservice.commands.rows import Family
from kvservice.commands.table import ONE_KEY, Args, KeySpec
from kvservice.errors import RequestError

BAD_BIT: Final = "bit is not an integer or out of range"
PIECE_BYTES: Final = 64 * 1024
"""BITPOS and BITOP take this much at a time: an early hit costs little, and 16 MiB are combined in half the time."""
ZEROS: Final = bytes(PIECE_BYTES)
ONES: Final = b"\xff" * PIECE_BYTES
INVERTED: Final = bytes(255 - byte for byte in range(256))


def setbit(ctx: Context, args: Args) -> Reply:
    """Set or clear one bit; answer what it was."""
    offset = bit_offset(args[2])
    bit = integer(args[3], BAD_BIT)
    if bit not in (0, 1):
        raise RequestError(BAD_BIT)
    key = args[1]
    byte, mask = offset >> 3, 128 >> (offset & 7)
    buffer = writable(ctx.db, key, current_string(ctx, key), byte + 1)
    was_set = buffer[byte] & mask
    if bit:
        buffer[byte] |= mask
    else:
        buffer[byte] &= ~mask & 255
    return 1 if was_set else 0


def check_setbit(args: Args, _length_of: Callable[[bytes], int], bytes_max: int) -> None:
    """Raise RequestError if SETBIT would make a string too long, or is no SETBIT."""
    if bit_offset(args[2]) >= bytes_max * 8:
        raise RequestError(BAD_BIT_OFFSET)


def getbit(ctx: Context, args: Args) -> Reply:
    """Answer one bit; bits after the end are 0."""
    offset = bit_offset(args[2])
    raw = raw_of(read_string(ctx, args[1]))
    byte = offset >> 3
    return raw[byte] >> (7 - (offset & 7)) & 1 if byte < len(raw) else 0


def bits_are_the_unit(word: bytes) -> bool:
    """Return True for BIT and False for BYTE. Raise RequestError for anything else."""
    unit = word.upper()
    if unit not in (b"BIT", b"BYTE"):
        raise RequestError(SYNTAX_ERROR)
    return unit == b"BIT"


def bit_range(first: int, last: int, size_bytes: int, by_bits: bool) -> tuple[int, int]:
    """Return the first bit and the bit after the last of a range whose negative ends count from the end of the string.

    The range is empty if the second is not after the first.
    """
    size = size_bytes * 8 if by_bits else size_bytes
    first = max(first + size, 0) if first < 0 else first
    last = max(last + size, 0) if last < 0 else last
    last = min(last, size - 1)
    return (first, last + 1) if by_bits else (first * 8, (last + 1) * 8)


def bitcount(ctx: Context, args: Args) -> Reply:
    """Count the set bits of a string or of a range of it."""
    count = len(args)
    if count not in (2, 4, 5):
        raise RequestError(SYNTAX_ERROR)
    first, last, by_bits = 0, -1, False
    if count > 2:
        first, last = integer(args[2]), integer(args[3])
        by_bits = count == 5 and bits_are_the_unit(args[4])
    raw = raw_of(read_string(ctx, args[1]))
    if first < 0 and last < 0 and first > last:
        return 0
    start, stop = bit_range(first, last, len(raw), by_bits)
    if stop <= start:
        return 0
    head, tail = start & 7, -stop & 7
    covered = raw[start >> 3 : (stop + 7) >> 3]
    outside = (covered[0] >> (8 - head)).bit_count() + (covered[-1] & ((1 << tail) - 1)).bit_count()
    return int.from_bytes(covered, "little").bit_count() - outside


def blot_out(piece: bytearray, index: int, mask: int, bit: int) -> None:
    """Make the bits of ``mask`` in one byte the opposite of the ``bit`` that is searched."""
    piece[index] = piece[index] & ~mask & 255 if bit else piece[index] | mask


def first_bit(raw: bytes | bytearray, bit: int, start: int, stop: int) -> int:
    """Return the position of the first ``bit`` in the bits ``start`` to ``stop - 1``, or -1."""
    boring = ZEROS if bit else ONES
    first_byte, last_byte = start >> 3, (stop - 1) >> 3
    for position in range(first_byte, last_byte + 1, PIECE_BYTES):
        piece = raw[position : min(position + PIECE_BYTES, last_byte + 1)]
        if piece == boring:
            continue
        searched = bytearray(piece)
        if position == first_byte:
            blot_out(searched, 0, (0xFF00 >> (start & 7)) & 255, bit)
        if position + len(piece) > last_byte:
            blot_out(searched, -1, (1 << (-stop & 7)) - 1, bit)
        rest = searched.lstrip(boring[:1])
        if rest:
            byte = rest[0] if bit else 255 - rest[0]
            return (position + len(piece) - len(rest)) * 8 + 8 - byte.bit_length()
    return -1


def bitpos(ctx: Context, args: Args) -> Reply:
    """Find the first set or clear bit of a string or of a range of it."""
    bit = integer(args[2])
    if bit not in (0, 1):
        raise RequestError("The bit argument must be 1 or 0.")
    count = len(args)
    if count > 6:
        raise RequestError(SYNTAX_ERROR)
    first = integer(args[3]) if count > 3 else 0
    by_bits = count == 6 and bits_are_the_unit(args[5])
    last = integer(args[4]) if count > 4 else -1
    value = read_string(ctx, args[1])
    if value is None:
        return -1 if bit else 0
    raw = raw_of(value)
    start, stop = bit_range(first, last, len(raw), by_bits)
    if stop <= start:
        return -1
    position = first_bit(raw, bit, start, stop)
    # A string without an explicit end is followed by zeros without end.
    return stop if position < 0 and not bit and count < 5 else position


def bitop(ctx: Context, args: Args) -> Reply:
    """Combine strings bit by bit and store the result; shorter ones are padded with zero bytes. Answer its length."""
    operation = args[1].upper()
    if operation not in (b"AND", b"OR", b"XOR", b"NOT"):
        raise RequestError(SYNTAX_ERROR)
    if operation == b"NOT" and len(args) != 4:
        raise RequestError("BITOP NOT must be called with a single source key.")
    sources = [raw_of(read_string(ctx, key)) for key in args[3:]]
    size = max(map(len, sources))
    if size == 0:
        ctx.db.delete(args[2])
        return 0
    ctx.db.set(args[2], combined(operation, sources, size))
    return size


def combined(operation: bytes, sources: list[bytes | bytearray], size: int) -> bytearray:
    """Return the strings combined bit by bit: a bytearray, as Redis stores the result raw, whatever its length.

    Little-endian integers make the padding of shorter strings no work.
    """
    if operation == b"NOT":
        return bytearray(sources[0].translate(INVERTED))
    result = bytearray(size)
    for position in range(0, size, PIECE_BYTES):
        stop = min(position + PIECE_BYTES, size)
        total = int.from_bytes(sources[0][position:stop], "little")
        for source in sources[1:]:
            number = int.from_bytes(source[position:stop], "little")
            if operation == b"AND":
                total &= number
            elif operation == b"OR":
                total |= number
            else:
                total ^= number
        result[position:stop] = total.to_bytes(stop - position, "little")
    return result


_row = Family("bitmap", "bitmap").row
_OF_READ: Final = "O(N) where N is the number of bytes looked at"
_OF_ALL: Final = "O(N) where N is the number of bytes of all strings"

ROWS: Final = [
    _row(
        "setbit",
        setbit,
        4,
        "write denyoom",
        ONE_KEY,
        "2.2.0",
        "Sets or clears one bit of a string.",
        check_growth=check_setbit,
    ),
    _row("getbit", getbit, 3, "readonly fast", ONE_KEY, "2.2.0", "Returns one bit of a string."),
    _row("bitcount", bitcount, -2, "readonly", ONE_KEY, "2.6.0", "Counts the set bits of a string.", _OF_READ),
    _row("bitpos", bitpos, -3, "readonly", ONE_KEY, "2.8.7", "Finds the first set or clear bit.", _OF_READ),
    _row("bitop", bitop, -4, "write denyoom", KeySpec(2, -1), "2.6.0", "Combines strings bit by bit.", _OF_ALL),
]
