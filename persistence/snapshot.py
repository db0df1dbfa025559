"""Snapshots: a file of the whole state at one log index, written in the background, read chunk by chunk.

Guarantees:
- A file with the name of a snapshot is whole and durable, or it was damaged later: it is written under a temporary
  name, synced, renamed, and the directory synced. A crash leaves the temporary file, which `remove_temporaries` drops.
- Reading verifies every byte and raises `Damaged` at the place, before it gives out the chunk that is wrong.
- `put` never waits; what is queued is bounded by QUEUE_BYTES_MAX.
Leaves to the caller: what chunks contain, keeping the log back to the older of the two snapshots that are kept
(purge the log before `older.last_index + 1`), and not starting a second writer for the same index.

Layout: `persistence.snapshot_format`.
Order of a finished snapshot: chunks → footer → fsync → rename → fsync of the directory → on_finished.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Self

import zstandard
from google_crc32c import value

from persistence.disk import Disk
from persistence.errors import Damaged, DataDirIncompatible, DiskFailed
from persistence.snapshot_files import (
    SnapshotFile,
    list_snapshots,
    purge_snapshots,
    remove_temporaries,
    snapshot_path,
)
from persistence.snapshot_format import (
    CHUNK_BYTES_MAX,
    CHUNK_HEADER_BYTES,
    CRC,
    FOOTER,
    FORMAT_VERSION,
    FORMAT_VERSION_OLDEST,
    HEADER,
    HEADER_BYTES,
    KIND_FOOTER,
    KIND_STORED,
    KIND_ZSTD,
    MAGIC,
    ChunkHeader,
    SnapshotFooter,
    SnapshotMeta,
    chunk_crc,
    decode_chunk_header,
    encode_chunk,
    encode_header,
)

__all__ = [
    "SnapshotChoice",
    "SnapshotFile",
    "SnapshotFooter",
    "SnapshotMeta",
    "SnapshotReader",
    "SnapshotWriter",
    "list_snapshots",
    "newest_valid",
    "purge_snapshots",
    "remove_temporaries",
    "snapshot_path",
]

QUEUE_BYTES_MAX = 16 * 1024 * 1024
"""Raw bytes that may wait for the thread: at the 300 MB/s that zstd and the disk make, 50 ms of work."""
SYNC_EVERY_BYTES = 4 * 1024 * 1024
"""Sync this often while writing: one sync of a large file would hold up the log's fdatasync for as long as it takes."""
ZSTD_LEVEL = 1
"""Level 1 packs 64-byte values about as well as level 3 at twice the rate."""


class SnapshotStats(NamedTuple):
    """Sizes of a finished snapshot in bytes."""

    raw_bytes: int
    file_bytes: int
    chunks: int


class _Finish(NamedTuple):
    item_count: int
    digest: bytes


