from __future__ import annotations

import pytest

from kvservice.commands.reply import Reply, Status
from tests.harness.server_plane import Caller


def texts(reply: Reply) -> list[str]:
    """Return an array of bulk or simple strings as text."""
    assert isinstance(reply, list)
    return [(item.text if isinstance(item, Status) else item).decode() for item in reply]  # type: ignore[union-attr]


def test_bare_command_describes_every_command() -> None:
    caller = Caller()
    described = caller.array("COMMAND")
    assert len(described) == caller.say("COMMAND COUNT") == len(caller.service.table.rows)
    assert all(isinstance(details, list) and len(details) == 10 for details in described)
    assert caller.array("COMMAND INFO") == described


def test_info_answers_in_the_order_asked_and_null_for_unknown_names() -> None:
    described = Caller().array("COMMAND INFO nonsense GET config|get config|nonsense get|nonsense")
    names = [details[0] if isinstance(details, list) else None for details in described]
    assert names == [None, b"get", b"config|get", None, None]


def test_a_container_holds_its_subcommands() -> None:
    [details] = Caller().array("COMMAND INFO config")
    assert isinstance(details, list)
    subcommands = details[9]
    assert isinstance(subcommands, list)
    names = {subcommand[0] for subcommand in subcommands if isinstance(subcommand, list)}
    assert names == {b"config|get", b"config|set", b"config|resetstat", b"config|rewrite", b"config|help"}


def test_docs_has_what_clients_read_for_every_command() -> None:
    caller = Caller()
    documented = caller.map("COMMAND DOCS")
    assert set(documented) == {row.name.encode() for row in caller.service.table.rows}
    for name, fields in documented.items():
        assert isinstance(fields, dict), name
        assert all(fields[field] for field in (b"summary", b"since", b"group", b"complexity")), name


def test_docs_of_named_commands_leave_out_unknown_ones() -> None:
    documented = Caller().map("COMMAND DOCS get nonsense config|get config")
    assert list(documented) == [b"get", b"config|get", b"config"]
    container = documented[b"config"]
    assert isinstance(container, dict)
    subcommands = container[b"subcommands"]
    assert isinstance(subcommands, dict)
    assert b"config|set" in subcommands


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("COMMAND LIST FILTERBY PATTERN mset*", ["mset", "msetnx"]),
        ("COMMAND LIST FILTERBY PATTERN config|re*", ["config|resetstat", "config|rewrite"]),
        ("COMMAND LIST FILTERBY MODULE any", []),
        ("COMMAND LIST FILTERBY ACLCAT nonsense", []),
    ],
)
def test_list_filters_by_pattern_category_or_module(line: str, names: list[str]) -> None:
    assert sorted(texts(Caller().say(line))) == names  # type: ignore[arg-type]


def test_list_by_category_names_what_has_it() -> None:
    names = texts(Caller().array("COMMAND LIST FILTERBY ACLCAT connection"))
    assert {"ping", "auth", "client|list", "command"} <= set(names)
    assert "get" not in names


def test_list_without_a_filter_names_subcommands_too() -> None:
    names = texts(Caller().array("COMMAND LIST"))
    assert {"get", "client", "client|kill"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("get a", [b"a"]),
        ("mset a 1 b 2", [b"a", b"b"]),
        ("del a b c", [b"a", b"b", b"c"]),
        ("rename a b", [b"a", b"b"]),
        ("bitop and a b c", [b"a", b"b", b"c"]),
        ("object encoding a", [b"a"]),
        ("memory usage a", [b"a"]),
        ("copy a b replace", [b"a", b"b"]),
    ],
)
def test_getkeys_finds_the_keys_of_a_command(command: str, keys: list[bytes]) -> None:
    assert Caller().array(f"COMMAND GETKEYS {command}") == keys


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("set k v", ["OW", "update"]),
        ("set k v ex 10 get", ["RW", "access", "update"]),
        ("bitfield k get u8 0", ["RO", "access"]),
        ("bitfield k get u8 0 incrby u8 0 1", ["RW", "access", "update"]),
        ("strlen k", ["RO"]),
    ],
)
def test_getkeysandflags_says_what_a_call_does_to_its_key(command: str, words: list[str]) -> None:
    [[key, told]] = Caller().array(f"COMMAND GETKEYSANDFLAGS {command}")  # type: ignore[misc]
    assert key == b"k"
    assert texts(told) == words


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("nonsense a", "Invalid command specified"),
        ("object nonsense a", "Invalid command specified"),
        ("get", "Invalid number of arguments specified for command"),
        ("ping", "The command has no key arguments"),
        ("config get maxmemory", "The command has no key arguments"),
    ],
)
def test_getkeys_refuses_what_has_no_keys(command: str, refusal: str) -> None:
    assert Caller().text(f"COMMAND GETKEYS {command}") == f"-ERR {refusal}"
