"""The strict parser against Redis's rules, byte by byte."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, strategies

from kvservice.gateway.limits import INLINE_BYTES_MAX, MULTIBULK_LENGTH_MAX, Limits
from kvservice.gateway.resp import encode_command, encode_commands
from kvservice.gateway.walker import ProtocolError, Walker, parse_integer, split_inline
from tests.harness.hostile import COMMANDS, FRAGMENTS, STREAMS, TLS_CLIENT_HELLO, cut
from tests.harness.work import CountedBuffer, steps_of

LIMITS = Limits(bulk_bytes_max=1024)


def walked(
    pieces: list[bytes], limits: Limits = LIMITS, *, authenticated: bool = True
) -> tuple[list[list[bytes]], str | None]:
    """Return the commands that the walker reads, and the fault that stopped it."""
    walker = Walker(limits)
    commands: list[list[bytes]] = []
    try:
        for piece in pieces:
            walker.feed(piece, authenticated)
            while (command := walker.next_command()) is not None:
                if command:
                    commands.append(command)
    except ProtocolError as error:
        return commands, error.text
    return commands, None


@given(COMMANDS, strategies.lists(strategies.integers(0, 400)))
def test_commands_in_any_cut_are_read_back(commands: list[list[bytes]], offsets: list[int]) -> None:
    assert walked(cut(encode_commands(commands), offsets)) == (commands, None)


@given(STREAMS)
def test_any_bytes_read_the_same_whole_and_byte_by_byte(stream: bytes) -> None:
    assert walked([stream]) == walked(cut(stream, range(len(stream))))


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_reads_the_same_cut_at_every_offset(fragment: bytes) -> None:
    stream = b"*1\r\n$4\r\nPING\r\n" + fragment + b"*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n"
    whole = walked([stream])
    for offset in range(1, len(stream)):
        assert walked(cut(stream, [offset])) == whole


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (b"*1000000000\r\n", "Protocol error: invalid multibulk length"),
        (b"*%d\r\n" % (MULTIBULK_LENGTH_MAX + 1), "Protocol error: invalid multibulk length"),
        (b"*03\r\n", "Protocol error: invalid multibulk length"),
        (b"*abc\r\n", "Protocol error: invalid multibulk length"),
        (b"*1" + b"1" * INLINE_BYTES_MAX, "Protocol error: too big mbulk count string"),
        (b"*1\r\n$1025\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$2147483648\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$1" + b"1" * INLINE_BYTES_MAX, "Protocol error: too big bulk count string"),
        (b"*1\r\n:5\r\n", "Protocol error: expected '$', got ':'"),
        (b"*1\r\n*1\r\n", "Protocol error: expected '$', got '*'"),
        (b"*1\r\n\xe9\r\n", "Protocol error: expected '$', got '\xe9'"),
        (b"*1\r\n\r\n", "Protocol error: expected '$', got ' '"),
        (b'SET "a\r\n', "Protocol error: unbalanced quotes in request"),
        (b"a" * (INLINE_BYTES_MAX + 1), "Protocol error: too big inline request"),
        (b"a" * (INLINE_BYTES_MAX + 1) + b"\r\n", "Protocol error: too big inline request"),
        (b"PI\0NG", "Protocol error: NUL in inline request"),
        (TLS_CLIENT_HELLO, "Protocol error: this port does not speak TLS"),
        (b"POST / HTTP/1.1\r\n", ""),
        (b"Host: here\r\n", ""),
    ],
)
def test_a_broken_stream_is_refused_by_name_behind_the_commands_before_it(stream: bytes, fault: str) -> None:
    assert walked([b"PING\r\n" + stream + b"\r\nPING\r\n"]) == ([[b"PING"]], fault)


@pytest.mark.parametrize("ignored", [b"*0\r\n", b"*0\rX", b"*-1\r\n", b"*-5\r\n", b"\r\n", b"\n", b"   \r\n"])
def test_what_holds_no_command_is_ignored(ignored: bytes) -> None:
    assert walked([ignored + b"PING\r\n" + ignored]) == ([[b"PING"]], None)


def test_the_largest_sizes_allowed_are_taken() -> None:
    most = [b"x"] * MULTIBULK_LENGTH_MAX
    assert walked([encode_command(most)]) == ([most], None)
    longest = [b"y" * 1024]
    assert walked([encode_command(longest)]) == ([longest], None)
    assert walked([b"z" * (INLINE_BYTES_MAX - 1) + b"\r\n"]) == ([[b"z" * (INLINE_BYTES_MAX - 1)]], None)


def test_a_command_larger_than_the_query_buffer_closes_without_an_answer() -> None:
    limits = Limits(bulk_bytes_max=1 << 20, query_buffer_bytes_max=1 << 20)
    half = b"$600000\r\n" + b"v" * 600_000 + b"\r\n"
    assert walked([b"*3\r\n$4\r\nMSET\r\n" + half], limits) == ([], None)
    assert walked([b"*3\r\n$4\r\nMSET\r\n" + half + half[:10]], limits) == ([], "")


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (b"*11\r\n", "Protocol error: unauthenticated multibulk length"),
        (b"*2\r\n$3\r\nGET\r\n$16385\r\n", "Protocol error: unauthenticated bulk length"),
        (encode_command([b"x"] * 10), None),
        (encode_command([b"GET", b"v" * 16_384]), None),
    ],
)
def test_a_stranger_may_send_little(stream: bytes, fault: str | None) -> None:
    assert walked([stream], Limits(), authenticated=False)[1] == fault


def test_commands_pipelined_behind_credentials_have_the_usual_bounds() -> None:
    commands = [[b"auth", b"secret"], [b"MSET"] + [b"x"] * 20]
    assert walked([encode_commands(commands)], authenticated=False) == (commands, None)
    assert walked([b"HELLO 3 AUTH default secret\r\n" + encode_command(commands[1])], authenticated=False)[1] is None


def test_a_stranger_whose_credentials_failed_cannot_go_on_with_a_large_command() -> None:
    start = b"AUTH wrong\r\n*11\r\n$3\r\nSET\r\n$1\r\nk\r\n"
    assert walked([start, b"$1\r\n"], authenticated=False)[1] == "Protocol error: unauthenticated multibulk length"
    start = b"AUTH wrong\r\n*2\r\n$20000\r\nabc"
    assert walked([start, b"d"], Limits(), authenticated=False)[1] == "Protocol error: unauthenticated bulk length"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"  SET  key\tvalue ", [b"SET", b"key", b"value"]),
        (rb'ECHO "a b\n\r\t\b\a\x41\xzz\"\q"', [b"ECHO", b'a b\n\r\t\b\aAxzz"q']),
        (rb"ECHO 'a \' b\n'", [b"ECHO", rb"a ' b\n"]),
        (rb"ECHO a\x41b", [b"ECHO", rb"a\x41b"]),
        (b'a"b"', [b"ab"]),
        (b"''", [b""]),
        (b'"a"b', None),
        (b"'a'b", None),
        (b'"a', None),
        (b"'a", None),
        (rb"'a\'", None),
        (rb'"a\"', None),
        (b'"a"\v"b"', [b"a", b"b"]),
        (b"a\vb\fc", [b"a\vb\fc"]),
        (b"\va", [b"a"]),
    ],
)
def test_an_inline_command_is_split_as_redis_splits_it(line: bytes, words: list[bytes] | None) -> None:
    assert split_inline(line) == words


@pytest.mark.parametrize("text", [b"0", b"1", b"-1", b"9223372036854775807", b"-9223372036854775808"])
def test_a_canonical_integer_is_read(text: bytes) -> None:
    assert parse_integer(text) == int(text)


@pytest.mark.parametrize("text", [b"", b"-", b"-0", b"01", b"+1", b" 1", b"1 ", b"1\n", b"9223372036854775808", b"1_0"])
def test_any_other_spelling_of_an_integer_is_not(text: bytes) -> None:
    assert parse_integer(text) is None


def test_lengths_that_lie_take_no_memory() -> None:
    tracemalloc.start()
    try:
        walkers = [Walker(Limits()) for _ in range(100)]
        for walker in walkers:
            walker.feed(b"*1048576\r\n$16777216\r\nabc")
            assert walker.next_command() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 2048


@pytest.mark.parametrize(
    "stream",
    [
        encode_command([b"SET", b"key", b"v" * 60_000]),
        b"x" * (INLINE_BYTES_MAX - 1) + b"\r\n",
        encode_command([b"k"] * 10_000),
        b"*1\r\n$" + b"1" * 60_000,
    ],
    ids=["long argument", "long line", "many arguments", "long header"],
)
def test_bytes_that_trickle_in_cost_the_same_each(stream: bytes) -> None:
    """A walker that searched again what it has searched would touch each byte thousands of times."""
    walker, buffer = Walker(Limits()), CountedBuffer()
    walker._buffer = buffer
    commands: list[list[bytes]] = []

    def trickle() -> None:
        for at in range(len(stream)):
            assert not commands
            walker.feed(stream[at : at + 1])
            if (command := walker.next_command()) is not None:
                commands.append(command)

    # Half of the steps are the test's own and the buffer's.
    assert steps_of(trickle) < 100 * len(stream)
    assert buffer.touched < 8 * len(stream)
    assert len(commands) == walker.is_between_commands == stream.endswith(b"\r\n")


def test_the_length_under_way_says_what_is_missing() -> None:
    walker = Walker(Limits())
    for piece, missing in ((b"*2\r\n", 0), (b"$3\r\nGET\r\n$10", 0), (b"\r\n", 12), (b"0123456789", 2), (b"\r", 1)):
        walker.feed(piece)
        assert walker.next_command() is None
        assert walker.missing_bytes == missing
    walker.feed(b"\n")
    assert walker.next_command() == [b"GET", b"0123456789"]
    assert walker.missing_bytes == 0


def test_an_argument_may_not_be_bounded_below_what_short_commands_need() -> None:
    with pytest.raises(ValueError, match="the least is 1024"):
        Limits(bulk_bytes_max=1023)
