"""DEBUG RELOAD on a node that goes on working: a snapshot, loaded into a second keyspace, compared, and taken over.

Order: snapshot begins, and with it every entry that is applied is noted → the file is loaded into the second keyspace →
what was noted is applied there, and from then on each entry as it comes → slot by slot both are compared → in one turn
in which both stand at the same entry, the loaded keys take the place of the old ones.

So what serves afterwards came from the disk, no acknowledged write is missing, and no caller has waited.

Guarantees: the keys are exchanged only if every live one has the same value, inner form and deadline, and the digests
of both histories are equal; else nothing changes and the difference is told.
Leaves to the caller: room in memory for the keys twice.
Bounds: entries of NOTED_BYTES_MAX while the file is written and loaded; beyond that the reload gives up.
Reference: Redis DEBUG RELOAD, which stops the server for the time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol

from kvservice import recovery
from kvservice.commands.reply import OK, ErrorReply, Pending, Reply
from kvservice.errors import RequestError
from kvservice.keyspace.machine import InternalError, Machine
from kvservice.keyspace.slots import SLOTS
from kvservice.logs import Event, Log
from kvservice.runner import Runner
from persistence.disk import Disk
from persistence.errors import StorageError
from persistence.snapshot import snapshot_path
from replication.core.messages import Entry, EntryKind

NOTED_BYTES_MAX: Final = 256 * 1024 * 1024
"""Two seconds of a disk that writes 128 MB/s."""
ENTRY_BYTES: Final = 200
"""What an entry takes besides its payload."""
SLICE_SECONDS: Final = 0.001
PAUSE_SECONDS: Final = 0.001

log = Log("reload")


class ReloadFailed(Exception):  # noqa: N818 - says what is the case
    """The keys stay as they are; ``str`` of it says why."""


class Saving(Protocol):
    """Who takes snapshots (kvservice/snapshots)."""

    def save(self) -> Pending:
        """Begin a snapshot of the state as it is now. Raises RequestError while one is being written."""


class Twin:
    """The second keyspace, and what it has not applied yet."""

    def __init__(self, fresh: Machine) -> None:
        self.machine = fresh
        self._noted: deque[Entry] = deque()
        self._noted_bytes = 0
        self.failure = ""
        self._is_loaded = False

    @property
    def is_level(self) -> bool:
        """Whether it has applied all that was noted."""
        return self._is_loaded and not self._noted

    def note(self, entry: Entry) -> None:
        """Take an entry that is being applied; hot while a reload is under way."""
        if self.failure:
            return
        if self.is_level:
            self._apply(entry)
            return
        self._noted.append(entry)
        self._noted_bytes += len(entry.payload) + ENTRY_BYTES
        if self._noted_bytes > NOTED_BYTES_MAX:
            self.failure = "more was written meanwhile than is kept"
            self._noted.clear()

    def loaded(self) -> None:
        """Learn that the snapshot is in the machine: what was noted may be applied."""
        self._is_loaded = True

    def catch_up(self, deadline: float) -> None:
        """Apply what was noted, until a moment of ``perf_counter``."""
        while self._noted and perf_counter() < deadline:
            self._apply(self._noted.popleft())

    def _apply(self, entry: Entry) -> None:
        fresh = self.machine
        if entry.index != fresh.index + 1:
            self.failure = "the state was replaced meanwhile by that of another node"
            return
        fresh.begin_entry(entry.index, entry.term, entry.stamp_ms, entry.payload)
        if entry.kind == EntryKind.COMMANDS:
            fresh.replay(entry.payload)
        fresh.end_entry()


class Reload:
    """Reloads of one node, one at a time."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        runner: Runner,
        snapshots: Saving,
        new_machine: Callable[[], Machine],
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._runner = runner
        self._snapshots = snapshots
        self._new_machine = new_machine
        self._spawn = spawn
        self._twin: Twin | None = None

    def start(self) -> Pending:
        """Begin; the reply is OK or what went wrong. Raises RequestError while a snapshot is being written."""
        if self._twin is not None:
            raise RequestError("a reload is under way already")
        machine = self._runner.machine
        saved = self._snapshots.save()
        twin = self._twin = Twin(self._new_machine())
        path = snapshot_path(self._directory, machine.index, machine.term)
        self._runner.follow = twin.note
        pending = Pending()
        saved.then(lambda reply: self._saved(twin, path, reply, pending))
        return pending

    def _saved(self, twin: Twin, path: Path, reply: Reply, pending: Pending) -> None:
        if isinstance(reply, ErrorReply):
            self._end()
            pending.resolve(reply)
        else:
            self._spawn(self._load(twin, path, pending))

    async def _load(self, twin: Twin, path: Path, pending: Pending) -> None:
        started = perf_counter()
        ours = self._runner.machine
        try:
            await recovery.load_file(path, self._disk, twin.machine)
            twin.loaded()
            await self._compare(ours, twin)
            # No turn of the loop lies between the comparison of the histories and this.
            ours.adopt(twin.machine)
        except (ReloadFailed, StorageError) as error:
            log.error(Event.KEYSPACE_NOT_RELOADED, index=ours.index, error=str(error))
            pending.resolve(ErrorReply(RequestError(f"Error trying to load the snapshot: {error}")))
        except Exception as error:
            # A defect: whoever runs this reports it, and the caller is not left to wait.
            pending.resolve(ErrorReply(InternalError(f"internal error in 'debug|reload': {type(error).__name__}")))
            raise
        else:
            log.info(Event.KEYSPACE_RELOADED, index=ours.index, seconds=round(perf_counter() - started, 3))
            pending.resolve(OK)
        finally:
            self._end()

    async def _compare(self, ours: Machine, twin: Twin) -> None:
        """Return in a turn in which both are the same. Raise ReloadFailed if they are not."""
        slot = 0
        while True:
            deadline = perf_counter() + SLICE_SECONDS
            twin.catch_up(deadline)
            while twin.is_level and slot < SLOTS and perf_counter() < deadline:
                # Both stand at the same entry; what comes later is applied to both.
                if not twin.failure and not ours.has_same_slot(twin.machine, slot):
                    raise ReloadFailed(f"keys of slot {slot} are not as they were saved")
                slot += 1
            if twin.failure:
                raise ReloadFailed(twin.failure)
            if slot == SLOTS and twin.is_level:
                if not ours.is_equal(twin.machine):
                    raise ReloadFailed("the digests of the histories differ")
                return
            await asyncio.sleep(PAUSE_SECONDS)

    def _end(self) -> None:
        self._twin = None
        self._runner.follow = None
