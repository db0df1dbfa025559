"""Reads old entries of the log beside the node, in a thread: for a peer that is behind what memory holds.

Guarantees: ``read`` never waits; results come in the order of the calls, on the thread of the node, each with at least
one entry or an error; what is read at once is bounded by ``bytes_max`` and one entry.
Leaves to the caller: how many reads it asks for at once; the node asks for one a peer.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from persistence.errors import Damaged, StorageError
from replication.core.messages import Entry
from replication.ports import Fetched, LogStore


def read_entries(storage: LogStore, from_index: int, to_index: int, bytes_max: int) -> list[Entry] | StorageError:
    """Return entries from ``from_index`` on, at least one and up to about ``bytes_max`` of payload, or the error."""
    entries: list[Entry] = []
    size = 0
    try:
        for entry in storage.entries(from_index, to_index):
            entries.append(entry)
            size += len(entry.payload)
            if size >= bytes_max:
                break
    except StorageError as error:
        # What was read before the damage is of use: the next read begins at the damage.
        return entries or error
    return entries or Damaged("the log", 0, f"it does not hold the entry {from_index}")


class ThreadedReader:
    """Reads one after the other in a thread of its own, so that the event loop never waits for the disk."""

    def __init__(self, storage: LogStore, call: Callable[[Callable[[], None]], object]) -> None:
        # call: hands a function to the thread of the node, as ``loop.call_soon_threadsafe`` does.
        self._storage = storage
        self._call = call
        self._thread = ThreadPoolExecutor(1, "log-reader")

    def read(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        """Read entries from ``from_index`` on; ``done`` gets them, or the error, on the thread of the node."""
        self._thread.submit(self._read, from_index, to_index, bytes_max, done)

    def close(self) -> None:
        """Forget what is not begun, and wait for what is."""
        self._thread.shutdown(cancel_futures=True)

    def _read(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        found = read_entries(self._storage, from_index, to_index, bytes_max)
        self._call(lambda: done(found))
