"""Snapshots from node to node: the sender's side of TransferSnapshot. The receiver's is replication/snapshot_receiver.

Order: newest snapshot opened → stream opened → header → the receiver's offset → chunks from there → `installed`. A
stream that breaks is opened again, and the receiver says how far it is.

Guarantees: the event loop reads no file. One chunk at a time is in memory. The file is held open from beginning to end,
so purging it meanwhile takes its name and not its bytes. All transfers of a node together keep to one rate.
A snapshot that a receiver refuses as damaged, or that cannot be read, is read again here: if it is this node's copy
that is damaged, ``on_useless`` is told, and so it is when there is none that reaches far enough.
Measured here: without a limit 220 MiB/s, both ends in one process, with its verification; no turn of the event loop
above 3 ms. At the default limit of 100 MiB/s each end uses a quarter of a core.
Leaves to the caller: whether the snapshot is still wanted (cancel `send`), asking again after a failure, and a sound
snapshot in place of a useless one: the same peer will ask for it again.
Reference: Raft thesis, section 5.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from random import getrandbits
from time import monotonic
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google_crc32c import value

from persistence.disk import Disk
from persistence.errors import Damaged, DataDirIncompatible, DiskFailed, StorageError
from persistence.snapshot import SnapshotMeta, SnapshotReader, list_snapshots
from redan.raft.v1 import raft_pb2
from replication.core import membership
from replication.core.messages import InstallSnapshot
from replication.peer_channel import Dialer
from replication.peer_greeting import NodeIdentity
from replication.peer_secret import Proof

TRANSFER_SNAPSHOT: Final = "/redan.raft.v1.RaftService/TransferSnapshot"
CHUNK_BYTES: Final = 512 * 1024
"""A thread's turn and a message cost some 0.2 ms together: 2 % of the time that a chunk has at 100 MiB/s is 5 ms."""
BURST_SECONDS: Final = 0.05
"""A transfer may run ahead of its rate by so much."""
FRUITLESS_ATTEMPTS_MAX: Final = 8
"""Attempts in a row that carried no byte: with the pauses between them, some three seconds."""
OPEN_ATTEMPTS_MAX: Final = 3
"""A snapshot can be purged between the listing and the opening; then a newer one is there."""
STATUS_SECONDS: Final = 0.5
"""A refusal is in the pipe before the write that it breaks, or not at all."""
INSTALL_SECONDS: Final = 600.0
"""For reading 60 GB again at 100 MB/s: the receiver checks the whole file."""

RawStream = grpc.aio.StreamStreamCall[bytes, bytes]


class TransferFailed(Exception):  # noqa: N818 -- it says what happened
    """The snapshot could not be sent; the text is for an operator."""


class NoSnapshot(TransferFailed):
    """None of the snapshots here reaches far enough."""


