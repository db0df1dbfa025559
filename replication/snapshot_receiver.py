"""Snapshots from node to node: the receiver's side of TransferSnapshot.

Order: header → partial file `incoming/<index>-<term>.snap` → chunks, each checked and written at its offset → every
byte of the file verified (SnapshotReader.verify) → fsync → rename into the directory of snapshots → fsync of both
directories → the node is told → `installed`.

Guarantees: bytes go straight to disk, in one thread of their own; the event loop waits for none of it. A name among
the snapshots appears only when its file is whole, verified and durable. One transfer at a time: a later one of the same
or a later term takes the place of the one before. After a broken stream the sender goes on where the file ends; what
nobody goes on with is dropped after five minutes. A failing disk fails the transfer, and never the node: nothing was
promised yet.
Leaves to the caller: what the snapshot means (`on_received`), and `remove_partial_snapshots` at the start.
Reference: Raft thesis, section 5.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError
from google_crc32c import value

from persistence.disk import Disk
from persistence.errors import DiskFailed, StorageError
from persistence.snapshot import SnapshotReader, snapshot_path
from redan.raft.v1 import raft_pb2
from replication.core import membership
from replication.core.membership import Configuration
from replication.core.messages import InstallSnapshot
from replication.wire import NUMBER_MAX

INCOMING: Final = "incoming"
"""Subdirectory of the partial file: a snapshot is verified under its own name, and is none before."""
SYNC_EVERY_BYTES: Final = 4 * 1024 * 1024
"""As the writer of snapshots does: one sync of a large file would hold up the log's fdatasync."""
CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024
ABANDONED_SECONDS: Final = 300.0

_Result = TypeVar("_Result")
Read = Callable[[], Awaitable[object]]
Write = Callable[[bytes], Awaitable[None]]


class TransferRefused(Exception):  # noqa: N818 -- it says what happened
    """The sender did what no sender does, or is not wanted; the text goes back to it."""


def remove_partial_snapshots(directory: Path, disk: Disk) -> int:
    """Remove what transfers of earlier runs left behind; return how many files. Blocks; raise DiskFailed."""
    incoming = directory / INCOMING
    disk.make_dirs(incoming)
    names = disk.listdir(incoming)
    for name in names:
        disk.unlink(incoming / name)
    return len(names)


class _Partial:
    """A file that is being received. Its methods block, and run in the receiver's thread, one after the other."""

    def __init__(self, directory: Path, disk: Disk, header: raft_pb2.SnapshotHeader) -> None:
        self.header = header
        self.written = 0
        """Bytes in the file, from its beginning, without a hole."""
        self.is_closed = False
        self._directory = directory
        self._disk = disk
        self._target = snapshot_path(directory, header.last_index, header.last_term)
        self._path = snapshot_path(directory / INCOMING, header.last_index, header.last_term)
        self._handle: int | None = None
        self._synced = 0

    def create(self) -> None:
        """Create the empty file, and remove others that nobody goes on with."""
        remove_partial_snapshots(self._directory, self._disk)
        self._handle = self._disk.open(self._path, "create")

    def write(self, chunk: raft_pb2.SnapshotChunk) -> None:
        """Check a chunk and write it. Raise TransferRefused, DiskFailed."""
        assert self._handle is not None
        content = chunk.content
        if chunk.offset != self.written:
            raise TransferRefused(f"a chunk at offset {chunk.offset} came, and {self.written} bytes are here")
        if not content or len(content) > CHUNK_BYTES_MAX or self.written + len(content) > self.header.size_bytes:
            raise TransferRefused(f"a chunk of {len(content)} bytes at offset {chunk.offset} does not fit")
        if value(content) != chunk.crc32c:
            raise TransferRefused(f"the checksum of the chunk at offset {chunk.offset} does not match")
        self._disk.pwritev(self._handle, (content,), self.written)
        self.written += len(content)
        if self.written - self._synced >= SYNC_EVERY_BYTES:
            self._disk.fdatasync(self._handle)
            self._synced = self.written

    def install(self) -> Configuration:
        """Verify the file and give it its place; return its configuration. Raise StorageError, TransferRefused."""
        assert self._handle is not None
        assert self.written == self.header.size_bytes
        with SnapshotReader.open(self._path, self._disk) as reader:
            reader.verify()
            encoded = reader.meta.configuration or self.header.configuration
        try:
            configuration = membership.decode(encoded)
        except ValueError as error:
            raise TransferRefused(f"the snapshot's configuration cannot be read: {error}") from error
        self._disk.fsync(self._handle)
        self._disk.rename(self._path, self._target)
        self._disk.fsync_dir(self._directory)
        self._disk.fsync_dir(self._path.parent)
        self._close()
        return configuration

    def discard(self) -> None:
        """Give the file up; a disk that fails here changes nothing."""
        if not self.is_closed:
            self._close()
            with suppress(DiskFailed):
                self._disk.unlink(self._path)

    def _close(self) -> None:
        self.is_closed = True
        if self._handle is not None:
            with suppress(DiskFailed):
                self._disk.close(self._handle)


