"""Write frames into the active segment, and switch to the next one when it is full. No threads here.

Guarantees:
- `write` returns after all its records are durable (`fsync = always`) or written (`interval`, `os`), in order.
- Each call's records of one append are in one frame, so they survive a crash together or not at all.
- At every moment of a switch a crash leaves a log that recovery reads to the last durable frame.
Leaves to the caller: one thread at a time, and stopping after the first `DiskFailed`.

Order of a switch, each step durable before the next:
1. the header of the next segment, with the checksum of the frame that step 2 writes, in the prepared file;
2. a frame that says "continued", the last of the old segment;
3. the prepared file gets its name.
A crash after 2 finds the prepared file and finishes with 3 (case F in `persistence.recovery`); so a last segment that
someone removed is told from a switch that was interrupted.

Sizes: the first segment has 1 MiB, each next one twice as much, up to segment_bytes, so that a small log starts in a
few ms and a large one switches rarely. A frame that does not fit gets a segment of its own size.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Literal, NamedTuple

from persistence.disk import Disk, write_zeros
from persistence.errors import Damaged, DiskFailed
from persistence.frame_index import STEP_BYTES, FrameIndex, FramePlace
from persistence.record import (
    CONTROL_FRAME_BYTES,
    FRAME_ALIGNMENT,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    KIND_CONTINUED,
    KIND_ENTRY,
    KIND_SEAL,
    KIND_SYNC_MARK,
    PADDING,
    PAYLOAD_BYTES_MAX,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    FrameKey,
    WalRecord,
    encode_control,
    encode_records,
    frame_crc,
    frame_key,
    padded,
)
from persistence.recovery import TornTail, is_unborn, read_end, repair_tail, rewrite_tail
from persistence.segment import (
    HEADER_BYTES,
    SegmentFile,
    encode_header,
    header_crc,
    list_segments,
    prepared_path,
    segment_path,
)
from persistence.wal_stats import WalStats

__all__ = [
    "Append",
    "FsyncMode",
    "LogWriter",
    "PreparedSegment",
    "WalOptions",
    "WalReport",
    "WalStats",
    "prepare_segment",
]

FsyncMode = Literal["always", "interval", "os"]

SALT_BYTES = 8
PAGE_BYTES = 4096
SEGMENT_BYTES_MIN = 64 * 1024
FIRST_SEGMENT_BYTES = 1024 * 1024
FRAME_SPLIT_BYTES = 4 * 1024 * 1024
"""A frame takes appends until it has this much, a few ms of writing: a large batch does not hold back the rest."""
CONTROL_ROOM_BYTES = 3 * CONTROL_FRAME_BYTES
"""Kept free behind the last frame of records: for the mark of an idle log, a seal, and the frame of a switch."""


Append = tuple[Sequence[WalRecord], int]
"""Records that belong together, and the token that reports them done."""


class WalOptions(NamedTuple):
    """How the log is written. Sizes in bytes, times in ms."""

    fsync: FsyncMode = "always"
    fsync_interval_ms: int = 1000
    segment_bytes: int = 16 * 1024 * 1024
    idle_mark_ms: int = 200


class WalReport(NamedTuple):
    """What was found when the log was opened. case: see `persistence.recovery`. last_index: of the last entry."""

    case: str
    segments: int
    first_index: int
    last_index: int
    bytes_on_disk: int
    torn: TornTail | None

    @property
    def created(self) -> bool:
        """Whether there was no log before."""
        return self.case == "N"


class PreparedSegment(NamedTuple):
    """A file full of zeros that waits to become the next segment."""

    handle: int
    path: Path
    capacity: int


def prepare_segment(directory: Path, disk: Disk, sequence: int, capacity: int) -> PreparedSegment:
    """Create the file of a coming segment, filled with zeros and durable, also its name."""
    path = prepared_path(directory, sequence)
    handle = disk.open(path, "create")
    write_zeros(disk, handle, 0, capacity)
    disk.fsync(handle)
    disk.fsync_dir(directory)
    return PreparedSegment(handle, path, capacity)


class LogWriter:
    """The write end of the log, and the list of its segments.

    offset: where the next frame goes in the active segment, a multiple of 8; all before it is written.
    synced: up to where the active segment is durable, never more than offset.
    last_index: index of the newest entry. newest: the newest record of each kind that is not an entry.
    segments, sizes, places: the files of the log, their lengths in bytes by sequence, where a reader may start in them;
    `files_lock` guards all three.
    """

    def __init__(self, directory: Path, disk: Disk, options: WalOptions, salt: bytes) -> None:
        self.directory = directory
        self.options = options
        self.stats = WalStats()
        self.segments: list[SegmentFile] = []
        self.sizes: dict[int, int] = {}
        self.places = FrameIndex()
        self.files_lock = Lock()
        self.offset = 0
        self.synced = 0
        self.last_index = 0
        self.newest: dict[int, WalRecord] = {}
        self.take_prepared: Callable[[int, int], PreparedSegment] = self._prepare_now
        self._disk = disk
        self._salt = salt
        self._always = options.fsync == "always"
        self._handle = -1
        self._sequence = 0
        self._key = FrameKey(0, 0)
        self._crc = 0
        self._capacity = 0
        self._last_kind: int | None = None
        self._dropped = 0
        """Sequence of the last segment that ``drop_cached`` has dropped."""

    @classmethod
    def open(
        cls, directory: Path, disk: Disk, options: WalOptions, salt: bytes, *, must_exist: bool
    ) -> tuple["LogWriter", WalReport]:
        """Recover the log of a directory, or begin one. Raises `Damaged`, `DataDirIncompatible`, `DiskFailed`."""
        if options.segment_bytes < SEGMENT_BYTES_MIN:
            raise ValueError(f"segment_bytes must be at least {SEGMENT_BYTES_MIN}")
        if len(salt) != SALT_BYTES:
            raise ValueError(f"the salt must have {SALT_BYTES} bytes")
        disk.make_dirs(directory)
        writer = cls(directory, disk, options, salt)
        segments, prepared = list_segments(directory, disk)
        if not segments and must_exist:
            raise Damaged(str(directory), 0, "the log is missing: there is no segment, though entries were written")
        if not segments:
            case, torn = "N", None
        elif is_unborn(disk, segments):
            case, torn = "H", TornTail(segments[0].path, 0, 0)
        else:
            case, torn = writer._continue()
        for path in prepared:
            if case != "F" or path != prepared_path(directory, writer.segments[-1].sequence):
                disk.unlink(path)
        if case in "NH":
            writer._begin()
        writer.stats.base_bytes = writer.stats.bytes_on_disk
        report = WalReport(
            case,
            len(writer.segments),
            writer.segments[0].first_index,
            writer.last_index,
            writer.stats.bytes_on_disk,
            torn,
        )
        return writer, report

    def _begin(self) -> None:
        """Make the first segment of a new log."""
        prepared = self._prepare_now(1, min(FIRST_SEGMENT_BYTES, self.options.segment_bytes))
        header = encode_header(self._salt, 1, 1, prepared.capacity, 0, ())
        self._disk.pwritev(prepared.handle, (header,), 0)
        self._disk.fsync(prepared.handle)
        self._publish(prepared, SegmentFile(segment_path(self.directory, 1, 1), 1, 1), header)
        self._disk.fsync_dir(self.directory.parent)

    def _continue(self) -> tuple[str, TornTail | None]:
        """Read the end of the log, repair it, and go on there. Returns the case and what was cut."""
        disk = self._disk
        segments, header, tail, left = read_end(self.directory, disk, self._salt)
        if left is not None:
            # The order of a switch: the old segment's end is durable before the new one has its name.
            handle = disk.open(segments[-2].path, "write")
            rewrite_tail(disk, handle, left)
            disk.close(handle)
            path = segment_path(self.directory, header.sequence, header.first_index)
            disk.rename(segments[-1].path, path)
            segments[-1] = segments[-1]._replace(path=path)
        # Also when nothing was renamed now: a name given just before a crash may be in the page cache only.
        disk.fsync_dir(self.directory)
        for segment in segments[:-1]:
            handle = disk.open(segment.path, "read")
            self.sizes[segment.sequence] = disk.size(handle)
            disk.close(handle)
        handle = disk.open(segments[-1].path, "write")
        repair_tail(disk, handle, header, tail)
        self.sizes[header.sequence] = disk.size(handle)
        self.segments = segments
        self.last_index = tail.last_index
        self.newest = tail.newest
        self._activate(handle, header.sequence, header.capacity, tail.offset, tail.crc)
        self._last_kind = tail.last_kind
        return tail.case, tail.torn

    def write(self, batch: Sequence[Append]) -> None:
        """Write the records of a batch as one frame, or as several where they are large.

        Hot path: one pass over the records, one join, one checksum and one system call a frame.
        """
        parts: list[bytes] = []
        size = 0
        last_index = self.last_index
        others: list[WalRecord] = []
        pack = RECORD_HEADER.pack
        count = 0
        for records, _ in batch:
            for record in records:
                kind, index, body = record
                parts.append(pack(kind, index, len(body)))
                parts.append(body)
                size += RECORD_HEADER_BYTES + len(body)
                if kind == KIND_ENTRY:
                    last_index = index
                else:
                    others.append(record)
            count += len(records)
            if size >= FRAME_SPLIT_BYTES:
                self._write_frame(padded(b"".join(parts)))
                self._advance(last_index, others)
                parts, size = [], 0
        if parts:
            parts.append(PADDING[-size % FRAME_ALIGNMENT])
            self._write_frame(b"".join(parts))
            self._advance(last_index, others)
        self.stats.records += count

    def _advance(self, last_index: int, others: list[WalRecord]) -> None:
        # Only after the write: the header of a next segment must not tell of records that a crash may still take.
        self.last_index = last_index
        for record in others:
            self.newest[record.kind] = record
        self._last_kind = KIND_ENTRY

    def _write_frame(self, payload: bytes) -> None:
        assert len(payload) <= PAYLOAD_BYTES_MAX, "an append of 4 GiB: the caller bounds its batches"
        total = FRAME_HEADER_BYTES + len(payload)
        if self.offset + total + CONTROL_ROOM_BYTES > self._capacity:
            self._switch(total)
        offset = self.offset
        if offset >= STEP_BYTES and self.places.wants(self._sequence, offset):
            with self.files_lock:
                self.places.note(FramePlace(self._sequence, offset, self._crc, self.last_index))
        crc = frame_crc(self._key, payload, self._crc, offset, self.synced)
        header = FRAME_HEADER.pack(self._key.marker, len(payload), self._crc, crc, self.synced)
        if self._always:
            started = perf_counter()
            self._disk.pwritev_durable(self._handle, (header, payload), offset)
            self.stats.count_sync(perf_counter() - started)
            self.synced = offset + total
        else:
            self._disk.pwritev(self._handle, (header, payload), offset)
        self._crc = crc
        self.offset = offset + total
        self.stats.frames += 1
        self.stats.appended_bytes += total

    def sync(self) -> None:
        """Make everything written so far durable."""
        if self.synced < self.offset:
            started = perf_counter()
            self._disk.fdatasync(self._handle)
            self.stats.count_sync(perf_counter() - started)
            self.synced = self.offset

    @property
    def wants_mark(self) -> bool:
        """Whether frames were written that no later frame covers."""
        return self._last_kind == KIND_ENTRY

    def mark(self) -> None:
        """Cover the last frame: after this, damage to it is told from a tear. For a log that fell idle."""
        if self.wants_mark:
            self._write_control(KIND_SYNC_MARK)

    def seal(self) -> None:
        """End the log cleanly: sync, and say so in a last frame. Writing may go on after a seal."""
        if self._last_kind != KIND_SEAL:
            self._write_control(KIND_SEAL)
        self.sync()

    def close(self) -> None:
        """Close the active segment, as it is."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._disk.close(handle)

    def _write_control(self, kind: int) -> None:
        self.sync()
        header, payload, self._crc = self._control_frame(kind)
        started = perf_counter()
        self._disk.pwritev_durable(self._handle, (header, payload), self.offset)
        self.stats.count_sync(perf_counter() - started)
        self.offset += CONTROL_FRAME_BYTES
        self.synced = self.offset
        self.stats.appended_bytes += CONTROL_FRAME_BYTES
        self._last_kind = kind
        assert self.offset <= self._capacity, "the room for control frames was given away"

    def _control_frame(self, kind: int) -> tuple[bytes, bytes, int]:
        payload = encode_control(kind, self.last_index)
        crc = frame_crc(self._key, payload, self._crc, self.offset, self.synced)
        return FRAME_HEADER.pack(self._key.marker, len(payload), self._crc, crc, self.synced), payload, crc

    def next_segment(self) -> tuple[int, int] | None:
        """Return sequence and capacity of the segment to prepare, None while the active one is not a quarter full.

        From a quarter on, preparing has to be a third faster than appending, and a log that hardly grows does not cost
        the zeros of a segment that it will not use.
        """
        if self.offset * 4 < self._capacity:
            return None
        return self.segments[-1].sequence + 1, self._next_capacity()

    def _next_capacity(self) -> int:
        return min(max(self._capacity * 2, FIRST_SEGMENT_BYTES), self.options.segment_bytes)

    def _prepare_now(self, sequence: int, capacity: int) -> PreparedSegment:
        return prepare_segment(self.directory, self._disk, sequence, capacity)

    def _switch(self, frame_bytes: int) -> None:
        """Continue in a new segment that has room for a frame. The order of the steps is in the module's contract."""
        self.sync()
        sequence = self.segments[-1].sequence + 1
        prepared = self.take_prepared(sequence, self._next_capacity())
        _, _, continued_crc = self._control_frame(KIND_CONTINUED)
        carried = self.newest.values()
        needed = HEADER_BYTES + len(padded(encode_records(carried))) + frame_bytes + CONTROL_ROOM_BYTES
        if needed > prepared.capacity:
            capacity = -(-needed // PAGE_BYTES) * PAGE_BYTES
            write_zeros(self._disk, prepared.handle, prepared.capacity, capacity)
            prepared = prepared._replace(capacity=capacity)
        first_index = self.last_index + 1
        header = encode_header(self._salt, sequence, first_index, prepared.capacity, continued_crc, carried)
        self._disk.pwritev(prepared.handle, (header,), 0)
        self._disk.fsync(prepared.handle)
        self._write_control(KIND_CONTINUED)
        self.close()
        path = segment_path(self.directory, sequence, first_index)
        self._publish(prepared, SegmentFile(path, sequence, first_index), header)

    def _publish(self, prepared: PreparedSegment, segment: SegmentFile, header: bytes) -> None:
        self._disk.rename(prepared.path, segment.path)
        self._disk.fsync_dir(self.directory)
        # A reader takes segments and offset under the lock, so it never pairs one segment with another's offset.
        with self.files_lock:
            self.segments.append(segment)
            self.sizes[segment.sequence] = prepared.capacity
            self._activate(prepared.handle, segment.sequence, prepared.capacity, len(header), header_crc(header))
        self._last_kind = None

    def _activate(self, handle: int, sequence: int, capacity: int, offset: int, crc: int) -> None:
        self._handle = handle
        self._sequence = sequence
        self._key = frame_key(self._salt, sequence)
        self._capacity = capacity
        self._crc = crc
        self.offset = offset
        self.synced = offset
        self._count_files()

    def _count_files(self) -> None:
        self.stats.segments = len(self.segments)
        self.stats.bytes_on_disk = sum(self.sizes.values())

    def drop_cached(self) -> None:
        """Let the system forget what it holds in memory of the segments that were closed since the last call.

        Call before a segment is prepared: its zeros then take this memory and no new, and a log that is only written
        has no more of it than two or three segments. A later reader, a peer far behind or a start, reads the disk.
        """
        with self.files_lock:
            closed = [segment for segment in self.segments[:-1] if segment.sequence > self._dropped]
        for segment in closed:
            # Advice that cannot be given is no reason to stop; whoever needs the file will say that it is not there.
            with suppress(DiskFailed):
                handle = self._disk.open(segment.path, "read")
                self._disk.drop_cached(handle)
                self._disk.close(handle)
            self._dropped = segment.sequence

    def purge(self, before_index: int) -> int:
        """Remove the oldest segments that hold no live entry from before_index on; returns how many.

        Oldest first: a crash in between leaves a log without a hole. The active segment always stays.
        """
        removed = 0
        while len(self.segments) > 1 and self.segments[1].first_index <= before_index:
            segment = self.segments[0]
            self._disk.unlink(segment.path)
            with self.files_lock:
                self.segments.remove(segment)
                del self.sizes[segment.sequence]
                self.places.forget_before(segment.sequence + 1)
                self._count_files()
            removed += 1
        if removed:
            self._disk.fsync_dir(self.directory)
            self.stats.base_bytes = self.stats.bytes_on_disk
        return removed
