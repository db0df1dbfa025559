"""DEBUG DIGEST on a node that goes on working: one walk at a time over the keys, in slices.

Guarantees: the digest is that of one state, the one in force when the walk began; a caller gets one whose walk began
after it asked. No slice takes much longer than SLICE_SECONDS.
Leaves to the caller: having reached the state that is meant (commands/debug).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from kvservice.commands.reply import Pending, Status
from kvservice.keyspace.dataset_digest import DatasetDigest, shown
from kvservice.keyspace.image import SnapshotWalk
from kvservice.keyspace.machine import Machine

SLICE_SECONDS: Final = 0.001
SLICE_KEYS: Final = 64
"""About 0.6 ms."""
PAUSE_SECONDS: Final = 0.001


class DatasetWalks:
    """The digests that callers of one node wait for."""

    def __init__(self, machine: Machine, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._machine = machine
        self._call_later = call_later
        self._walk: SnapshotWalk | None = None
        self._digest = DatasetDigest(0)
        self._served: list[Pending] = []
        """Who gets the digest of the walk that is under way."""
        self._waiting: list[Pending] = []
        """Who came after it began."""

    def digest(self) -> Pending:
        """Compute the digest of all keys; the reply is its 40 digits."""
        pending = Pending()
        self._waiting.append(pending)
        if self._walk is None:
            self._begin()
        return pending

    def _begin(self) -> None:
        self._served, self._waiting = self._waiting, []
        self._walk = self._machine.begin_digest()
        self._digest = DatasetDigest(self._machine.clock.stamp_ms)
        self._step()

    def _step(self) -> None:
        walk = self._walk
        assert walk is not None
        deadline = perf_counter() + SLICE_SECONDS
        while True:
            chunk = walk.next_slice(SLICE_KEYS)
            if chunk is None:
                self._end()
                return
            self._digest.add(chunk)
            if perf_counter() >= deadline:
                break
        self._call_later(PAUSE_SECONDS, self._step)

    def _end(self) -> None:
        self._machine.digesting = self._walk = None
        served, self._served = self._served, []
        text = Status(shown(self._digest.total()))
        if self._waiting:
            self._begin()
        for pending in served:
            pending.resolve(text)
