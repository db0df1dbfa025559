"""80-bit floating point, exactly: what INCRBYFLOAT and HINCRBYFLOAT calculate with in Redis on x86-64.

A Python float would answer 0.30000000000000004 for 0.1 + 0.2 where Redis answers 0.3, and the answer would be stored.
Integers do here what the x87 does: a number is mantissa × 2^exponent, with 64 bits of mantissa, rounded half to even.

Guarantees: reading, adding and printing are each rounded once and correctly, the same on every node and platform.
Leaves to the caller: turning None (infinity) and ValueError (not a number) into its errors.
Reference: Intel SDM volume 1, section 4.2.2; C11 7.22.1.3 (strtold) and 7.21.6.1 (``%.17Lf``).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MANTISSA_BITS: Final = 64
EXPONENT_MAX: Final = 16384
"""The first power of two that is too large."""
EXPONENT_MIN: Final = -16445
"""The power of two of the last bit of the smallest subnormal number."""
TEXT_BYTES_MAX: Final = 5 * 1024 - 1
"""Redis copies the text into a buffer of 5 KiB before it reads it; the longest finite number prints 4,933 digits."""
DECIMALS: Final = 17
DIGITS_AT_ONCE: Final = 4000
"""Python refuses to convert more than 4,300 digits in one go (``sys.get_int_max_str_digits``)."""

WRITTEN_EXPONENT_MAX: Final = 40_000
"""Beyond this the result is infinity or zero: 5,119 hexadecimal digits move it by 20,476 and the range is ±16,445."""

_DECIMAL: Final = re.compile(rb"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)([0-9]+))?")
_HEXADECIMAL: Final = re.compile(rb"([+-]?)0[xX]([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?)([0-9]+))?")
_INFINITY: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)


class LongDouble(NamedTuple):
    """A finite number: ``mantissa * 2**exponent``; the mantissa carries the sign and has at most 64 bits."""

    mantissa: int
    exponent: int


def parse(text: bytes) -> LongDouble | None:
    """Return the number nearest to what ``text`` spells, or None for infinity.

    Raise ValueError for anything else: text around the number, NaN, and numbers out of range (too large, or not zero
    but rounded to it).
    """
    if not 0 < len(text) <= TEXT_BYTES_MAX:
        raise ValueError("empty or too long")
    if _INFINITY.fullmatch(text):
        return None
    match = _DECIMAL.fullmatch(text)
    base, digit_exponent = 10, 1
    if match is None:
        match = _HEXADECIMAL.fullmatch(text)
        base, digit_exponent = 2, 4
    if match is None:
        raise ValueError("not a number")
    sign, whole, fraction, exponent_sign, exponent_digits = (part or b"" for part in match.groups())
    digits = whole + fraction
    if not digits:
        raise ValueError("no digits")
    number = int(digits, 16) if base == 2 else _integer_of(digits)
    exponent = _exponent_of(exponent_digits, exponent_sign == b"-") - len(fraction) * digit_exponent
    if number == 0:
        return LongDouble(0, 0)
    if exponent >= 0:
        rounded = _rounded_quotient(number * base**exponent, 1)
    else:
        rounded = _rounded_quotient(number, base**-exponent)
    if rounded is None or rounded.mantissa == 0:
        raise ValueError("out of range")
    return LongDouble(-rounded.mantissa, rounded.exponent) if sign == b"-" else rounded


def add(left: LongDouble, right: LongDouble) -> LongDouble | None:
    """Return the sum, or None if it is too large and so infinite."""
    exponent = min(left.exponent, right.exponent)
    total = (left.mantissa << (left.exponent - exponent)) + (right.mantissa << (right.exponent - exponent))
    rounded = _rounded(abs(total), exponent)
    if rounded is None or total >= 0:
        return rounded
    return LongDouble(-rounded.mantissa, rounded.exponent)


def text_of_number(number: LongDouble) -> bytes:
    """Return the number with up to 17 digits after the point, no exponent and no zeros at the end."""
    mantissa = abs(number.mantissa)
    if number.exponent >= 0:
        whole, fraction = mantissa << number.exponent, 0
    else:
        whole, fraction = divmod(_shifted_right(mantissa * 10**DECIMALS, -number.exponent), 10**DECIMALS)
    text = _digits_of(whole)
    if fraction:
        text += b"." + (b"%017d" % fraction).rstrip(b"0")
    return b"-" + text if number.mantissa < 0 and text != b"0" else text


def _exponent_of(digits: bytes, is_negative: bool) -> int:
    """Return the exponent that was written down, within bounds that no number can come back from."""
    significant = digits.lstrip(b"0")
    size = int(significant or b"0") if len(significant) <= 6 else WRITTEN_EXPONENT_MAX
    size = min(size, WRITTEN_EXPONENT_MAX)
    return -size if is_negative else size


def _integer_of(digits: bytes) -> int:
    head = digits[:-DIGITS_AT_ONCE]
    tail = int(digits[-DIGITS_AT_ONCE:])
    return int(head) * 10**DIGITS_AT_ONCE + tail if head else tail


def _digits_of(number: int) -> bytes:
    head, tail = divmod(number, 10**DIGITS_AT_ONCE)
    return b"%d%04000d" % (head, tail) if head else b"%d" % tail


def _shifted_right(number: int, bits: int) -> int:
    """Return ``number / 2**bits``, rounded half to even."""
    quotient = number >> bits
    rest = number & ((1 << bits) - 1)
    half = 1 << (bits - 1)
    return quotient + (rest > half or (rest == half and quotient & 1))


def _rounded(number: int, exponent: int) -> LongDouble | None:
    """Return ``number * 2**exponent`` with the precision that there is, or None if it is too large."""
    surplus = max(number.bit_length() - MANTISSA_BITS, EXPONENT_MIN - exponent)
    if surplus > 0:
        number = _shifted_right(number, surplus)
        exponent += surplus
    return LongDouble(number, exponent) if number.bit_length() + exponent <= EXPONENT_MAX else None


def _rounded_quotient(numerator: int, denominator: int) -> LongDouble | None:
    """Return ``numerator / denominator`` with the precision that there is, or None if it is too large."""
    shift = MANTISSA_BITS + 2 - numerator.bit_length() + denominator.bit_length()
    if shift > 0:
        quotient, rest = divmod(numerator << shift, denominator)
    else:
        quotient, rest = divmod(numerator, denominator << -shift)
    # The bit added below the two spare ones says that something is left: no tie where there is none.
    return _rounded(quotient << 1 | (rest != 0), -shift - 1)
