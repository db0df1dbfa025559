"""What a data command may see and change: time, databases, chance. Nothing else exists for it.

Guarantees: the same context state and arguments give the same reply and the same change on every node.
Leaves to the caller: setting ``db`` and the clock before each command (keyspace/machine).
Invariant: ``clock.stamp_ms <= clock.now_ms``; they are equal while an entry is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvservice.keyspace.database import Clock, Database
from kvservice.keyspace.once import OnceTable


class Chance(Protocol):
    """The part of ``random.Random`` that commands use; seeded from the entry's index while an entry is applied."""

    def randrange(self, start: int, stop: int, /) -> int:
        """Return a number in [start, stop)."""


class Context:
    """The world of data commands. One object for each machine, reused for every command."""

    __slots__ = ("_chance", "_chance_for", "applying", "clock", "databases", "db", "hits", "index", "misses", "once")

    def __init__(self, clock: Clock, databases: list[Database], chance_for: Callable[[int], Chance]) -> None:
        # chance_for: makes the source of chance of one entry, seeded with its index.
        self.clock = clock
        self.databases = databases
        self.db = databases[0]
        self._chance_for = chance_for
        self._chance: Chance | None = None
        self.once = OnceTable()
        """First replies to writes with a request id: part of the state."""
        self.applying = False
        """True while an entry of the log is applied; False for a read outside the log."""
        self.index = 0
        """Index of the entry that was applied last, or is being applied."""
        self.hits = 0
        """Successful key look-ups of read commands since the last CONFIG RESETSTAT (local, not part of the state)."""
        self.misses = 0

    @property
    def chance(self) -> Chance:
        """The source of chance of the entry; made when it is asked for, RANDOMKEY does, and it takes 4 us."""
        if self._chance is None:
            self._chance = self._chance_for(self.index)
        return self._chance

    def begin_entry(self, index: int) -> None:
        """Move to an entry that is about to be applied."""
        self.index = index
        self.applying = True
        self._chance = None
