"""COMMAND DOCS tells the arguments of every command as a real redis-server does."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from kvservice.commands.arguments import NOTATION, Argument, arguments_of, documented
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import SetReply, Status
from tests.harness.oracle import Oracle

ROWS = {row.name: row for parent in TABLE.rows for row in (parent, *parent.subcommands.values())}
UNKNOWN_TO_7_0 = {"client|no-touch", "client|setinfo", "cluster|myshardid", "waitaof"}
DIFFERENCES = {
    "client|kill": "MAXAGE came later",
    "command|getkeys": "was described later",
    "command|getkeysandflags": "was described later",
}
OTHER_ARITY = {
    "quit": "takes anything and looks at nothing",
    "debug": "is for those who know it",
    "psync": "has more than Redis tells",
    "client|kill": "needs one of what Redis tells may all be left out",
}


def plain(value: Any) -> Any:
    """Return maps as dicts of text and numbers, without what 7.2 has more than 7.0."""
    if isinstance(value, Status):
        return value.text.decode()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {plain(name): plain(part) for name, part in value.items() if name != b"display_text"}
    if isinstance(value, SetReply):
        return sorted(map(plain, value))
    return [plain(part) for part in value] if isinstance(value, list) else value


def flat(value: Any, name: str = "arguments") -> Any:
    """Return a RESP2 reply, in which maps are lists, in the same form."""
    if name == "arguments":
        return [
            {key: flat(part, key) for key, part in zip(argument[::2], argument[1::2], strict=True)}
            for argument in value
        ]
    return sorted(value) if name == "flags" else value


@pytest.mark.parametrize("name", sorted(ROWS.keys() - UNKNOWN_TO_7_0 - DIFFERENCES.keys()))
def test_the_arguments_of_a_command_are_those_of_the_real_command_docs(oracle: Oracle, name: str) -> None:
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(oracle.send([[b"COMMAND", b"DOCS", name.encode()]])[0])
    [_, fields] = reader.gets()
    theirs = dict(zip(fields[::2], fields[1::2], strict=True))
    assert plain(documented(arguments_of(name))) == flat(theirs.get("arguments", []))


def words_of(arguments: tuple[Argument, ...]) -> tuple[int, float]:
    """Return how many words arguments take at least and at most."""
    least, most = 0, 0.0
    for argument in arguments:
        inside = [words_of((part,)) for part in argument.parts]
        if argument.kind == "oneof":
            low, high = min(low for low, _ in inside), max(high for _, high in inside)
        elif argument.kind == "block":
            low, high = sum(low for low, _ in inside), sum(high for _, high in inside)
        else:
            low, high = int(argument.kind != "pure-token"), float(argument.kind != "pure-token")
        low, high = low + bool(argument.token), high + bool(argument.token)
        least += 0 if "optional" in argument.flags else low
        most += float("inf") if "multiple" in argument.flags else high
    return least, most


@pytest.mark.parametrize("name", sorted(ROWS.keys() - OTHER_ARITY.keys()))
def test_the_arguments_of_a_command_go_with_its_arity(name: str) -> None:
    row = ROWS[name]
    if row.subcommands:
        assert arguments_of(name) == ()
        return
    least, most = words_of(arguments_of(name))
    named = 2 if "|" in name else 1
    assert row.arity_min <= named + least
    if row.arity > 0:
        assert named + most == row.arity
    else:
        assert named + most > row.arity_min


def test_nothing_is_described_that_is_not_there() -> None:
    assert set(NOTATION) <= ROWS.keys()


def test_what_is_shown_of_an_argument_is_its_name_as_in_7_2() -> None:
    [value] = documented(arguments_of("echo"))
    assert value == {b"name": b"message", b"type": b"string", b"display_text": b"message"}
    group = documented(arguments_of("mset"))[0]
    assert isinstance(group, dict)
    assert b"display_text" not in group