class SnapshotWriter:
    """Write one snapshot in a thread of its own.

    on_finished(path) or on_failed(DiskFailed) is called once, in that thread; after `abort` neither is.
    """

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        meta: SnapshotMeta,
        on_finished: Callable[[Path], object],
        on_failed: Callable[[DiskFailed], object],
        *,
        threaded: bool = True,
    ) -> None:
        self.meta = meta
        self.path = snapshot_path(directory, meta.last_index, meta.last_term)
        self.stats = SnapshotStats(0, 0, 0)
        self._directory = directory
        self._disk = disk
        self._on_finished = on_finished
        self._on_failed = on_failed
        self._queue: SimpleQueue[bytes | _Finish | None] = SimpleQueue()
        # Each of the two counters has one writing thread; their difference is what waits.
        self._put_bytes = 0
        self._done_bytes = 0
        self._aborted = False
        self._ended = False
        self._failed = False
        self._thread: Thread | None = None
        if threaded:
            self._thread = Thread(target=self.run, name="snapshot-writer", daemon=True)
            self._thread.start()

    @property
    def room(self) -> int:
        """How many bytes `put` takes now; a chunk that is larger is taken when nothing waits."""
        return max(0, QUEUE_BYTES_MAX - (self._put_bytes - self._done_bytes))

    def put(self, chunk: bytes) -> bool:
        """Queue a chunk of the state; False when there is no room for it now, or the writer has failed."""
        assert not self._ended, "nothing follows the end of a snapshot"
        assert len(chunk) <= CHUNK_BYTES_MAX, "a reader would refuse this chunk"
        waiting = self._put_bytes - self._done_bytes
        if self._failed or (waiting and waiting + len(chunk) > QUEUE_BYTES_MAX):
            return False
        self._put_bytes += len(chunk)
        self._queue.put(chunk)
        return True

    def finish(self, item_count: int, digest: bytes) -> None:
        """Say that all chunks are queued. The snapshot exists when on_finished is called."""
        assert not self._ended, "a snapshot ends once"
        self._ended = True
        self._queue.put(_Finish(item_count, digest))

    def abort(self) -> None:
        """Give the snapshot up and remove what was written. A snapshot that is finished already stays."""
        self._aborted = self._ended = True
        self._queue.put(None)

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the thread has ended; False when it has not."""
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def run(self) -> None:
        """Write until the end is queued. With threaded=False, call this after `finish` or `abort`."""
        temporary = self._directory / (self.path.name + ".tmp")
        try:
            finished = self._write(temporary)
        except DiskFailed as error:
            self._fail(error)
        except Exception as error:
            self._fail(DiskFailed("snapshot thread", str(temporary), 0, f"unexpected {error!r}"))
        else:
            if finished:
                self._on_finished(self.path)

    def _fail(self, error: DiskFailed) -> None:
        # The log still holds everything. The temporary file stays for the caller to remove, or for the next start.
        self._failed = True
        self._on_failed(error)

    def _write(self, temporary: Path) -> bool:
        disk = self._disk
        handle = disk.open(temporary, "create")
        try:
            finished = self._write_chunks(handle)
            if finished:
                disk.fsync(handle)
        finally:
            with suppress(DiskFailed):
                disk.close(handle)
        if not finished:
            disk.unlink(temporary)
            return False
        disk.rename(temporary, self.path)
        disk.fsync_dir(self._directory)
        return True

    def _write_chunks(self, handle: int) -> bool:
        disk = self._disk
        header, crc = encode_header(self.meta)
        disk.pwritev(handle, (header,), 0)
        offset = synced = len(header)
        compress = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress
        chunks = 0
        while (item := self._queue.get()) is not None and not self._aborted:
            if isinstance(item, _Finish):
                stored = FOOTER.pack(chunks, item.item_count) + item.digest
                chunk_header, crc = encode_chunk(KIND_FOOTER, len(stored), stored, crc)
                disk.pwritev(handle, (chunk_header, stored), offset)
                self.stats = SnapshotStats(self._done_bytes, offset + CHUNK_HEADER_BYTES + len(stored), chunks)
                return True
            kind, stored = KIND_ZSTD, compress(item)
            if len(stored) >= len(item):
                kind, stored = KIND_STORED, item
            chunk_header, crc = encode_chunk(kind, len(item), stored, crc)
            disk.pwritev(handle, (chunk_header, stored), offset)
            offset += CHUNK_HEADER_BYTES + len(stored)
            chunks += 1
            if offset - synced >= SYNC_EVERY_BYTES:
                disk.fdatasync(handle)
                synced = offset
            self._done_bytes += len(item)
        return False


class SnapshotReader:
    """Read one snapshot. Use as a context manager, or close it."""

    def __init__(self, path: Path, disk: Disk, handle: int, meta: SnapshotMeta, crc: int) -> None:
        self.path = path
        self.meta = meta
        self.footer: SnapshotFooter | None = None
        """Known after all chunks were read."""
        self._disk = disk
        self._handle = handle
        self._start = HEADER_BYTES + len(meta.configuration)
        self._size = disk.size(handle)
        self._crc = crc

    @classmethod
    def open(cls, path: Path, disk: Disk) -> Self:
        """Open a snapshot and verify its header. Raises `Damaged`, `DataDirIncompatible`, `DiskFailed`."""
        handle = disk.open(path, "read")
        try:
            meta, crc = _read_header(path, disk, handle)
            return cls(path, disk, handle, meta, crc)
        except BaseException:
            disk.close(handle)
            raise

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the chunks as they were put, each verified. After the last one `footer` is set. Raises `Damaged`."""
        decompress = zstandard.ZstdDecompressor().decompress
        for offset, header, stored in self._stored_chunks():
            if header.kind == KIND_STORED:
                raw = stored
            else:
                try:
                    raw = decompress(stored, max_output_size=header.raw_length)
                except zstandard.ZstdError as error:
                    raise Damaged(str(self.path), offset, f"the chunk does not unpack: {error}") from error
            if len(raw) != header.raw_length:
                raise Damaged(str(self.path), offset, "the chunk has another length than it says")
            yield raw

    def verify(self) -> SnapshotFooter:
        """Check every byte of the file without unpacking it. Raises `Damaged`, `DiskFailed`."""
        for _ in self._stored_chunks():
            pass
        assert self.footer is not None, "chunks end with the footer or with an error"
        return self.footer

    def _stored_chunks(self) -> Iterator[tuple[int, ChunkHeader, bytes]]:
        """Yield offset, header and stored bytes of each chunk, and set the footer at the end."""
        path, offset, crc, count = str(self.path), self._start, self._crc, 0
        while True:
            fields = self._disk.pread(self._handle, CHUNK_HEADER_BYTES, offset)
            if len(fields) < CHUNK_HEADER_BYTES:
                raise Damaged(path, offset, "the snapshot ends without its footer")
            try:
                header = decode_chunk_header(fields)
            except ValueError as error:
                raise Damaged(path, offset, str(error)) from error
            end = offset + CHUNK_HEADER_BYTES + header.stored_length
            if end > self._size:
                raise Damaged(path, offset, "the snapshot ends inside a chunk")
            stored = self._disk.pread(self._handle, header.stored_length, offset + CHUNK_HEADER_BYTES)
            crc = chunk_crc(header.kind, header.raw_length, stored, crc)
            if crc != header.crc:
                raise Damaged(path, offset, "the checksum of a chunk does not match")
            if header.kind == KIND_FOOTER:
                self.footer = self._checked_footer(offset, end, stored, count)
                return
            yield offset, header, stored
            offset = end
            count += 1

    def _checked_footer(self, offset: int, end: int, stored: bytes, count: int) -> SnapshotFooter:
        if len(stored) < FOOTER.size or end != self._size:
            raise Damaged(str(self.path), offset, "bytes follow the footer, or it is cut short")
        chunk_count, item_count = FOOTER.unpack_from(stored)
        if chunk_count != count:
            raise Damaged(str(self.path), offset, f"{count} chunks are there, the footer says {chunk_count}")
        return SnapshotFooter(chunk_count, item_count, stored[FOOTER.size :])


