"""Reads old entries of the log: for a peer that is behind what memory holds, and for the rest of a replay.

Guarantees: a result has at least one entry or is an error; it is bounded by ``bytes_max`` and one entry.
Leaves to the caller: not to wait for the disk in an event loop (replication/threaded_reader).
"""

from __future__ import annotations

from collections.abc import Callable

from persistence.errors import Damaged, StorageError
from replication.core.messages import Entry
from replication.ports import Fetched, LogStore

PAUSE_ENTRIES = 32
"""A pause after so many entries: a third of a millisecond."""


def read_entries(
    storage: LogStore, from_index: int, to_index: int, bytes_max: int, pause: Callable[[], None] | None = None
) -> list[Entry] | StorageError:
    """Return entries from ``from_index`` on, at least one and up to about ``bytes_max`` of payload, or the error.

    ``pause`` is called every PAUSE_ENTRIES.
    """
    entries: list[Entry] = []
    size = 0
    try:
        for entry in storage.entries(from_index, to_index):
            entries.append(entry)
            size += len(entry.payload)
            if size >= bytes_max:
                break
            if pause is not None and len(entries) % PAUSE_ENTRIES == 0:
                pause()
    except StorageError as error:
        # What was read before the damage is of use: the next read begins at the damage.
        return entries or error
    return entries or Damaged("the log", 0, f"it does not hold the entry {from_index}")


class InlineReader:
    """Reads within the call: for a node that no event loop waits for."""

    def __init__(self, storage: LogStore) -> None:
        self._storage = storage

    def read(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        """Read entries from ``from_index`` on; ``done`` gets them, or the error, in this call."""
        done(read_entries(self._storage, from_index, to_index, bytes_max))
