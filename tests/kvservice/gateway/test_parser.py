"""The fast parser answers what the walker answers."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings, strategies

from kvservice.commands.table import are_alike
from kvservice.gateway import parser as parser_module
from kvservice.gateway.limits import Limits
from kvservice.gateway.parser import Parser
from kvservice.gateway.resp import decode_commands, encode_command, encode_commands
from kvservice.gateway.walker import Walker
from kvservice.keyspace.uniform import read_uniform
from tests.harness.hostile import COMMANDS, FRAGMENTS, STREAMS, cut
from tests.harness.work import CountedBuffer, steps_of
from tests.kvservice.gateway.test_walker import walked

LIMITS = Limits(bulk_bytes_max=1024)
GET = encode_command([b"GET", b"key"])


def parsed(pieces: list[bytes], limits: Limits = LIMITS) -> tuple[list[list[bytes]], str | None]:
    """Return what the parser reads, having checked what it says about raw and held bytes."""
    parser = Parser(limits)
    commands: list[list[bytes]] = []
    for piece in pieces:
        result = parser.feed(piece)
        commands += map(list, result.commands)
        assert all(result.commands)
        assert not result.are_alike or are_alike(result.commands)
        if result.raw is not None:
            assert decode_commands(result.raw) == list(map(list, result.commands)) != []
        if result.error is not None:
            return commands, result.error
    return commands, None


@settings(max_examples=400)
@given(STREAMS, strategies.lists(strategies.integers(0, 200), max_size=4))
@example(b"*1\r\n$4\r\nPINGXX*1\r\n+OK\r\n", [])
@example(b"*2\r\n$3\r\nabcXX+OK\r\n", [])
@example(b"*1\r\n(123\r\n", [])
@example(b"*2\r\n$4\r\nPING\r\n$0\r\n", [])
@example(b"*1\r\n$4\r\nPING\r\nrest", [])
@example(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nrest", [])
@example(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\nrest", [])
@example(b"*4\r\n$4\r\nMGET\r\n$1\r\nk\r\n$1\r\nv\r\n$1\r\nw\r\nrest", [])
@example(b"POST / HTTP/1.1\r\n", [])
@example(b"PING\nhost: here\n", [])
@example(b"PING\r\n\x16\x03\n", [])
@example(b"PING\r\n" + b"a" * 65_537 + b"\r\n", [])
@example(b"PING\na\vb\nPOST\n", [])
@example(b"*1\r\n$14\r\n*1\r\n$4\r\nPING\r\n\r\n", [])
def test_any_bytes_in_any_cut_read_as_the_walker_reads_them(stream: bytes, offsets: list[int]) -> None:
    expected = walked([stream])
    assert parsed([stream]) == expected
    assert parsed(cut(stream, offsets)) == expected
    assert parsed(cut(stream, range(len(stream)))) == expected


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_anywhere_reads_as_the_walker_reads_it(fragment: bytes) -> None:
    for before in (b"", GET, GET + b"*2\r\n", GET + b"*2\r\n$3\r\nGETxx"):
        for behind in (b"", GET, GET[:9], b"$1\r\nk\r\n" + GET):
            stream = before + fragment + behind
            expected = walked([stream])
            for offset in range(len(stream)):
                assert parsed(cut(stream, [offset])) == expected


@pytest.mark.parametrize(
    "text", [b"1\r\n", b"3\r\nabc\r\n", b"7\r\ntxt:abc\r\n", b"1\r\n$1\r\na\r\n$1\r\nb\r\n", b"\r\n", b"t\r\n"]
)
def test_no_type_that_hiredis_knows_passes_for_a_bulk_string(text: bytes) -> None:
    for code in range(256):
        typed = bytes([code]) + text
        for stream in (typed, GET + typed + GET, b"*1\r\n" + typed, b"*2\r\n$3\r\nabcXX" + typed):
            assert parsed([stream]) == walked([stream])


@given(COMMANDS)
def test_whole_commands_come_with_bytes_for_the_log(commands: list[list[bytes]]) -> None:
    encoded = encode_commands(commands)
    result = Parser(Limits()).feed(encoded)
    assert (list(map(list, result.commands)), result.raw, result.error) == (commands, encoded, None)


def test_each_way_of_reading_is_taken_where_it_should_be() -> None:
    short, many, marked = GET, GET * 20, encode_command([b"SET", b"k", b"a=b"]) * 20
    parser = Parser(Limits())
    assert parser_module._read_one(short) == [b"GET", b"key"]
    assert parser_module._read_one(many) is None
    assert parser_module._read_whole(many) == [[b"GET", b"key"]] * 20
    assert read_uniform(marked + b"*3\r\n$3")[1] == len(marked)
    assert read_uniform(marked + many) == ([], 0)
    assert parser_module._read_prefix(marked + many + b"*3\r\n$3")[1] == marked + many
    for chunk in (short, many, marked, marked + many):
        assert parser.feed(chunk).raw == chunk
        assert parser.partial_bytes == 0


@pytest.mark.parametrize("text", [b"a=b", b"a=b\r\n", b"", b"\r\n+", b">" * 70])
def test_a_changed_byte_among_commands_of_one_shape_reads_as_the_walker_reads_it(text: bytes) -> None:
    stream = encode_commands([[b"SET", b"k=%d" % number, text] for number in range(9)])
    for place in range(len(stream)):
        assert parsed(cut(stream, [place])) == walked([stream])
        for byte in b"\r\n$*+=1":
            changed = stream[:place] + bytes([byte]) + stream[place + 1 :]
            assert parsed([changed]) == walked([changed])


@pytest.mark.parametrize("first", [[b"GET", b"x"], [b"SET", b"x", b"1"], [b"SET", b"k=00", b"v" * 20]])
def test_a_cut_command_before_some_of_one_shape_is_not_taken_for_one_of_them(first: list[bytes]) -> None:
    commands = [first, *([b"APPEND", b"k=%02d" % number, b"v" * 20] for number in range(16))]
    stream = encode_commands(commands)
    for offset in range(1, 40):
        assert parsed(cut(stream, [offset])) == (commands, None)


@settings(max_examples=200)
@given(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from([b"SET", b"GET", b"APPEND"]), strategies.integers(0, 40), strategies.integers(1, 40)
        ),
        min_size=1,
        max_size=4,
    ),
    strategies.lists(strategies.integers(0, 4000), max_size=4),
)
def test_runs_of_one_shape_in_any_cut_read_as_they_were_encoded(
    runs: list[tuple[bytes, int, int]], offsets: list[int]
) -> None:
    commands = [
        [name, b"k=%02d" % number] if name == b"GET" else [name, b"k=%02d" % number, b">" * length]
        for name, length, count in runs
        for number in range(count)
    ]
    assert parsed(cut(encode_commands(commands), offsets)) == (commands, None)


def test_claims_are_weighed_against_the_chunk() -> None:
    assert not parser_module._claims_too_much([b"40000", b"60000"], 600)
    assert not parser_module._claims_too_much([b"100000", b"100000"], 600_000)
    assert parser_module._claims_too_much([b"100000", b"100000"], 599_000)
    assert parser_module._claims_too_much([b"1048577"], 1 << 40)


def test_complete_commands_before_a_cut_one_keep_their_bytes() -> None:
    parser = Parser(Limits())
    result = parser.feed(GET * 3 + GET[:10])
    assert (result.commands, result.raw) == ([[b"GET", b"key"]] * 3, GET * 3)
    assert parser.partial_bytes == len(b"GE")
    rest = parser.feed(GET[10:] + GET)
    assert (rest.commands, rest.raw) == ([[b"GET", b"key"]] * 2, None)
    assert parser.partial_bytes == 0


def test_a_chunk_longer_than_an_argument_may_be_is_still_checked() -> None:
    long = encode_command([b"SET", b"k", b"v" * 1025])
    fine = encode_command([b"SET", b"k", b"v" * 1024])
    assert parsed([fine * 5]) == ([[b"SET", b"k", b"v" * 1024]] * 5, None)
    assert parsed([fine + long]) == ([[b"SET", b"k", b"v" * 1024]], "Protocol error: invalid bulk length")


def test_a_stranger_is_read_by_the_walker_only() -> None:
    parser = Parser(Limits())
    assert parser.feed(encode_command([b"x"] * 11), authenticated=False).error is not None
    parser = Parser(Limits())
    assert parser.feed(encode_command([b"x"] * 11), authenticated=True).error is None
    parser = Parser(Limits())
    assert parser.feed(b"*3\r\n$3\r\nSET\r\n", authenticated=False).error is None
    assert (
        parser.feed(b"$1\r\nk\r\n$20000\r\n", authenticated=False).error
        == "Protocol error: unauthenticated bulk length"
    )


def test_a_stranger_who_has_become_a_client_ends_a_large_command() -> None:
    parser = Parser(Limits())
    assert parser.feed(b"*2\r\n$3\r\nGET\r\n", authenticated=False).error is None
    assert parser.feed(b"$20000\r\n", authenticated=True).error is None
    assert parser.missing_bytes == 20_002
    assert parser.feed(b"k" * 20_000 + b"\r\n").commands == [[b"GET", b"k" * 20_000]]


def test_a_small_query_buffer_is_minded_in_every_way_of_reading() -> None:
    limits = Limits(1 << 20, 1 << 20)
    many = encode_command([b"x"] * 30_000)
    assert walked([many], limits) == parsed([many], limits) == ([], "")


def test_a_long_value_in_pieces_is_read_whole() -> None:
    value = bytes(range(256)) * 4096
    stream = encode_command([b"SET", b"key", value])
    assert parsed(cut(stream, range(0, len(stream), 65_536)), Limits()) == ([[b"SET", b"key", value]], None)


@pytest.mark.parametrize(
    "stream", [b"*1048576\r\n", b"*99999\r\n" * 9, b"*1000000000\r\n", b"*1\r\n$16777216\r\n", b"*9\r\n" * 2000]
)
def test_headers_that_lie_take_little_memory_for_long(stream: bytes) -> None:
    parsers = [Parser(Limits()) for _ in range(200)]
    tracemalloc.start()
    try:
        for parser in parsers:
            parser.feed(stream)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200 * (2048 + 2 * len(stream))
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "stream",
    [
        b"*99999\r\n" * 30_000,
        b"*99999\r\n$1\r\na\r\n" * 18_000,
        b"*99\r\n" * 50_000,
        b"*1\r\n" * 65_000,
        b"\r\n" * 130_000,
        b"*0\r\n" * 65_000,
        b"*-1\r\n" * 50_000,
        b"a\n" * 130_000,
        b'SET "a" b\r\n' * 24_000,
        b"*0\r\n" + b"*1\r\n$4\r\nPING\r\n" * 18_000,
        b'"a"' + b" " * 60_000 + b"\n",
        b'"' + b"\\" * 60_001 + b"\n",
        b"'" + b"\\'" * 30_000 + b"\n",
    ],
    ids=lambda stream: repr(stream[:16]),
)
def test_a_full_read_of_anything_takes_little_work_and_memory(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 KiB is what one read brings; the bounds are about twice what the dearest of these streams needs."""
    buffers: list[CountedBuffer] = []

    def counted_walker(limits: Limits) -> Walker:
        walker = Walker(limits)
        buffers.append(CountedBuffer())
        walker._buffer = buffers[-1]
        return walker

    with monkeypatch.context() as patch:
        patch.setattr(parser_module, "Walker", counted_walker)
        assert steps_of(lambda: Parser(Limits()).feed(stream)) < 25 * len(stream)
    assert sum(buffer.touched for buffer in buffers) < 6 * len(stream)
    tracemalloc.start()
    try:
        Parser(Limits()).feed(stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