def _read_header(path: Path, disk: Disk, handle: int) -> tuple[SnapshotMeta, int]:
    content = disk.pread(handle, HEADER_BYTES, 0)
    if len(content) < HEADER_BYTES:
        raise Damaged(str(path), len(content), "the file ends inside the snapshot header")
    magic, version, length, last_index, last_term, stamp_ms = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise Damaged(str(path), 0, "this is not a snapshot: the magic number is wrong")
    configuration = disk.pread(handle, length, HEADER_BYTES) if length <= disk.size(handle) else b""
    (crc,) = CRC.unpack_from(content, HEADER.size)
    # A flipped bit in the version is damage, not another program's file: the checksum decides.
    crc_holds = value(content[: HEADER.size] + configuration) == crc
    if not FORMAT_VERSION_OLDEST <= version <= FORMAT_VERSION and crc_holds:
        raise DataDirIncompatible(str(path), version, FORMAT_VERSION)
    if not crc_holds:
        raise Damaged(str(path), 0, "the checksum of the snapshot header does not match")
    if path.name != snapshot_path(path.parent, last_index, last_term).name:
        raise Damaged(str(path), 0, f"the header says index {last_index} and term {last_term}, the name does not")
    return SnapshotMeta(last_index, last_term, stamp_ms, configuration), crc


class SnapshotChoice(NamedTuple):
    """The snapshot to start from, None for an empty state, and those newer ones that are damaged."""

    newest: SnapshotFile | None
    damaged: list[Damaged]


def newest_valid(directory: Path, disk: Disk, *, log_first_index: int) -> SnapshotChoice:
    """Choose the newest snapshot that is whole, every byte checked, and from which the log goes on.

    log_first_index: the first index that the log still holds. A damaged snapshot is passed over only when the log
    reaches back to an older one, or to the beginning: else entries would be missing. The caller reports what it was.
    Raises `Damaged` when no way to the present state is left, `DataDirIncompatible`, `DiskFailed`.
    """
    damaged: list[Damaged] = []
    for snapshot in list_snapshots(directory, disk):
        if snapshot.last_index + 1 < log_first_index:
            break
        try:
            with SnapshotReader.open(snapshot.path, disk) as reader:
                reader.verify()
        except Damaged as error:
            damaged.append(error)
        else:
            return SnapshotChoice(snapshot, damaged)
    if log_first_index > 1:
        if damaged:
            raise damaged[0]
        raise Damaged(str(directory), 0, f"no snapshot reaches index {log_first_index - 1}, after which the log begins")
    return SnapshotChoice(None, damaged)
