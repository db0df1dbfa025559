"""What one turn of the event loop brings: the calls that become one entry of the log.

Order: calls run and are answered in the order they were added; reads ride between writes and are not stored.
"""

from __future__ import annotations

from typing import NamedTuple

from kvservice.commands.table import Args, Command
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


class Batch:
    """Calls and the payload of their entry."""

    __slots__ = ("calls", "db", "payload")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.payload: list[bytes] = []
        """RESP of the writes, in order; empty when only time has to move."""
        self.db = 0
        """Database that the payload has selected so far."""
