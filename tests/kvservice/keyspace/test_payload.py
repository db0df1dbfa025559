"""The commands of an entry, read back in pieces: the same ones wherever a piece ends."""

from __future__ import annotations

from itertools import chain

import pytest

from kvservice.gateway.resp import encode_commands
from kvservice.keyspace import payload as module
from kvservice.keyspace.payload import groups_of

COMMANDS = [
    [b"SET", b"k", b"v"],
    [b"SET", b"empty", b""],
    [b"SET", b"lines", b"*1\r\n$1\r\nx\r\n"],
    [b"MSET", *(b"%d" % number for number in range(40))],
    [b"FLUSHALL"],
    [b"SET", b"long", bytes(range(256)) * 3],
]


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 64, 500, 1 << 14])
def test_commands_are_the_same_in_pieces_of_any_length(piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", piece_bytes)
    groups = [commands for commands, _ in groups_of(encode_commands(COMMANDS))]
    assert list(chain.from_iterable(groups)) == COMMANDS
    assert all(groups)


def test_an_entry_is_read_in_several_groups() -> None:
    commands = [[b"SET", b"key:%d" % number, b"x" * 64] for number in range(1000)]
    groups = [group for group, _ in groups_of(encode_commands(commands))]
    assert list(chain.from_iterable(groups)) == commands
    assert max(map(len, groups)) < 200


def test_nothing_holds_no_group() -> None:
    assert list(groups_of(b"")) == []
