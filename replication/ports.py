"""The Protocols through which the replication layer calls its surroundings; it owns them, others implement them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from replication.core.messages import Entry, HardState


class StateMachine(Protocol):
    """Applies committed entries."""

    def apply(self, entry: Entry, batch: object | None) -> None:
        """Change the state by one committed entry.

        ``batch`` is what this node proposed the entry with, or None for an entry read from disk or from a peer; it
        carries the parsed commands and whom to answer.
        """

    @property
    def stamp_ms(self) -> int:
        """Stamp of the last applied entry in ms; never decreases."""


class LogStore(Protocol):
    """Durable storage of entries and hard state."""

    def append(self, hard_state: HardState | None, entries: list[Entry], token: int) -> None:
        """Queue for the disk; ``on_durable(token)`` is called on the writer's thread once it is durable."""

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        """Read entries [from_index, to_index] back, in order."""


CrashPoint = Callable[[str], None]
"""Called at the named points of the driver; tests kill the process there."""
