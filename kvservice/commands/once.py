"""Commands of nodes among themselves: a write with a request id, which runs once however often it comes.

In the log: REDAN.ONCE <id> <command> …, one RESP array; or REDAN.ONCE.GROWING if the command may need memory, so that
it is refused beforehand when maxmemory is reached. No client may send them (``CommandTable.find`` does not know them):
the API makes them of calls with a request id.

Guarantees: whether a node proposed the entry or replays it, the command runs if its id is new, and its reply, an error
too, is remembered; else the first reply is answered and nothing changes.
Leaves to the caller: that the command is a write of the data plane with the right number of arguments (api/once).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kvservice.commands.containers import leaf
from kvservice.commands.context import Context
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args, Command, flags
from kvservice.errors import RedanError
from kvservice.keyspace.once import digest_of

ONCE: Final = b"REDAN.ONCE"
GROWING: Final = b"REDAN.ONCE.GROWING"
COMMAND_AT: Final = 2
"""Position of the command's name."""


def wrapped(request_id: bytes, row: Command, command: Args) -> Args:
    """Return the command that runs ``command``, of the row ``row``, once for a request id."""
    return [GROWING if row.deny_oom else ONCE, request_id, *command]


def rows(find: Callable[[bytes], Command | None]) -> list[Command]:
    """Return the rows; ``find`` gives the rows of the commands inside."""

    def inner(args: Args) -> tuple[Command, Args]:
        command = args[COMMAND_AT:]
        row = find(command[0])
        assert row is not None, f"the log holds the unknown command {command[0]!r}"
        return (leaf(row, command) if row.subcommands else row), command

    def run(context: Context, args: Args) -> Reply:
        row, command = inner(args)
        request_id, arguments = args[1], digest_of(context.db.index, command)
        if (first := context.once.first_reply(request_id, arguments)) is not None:
            return first[0]
        try:
            reply: Reply = row.run(context, command)
        except RedanError as error:
            context.once.remember(request_id, arguments, ErrorReply(error))
            raise
        context.once.remember(request_id, arguments, reply)
        return reply

    def keys_of(args: Args) -> Sequence[bytes]:
        row, command = inner(args)
        return row.keys_of(command)

    def check_growth(args: Args, length_of: Callable[[bytes], int], bytes_max: int) -> None:
        row, command = inner(args)
        if row.check_growth is not None:
            row.check_growth(command, length_of, bytes_max)

    return [
        Command(
            name.decode().lower(), run, -(COMMAND_AT + 1), flags(words), group="generic", since="7.2.0",
            summary="Runs a write once for a request id.", find_keys=keys_of, quick=False, check_growth=check_growth,
        )
        for name, words in ((ONCE, "write"), (GROWING, "write denyoom"))
    ]  # fmt: skip
