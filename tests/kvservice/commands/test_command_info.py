"""The rows of the command table say what a real redis-server's COMMAND INFO says."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command, Plane
from tests.harness.oracle import Oracle
from tests.harness.resp2 import bulk_of, parts_of

ROWS = {row.name: row for row in TABLE.rows if row.plane is Plane.DATA}
ROWS |= {sub.name: sub for row in ROWS.values() for sub in row.subcommands.values()}


class Facts(NamedTuple):
    """What COMMAND INFO tells of a command and both versions agree on."""

    name: str
    arity: int
    flags: set[str]
    first_key: int
    last_key: int
    key_step: int
    categories: set[str]


def facts_of(row: Command) -> Facts:
    """Return what our row says."""
    keys = row.keys
    return Facts(row.name, row.arity, set(row.flags), keys.first, keys.last, keys.step, set(row.categories))


def facts_from(reply: bytes) -> Facts:
    """Return what one element of a raw COMMAND INFO reply says."""
    name, arity, flag_set, first, last, step, categories = parts_of(reply)[:7]
    return Facts(
        bulk_of(name).decode(),
        int(arity[1:]),
        {text[1:-2].decode() for text in parts_of(flag_set)},
        int(first[1:]),
        int(last[1:]),
        int(step[1:]),
        {text[2:-2].decode() for text in parts_of(categories)},
    )


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_agrees_with_the_real_command_info(oracle: Oracle, name: str) -> None:
    (element,) = parts_of(oracle.send([[b"COMMAND", b"INFO", name.encode()]])[0])
    assert facts_of(ROWS[name]) == facts_from(element)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_has_its_documentation(oracle: Oracle, name: str) -> None:
    row = ROWS[name]
    fields = parts_of(parts_of(oracle.send([[b"COMMAND", b"DOCS", name.encode()]])[0])[1])
    theirs = {bulk_of(key): value for key, value in zip(fields[::2], fields[1::2], strict=True)}
    assert row.group.encode() == bulk_of(theirs[b"group"])
    if not name.endswith("|help"):  # ours come with the first container, Redis's were added one by one
        assert row.since.encode() == bulk_of(theirs[b"since"])
    assert row.summary.endswith(".")
    assert len(row.summary) > 10
    assert row.summary.rstrip(".").encode() != bulk_of(theirs[b"summary"]), "the summary is in our own words"
    assert row.complexity.startswith("O(") or row.subcommands
