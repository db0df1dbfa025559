"""SLOWLOG: what ran longer than the threshold.

Reference: the Redis command pages of SLOWLOG; texts of redis-server 7.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.containers import container, server_row
from kvservice.commands.options import integer
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import OK, Reply
from kvservice.commands.table import Args, Command
from kvservice.errors import RequestError

COUNT_DEFAULT: Final = 10

HELP: Final = """
GET [<count>]
    Return the newest <count> entries (default: 10, all for -1). An entry holds:
    id, time in seconds, duration in microseconds, arguments, client address,
    client name.
LEN
    Return how many entries there are.
RESET
    Remove all entries.
"""


def get(call: ServerCall, args: Args) -> Reply:
    """Answer the newest entries."""
    if len(args) > 3:
        word = args[1].decode("utf-8", "surrogateescape")
        raise RequestError(f"unknown subcommand or wrong number of arguments for '{word}'. Try SLOWLOG HELP.")
    refusal = "count should be greater than or equal to -1"
    count = integer(args[2], refusal) if len(args) == 3 else COUNT_DEFAULT
    if count < -1:
        raise RequestError(refusal)
    return [
        [entry.number, entry.unix_s, entry.microseconds, [*entry.args], entry.address.encode(), entry.name]
        for entry in call.service.stats.slowlog.newest(count)
    ]


def length(call: ServerCall, _args: Args) -> Reply:
    """Answer how many entries there are."""
    return len(call.service.stats.slowlog)


def reset(call: ServerCall, _args: Args) -> Reply:
    """Remove all entries."""
    call.service.stats.slowlog.clear()
    return OK


def _row(name: str, run: ServerHandler, arity: int, summary: str, complexity: str) -> Command:
    return server_row(
        f"slowlog|{name}", run, arity, "admin loading stale", "", "2.2.12", summary, complexity=complexity
    )


_OF_ENTRIES: Final = "O(N) where N is the number of entries"

ROWS: Final = [
    container(
        "slowlog",
        [
            _row("get", get, -2, "Returns entries of the slow log.", _OF_ENTRIES),
            _row("len", length, 2, "Counts the entries of the slow log.", "O(1)"),
            _row("reset", reset, 2, "Empties the slow log.", _OF_ENTRIES),
        ],
        "2.2.12",
        "Commands about the slow log.",
        help_lines=HELP,
    )
]
