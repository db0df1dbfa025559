"""When snapshots are taken, and how one is driven: slices on the event loop, compression and writing in a thread.

States: idle → walking (slices of at most SLICE_SECONDS a turn) → writing (the thread finishes the file) → idle.

Guarantees: a snapshot shows the state at one index; commands go on meanwhile (keyspace/image saves a slot before it
changes). The log is purged only behind the older of the two snapshots kept, so a damaged one costs nothing.
Leaves to the caller: loading (kvservice/recovery).
Reference: Raft thesis, section 5.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter, time
from typing import Final, Protocol

from kvservice.commands.reply import OK, ErrorReply, Pending
from kvservice.config import Config
from kvservice.errors import RedanError, RequestError
from kvservice.keyspace.image import SnapshotWalk
from kvservice.keyspace.machine import Machine
from kvservice.logs import Event, Log
from persistence.disk import Disk
from persistence.errors import StorageError
from persistence.snapshot import SnapshotFile, SnapshotMeta, SnapshotWriter, purge_snapshots, remove_temporaries
from persistence.wal import WalStats

SLICE_SECONDS: Final = 0.001
SLICE_KEYS: Final = 500
PAUSE_SECONDS: Final = 0.001
"""Between slices, so that commands get the larger part of the loop."""
KEPT: Final = 2

log = Log("snapshots")


class SnapshotFailed(RedanError):
    """The snapshot could not be written; the log still holds everything."""

    grpc_status = "INTERNAL"
    reason = "SNAPSHOT_FAILED"


class LogOwner(Protocol):
    """Who knows what is still needed of the log (replication/node)."""

    def purge(self, before_index: int) -> None:
        """Drop log before an index that snapshots cover, but for what somebody still needs."""


class Snapshots:
    """The snapshots of this node."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        config: Config,
        machine: Machine,
        node: LogOwner,
        wal_stats: WalStats,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._config = config
        self._machine = machine
        self._node = node
        self._wal_stats = wal_stats
        self._loop = loop
        self._walk: SnapshotWalk | None = None
        self._writer: SnapshotWriter | None = None
        self._chunk = b""
        """A chunk that the writer had no room for yet."""
        self._waiting: list[Pending] = []
        self._when_idle: list[Callable[[], None]] = []
        self._started = 0.0
        self._index = 0
        self.last_index = 0
        """Index of the newest snapshot, which a peer may have sent."""
        self.taken_index = 0
        """Index of the last one taken here."""
        self._changes = self._changes_at_last = machine.changes
        """What the machine had counted when the running one, and the newest one, began."""
        self._bytes_at_last = wal_stats.appended_bytes
        self._last_started = loop.time()
        self.last_saved_s = int(time())
        self.last_ok = True
        self.last_seconds = -1.0
        self.last_bytes = 0
        self.taken = 0
        self.slice_seconds_max = 0.0
        """The longest that one slice kept the event loop."""
        self.note: Callable[[str, float], None] = lambda _event, _milliseconds: None
        """Told what every slice took, in ms, under the name that the latency monitor knows it by."""

    @property
    def in_progress(self) -> bool:
        """Whether one is being written."""
        return self._writer is not None

    @property
    def current_seconds(self) -> float:
        """Age of the one being written; -1 without one."""
        return perf_counter() - self._started if self._writer is not None else -1.0

    @property
    def keys_saved(self) -> int:
        """Keys that the one being written has so far; 0 without one."""
        return self._walk.items if self._walk is not None else 0

    @property
    def changes_since_last(self) -> int:
        """Entries with writes that no snapshot holds."""
        return self._machine.changes - self._changes_at_last

    def start_if_due(self) -> None:
        """Start a snapshot if enough log or time has gone by; call about ten times a second."""
        if self._writer is not None or self._machine.index == self.last_index:
            return
        config = self._config
        grown = self._wal_stats.appended_bytes - self._bytes_at_last
        seconds = self._loop.time() - self._last_started
        by_bytes = 0 < config.snapshot_every_bytes <= grown
        by_time = 0 < config.snapshot_every_seconds <= seconds and self.changes_since_last > 0
        if by_bytes or by_time:
            self._start()

    def save(self) -> Pending:
        """Start a snapshot; the reply is OK or the error. Raises RequestError while one is being written."""
        if self._writer is not None:
            raise RequestError("Background save already in progress")
        pending = Pending()
        self._waiting.append(pending)
        self._start()
        return pending

    async def save_and_wait(self) -> None:
        """Take a snapshot now, after the running one if there is one; for a clean stop."""
        await self._until_idle()
        if self.changes_since_last:
            self._start()
            await self._until_idle()

    async def _until_idle(self) -> None:
        if self.in_progress:
            idle = asyncio.Event()
            self._when_idle.append(idle.set)
            await idle.wait()

    def _start(self) -> None:
        machine = self._machine
        self._started = perf_counter()
        self._last_started = self._loop.time()
        self._bytes_at_last = self._wal_stats.appended_bytes
        self._index = machine.index
        self._changes = machine.changes
        meta = SnapshotMeta(machine.index, machine.term, machine.clock.stamp_ms, machine.configuration)
        self._chunk = b""
        log.info(Event.SNAPSHOT_STARTED, index=machine.index, term=machine.term)
        self._walk = machine.begin_walk()
        self._writer = SnapshotWriter(
            self._directory,
            self._disk,
            meta,
            on_finished=self._written,
            on_failed=self._not_written,
        )
        self._loop.call_soon(self._step)

    def _step(self) -> None:
        walk, writer = self._walk, self._writer
        if walk is None or writer is None:
            return
        started = perf_counter()
        is_last = self._is_finished_by_slice(walk, writer, started + SLICE_SECONDS)
        seconds = perf_counter() - started
        self.slice_seconds_max = max(self.slice_seconds_max, seconds)
        self.note("snapshot", seconds * 1000)
        if not is_last:
            self._loop.call_later(PAUSE_SECONDS, self._step)

    def _is_finished_by_slice(self, walk: SnapshotWalk, writer: SnapshotWriter, deadline: float) -> bool:
        """Walk until a moment of ``perf_counter``, or while the writer has room; True once the walk is at its end."""
        chunk: bytes | None = self._chunk
        while perf_counter() < deadline:
            if not chunk:
                chunk = walk.next_slice(SLICE_KEYS)
            if chunk is None:
                self._machine.snapshot = self._walk = None
                self._chunk = b""
                writer.finish(walk.items, walk.digest.to_bytes(8, "big"))
                return True
            if not writer.put(chunk):
                break
            chunk = b""
        self._chunk = chunk or b""
        return False

    def _written(self, _path: Path) -> None:
        """Drop older snapshots, in the writer's thread: the event loop does not wait for a disk."""
        kept: list[SnapshotFile] = []
        try:
            kept = purge_snapshots(self._directory, self._disk, keep=KEPT)
        except StorageError as error:
            # The snapshot itself is there, and the next one tries again to drop what is too old.
            log.error(Event.SNAPSHOT_FAILED, index=self._index, error=str(error))
        self._loop.call_soon_threadsafe(self._finished, kept)

    def _not_written(self, error: StorageError) -> None:
        """Give back the room of a snapshot that failed, in the writer's thread: perhaps that was what it lacked."""
        with suppress(StorageError):
            remove_temporaries(self._directory, self._disk)
        self._loop.call_soon_threadsafe(self._failed, error)

    def _finished(self, kept: list[SnapshotFile]) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        self.last_seconds = perf_counter() - self._started
        self.last_saved_s = int(time())
        self.taken_index = self._index
        self.last_index = max(self.last_index, self._index)
        self._changes_at_last = self._changes
        self.last_bytes = writer.stats.file_bytes
        self.last_ok = True
        self.taken += 1
        log.info(Event.SNAPSHOT_FINISHED, index=self._index, bytes=self.last_bytes, seconds=round(self.last_seconds, 3))
        if len(kept) >= KEPT:
            self._node.purge(min(file.last_index for file in kept) + 1)
        self._answer(None)

    def _failed(self, error: StorageError) -> None:
        self._writer = None
        self._machine.snapshot = self._walk = None
        self.last_seconds = perf_counter() - self._started
        self.last_ok = False
        log.error(Event.SNAPSHOT_FAILED, index=self._index, error=str(error))
        self._answer(SnapshotFailed(f"snapshot failed: {error}"))

    def _answer(self, error: RedanError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.resolve(OK if error is None else ErrorReply(error))
        listeners, self._when_idle = self._when_idle, []
        for listener in listeners:
            listener()
