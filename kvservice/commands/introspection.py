"""COMMAND: the command table, as clients read it.

Guarantees: everything is read from the table; nothing is told here that dispatch does not act upon.
Reference: the Redis command pages of COMMAND; texts of redis-server 7.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvservice.commands.arguments import arguments_of, documented
from kvservice.commands.containers import help_reply, leaf, server_row
from kvservice.commands.glob import matcher
from kvservice.commands.key_access import key_specifications, statuses, words_of_call
from kvservice.commands.options import SYNTAX_ERROR
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import Reply
from kvservice.commands.table import Args, Command, CommandTable
from kvservice.commands.tips import TIPS
from kvservice.errors import RedanError, RequestError

# The order in which Redis lists flags and categories; what is not named here comes last, by name.
FLAG_ORDER: Final = (
    "write", "readonly", "denyoom", "admin", "pubsub", "noscript", "blocking", "loading", "stale", "skip_monitor",
    "asking", "fast", "no_auth", "no_async_loading", "no_multi", "allow_busy", "movablekeys",
)  # fmt: skip
CATEGORY_ORDER: Final = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream",
    "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
)  # fmt: skip

HELP: Final = """
(no subcommand)
    Return details of all commands.
COUNT
    Return how many commands there are.
DOCS [<command-name> ...]
    Return the documentation of some commands, or of all.
GETKEYS <full-command>
    Return the keys that a command names.
GETKEYSANDFLAGS <full-command>
    Return the keys that a command names and what it does to them.
INFO [<command-name> ...]
    Return details of some commands, or of all.
LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]
    Return the names of commands.
"""


def _ordered(words: frozenset[str], order: tuple[str, ...]) -> list[str]:
    return sorted(words, key=lambda word: (order.index(word) if word in order else len(order), word))


def details(row: Command) -> Reply:
    """Return COMMAND INFO's ten fields of a row."""
    # Where a container's keys are depends on the subcommand, and that has a row of its own.
    moves = row.find_keys is not None and not row.subcommands
    shown = row.flags | {"movablekeys"} if moves else row.flags
    categories = [f"@{category}" for category in _ordered(row.categories, CATEGORY_ORDER)]
    return [
        row.name.encode(),
        row.arity,
        statuses(_ordered(shown, FLAG_ORDER)),
        row.keys.first,
        row.keys.last,
        row.keys.step,
        statuses(categories),
        [*TIPS.get(row.name, ())],
        key_specifications(row),
        [details(subcommand) for subcommand in row.subcommands.values()],
    ]


def documentation(row: Command) -> Reply:
    """Return COMMAND DOCS' fields of a row."""
    fields: dict[Reply, Reply] = {
        b"summary": row.summary.encode(),
        b"since": row.since.encode(),
        b"group": row.group.encode(),
        b"complexity": row.complexity.encode(),
    }
    if arguments := arguments_of(row.name):
        fields[b"arguments"] = documented(arguments)
    if row.subcommands:
        fields[b"subcommands"] = {
            subcommand.name.encode(): documentation(subcommand) for subcommand in row.subcommands.values()
        }
    return fields


def named(table: CommandTable, name: bytes) -> Command | None:
    """Return the row of ``get`` or ``config|get``, in any letter case, or None."""
    first, bar, second = name.partition(b"|")
    row = table.find(first)
    return row.subcommands.get(second.upper()) if row is not None and bar else row


def all_details(call: ServerCall, _args: Args) -> Reply:
    """Answer the details of every command."""
    return [details(row) for row in call.service.table.rows]


def count(call: ServerCall, _args: Args) -> Reply:
    """Answer the number of commands, subcommands not counted."""
    return len(call.service.table.rows)


def info(call: ServerCall, args: Args) -> Reply:
    """Answer the details of the named commands, null for unknown ones."""
    if len(args) == 2:
        return all_details(call, args)
    rows = [named(call.service.table, name) for name in args[2:]]
    return [None if row is None else details(row) for row in rows]


