"""CLIENT PAUSE: which sessions wait, and until when.

Guarantees: a pause is never shortened by a second one; what waits goes on in its order, by itself.
Reference: Redis CLIENT PAUSE.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns

from kvservice.commands.table import Command
from kvservice.session import Session


class Holds:
    """The pause in force and the sessions that it holds."""

    def __init__(
        self, release: Callable[[Session], None], call_later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._release = release
        self._call_later = call_later
        self.is_paused = False
        self._until_ms = 0
        self._writes_only = True
        self._sessions: dict[int, Session] = {}

    def holds(self, row: Command) -> bool:
        """Tell whether the pause holds a command; commands of the server plane pass, so that UNPAUSE can."""
        return row.is_data and (row.is_write or not self._writes_only)

    @property
    def count(self) -> int:
        """How many sessions wait."""
        return sum(not session.is_closed for session in self._sessions.values())

    def add(self, session: Session) -> None:
        """Remember a session that was held."""
        self._sessions[session.id] = session

    def pause(self, until_ms: int, writes_only: bool) -> None:
        """Pause until a wall-clock time in ms."""
        if self.is_paused:
            until_ms = max(until_ms, self._until_ms)
            writes_only = writes_only and self._writes_only
        self.is_paused = True
        self._until_ms = until_ms
        self._writes_only = writes_only
        self._call_later(max(0, until_ms - time_ns() // 1_000_000) / 1000, self._check)

    def unpause(self) -> None:
        """End the pause and let the held sessions go."""
        self.is_paused = False
        held = list(self._sessions.values())
        self._sessions.clear()
        for session in held:
            self._release(session)

    def _check(self) -> None:
        if not self.is_paused:
            return
        left_ms = self._until_ms - time_ns() // 1_000_000
        if left_ms <= 0:
            self.unpause()
        else:
            self._call_later(left_ms / 1000, self._check)
