"""The part of the log that the core keeps in memory: entries that are not yet applied.

Invariant: ``applied <= committed <= last_index`` and ``handed_out <= last_index``; ``entries`` holds what was appended
since start and is not yet applied, in order. Entries of earlier runs stay on disk; the driver reads them from there.
Reference: Raft thesis, section 3.5.
"""

from __future__ import annotations

from replication.core.messages import Entry


class RaftLog:
    """Positions of the log and its tail that is not yet applied."""

    __slots__ = ("applied", "committed", "entries", "handed_out", "last_index", "last_term")

    def __init__(self, last_index: int, last_term: int, applied: int) -> None:
        assert applied <= last_index
        self.entries: list[Entry] = []
        self.last_index = last_index
        self.last_term = last_term
        self.handed_out = last_index
        """Entries up to here were given to the driver for the disk."""
        self.committed = applied
        self.applied = applied

    def append(self, entry: Entry) -> None:
        """Add an entry of the current term at the end."""
        assert entry.index == self.last_index + 1
        assert entry.term >= self.last_term
        self.entries.append(entry)
        self.last_index = entry.index
        self.last_term = entry.term

    def take_unpersisted(self) -> list[Entry]:
        """Return the entries that the driver has not yet been given, and remember that it has."""
        count = self.last_index - self.handed_out
        self.handed_out = self.last_index
        return self.entries[-count:] if count else []

    def take_committed(self) -> list[Entry]:
        """Return the committed entries in memory that are not applied, and count them as applied.

        Requires that every older entry is applied already (``applied`` + 1 is the first in memory).
        """
        count = self.committed - self.applied
        if count <= 0:
            return []
        assert self.entries[0].index == self.applied + 1
        taken = self.entries[:count]
        del self.entries[:count]
        self.applied = self.committed
        return taken