def docs(call: ServerCall, args: Args) -> Reply:
    """Answer the documentation of the named commands, or of all; unknown ones are left out."""
    table = call.service.table
    rows = [named(table, name) for name in args[2:]] if len(args) > 2 else [*table.rows]
    return {row.name.encode(): documentation(row) for row in rows if row is not None}


def list_(call: ServerCall, args: Args) -> Reply:
    """Answer the names of commands and subcommands that pass a filter."""
    rows = call.service.table.rows
    if len(args) == 2:
        return [row.name.encode() for row in _with_subcommands(rows)]
    if len(args) != 5 or args[2].upper() != b"FILTERBY":
        raise RequestError(SYNTAX_ERROR)
    wanted = args[4].lower()
    word = wanted.decode("utf-8", "replace")
    match args[3].upper():
        case b"MODULE":
            return []
        case b"ACLCAT":
            return [row.name.encode() for row in _with_subcommands(rows) if word in row.categories]
        case b"PATTERN":
            matches = matcher(wanted)
            return [name for row in _with_subcommands(rows) if matches(name := row.name.encode())]
    raise RequestError(SYNTAX_ERROR)


def _with_subcommands(rows: list[Command]) -> Iterator[Command]:
    for row in rows:
        yield row
        yield from row.subcommands.values()


def _keys(call: ServerCall, args: Args) -> tuple[Command, Args, list[bytes]]:
    inner = args[2:]
    row = call.service.table.find(inner[0])
    if row is None:
        raise RequestError("Invalid command specified")
    try:
        row = leaf(row, inner)
    except RedanError as error:
        wrong_subcommand = error.text.startswith("unknown subcommand")
        raise RequestError(
            "Invalid command specified" if wrong_subcommand else "Invalid number of arguments specified for command"
        ) from error
    if not row.keys.first and row.find_keys is None:
        raise RequestError("The command has no key arguments")
    return row, inner, list(row.keys_of(inner))


def getkeys(call: ServerCall, args: Args) -> Reply:
    """Answer the keys that a command names."""
    return [*_keys(call, args)[2]]


def getkeysandflags(call: ServerCall, args: Args) -> Reply:
    """Answer the keys that a command names, each with what is done to it."""
    row, inner, keys = _keys(call, args)
    return [[key, statuses(words_of_call(row, inner, at))] for at, key in enumerate(keys)]


def _help(_call: ServerCall, _args: Args) -> Reply:
    return help_reply("command", HELP)


def command(call: Any, args: Args) -> Reply:
    """Answer the details of every command, or run the subcommand that is named."""
    if len(args) == 1:
        return all_details(call, args)
    return leaf(_COMMAND, args).run(call, args)


_OF_COMMANDS: Final = "O(N) where N is the number of commands"
_OF_ARGUMENTS: Final = "O(N) where N is the number of arguments"


def _row(name: str, run: ServerHandler, arity: int, since: str, summary: str, complexity: str = "O(1)") -> Command:
    return server_row(
        f"command|{name}", run, arity, "loading stale", "connection", since, summary, complexity=complexity
    )


_SUBCOMMANDS: Final = [
    _row("count", count, 2, "2.8.13", "Counts the commands."),
    _row("docs", docs, -2, "7.0.0", "Documents commands.", _OF_COMMANDS),
    _row("getkeys", getkeys, -3, "2.8.13", "Returns the keys that a command names.", _OF_ARGUMENTS),
    _row(
        "getkeysandflags",
        getkeysandflags,
        -3,
        "7.0.0",
        "Returns the keys of a command and what is done to them.",
        _OF_ARGUMENTS,
    ),
    _row("help", _help, 2, "5.0.0", "Lists the subcommands."),
    _row("info", info, -2, "2.8.13", "Describes commands.", _OF_COMMANDS),
    _row("list", list_, -2, "7.0.0", "Lists the names of commands.", _OF_COMMANDS),
]
_COMMAND: Final = server_row(
    "command", command, -1, "loading stale", "connection", "2.8.13", "Describes all commands.",
    complexity=_OF_COMMANDS,
)  # fmt: skip
_COMMAND.subcommands.update({row.name.partition("|")[2].upper().encode(): row for row in _SUBCOMMANDS})

ROWS: Final = [_COMMAND]
