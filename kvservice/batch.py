"""The calls that become one entry of the log, or are read after one round.

Order: calls run and are answered in the order they were added; reads ride between writes and are not stored. A batch
without payload changes nothing, so it may be tried again whatever became of it.
"""

from __future__ import annotations

from typing import NamedTuple

from kvservice.admission import REFUSED
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args, Command
from kvservice.errors import RedanError
from kvservice.session import Session


class Call(NamedTuple):
    """Commands of one session that run together; ``rows[i]`` is the row of ``commands[i]``."""

    session: Session
    db: int
    rows: list[Command]
    commands: list[Args]
    arrived_ns: int
    row: Command | None
    """The one row of all commands, or None if they are not of one row."""

    @property
    def has_writes(self) -> bool:
        """Whether any of the commands may change something."""
        return self.rows[0].is_write if self.row is not None else any(row.is_write for row in self.rows)

    def writes(self) -> list[Args]:
        """Return the commands that go into the log."""
        return [args for row, args in zip(self.rows, self.commands, strict=True) if row.is_write]

    def admitted(self) -> list[Args]:
        """Return the commands without those that stand for a refusal."""
        if self.row is not None and self.row is not REFUSED:
            return self.commands
        return [args for row, args in zip(self.rows, self.commands, strict=True) if row is not REFUSED]

    def refused(self, error: RedanError) -> Call:
        """Return the call with an error in place of its commands; earlier refusals stay."""
        return self._refused_to(len(self.rows), error)

    def lost(self, error: RedanError) -> Call:
        """Return the call with an error in place of its writes, and of the reads before the last of them.

        A read that is run again must not see a write that its caller sent after it. The caller is in doubt from now on.
        """
        self.session.is_in_doubt = True
        return self._refused_to(max((at + 1 for at, row in enumerate(self.rows) if row.is_write), default=0), error)

    def _refused_to(self, end: int, error: RedanError) -> Call:
        reply: Args = [ErrorReply(error)]  # type: ignore[list-item]  # the one argument of REFUSED
        rows = [REFUSED] * end + self.rows[end:]
        commands = [
            args if row is REFUSED else reply for row, args in zip(self.rows[:end], self.commands[:end], strict=True)
        ] + self.commands[end:]
        return self._replace(rows=rows, commands=commands, row=rows[0] if len(rows) == 1 else None)

    def with_refusals(self, replies: list[Reply]) -> list[Reply]:
        """Return one reply for each command: ``replies`` of the admitted ones, and the refusals in their places."""
        if self.row is not None and self.row is not REFUSED:
            return replies
        others = iter(replies)
        return [
            _refusal(args) if row is REFUSED else next(others)
            for row, args in zip(self.rows, self.commands, strict=True)
        ]


def _refusal(args: Args) -> Reply:
    return args[0]


class Found(NamedTuple):
    """What calls that ran as one have found."""

    replies: list[list[Reply]]
    """Those of each call."""
    commands: int
    """How many, of all calls."""
    spent_ns: int
    """How long they ran."""
    hits: int = 0
    misses: int = 0
    """Keys that were there and that were not, as far as the machine has not counted them itself."""


class Batch:
    """Calls and the payload of their entry."""

    __slots__ = ("ahead", "calls", "db", "payload")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.payload: list[bytes] = []
        """RESP of the writes, in order; empty when only time has to move."""
        self.db = 0
        """Database that the payload has selected so far."""
        self.ahead: Found | None = None
        """What reads found while their round was under way; None if they have not run."""