class SnapshotReceiver:
    """Receives snapshots for one node."""

    def __init__(self, directory: Path, disk: Disk, on_received: Callable[[str, InstallSnapshot], None]) -> None:
        # on_received: called on the event loop with the sender's name and what the durable file holds.
        self.received = 0
        self.bytes_received = 0
        self._directory = directory
        self._disk = disk
        self._on_received = on_received
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot-receiver")
        self._turn = asyncio.Lock()
        """One stream at a time chooses the file that it goes on with."""
        self._partial: _Partial | None = None
        self._receiving: asyncio.Task[Any] | None = None
        """The stream that the partial file belongs to now."""
        self._install: asyncio.Task[None] | None = None
        """Runs to its end even if the stream breaks meanwhile."""
        self._installed_id: int | None = None
        self._abandoned: asyncio.TimerHandle | None = None

    async def receive(self, header: raft_pb2.SnapshotHeader, read: Read, write: Write) -> None:
        """Serve one stream, behind its header, whose greeting was accepted. Raise TransferRefused, StorageError.

        ``read`` gives raw requests, and anything else at the end; ``write`` takes raw responses.
        """
        for number in (header.term, header.last_index, header.last_term, header.size_bytes):
            if not 0 < number <= NUMBER_MAX:
                raise TransferRefused(f"the header of a snapshot has the number {number}")
        task = asyncio.current_task()
        async with self._turn:
            partial = await self._partial_for(header)
            self._receiving = task
        try:
            if partial is None or await self._has_received(partial, read, write):
                await write(_response(header.size_bytes, installed=True))
        except (TransferRefused, StorageError) as error:
            if partial is not None:
                self._drop(partial)
            with suppress(Exception):  # the sender may be gone; what is raised says why there is no snapshot
                await write(raft_pb2.TransferSnapshotResponse(refusal=str(error)).SerializeToString())
            raise
        finally:
            if self._receiving is task:
                self._receiving = None

    async def stop(self) -> None:
        """Drop what is not complete; call it after the last stream has ended."""
        if self._install is not None:
            with suppress(StorageError, TransferRefused):
                await self._install
        if self._partial is not None:
            self._drop(self._partial)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def _partial_for(self, header: raft_pb2.SnapshotHeader) -> _Partial | None:
        """Return the file to go on with, or a new one; None if the snapshot is here already."""
        if self._install is not None:
            with suppress(StorageError, TransferRefused):
                await asyncio.shield(self._install)
        if self._installed_id == header.transfer_id:
            return None
        partial = self._partial
        if partial is not None and header.term < partial.header.term:
            raise TransferRefused(f"a snapshot of term {partial.header.term} is being received")
        if self._receiving is not None:
            # The sender has lost that stream before we did, or another leader sends.
            self._receiving.cancel()
        if partial is not None and partial.header.transfer_id == header.transfer_id:
            # A chunk of the stream before may be on its way to the disk: behind it, `written` is right.
            await self._in_thread(_be_a_turn)
            partial.header = header
            return partial
        if partial is not None:
            self._drop(partial)
        partial = self._partial = _Partial(self._directory, self._disk, header)
        try:
            await self._in_thread(partial.create)
        except StorageError:
            self._drop(partial)
            raise
        loop = asyncio.get_running_loop()
        self._abandoned = loop.call_later(ABANDONED_SECONDS, self._drop_if_abandoned, partial, -1)
        return partial

    async def _has_received(self, partial: _Partial, read: Read, write: Write) -> bool:
        """Receive and install; False if the stream ended before, and the file waits for the next one."""
        await write(_response(partial.written))
        while partial.written < partial.header.size_bytes:
            raw = await read()
            if not isinstance(raw, bytes):
                return False
            self.bytes_received += len(raw)
            await self._in_thread(partial.write, _chunk(raw))
        if self._install is None:
            self._install = asyncio.get_running_loop().create_task(self._finish(partial))
            # If the stream breaks meanwhile nobody else asks for the outcome.
            self._install.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._install)
        return True

    async def _finish(self, partial: _Partial) -> None:
        try:
            configuration = await self._in_thread(partial.install)
        finally:
            self._install = None
        header = partial.header
        self._partial = None
        self._installed_id = header.transfer_id
        self.received += 1
        message = InstallSnapshot(header.term, header.last_index, header.last_term, configuration)
        self._on_received(header.greeting.sender, message)

    def _drop(self, partial: _Partial) -> None:
        if self._partial is partial:
            self._partial = None
        with suppress(RuntimeError):  # the thread has ended: the file is dropped at the next start
            self._thread.submit(partial.discard)

    def _drop_if_abandoned(self, partial: _Partial, written_before: int) -> None:
        """Give up a file to which nothing was added since the last look."""
        if self._partial is not partial:
            return
        if self._install is None and partial.written == written_before:
            if self._receiving is not None:
                self._receiving.cancel()
            self._drop(partial)
            return
        loop = asyncio.get_running_loop()
        self._abandoned = loop.call_later(ABANDONED_SECONDS, self._drop_if_abandoned, partial, partial.written)

    async def _in_thread(self, call: Callable[..., _Result], *args: object) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def _be_a_turn() -> None:
    """Do nothing, behind all that was asked of the thread before."""


def _chunk(raw: bytes) -> raft_pb2.SnapshotChunk:
    try:
        request = raft_pb2.TransferSnapshotRequest.FromString(raw)
    except DecodeError:
        raise TransferRefused("the request is not a redan.raft.v1.TransferSnapshotRequest") from None
    if request.WhichOneof("part") != "chunk":
        raise TransferRefused("behind the header of a snapshot only chunks follow")
    return request.chunk


def _response(offset: int, *, installed: bool = False) -> bytes:
    return raft_pb2.TransferSnapshotResponse(offset=offset, installed=installed).SerializeToString()
