"""What `redan verify` and `redan log` print: the state of a data directory and the entries of its log.

Guarantees: only reads, takes no lock and changes nothing, so both run beside a node that serves. A command is printed
    as redis-cli would quote it, one a line; a long argument is cut, and its length said.
Leaves to the caller: exit codes, and what to do about damage.
Layout of `--json`: one object a line: index, term, kind, stamp_ms, db, command. Arguments that are not UTF-8 are
    written with each foreign byte as \\xNN, and such a line has "escaped": true; backslashes are doubled there.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from kvservice.gateway.resp import decode_commands

ARGUMENT_BYTES_SHOWN: Final = 128
# A command of thousands of arguments (MSET) would fill the screen; the rest is counted.
ARGUMENTS_SHOWN: Final = 64

_QUOTED: Final = {0x5C: "\\\\", 0x22: '\\"', 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x07: "\\a", 0x08: "\\b"}


class LoggedCommand(NamedTuple):
    """One command of an entry and the database it runs in."""

    db: int
    arguments: list[bytes]


def commands_of(payload: bytes) -> Iterator[LoggedCommand]:
    """Split an entry's payload into commands; a SELECT is not one of them, it sets the database of those after it.

    Raises ValueError when the payload is no sequence of commands.
    """
    db = 0
    for arguments in decode_commands(payload):
        if len(arguments) == 2 and arguments[0].upper() == b"SELECT":
            db = int(arguments[1])
        else:
            yield LoggedCommand(db, arguments)


def quote(argument: bytes) -> str:
    """Write an argument as redis-cli prints it; cut after ARGUMENT_BYTES_SHOWN, with the length in bytes."""
    shown = argument[:ARGUMENT_BYTES_SHOWN]
    text = "".join(_QUOTED.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in shown)
    rest = f"…({len(argument)} bytes)" if len(argument) > len(shown) else ""
    return f'"{text}"{rest}'


def command_line(command: LoggedCommand) -> str:
    """Write a command on one line: its name bare, its arguments quoted."""
    name, *arguments = command.arguments or [b""]
    shown = [quote(argument) for argument in arguments[:ARGUMENTS_SHOWN]]
    if len(arguments) > len(shown):
        shown.append(f"…({len(arguments)} arguments)")
    bare = name.decode() if name.isalnum() and name.isascii() else quote(name)
    return " ".join([bare, *shown])


def stamp(stamp_ms: int) -> str:
    """Write a stamp as UTC time with milliseconds; a dash when there is none."""
    if stamp_ms <= 0:
        return "-"
    return datetime.fromtimestamp(stamp_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp_ms % 1000:03d}Z"


def text_lines(kind: str, index: int, term: int, stamp_ms: int, payload: bytes) -> Iterator[str]:
    """Write a record for people: one head line, then one line a command."""
    head = f"{index} term={term} {kind} {stamp(stamp_ms)}"
    if kind != "commands":
        yield f"{head} {quote(payload)}" if payload else head
        return
    yield head
    try:
        for command in commands_of(payload):
            yield f"    [{command.db}] {command_line(command)}"
    except ValueError as error:
        yield f"    not readable as commands: {error}"


def json_lines(kind: str, index: int, term: int, stamp_ms: int, payload: bytes) -> Iterator[str]:
    """Write a record for programs: one object a command, or one for a record without commands; nothing is cut."""
    head: dict[str, object] = {"index": index, "term": term, "kind": kind, "stamp_ms": stamp_ms}
    if kind != "commands":
        yield json.dumps({**head, **({"payload": payload.decode(errors="backslashreplace")} if payload else {})})
        return
    try:
        for command in commands_of(payload):
            yield json.dumps({**head, "db": command.db, **_json_command(command.arguments)}, ensure_ascii=False)
    except ValueError as error:
        yield json.dumps({**head, "error": str(error)})


def _json_command(arguments: list[bytes]) -> dict[str, object]:
    try:
        return {"command": [argument.decode() for argument in arguments]}
    except UnicodeDecodeError:
        escaped = [
            argument.replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace") for argument in arguments
        ]
        return {"command": escaped, "escaped": True}
