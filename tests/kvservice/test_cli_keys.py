"""`redan ctl get|put|del|scan` against a node in this process: what is stored, what is printed, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kvservice.cli import run_command
from kvservice.cli_keys import as_json, escaped
from tests.kvservice.api.local_node import serving

CLOSED = "127.0.0.1:1"
BINARY = b"\x00\xff\n"
BINARY_ARGUMENT = os.fsdecode(b"\xff\n")


class Terminal:
    """Runs `redan ctl` against a node and gives back what it printed."""

    def __init__(self, endpoint: object, capsys: pytest.CaptureFixture[str]) -> None:
        self._endpoint = ("--endpoint", str(endpoint))
        self._capsys = capsys

    async def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command that ends with a code; return what it printed."""
        ended = await asyncio.to_thread(run_command, ["ctl", arguments[0], *self._endpoint, *arguments[1:]])
        shown = self._capsys.readouterr()
        assert ended == code, shown.err
        return shown.out if code == 0 or not shown.err else shown.err

    async def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command; return the document that it printed."""
        return json.loads(await self.run(*arguments, "-o", "json", code=code))


async def test_a_key_is_stored_shown_found_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (node, _):
        terminal = Terminal(node.api.address, capsys)
        assert await terminal.run("put", "greeting", "hello world") == "stored\n"
        assert await terminal.run("get", "greeting") == "KEY       VALUE\ngreeting  hello world\n"
        assert await terminal.run("scan", "greet*") == "KEY\ngreeting\n"
        assert await terminal.run("scan", "greet*", "--values") == "KEY       VALUE\ngreeting  hello world\n"
        assert await terminal.run("del", "greeting", "other") == "1 deleted\n"
        assert await terminal.run("get", "greeting", code=1) == "KEY       VALUE\ngreeting  (none)\n"
        assert await terminal.json("get", "a", "b", code=1) == [
            {"key": "a", "key_encoding": "utf-8", "value": None, "value_encoding": None},
            {"key": "b", "key_encoding": "utf-8", "value": None, "value_encoding": None},
        ]
        assert await terminal.json("del", "a") == {"deleted": 0}


async def test_bytes_that_are_no_text_are_escaped_for_people_and_in_base64_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "value").write_bytes(BINARY)
    async with serving() as (node, client):
        terminal = Terminal(node.api.address, capsys)
        await terminal.run("put", BINARY_ARGUMENT, "--file", str(tmp_path / "value"))
        assert (await client.execute(b"GET", b"\xff\n")).bulk == BINARY
        assert await terminal.run("get", BINARY_ARGUMENT) == "KEY     VALUE\n\\xff\\n  \\x00\\xff\\n\n"
        expected = {"key": "/wo=", "key_encoding": "base64", "value": "AP8K", "value_encoding": "base64"}
        assert await terminal.json("get", BINARY_ARGUMENT) == [expected]
        assert await terminal.json("scan", "--values") == [{**expected, "value_omitted": False}]


def test_an_escape_is_not_mistaken_for_text() -> None:
    assert escaped(b"a\\n\n\xc3\xa4\xe2\x80\xae\x1b[2J") == "a\\\\n\\nä\\u202e\\x1b[2J"
    assert as_json("key", "ä\n".encode()) == {"key": "ä\n", "key_encoding": "utf-8"}


async def test_a_condition_that_does_not_hold_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (node, client):
        terminal = Terminal(node.api.address, capsys)
        assert await terminal.run("put", "k", "1", "--if-present", code=1) == "not stored\n"
        assert (await terminal.json("put", "k", "1", "--if-absent", "--ttl", "100"))["stored"] is True
        assert (await terminal.json("put", "k", "2", "--if-absent", code=1))["stored"] is False
        assert 90_000 < (await client.execute(b"PTTL", b"k")).integer <= 100_000


async def test_a_database_is_chosen_and_a_limit_is_said_to_cut(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as (node, _):
        terminal = Terminal(node.api.address, capsys)
        for number in range(5):
            await terminal.run("put", f"k{number}", "v", "--database", "3")
        assert await terminal.json("scan") == []
        assert len(await terminal.json("scan", "--database", "3", "--limit", "0")) == 5
        ended = await asyncio.to_thread(
            run_command, ["ctl", "scan", "--database", "3", "--limit", "2", "--endpoint", str(node.api.address)]
        )
        shown = capsys.readouterr()
        assert (ended, len(shown.out.splitlines())) == (0, 3)
        assert shown.err == "redan: there are more than 2 keys; --limit 0 lists all\n"


async def test_what_the_cluster_refuses_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("secret\n")
    async with serving(requirepass="secret") as (node, _):
        terminal = Terminal(node.api.address, capsys)
        password = ("--password-file", str(tmp_path / "password"))
        assert await terminal.run("get", "k", code=1) == "redan: Authentication required.\n"
        assert await terminal.run("put", "k", "v", *password) == "stored\n"
        said = await terminal.run("get", "k", "--database", "16", *password, code=1)
        assert said.startswith("redan: database: 16 is out of range")


def test_nobody_who_answers_is_said_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["ctl", "get", "k", "--timeout", "0.3", "--endpoint", CLOSED]) == 1
    said = capsys.readouterr().err
    # The time limit may end the last attempt before the system has refused the connection.
    assert said.startswith((f"redan: {CLOSED}: UNAVAILABLE: ", f"redan: {CLOSED}: DEADLINE_EXCEEDED: "))
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("get",),
        ("get", "k", "--endpoint", "nowhere"),
        ("put", "k"),
        ("put", "k", "v", "--file", "f"),
        *(("put", "k", "v", "--ttl", ttl) for ttl in ("0", "-1", "0.0001", "inf", "-inf", "nan", "1e20", "much")),
        ("put", "k", "v", "--if-absent", "--if-present"),
        ("put", "k", "--file", "/nowhere/at/all"),
        ("scan", "--limit", "-1"),
        ("get", "k", "--password-file", "/nowhere/at/all"),
    ],
)
def test_usage_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["ctl", *arguments]) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("ttl", ["inf", "nan", "1e+20", "0"])
def test_a_time_to_live_that_cannot_be_is_refused_with_the_range(ttl: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["ctl", "put", "k", "v", "--ttl", ttl]) == 2
    expected = f"redan: --ttl is {ttl}, and has to be from 0.001 to 315576000000 seconds (10,000 years)\n"
    assert capsys.readouterr().err == expected
