"""A caller inside the node: a command of the server plane that needs what only the data plane can tell or do.

Guarantees: its commands go the way of any client's: admitted, into the log, into a round of reads or to the leader. It
may name the commands of nodes (``CommandTable.add_internal``).
Leaves to the caller: asking once for each object; what the replies mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvservice.commands.reply import Reply
from kvservice.commands.table import Args
from kvservice.session import Session

if TYPE_CHECKING:
    from kvservice.service import Service


class InnerCaller(Session):
    """One question, of one or several commands."""

    def __init__(self, service: Service, db: int, answered: Callable[[list[Reply]], None]) -> None:
        super().__init__(service.next_session_id(), "", "", 0.0)
        self.db = db
        self.is_trusted = True
        self._service = service
        self._answered = answered
        self._replies: list[Reply] = []
        self._count = 0

    def ask(self, commands: list[Args]) -> None:
        """Submit the commands, at least one."""
        self._count = len(commands)
        self._service.submit(self, commands, None)

    def deliver(self, replies: list[Reply]) -> None:
        """Collect replies; pass them on when all are there."""
        self._replies += replies
        if len(self._replies) == self._count:
            self._answered(self._replies)

    def close(self, after_replies: bool = True) -> None:
        """Be asked on; what comes is for nobody."""
        self.is_closed = True
