"""Replies and commands as bytes."""

from __future__ import annotations

from unittest.mock import patch

import hiredis
import pytest
from hypothesis import given, strategies

from kvservice.commands.reply import OK, ErrorReply, PushReply, Reply, SetReply, Status, Verbatim
from kvservice.errors import RequestError, WrongType
from kvservice.gateway.resp import (
    decode_commands,
    encode_command,
    encode_commands,
    encode_resp2,
    encode_resp3,
    format_double,
)
from kvservice.keyspace import payload
from tests.harness.hostile import COMMANDS
from tests.harness.resp2 import encode_command as plain_encoding


@pytest.mark.parametrize(
    ("reply", "resp2", "resp3"),
    [
        (b"abc", b"$3\r\nabc\r\n", b"$3\r\nabc\r\n"),
        (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
        (b"x" * 5000, b"$5000\r\n" + b"x" * 5000 + b"\r\n", b"$5000\r\n" + b"x" * 5000 + b"\r\n"),
        (OK, b"+OK\r\n", b"+OK\r\n"),
        (Status(b"OK"), b"+OK\r\n", b"+OK\r\n"),
        (0, b":0\r\n", b":0\r\n"),
        (-1, b":-1\r\n", b":-1\r\n"),
        (1024, b":1024\r\n", b":1024\r\n"),
        (-(1 << 63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        (
            [b"a", None, [1, True]],
            b"*3\r\n$1\r\na\r\n$-1\r\n*2\r\n:1\r\n:1\r\n",
            b"*3\r\n$1\r\na\r\n_\r\n*2\r\n:1\r\n#t\r\n",
        ),
        (
            {b"a": 1, b"b": None},
            b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n$-1\r\n",
            b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n_\r\n",
        ),
        (SetReply([b"a"]), b"*1\r\n$1\r\na\r\n", b"~1\r\n$1\r\na\r\n"),
        (PushReply([b"a"]), b"*1\r\n$1\r\na\r\n", b">1\r\n$1\r\na\r\n"),
        (Verbatim(b"text"), b"$4\r\ntext\r\n", b"=8\r\ntxt:text\r\n"),
        (
            ErrorReply(WrongType()),
            b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        (ErrorReply(RequestError("a\r\nb")), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
        (Status(b"a\nb"), b"+a b\r\n", b"+a b\r\n"),
        (ErrorReply(RequestError("got '\udcff'")), b"-ERR got '\xff'\r\n", b"-ERR got '\xff'\r\n"),
    ],
)
def test_a_reply_is_encoded_in_both_versions(reply: Reply, resp2: bytes, resp3: bytes) -> None:
    assert encode_resp2([reply]) == resp2
    assert encode_resp3([reply]) == resp3
    assert encode_resp2([b"x", reply, 1]) == b"$1\r\nx\r\n" + resp2 + b":1\r\n"


def test_what_is_no_reply_is_not_sent() -> None:
    with pytest.raises(TypeError, match="bytearray is no reply"):
        encode_resp2([bytearray(b"x")])  # type: ignore[list-item]


PLAIN_REPLIES = strategies.recursive(
    strategies.one_of(
        strategies.none(), strategies.booleans(), strategies.integers(-(1 << 63), (1 << 63) - 1), strategies.binary()
    ),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=5), strategies.dictionaries(strategies.binary(), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(strategies.lists(PLAIN_REPLIES, max_size=5))
def test_resp3_clients_read_back_what_was_answered(replies: list[Reply]) -> None:
    reader = hiredis.Reader()
    reader.feed(encode_resp3(replies))
    assert [reader.gets() for _ in replies] == replies
    assert reader.gets() is False


@given(strategies.floats(allow_nan=False))
def test_a_double_reads_back_the_same(value: float) -> None:
    assert float(format_double(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, b"0"),
        (-0.0, b"-0"),
        (3.0, b"3"),
        (-2.5, b"-2.5"),
        (0.1, b"0.1"),
        (0.1 + 0.2, b"0.30000000000000004"),
        (1e8, b"100000000"),
        (1e20, b"1e+20"),
        (1.5e300, b"1.5e+300"),
        (0.00001, b"0.00001"),
        (1e-7, b"1e-7"),
        (5e-324, b"5e-324"),
        (123456789012345680.0, b"123456789012345680"),
        (float("inf"), b"inf"),
        (float("-inf"), b"-inf"),
        (float("nan"), b"nan"),
    ],
)
def test_a_double_prints_as_redis_prints_it(value: float, text: bytes) -> None:
    assert format_double(value) == text


PIECES = strategies.sampled_from([1, 7, payload.PIECE_BYTES])


@given(COMMANDS, PIECES)
def test_commands_are_encoded_canonically_and_read_back(commands: list[list[bytes]], piece_bytes: int) -> None:
    encoded = encode_commands(commands)
    assert encoded == b"".join(map(plain_encoding, commands))
    with patch.object(payload, "PIECE_BYTES", piece_bytes):
        assert decode_commands(encoded) == commands


def test_long_commands_are_encoded_as_short_ones_are() -> None:
    for command in ([b"x" * 1024], [b"x" * 1025], [b"x"] * 1024, [b"x"] * 1025, [b"x" * 100_000, b""]):
        assert encode_command(command) == plain_encoding(command)
    assert encode_commands([]) == b""
    assert decode_commands(b"") == []


@given(COMMANDS, PIECES, strategies.data())
def test_stored_commands_that_were_cut_do_not_read_back(
    commands: list[list[bytes]], piece_bytes: int, data: strategies.DataObject
) -> None:
    encoded = encode_commands(commands)
    boundaries = {len(encode_commands(commands[:count])) for count in range(len(commands) + 1)}
    length = data.draw(strategies.integers(0, len(encoded)).filter(lambda at: at not in boundaries))
    with patch.object(payload, "PIECE_BYTES", piece_bytes), pytest.raises(ValueError, match="stored commands"):
        decode_commands(encoded[:length])


@pytest.mark.parametrize("stray", [b":0\r\n", b":7\r\n", b"#f\r\n", b"+OK\r\n"])
@pytest.mark.parametrize("piece_bytes", [4, payload.PIECE_BYTES])
def test_what_is_no_command_is_not_passed_over(stray: bytes, piece_bytes: int) -> None:
    command = encode_command([b"GET", b"k"])
    with patch.object(payload, "PIECE_BYTES", piece_bytes), pytest.raises(ValueError, match="stored commands"):
        decode_commands(command + stray + command)
