"""Read the log: for replay, for a follower that is behind, and offline for `redan log` and `redan verify`.

Guarantees:
- Records come in the order they were written, each checked: checksum, chain within and across segments. What is wrong
  raises `Damaged` at that place; nothing after it is given out.
- Memory is bounded by one window of 1 MiB, or one frame where that is larger.
- Nothing here writes, cuts or takes a lock, so it works beside a node that serves.
Leaves to the caller: resolving entries that replace others (an index that is not after the last one), and not purging
what it is still reading.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from persistence.disk import Disk
from persistence.errors import Damaged, DataDirIncompatible, DiskFailed
from persistence.frame_index import FrameIndex, FramePlace
from persistence.record import CONTROL_KIND_MIN, KIND_CONTINUED, KIND_ENTRY, KIND_SEAL, WalRecord, decode_records
from persistence.recovery import chain_frames, check_link, checked_segments, is_unborn, open_segment, records_of
from persistence.segment import (
    HEADER_BYTES,
    FrameReader,
    SegmentFile,
    SegmentHeader,
    find_frames,
    last_nonzero,
    list_segments,
    prepared_path,
    read_header,
)

LogRecord = tuple[Path, int, WalRecord]
"""A segment, the offset in bytes of the frame, and a record in it."""

FrameRecords = tuple[Path, int, list[WalRecord]]
"""A segment, the offset in bytes of a frame, and its records."""

SegmentState = Literal["continued", "sealed", "open", "torn", "damaged"]


class SegmentFinding(NamedTuple):
    """What `verify_log` says about one segment. size in bytes; the indexes are 0 when it has no entry.

    state: continued = full and closed; sealed = clean shutdown; open = in use or killed; torn = the last write was not
    finished and will be cut; damaged = see damage.
    """

    file: Path
    state: SegmentState
    size: int
    frames: int
    records: int
    first_index: int
    last_index: int
    damage: str | None


def read_segments(
    disk: Disk,
    segments: Sequence[SegmentFile],
    *,
    salt: bytes | None,
    end: int | None,
    start: FramePlace | None = None,
    places: FrameIndex | None = None,
) -> Iterator[FrameRecords]:
    """Yield the records of consecutive segments, those first that the first of them carries over from before it.

    end: where the last segment ends, in bytes, when this process writes it. start: a place in the first segment where
    to begin. places: an index that learns where frames stand. Raises `Damaged`, `DiskFailed`.
    """
    previous_crc: int | None = None
    last_index = 0
    for segment in segments:
        handle, header = open_segment(disk, segment, salt)
        try:
            if previous_crc is None:
                yield segment.path, HEADER_BYTES, list(header.carried)
            else:
                check_link(segment, header, previous_crc)
            last = segment is segments[-1]
            previous_crc = header.crc
            frames = chain_frames(disk, segment, handle, header, last=last, end=end if last else None, start=start)
            start = None
            for frame in frames:
                records = records_of(segment.path, frame)
                if places is not None:
                    if places.wants(segment.sequence, frame.offset):
                        places.note(FramePlace(segment.sequence, frame.offset, previous_crc, last_index))
                    last_index = _last_index_in(records, last_index)
                previous_crc = frame.crc
                # The log's own records stand alone in their frames.
                if records and records[0].kind < CONTROL_KIND_MIN:
                    yield segment.path, frame.offset, records
        finally:
            disk.close(handle)


def _last_index_in(records: list[WalRecord], before: int) -> int:
    for kind, index, _ in reversed(records):
        if kind == KIND_ENTRY:
            return index
    return before


def segments_from(segments: Sequence[SegmentFile], from_index: int) -> Sequence[SegmentFile]:
    """Return the segments without those at the front that hold no live entry from from_index on."""
    start = 0
    while start + 1 < len(segments) and segments[start + 1].first_index <= from_index:
        start += 1
    return segments[start:]


def read_log(directory: Path, disk: Disk) -> Iterator[LogRecord]:
    """Yield every record of the log in a directory, with its place. Raises `Damaged`, `DiskFailed`."""
    for path, offset, records in read_segments(disk, _all_segments(directory, disk), salt=None, end=None):
        for record in records:
            yield path, offset, record


def _all_segments(directory: Path, disk: Disk) -> list[SegmentFile]:
    """List the segments, with the prepared one at the end where a crash hit the switch to it (case F)."""
    segments, prepared = checked_segments(directory, disk)
    if not segments or is_unborn(disk, segments):
        return []
    last = segments[-1]
    handle, header = open_segment(disk, last, None)
    try:
        kind, last_index = None, header.first_index - 1
        for frame in FrameReader(disk, handle, header):
            for record in records_of(last.path, frame):
                kind = record.kind
                last_index = record.index if kind == KIND_ENTRY else last_index
    finally:
        disk.close(handle)
    if kind != KIND_CONTINUED:
        return segments
    follower = prepared_path(directory, last.sequence + 1)
    if follower not in prepared:
        # Beside a live node the switch may have been finished since the names were read.
        segments, _ = list_segments(directory, disk)
        if segments[-1].sequence > last.sequence:
            return segments
        raise Damaged(str(last.path), 0, f"segment {last.sequence + 1:016x}, which follows this one, is missing")
    return [*segments, SegmentFile(follower, last.sequence + 1, last_index + 1)]


def verify_log(directory: Path, disk: Disk) -> list[SegmentFinding]:
    """Check every byte of every segment, going on after damage; one finding a segment. Raises `DiskFailed`."""
    segments, _ = list_segments(directory, disk)
    if is_unborn(disk, segments):
        return [SegmentFinding(segments[0].path, "torn", 0, 0, 0, 0, 0, None)]
    findings: list[SegmentFinding] = []
    previous_crc: int | None = None
    for position, segment in enumerate(segments):
        examination = _Examination(disk, segment)
        try:
            if position and segment.sequence != segments[position - 1].sequence + 1:
                previous_crc = None
                raise Damaged(str(segment.path), 0, "its number does not follow that of the segment before it")
            examination.run(previous_crc, last=position == len(segments) - 1)
        except (Damaged, DataDirIncompatible) as error:
            examination.damage = str(error)
        previous_crc = examination.crc
        findings.append(examination.finding())
    if findings and findings[-1].state == "continued":
        findings += _verify_follower(directory, disk, segments[-1], findings[-1].last_index, previous_crc)
    return findings


def _verify_follower(
    directory: Path, disk: Disk, last: SegmentFile, last_index: int, previous_crc: int | None
) -> list[SegmentFinding]:
    """Check the prepared segment after a switch that a crash interrupted (cases F and G)."""
    follower = prepared_path(directory, last.sequence + 1)
    if follower.name not in disk.listdir(directory):
        reason = f"segment {last.sequence + 1:016x}, which follows {last.path.name}, is missing"
        return [SegmentFinding(follower, "damaged", 0, 0, 0, 0, 0, reason)]
    handle = disk.open(follower, "read")
    try:
        first_index = read_header(disk, handle, follower).first_index
    except (Damaged, DataDirIncompatible) as error:
        return [SegmentFinding(follower, "damaged", disk.size(handle), 0, 0, 0, 0, str(error))]
    finally:
        disk.close(handle)
    examination = _Examination(disk, SegmentFile(follower, last.sequence + 1, first_index))
    try:
        examination.run(previous_crc, last=True)
    except (Damaged, DataDirIncompatible) as error:
        examination.damage = str(error)
    return [examination.finding()]


class _Examination:
    """The reading of one segment for `verify_log`, and what it has shown so far. crc is None until the end is sound."""

    def __init__(self, disk: Disk, segment: SegmentFile) -> None:
        self.crc: int | None = None
        self.damage: str | None = None
        self._disk = disk
        self._segment = segment
        self._state: SegmentState = "open"
        self._size = 0
        self._frames = 0
        self._records = 0
        self._first_index = 0
        self._last_index = 0

    def run(self, previous_crc: int | None, *, last: bool) -> None:
        """Read the segment to its end. Raises `Damaged`, `DataDirIncompatible`, `DiskFailed`."""
        disk, segment = self._disk, self._segment
        handle = disk.open(segment.path, "read")
        self._size = disk.size(handle)
        disk.close(handle)
        handle, header = open_segment(disk, segment, None)
        try:
            if previous_crc is not None:
                check_link(segment, header, previous_crc)
            crc, end, kind = header.crc, header.frames_start, 0
            for frame in chain_frames(disk, segment, handle, header, last=last):
                crc, end = frame.crc, frame.end
                self._frames += 1
                for record in records_of(segment.path, frame):
                    kind = record.kind
                    self._count(record)
            rest = last_nonzero(disk, handle, end)
            if kind == KIND_CONTINUED:
                self._state = "continued"
                if rest is not None:
                    raise Damaged(
                        str(segment.path), rest, "bytes after the last frame are not zero; no record is affected"
                    )
            elif rest is not None:
                self._state = "torn"
            elif kind == KIND_SEAL:
                self._state = "sealed"
            self.crc = crc
        finally:
            disk.close(handle)

    def _count(self, record: WalRecord) -> None:
        if record.kind < CONTROL_KIND_MIN:
            self._records += 1
        if record.kind == KIND_ENTRY:
            self._first_index = self._first_index or record.index
            self._last_index = record.index

    def finding(self) -> SegmentFinding:
        """Return what was found."""
        return SegmentFinding(
            self._segment.path,
            "damaged" if self.damage else self._state,
            self._size,
            self._frames,
            self._records,
            self._first_index,
            self._last_index,
            self.damage,
        )


def surviving_records(directory: Path, disk: Disk) -> Iterator[WalRecord]:
    """Yield the records of every frame that is whole, in the order of the segments, whatever is between them.

    For a log that is damaged, to learn what it said; it is no log any more. A file that cannot be read gives nothing
    from that place on. Raises `DiskFailed` when the directory cannot be listed.
    """
    segments, prepared = list_segments(directory, disk)
    files = [*segments, *(SegmentFile(path, int(path.stem, 16), 0) for path in prepared)]
    salt = next((header.salt for file in files if (header := _header_if_whole(disk, file)) is not None), None)
    for file in files:
        with suppress(DiskFailed):
            yield from _surviving_in(disk, file, salt)


def _header_if_whole(disk: Disk, file: SegmentFile) -> SegmentHeader | None:
    with suppress(DiskFailed, Damaged, DataDirIncompatible):
        handle = disk.open(file.path, "read")
        try:
            return read_header(disk, handle, file.path)
        finally:
            disk.close(handle)
    return None


def _surviving_in(disk: Disk, file: SegmentFile, salt: bytes | None) -> Iterator[WalRecord]:
    header = _header_if_whole(disk, file)
    if header is None:
        if salt is None:
            return
        # Frames name their segment and log in their checksum, so they can be known without the header.
        header = SegmentHeader(salt, file.sequence, 0, 0, 0, (), 0, HEADER_BYTES)
    yield from header.carried
    handle = disk.open(file.path, "read")
    try:
        for frame in find_frames(disk, handle, header, HEADER_BYTES):
            with suppress(ValueError):
                for record in decode_records(frame.payload):
                    if record.kind < CONTROL_KIND_MIN:
                        yield record
    finally:
        disk.close(handle)
