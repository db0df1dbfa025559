"""Refusals: their order, and their words against a real Redis where it has the case."""

from __future__ import annotations

import pytest

from kvservice.admission import refusal, unknown_command
from kvservice.commands.registry import TABLE
from kvservice.errors import Loading, RedanError
from tests.kvservice.fake_node import Peer

KEY_BYTES_MAX = 8


def refused(line: str, *, authenticated: bool = True, node: RedanError | None = None) -> str:
    """Return the error line of a command, or an empty one."""
    args = line.encode().split()
    row = TABLE.find(args[0])
    assert row is not None
    peer = Peer(1)
    peer.authenticated = authenticated
    error = refusal(row, args, peer, node, KEY_BYTES_MAX)
    return "" if error is None else error.line


@pytest.mark.parametrize(
    ("line", "authenticated", "is_loading", "prefix"),
    [
        ("GET", False, True, "ERR wrong number of arguments for 'get' command"),
        ("GET a b", False, True, "ERR wrong number of arguments for 'get' command"),
        ("GET waytoolongkey", False, True, "NOAUTH"),
        ("GET waytoolongkey", True, True, "LOADING"),
        ("GET waytoolongkey", True, False, "ERR key is 13 bytes long, allowed are 0..8 (key-bytes-max)"),
        ("GET short", True, False, ""),
        ("AUTH x", False, True, ""),
        ("HELLO", False, True, ""),
        ("PING", False, False, "NOAUTH"),
        ("INFO", True, True, ""),
        ("MSET a 1 waytoolongkey 2", True, False, "ERR key is 13"),
        ("MSET a waytoolongvalue", True, False, ""),
    ],
)
def test_the_first_reason_in_the_order_of_redis_is_given(
    line: str, authenticated: bool, is_loading: bool, prefix: str
) -> None:
    told = refused(line, authenticated=authenticated, node=Loading() if is_loading else None)
    assert told.startswith(prefix)
    assert bool(told) == bool(prefix)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([b"nope"], "ERR unknown command 'nope', with args beginning with: "),
        ([b"nope", b"a", b"b c"], "ERR unknown command 'nope', with args beginning with: 'a' 'b c' "),
        ([b"no\r\npe", b"a\nb"], "ERR unknown command 'no  pe', with args beginning with: 'a b' "),
    ],
)
def test_an_unknown_command_is_repeated_on_one_line(args: list[bytes], line: str) -> None:
    assert unknown_command(args).line == line


def test_an_unknown_command_is_repeated_in_part_only() -> None:
    line = unknown_command([b"n" * 5000, b"a" * 100, b"b" * 5000, b"c" * 5000]).line
    assert len(line) < 400
    assert "'" + "n" * 128 + "'" in line
    assert "a" * 100 in line
    assert "c" not in line.replace("command", "")


def test_bytes_that_are_no_text_survive_in_the_error() -> None:
    assert unknown_command([b"\xff\xfe"]).line.encode("utf-8", "surrogateescape").find(b"'\xff\xfe'") > 0