class RateLimit:
    """Spreads bytes over time, those of all who share it."""

    def __init__(self, bytes_per_second: int) -> None:
        # 0 = no limit.
        self.bytes_per_second = bytes_per_second
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may be sent."""
        if not self.bytes_per_second:
            return
        now = monotonic()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + count / self.bytes_per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class OpenSnapshot(NamedTuple):
    """A snapshot that is held open."""

    path: Path
    handle: int
    size_bytes: int
    meta: SnapshotMeta
    transfer_id: int


def open_newest(directory: Path, disk: Disk, least_index: int) -> OpenSnapshot:
    """Open the newest snapshot. Blocks. Raise NoSnapshot if none reaches ``least_index``, or StorageError."""
    missing: DiskFailed | None = None
    for _ in range(OPEN_ATTEMPTS_MAX):
        found = list_snapshots(directory, disk)
        if not found or found[0].last_index < least_index:
            break
        path = found[0].path
        try:
            handle = disk.open(path, "read")
        except DiskFailed as error:
            missing = error
            continue
        try:
            with SnapshotReader.open(path, disk) as reader:
                meta = reader.meta
            return OpenSnapshot(path, handle, disk.size(handle), meta, getrandbits(64))
        except DiskFailed as error:
            missing = error
            disk.close(handle)
        except BaseException:
            disk.close(handle)
            raise
    raise NoSnapshot(f"no snapshot of index {least_index} or later can be opened: {missing or 'there is none'}")


class _Transfer:
    """One snapshot on its way to one peer."""

    def __init__(self, address: str, header: bytes, snapshot: OpenSnapshot) -> None:
        self.address = address
        self.header = header
        self.snapshot = snapshot
        self.reached = 0
        """The furthest offset that was written to a stream: what goes no further is no progress."""
        self.is_unreadable = False
        """A part of the file could not be read here."""

    @property
    def is_doubtful(self) -> bool:
        """Whether the file may be damaged, if the transfer fails: it is checked as a whole behind its last byte."""
        return self.is_unreadable or self.reached >= self.snapshot.size_bytes


class SnapshotSender:
    """Sends the snapshots of this node."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        identity: NodeIdentity,
        dialer: Dialer,
        on_useless: Callable[[Path | None, str], None] = lambda _path, _reason: None,
    ) -> None:
        # on_useless: told which snapshot is damaged and how, or with None that there is none that could be sent.
        self.rate = RateLimit(dialer.options.snapshot_bytes_per_second)
        self.bytes_sent = 0
        self._directory = directory
        self._disk = disk
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot-sender")
        self._identity = identity
        self._dialer = dialer
        self._on_useless = on_useless

    async def send(self, peer: str, address: str, message: InstallSnapshot) -> None:
        """Send the newest snapshot, of ``message.last_index`` or later; return once the peer has installed it.

        Raises TransferFailed.
        """
        loop = asyncio.get_running_loop()
        least = message.last_index
        opening = loop.run_in_executor(self._thread, open_newest, self._directory, self._disk, least)
        try:
            snapshot = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_late)
            raise
        except NoSnapshot as error:
            self._on_useless(None, str(error))
            raise
        except StorageError as error:
            self._on_useless(Path(error.file) if isinstance(error, Damaged) else None, str(error))
            raise TransferFailed(str(error)) from error
        transfer = _Transfer(address, self._header(peer, message, snapshot), snapshot)
        try:
            await self._send_until_installed(transfer)
        except TransferFailed:
            if transfer.is_doubtful:
                found = await loop.run_in_executor(self._thread, self._damage_of, snapshot.path)
                if found is not None:
                    self._on_useless(snapshot.path, str(found))
            raise
        finally:
            # Behind a read that a cancellation left in the thread.
            self._thread.submit(self._disk.close, snapshot.handle)

    def _close_late(self, opening: asyncio.Future[OpenSnapshot]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._disk.close(opening.result().handle)

    def stop(self) -> None:
        """Let the thread end; call it after the last `send` has ended."""
        self._thread.shutdown(wait=False)

    async def _send_until_installed(self, transfer: _Transfer) -> None:
        options = self._dialer.options
        furthest = fruitless = 0
        delay = options.retry_seconds_min
        while True:
            try:
                async with self._stream(transfer.address) as (call, proof):
                    await self._send_once(call, proof, transfer)
                return
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, OSError) as error:
                reason = _text(error)
                if isinstance(error, grpc.aio.AioRpcError) and error.code() in _FINAL:
                    raise TransferFailed(reason) from error
            if transfer.reached > furthest:
                furthest, fruitless, delay = transfer.reached, 0, options.retry_seconds_min
            else:
                fruitless, delay = fruitless + 1, min(2 * delay, options.retry_seconds_max)
            if fruitless >= FRUITLESS_ATTEMPTS_MAX:
                raise TransferFailed(reason)
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def _stream(self, address: str) -> AsyncIterator[tuple[RawStream, Proof]]:
        channel = await self._dialer.channel(address)
        try:
            proof = await self._dialer.proof(channel)
            yield channel.stream_stream(TRANSFER_SNAPSHOT)(metadata=proof.metadata), proof
        finally:
            await channel.close()

    async def _send_once(self, call: RawStream, proof: Proof, transfer: _Transfer) -> None:
        """Send what the receiver lacks. Raise AioRpcError, InvalidStateError, TimeoutError, OSError if it breaks."""
        async with asyncio.timeout(self._dialer.options.greeting_seconds):
            await call.write(transfer.header)
            response = await _response(call)
            await proof.check(call)
        # An answer in the middle is a refusal; read beside the writing, or a failing write would hide it.
        answer = asyncio.ensure_future(_response(call))
        try:
            await self._send_chunks(call, transfer, response.offset, answer)
            if not response.installed:
                async with asyncio.timeout(INSTALL_SECONDS):
                    await asyncio.shield(answer)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await asyncio.wait([answer], timeout=STATUS_SECONDS)
            if answer.done() and isinstance(refused := answer.exception(), TransferFailed):
                raise refused from None
            raise
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    async def _send_chunks(
        self, call: RawStream, transfer: _Transfer, offset: int, answer: asyncio.Future[Any]
    ) -> None:
        options, snapshot = self._dialer.options, transfer.snapshot
        loop = asyncio.get_running_loop()
        while offset < snapshot.size_bytes and not answer.done():
            count = min(CHUNK_BYTES, snapshot.size_bytes - offset)
            await self.rate.take(count)
            chunk = await loop.run_in_executor(self._thread, self._chunk, transfer, offset, count)
            # A receiver that takes nothing for so long has gone; the keep-alive of the connection says the same.
            async with asyncio.timeout(4 * options.keepalive_seconds):
                await call.write(chunk)
            offset += count
            self.bytes_sent += count
            transfer.reached = max(transfer.reached, offset)

    def _header(self, peer: str, message: InstallSnapshot, snapshot: OpenSnapshot) -> bytes:
        meta = snapshot.meta
        header = raft_pb2.SnapshotHeader(
            greeting=self._identity.greeting(peer),
            term=message.term,
            last_index=meta.last_index,
            last_term=meta.last_term,
            size_bytes=snapshot.size_bytes,
            transfer_id=snapshot.transfer_id,
            configuration=meta.configuration or membership.encode(message.configuration),
        )
        return raft_pb2.TransferSnapshotRequest(header=header).SerializeToString()

    def _damage_of(self, path: Path) -> StorageError | None:
        """Return what is wrong with a snapshot of this node; None if nothing is, or it is gone. Runs in a thread."""
        try:
            if not any(found.path == path for found in list_snapshots(self._directory, self._disk)):
                return None
            with SnapshotReader.open(path, self._disk) as reader:
                reader.verify()
        except (Damaged, DataDirIncompatible, DiskFailed) as error:
            return error
        return None

    def _chunk(self, transfer: _Transfer, offset: int, count: int) -> bytes:
        """Return a request with a piece of the file; runs in a thread. Raise OSError."""
        snapshot = transfer.snapshot
        try:
            content = self._disk.pread(snapshot.handle, count, offset)
        except DiskFailed as error:
            transfer.is_unreadable = True
            raise OSError(str(error)) from error
        if len(content) < count:
            transfer.is_unreadable = True
            raise OSError(f"{snapshot.path} ends at offset {offset + len(content)}, it had {snapshot.size_bytes} bytes")
        chunk = raft_pb2.SnapshotChunk(offset=offset, content=content, crc32c=value(content))
        return raft_pb2.TransferSnapshotRequest(chunk=chunk).SerializeToString()


_FINAL: Final = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
)
"""Trying the same again would get the same answer."""


async def _response(call: RawStream) -> raft_pb2.TransferSnapshotResponse:
    """Return the receiver's next answer. Raise TransferFailed for a refusal, OSError if the stream ends without one."""
    raw: object = await call.read()
    if not isinstance(raw, bytes):
        raise OSError("the receiver ended the transfer")
    try:
        response = raft_pb2.TransferSnapshotResponse.FromString(raw)
    except DecodeError as error:
        raise OSError("the answer is not a redan.raft.v1.TransferSnapshotResponse") from error
    if response.refusal:
        raise TransferFailed(response.refusal)
    return response


def _text(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
