"""`redan ctl get|put|del|scan`: keys from the command line, over the gRPC plane of any node, by the Python client.

Guarantees: exit codes 0 done, 1 not done (also: a key that get does not find, a put whose condition does not hold), 2
usage. A write that was repeated runs once. Arguments are bytes as the shell gave them. What `-o json` prints is one
JSON document that loses nothing: what is not UTF-8 is in base64, and a field beside it says so. A table shows such
bytes, and what would move the cursor, as escapes.
Leaves to the caller: finding the leader, repeating (redan_client). grpc is imported when a command runs.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from kvservice.cli_ctl import (
    DEFAULT_ENDPOINT,
    Endpoints,
    Output,
    PasswordFile,
    app,
    checked,
    read_password,
    table,
)
from kvservice.cli_settings import EXIT_FAILURE, EXIT_USAGE
from kvservice.config_values import parse_reachable_address

if TYPE_CHECKING:
    from redan_client import Client, Entry

__all__ = ["app"]

T = TypeVar("T")
Database = Annotated[int, typer.Option("--database", metavar="N", min=0, max=2**31, help="Number of the database.")]
KeyTimeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=3600, help="For all attempts, and for a leader.")
]
Keys = Annotated[list[str], typer.Argument(metavar="KEY...", show_default=False)]
_ENDPOINTS: Final = [DEFAULT_ENDPOINT]
TTL_SECONDS_MIN: Final = 0.001
TTL_SECONDS_MAX: Final = 315_576_000_000
"""10,000 years: the bound that google.protobuf.Duration sets."""
ABSENT: Final = "(none)"
"""What a table has in the place of a value that is not there."""


@app.command()
def get(
    key: Keys,
    database: Database = 0,
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: KeyTimeout = 10.0,
) -> None:
    """Show the strings at keys; exit code 1 if one has none."""
    keys = [os.fsencode(one) for one in key]
    values = _with_client(
        endpoint,
        password_file,
        timeout,
        database,
        lambda client: client.get_many(*keys) if keys[1:] else [client.get(keys[0])],
    )
    if output == "json":
        print(
            json.dumps(
                [{**as_json("key", one), **as_json("value", value)} for one, value in zip(keys, values, strict=True)],
                indent=2,
            )
        )
    else:
        print(
            table(("KEY", "VALUE"), [(escaped(one), escaped(value)) for one, value in zip(keys, values, strict=True)])
        )
    if None in values:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
def put(
    key: Annotated[str, typer.Argument(metavar="KEY", show_default=False)],
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Take the value from a file, - for standard input.")
    ] = None,
    ttl: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", help="Let the key expire after this; 0.001 at least.")
    ] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if the key does not exist.")] = False,
    if_present: Annotated[bool, typer.Option("--if-present", help="Only if the key exists.")] = False,
    database: Database = 0,
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: KeyTimeout = 10.0,
) -> None:
    """Store a string at a key; exit code 1 if the condition does not hold."""
    if (value is None) == (file is None):
        _refuse("either a value or --file is needed")
    if if_absent and if_present:
        _refuse("--if-absent and --if-present exclude each other")
    if ttl is not None and not TTL_SECONDS_MIN <= ttl <= TTL_SECONDS_MAX:
        _refuse(f"--ttl is {ttl:g}, and has to be from {TTL_SECONDS_MIN} to {TTL_SECONDS_MAX} seconds (10,000 years)")
    stored = os.fsencode(value) if value is not None else _read(file or Path("-"))
    applied = _with_client(
        endpoint,
        password_file,
        timeout,
        database,
        lambda client: client.set(
            os.fsencode(key),
            stored,
            ttl=ttl,
            condition="if_absent" if if_absent else "if_present" if if_present else "always",
        ),
    )
    if output == "json":
        print(json.dumps({**as_json("key", os.fsencode(key)), "stored": applied}))
    else:
        print("stored" if applied else "not stored")
    if not applied:
        raise typer.Exit(EXIT_FAILURE)


@app.command("del")
def delete(
    key: Keys,
    database: Database = 0,
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: KeyTimeout = 10.0,
) -> None:
    """Remove keys, all in one step; exit code 0 also if there were none."""
    keys = [os.fsencode(one) for one in key]
    deleted = _with_client(endpoint, password_file, timeout, database, lambda client: client.delete(*keys))
    print(json.dumps({"deleted": deleted}) if output == "json" else f"{deleted} deleted")


@app.command()
def scan(
    match: Annotated[
        str,
        typer.Argument(metavar="[PATTERN]", help="Glob that keys must match, such as 'user:*'.", show_default=False),
    ] = "",
    values: Annotated[bool, typer.Option("--values", help="Show the strings too.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="At most so many keys; 0 for all.")] = 1000,
    database: Database = 0,
    endpoint: Endpoints = _ENDPOINTS,
    output: Output = "table",
    password_file: PasswordFile = None,
    timeout: KeyTimeout = 10.0,
) -> None:
    """List keys."""

    def read(client: Client) -> list[Entry]:
        entries = client.scan(os.fsencode(match), with_values=values)
        return list(islice(entries, limit + 1) if limit else entries)

    found = _with_client(endpoint, password_file, timeout, database, read)
    shown = found[:limit] if limit else found
    if output == "json":
        print(json.dumps([_entry_as_json(entry, values) for entry in shown], indent=2))
    elif values:
        rows = [(escaped(entry.key), "(too long)" if entry.value_omitted else escaped(entry.value)) for entry in shown]
        print(table(("KEY", "VALUE"), rows))
    else:
        print(table(("KEY",), [(escaped(entry.key),) for entry in shown]))
    if len(found) > len(shown):
        print(f"redan: there are more than {limit} keys; --limit 0 lists all", file=sys.stderr)


def as_json(name: str, content: bytes | None) -> dict[str, str | None]:
    """Return bytes as two fields: text, and the encoding that makes bytes of it again."""
    if content is None:
        return {name: None, f"{name}_encoding": None}
    try:
        return {name: content.decode("utf-8"), f"{name}_encoding": "utf-8"}
    except UnicodeDecodeError:
        return {name: b64encode(content).decode("ascii"), f"{name}_encoding": "base64"}


def escaped(content: bytes | None) -> str:
    r"""Return bytes for a line of a table: printable text as it is, a backslash twice, all else as \n or \xff."""
    if content is None:
        return ABSENT
    text = content.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _entry_as_json(entry: Entry, with_value: bool) -> dict[str, Any]:
    shown: dict[str, Any] = dict(as_json("key", entry.key))
    if with_value:
        shown |= as_json("value", entry.value)
        shown["value_omitted"] = entry.value_omitted
    return shown


def _with_client(
    endpoints: Sequence[str],
    password_file: Path | None,
    timeout_seconds: float,
    database: int,
    call: Callable[[Client], T],
) -> T:
    """Return what a call returns; print why it failed and end if it does."""
    from redan_client import Client, RedanError, Settings

    for endpoint in endpoints:
        checked(parse_reachable_address, endpoint)
    password = read_password(password_file)
    settings = Settings(timeout=timeout_seconds, attempt_timeout=min(3.0, timeout_seconds))
    with Client(endpoints, password=password, database=database, settings=settings) as client:
        try:
            return call(client)
        except RedanError as error:
            where = "" if error.reason else f"{', '.join(endpoints)}: {error.code}: "
            print(f"redan: {where}{error}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILURE) from error


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        _refuse(f"{file} cannot be read: {error}")
        raise


def _refuse(text: str) -> None:
    print(f"redan: {text}", file=sys.stderr)
    raise typer.Exit(EXIT_USAGE)
