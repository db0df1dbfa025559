"""Bit commands on long strings, against the same thing done bit by bit."""

from __future__ import annotations

import random
from operator import and_, or_, xor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvservice.commands.bitfield import Width, field_at, set_field
from kvservice.commands.bits import PIECE_BYTES, combined, first_bit
from kvservice.commands.reply import ErrorReply
from kvservice.keyspace.values import STRING_BYTES_MAX
from tests.harness.inprocess import InProcess
from tests.harness.oracle import Oracle

EDGES = [0, 1, 7, 8, 9, 8 * PIECE_BYTES - 1, 8 * PIECE_BYTES, 8 * PIECE_BYTES + 1, 16 * PIECE_BYTES - 3]


def bits_of(raw: bytes) -> list[int]:
    return [byte >> (7 - bit) & 1 for byte in raw for bit in range(8)]


@given(st.binary(min_size=1, max_size=9), st.integers(0, 71), st.integers(1, 72), st.sampled_from([0, 1]))
def test_the_first_bit_is_the_one_that_a_look_at_each_finds(raw: bytes, start: int, stop: int, bit: int) -> None:
    stop = min(stop, len(raw) * 8)
    start = min(start, stop - 1)
    expected = next((at for at in range(start, stop) if bits_of(raw)[at] == bit), -1)
    assert first_bit(raw, bit, start, stop) == expected


@pytest.mark.parametrize("bit", [0, 1])
@pytest.mark.parametrize("at", EDGES)
def test_a_single_bit_is_found_across_pieces(bit: int, at: int) -> None:
    raw = bytearray((b"\x00" if bit else b"\xff") * (2 * PIECE_BYTES))
    raw[at >> 3] ^= 128 >> (at & 7)
    assert first_bit(raw, bit, 0, len(raw) * 8) == at
    assert first_bit(raw, bit, at, at + 1) == at
    assert first_bit(raw, bit, at + 1, len(raw) * 8) == -1
    assert at == 0 or first_bit(raw, bit, 0, at) == -1


@pytest.mark.parametrize(("word", "operator"), [(b"AND", and_), (b"OR", or_), (b"XOR", xor)])
def test_strings_are_combined_byte_by_byte_across_pieces(word: bytes, operator: object) -> None:
    chance = random.Random(7)
    long, short = chance.randbytes(2 * PIECE_BYTES + 5), chance.randbytes(PIECE_BYTES + 3)
    padded = short.ljust(len(long), b"\x00")
    assert callable(operator)
    expected = bytes(operator(left, right) for left, right in zip(long, padded, strict=True))
    assert combined(word, [long, short], len(long)) == expected
    assert combined(word, [short, long], len(long)) == expected


def test_long_strings_are_counted_and_searched_as_redis_does(oracle: Oracle, ours: InProcess) -> None:
    raw = b"\x00" * (PIECE_BYTES + 11) + random.Random(5).randbytes(300) + b"\xff" * (PIECE_BYTES + 3)
    commands = [[b"SET", b"k", raw]]
    for first in (0, 5, PIECE_BYTES - 1, PIECE_BYTES + 11, -PIECE_BYTES - 2, 8 * PIECE_BYTES + 77):
        for last in (-1, -9, PIECE_BYTES, PIECE_BYTES + 100, 8 * PIECE_BYTES + 93):
            for unit in (b"BIT", b"BYTE"):
                limits = [b"%d" % first, b"%d" % last, unit]
                commands += [[b"BITCOUNT", b"k", *limits], [b"BITPOS", b"k", b"0", *limits]]
                commands.append([b"BITPOS", b"k", b"1", *limits])
    assert ours.send(commands) == oracle.send([[b"FLUSHALL"], *commands])[1:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 1)), max_size=40))
def test_bits_that_were_set_are_read_back(ours: InProcess, changes: list[tuple[int, int]]) -> None:
    ours.flush()
    model: dict[int, int] = {}
    for offset, bit in changes:
        assert ours.run(b"SETBIT", b"k", offset, bit) == model.get(offset, 0)
        model[offset] = bit
    assert [ours.run(b"GETBIT", b"k", offset) for offset in range(310)] == [model.get(at, 0) for at in range(310)]
    assert ours.say("STRLEN k") == (max(model) // 8 + 1 if model else 0)
    assert ours.say("BITCOUNT k") == sum(model.values())


@given(st.booleans(), st.integers(1, 64), st.integers(0, 200), st.integers(-(1 << 70), 1 << 70))
def test_a_field_that_was_set_is_read_back_and_its_neighbours_stay(
    signed: bool, bits: int, offset: int, number: int
) -> None:
    width = Width(signed, bits)
    raw = random.Random(offset).randbytes(40)
    buffer = bytearray(raw)
    set_field(buffer, offset, width, number)
    assert field_at(buffer, offset, width) == width.wrapped(number)
    assert (width.wrapped(number) - number) % (1 << bits) == 0
    assert width.lowest <= width.wrapped(number) <= width.highest
    before, after = bits_of(raw), bits_of(bytes(buffer))
    assert before[:offset] == after[:offset]
    assert before[offset + bits :] == after[offset + bits :]


@pytest.mark.parametrize("command", ["SETBIT k {} 1", "GETBIT k {}", "BITFIELD k SET u8 {} 1", "BITFIELD k GET u8 {}"])
def test_an_offset_beyond_the_longest_string_is_refused_without_making_it(ours: InProcess, command: str) -> None:
    for offset in (STRING_BYTES_MAX * 8, 1 << 62, -1):
        reply = ours.say(command.format(offset))
        assert isinstance(reply, ErrorReply)
        assert reply.text == b"ERR bit offset is not an integer or out of range"
    assert ours.say("EXISTS k") == 0
