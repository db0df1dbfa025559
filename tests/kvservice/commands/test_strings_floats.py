"""80-bit floats: ``long_double`` against the arithmetic of a real redis-server, and at the ends of its range."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvservice.commands import long_double
from kvservice.commands.long_double import LongDouble, add, parse, text_of_number
from tests.harness.inprocess import InProcess
from tests.harness.oracle import Oracle
from tests.harness.resp2 import encode_reply

DIGITS = st.text("0123456789", max_size=25)
SIGN = st.sampled_from(["", "-", "+"])
DECIMALS = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}{exponent}",
    SIGN,
    DIGITS,
    st.one_of(st.just(""), DIGITS.map(lambda digits: "." + digits)),
    st.one_of(st.just(""), st.integers(-40, 40).map(lambda number: f"e{number}"), st.integers().map("E{}".format)),
)
HEXADECIMALS = st.builds(
    "{}0x{}.{}p{}".format, SIGN, st.text("0123456789abF", max_size=20), st.text("0f8", max_size=9), st.integers(-99, 99)
)


def exact(number: LongDouble | None) -> Fraction:
    """Return a finite number as a fraction, which is the same whatever the exponent."""
    assert number is not None
    return Fraction(number.mantissa) * Fraction(2) ** number.exponent


LARGEST = LongDouble((1 << 64) - 1, 16384 - 64)


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(DECIMALS, HEXADECIMALS), min_size=10, max_size=20))
def test_sums_are_those_of_redis(oracle: Oracle, texts: list[str]) -> None:
    commands = [[b"SET", b"f", texts[0].encode()], *([b"INCRBYFLOAT", b"f", text.encode()] for text in texts)]
    commands += [[b"DEL", b"f"], *([b"INCRBYFLOAT", b"f", text.encode()] for text in texts)]
    theirs = oracle.send([[b"FLUSHALL"], *commands])[1:]
    ours = InProcess()
    for command, reply in zip(commands, theirs, strict=True):
        assert encode_reply(ours.run(*command)) == reply, command


@given(st.fractions())
def test_reading_finds_the_nearest_number(fraction: Fraction) -> None:
    digits = f"{fraction.numerator * 10**30 // fraction.denominator}e-30"
    number = parse(digits.encode())
    assert number is not None
    assert abs(exact(number) - Fraction(digits)) <= abs(Fraction(digits)) / 2**64
    assert abs(number.mantissa).bit_length() <= 64


def test_a_tie_is_rounded_to_even() -> None:
    assert exact(parse(b"18446744073709551617")) == 2**64
    assert exact(parse(b"18446744073709551619")) == 2**64 + 4
    assert exact(parse(b"18446744073709551617.00000000000000000000001")) == 2**64 + 2


def test_the_largest_number_is_read_and_printed() -> None:
    text = text_of_number(LARGEST)
    assert len(text) == 4933
    assert text.startswith(b"118973149535723176502126385303")
    assert exact(parse(text)) == exact(LARGEST)
    assert exact(parse(b"-" + text)) == -exact(LARGEST)


def test_beyond_the_largest_number_is_infinity() -> None:
    assert add(LARGEST, LARGEST) is None
    assert exact(add(LARGEST, LongDouble(1, 0))) == exact(LARGEST)
    for text in (b"1.18973149535723176509e4932", b"1e4933", b"1e999999999999999999", b"0x1p16384"):
        with pytest.raises(ValueError, match="out of range"):
            parse(text)


def test_what_is_rounded_to_zero_is_refused_and_zero_is_not() -> None:
    smallest = Fraction(1, 2**16445)
    assert exact(parse(b"0x1p-16445")) == exact(parse(b"3.6e-4951")) == smallest
    assert exact(parse(b"-0e-99999")) == exact(parse(b"0")) == 0
    for text in (b"1e-4951", b"1e-99999999999999999999", b"0x1p-16447"):
        with pytest.raises(ValueError, match="out of range"):
            parse(text)


def test_the_longest_texts_are_read_at_once() -> None:
    zeros = b"0" * (long_double.TEXT_BYTES_MAX - 1)
    assert exact(parse(zeros + b"7")) == 7
    assert exact(parse(b"0x" + zeros[:4000] + b"1")) == 1
    assert exact(parse(b"0." + zeros[:4900] + b"1e4901")) == 1
    with pytest.raises(ValueError, match="too long"):
        parse(zeros + b"07")


@pytest.mark.parametrize("text", [b"inf", b"-INF", b"+Infinity"])
def test_infinity_is_read_as_none(text: bytes) -> None:
    assert parse(text) is None


@given(st.binary(max_size=8) | st.text("0123456789.eE+-xXpPinfa ", max_size=12).map(str.encode))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    try:
        number = parse(text)
    except ValueError:
        return
    assert number is None or parse(text_of_number(number)) is not None
