"""Applies the entries of earlier runs: those behind the snapshot, which are on disk only.

Order: up to what was known to be committed at the start, in slices, before the node serves (``some``); what the leader
commits of the rest, in parts that are read beside the node (``read_part``). A single voter commits all of it with its
first election, so for it the first step reaches to the end.

Guarantees: each entry is applied once, in order, when it is committed.
Leaves to the caller: not applying anything else before ``is_finished``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from persistence.errors import StorageError
from replication.core.messages import Entry
from replication.core.raft import Raft
from replication.ports import EntryReader, LogStore

PART_BYTES_MAX: Final = 1 << 20
"""Applied in one turn of the event loop, of what the leader has committed of the rest: about 10 ms."""


class Replay:
    """The replay of one run."""

    def __init__(self, raft: Raft, storage: LogStore, reader: EntryReader, apply: Callable[[Entry], None]) -> None:
        self._raft = raft
        self._log = raft.log
        self._storage = storage
        self._reader = reader
        self._apply = apply
        """Applies one entry to the machine."""
        self._entries: Iterator[Entry] | None = None
        self._known_committed = self._log.committed
        self._last_index = self._log.last_index
        self._is_reading = False
        self.is_finished = self._log.applied == self._log.last_index
        """Whether no entry is left that is on disk only."""

    @property
    def remaining(self) -> int:
        """Entries still to apply of those that have to be before the node serves."""
        if self.is_finished:
            return 0
        target = self._last_index if self._raft.is_sole_voter else self._known_committed
        return max(0, target - self._log.applied)

    @property
    def is_caught_up(self) -> bool:
        """Whether nothing is committed now that is still on disk only; notices the end."""
        log = self._log
        if log.replay_end > log.applied:
            return False
        self.is_finished = log.memory_first <= log.applied + 1
        return True

    def abandon(self) -> None:
        """Forget it: a snapshot has taken the place of the entries."""
        self._entries = None
        self.is_finished = True

    def some(self, deadline: Callable[[], bool]) -> None:
        """Apply entries that are committed now until ``deadline()`` is true or none is left. Raises StorageError."""
        if self.is_finished or self.is_caught_up:
            return
        if self._entries is None:
            self._entries = self._storage.entries(self._log.applied + 1, self._log.replay_end)
        for entry in self._entries:
            self._one(entry)
            if deadline():
                return
        self._entries = None

    def read_part(self, done: Callable[[StorageError | None], None]) -> None:
        """Read the next committed entries beside the node and apply them; then call ``done``."""
        if not self._is_reading:
            self._is_reading = True
            self._reader.read(
                self._log.applied + 1, self._log.replay_end, PART_BYTES_MAX, lambda found: self._took(found, done)
            )

    def _took(self, found: list[Entry] | StorageError, done: Callable[[StorageError | None], None]) -> None:
        self._is_reading = False
        if isinstance(found, StorageError):
            done(None if self.is_finished else found)
            return
        for entry in found:
            # A snapshot may have gone over them meanwhile.
            if entry.index == self._log.applied + 1 and entry.index <= self._log.replay_end:
                self._one(entry)
        done(None)

    def _one(self, entry: Entry) -> None:
        self._raft.replayed(entry)
        self._apply(entry)
