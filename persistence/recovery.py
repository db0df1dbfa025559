"""What the end of the log means after a crash, and the repair of the one thing that may be repaired: a torn tail.

A power failure may leave any subset of the sectors that were not synced. Damage may change any byte. Both look like a
checksum that does not match, and taking one for the other loses acknowledged writes or stops a healthy node. What
tells them apart is that each frame says up to where the log was durable when it was written (`synced`).

Guarantees:
- Bytes that were known durable are never cut: every such place raises `Damaged` with file, offset and what to do.
- A cut is durable before the log is written again, and running recovery again after a crash in it gives the same log.
- After a log was opened, all that was found in it is durable. The tail is written anew for that: after a failed fsync
  the page cache can hold bytes that the disk does not have, and reading alone would not notice.
Leaves to the caller: whether the first segment reaches back to its snapshot, logging the report, and checking the
segments before the last, which `chain_frames` does while they are read for replay.

Order: names → frames of the last segment → tail decision → end of an interrupted switch → cut → leftovers.

Decision. X is the first offset of a segment where no whole frame continues the chain; "rest" is from X to the end of
the file. A file that is shorter than its capacity is a tail cut off by someone else: the same rules hold for what is
there, and it is filled up with zeros again.

The last segment:

    A  the frame before X is a seal, the rest is zeros                    clean end
    B  the frame before X is no seal, the rest is zeros                   end without shutdown, nothing torn
    C  the rest is not zeros, and neither D nor E                         torn tail: cut, by zeros from X on
    D  a whole frame after X says that bytes after X were durable         Damaged
    E  a whole frame stands at X but continues another frame              Damaged: a tear leaves no whole frame
    F  the frame before X says that a segment follows, and the
       prepared segment is there and continues it                         the crash hit the switch: finish it
    G  as F, but there is no such prepared segment                        Damaged: the last segment is missing
    H  the file ends inside the header, and it is the first ever          nothing whole in it: started again, as C

The segments before it, and all together:

    I  a header does not check, or has another salt or number than its name             Damaged
    J  a number is missing or twice, first indexes step back                            Damaged
    K  X is reached and the frame before it does not say that a segment follows         Damaged
    L  the next header continues another frame than the last one                        Damaged: stale or swapped
    M  no segment, though the log was created before                                    Damaged: the log is missing
    N  no segment, and none is expected                                                 a new log

With `fsync = always` every frame says that all before it is durable. So only the very last frame can be torn, any
other frame that does not check is case D; the last is covered as soon as another, or the mark of an idle log, follows.

Reference: the lettered cases follow the manner of TigerBeetle's journal recovery, for a log of prepared segments.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from persistence.disk import Disk, write_zeros
from persistence.errors import Damaged
from persistence.frame_index import FramePlace
from persistence.record import CONTROL_KIND_MIN, KIND_CONTINUED, KIND_ENTRY, KIND_SEAL, Frame, WalRecord, decode_records
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

REWRITE_SLICE_BYTES = 1024 * 1024


class TornTail(NamedTuple):
    """What was cut: from offset on, up to the last byte that was not zero. Bytes."""

    file: Path
    offset: int
    length: int


class Tail(NamedTuple):
    """The end of the last segment as found: the letter of the case, where frames end, what they chain to.

    newest: the newest record of each of the caller's kinds but entries, those that the header carries included.
    """

    case: str
    offset: int
    crc: int
    synced: int
    last_kind: int | None
    last_index: int
    newest: dict[int, WalRecord]
    torn: TornTail | None


def checked_segments(directory: Path, disk: Disk) -> tuple[list[SegmentFile], list[Path]]:
    """List the segments and prepared files. Raises `Damaged` where the names alone show it (J)."""
    segments, prepared = list_segments(directory, disk)
    for earlier, later in pairwise(segments):
        if later.sequence == earlier.sequence:
            raise Damaged(str(later.path), 0, f"segment {later.sequence:016x} is there twice")
        if later.sequence != earlier.sequence + 1:
            missing = later.sequence - earlier.sequence - 1
            raise Damaged(str(later.path), 0, f"{missing} segments are missing before this one")
    return segments, prepared


def open_segment(disk: Disk, segment: SegmentFile, salt: bytes | None) -> tuple[int, SegmentHeader]:
    """Open a segment for reading and check its header against its name (I). The caller closes the handle."""
    handle = disk.open(segment.path, "read")
    try:
        header = read_header(disk, handle, segment.path)
        if salt is not None and header.salt != salt:
            raise Damaged(str(segment.path), 0, "the segment belongs to another log: its salt differs")
        if (header.sequence, header.first_index) != (segment.sequence, segment.first_index):
            raise Damaged(
                str(segment.path),
                0,
                f"the header says segment {header.sequence:016x} from index {header.first_index}, the name does not",
            )
    except BaseException:
        disk.close(handle)
        raise
    return handle, header


def check_link(segment: SegmentFile, header: SegmentHeader, previous_crc: int) -> None:
    """Raise `Damaged` when a segment does not continue the frame that the one before ends with (L)."""
    if header.previous_crc != previous_crc:
        raise Damaged(
            str(segment.path), 0, "it does not continue the segment before it: one of the two is stale or swapped"
        )


def records_of(path: Path, frame: Frame) -> list[WalRecord]:
    """Return the records of a frame. Raises `Damaged`."""
    try:
        return decode_records(frame.payload)
    except ValueError as error:
        raise Damaged(str(path), frame.offset, str(error)) from error


def chain_frames(
    disk: Disk,
    segment: SegmentFile,
    handle: int,
    header: SegmentHeader,
    *,
    last: bool,
    end: int | None = None,
    start: FramePlace | None = None,
) -> Iterator[Frame]:
    """Yield the frames of one segment, then raise `Damaged` when they do not end as they must (D, E, K).

    end: where the frames end, in bytes, when this process wrote them; otherwise the file decides. start: the place to
    begin at, when that is not the first frame.
    """
    reader = FrameReader(disk, handle, header, end)
    if start is not None:
        reader.offset, reader.crc = start.offset, start.crc
    kind: int | None = None
    for frame in reader:
        kind = frame.payload[0] if frame.payload else None
        yield frame
    if end is not None:
        if reader.offset != end:
            raise Damaged(str(segment.path), reader.offset, f"no whole frame stands here, the log was written to {end}")
    elif last:
        yield from _frames_written_meanwhile(disk, segment, handle, header, reader)
    elif kind != KIND_CONTINUED:
        raise Damaged(
            str(segment.path), reader.offset, "no whole frame continues the log here, and a later segment exists"
        )


def _frames_written_meanwhile(
    disk: Disk, segment: SegmentFile, handle: int, header: SegmentHeader, reader: FrameReader
) -> Iterator[Frame]:
    """Judge the end of the last segment. A live node may write while `redan log` reads, so look again before damage."""
    while True:
        stopped_at = reader.offset
        try:
            judge_rest(disk, handle, segment.path, header, reader)
            return
        except Damaged:
            yield from reader
            if reader.offset == stopped_at:
                raise


def judge_rest(disk: Disk, handle: int, path: Path, header: SegmentHeader, reader: FrameReader) -> TornTail | None:
    """Decide about the bytes after the last frame of the last segment: None (A, B), torn (C), `Damaged` (D, E)."""
    offset = reader.offset
    if reader.broken_chain:
        raise Damaged(str(path), offset, "a whole frame stands here that does not continue the one before it")
    end = last_nonzero(disk, handle, offset)
    if end is None:
        return None
    for frame in find_frames(disk, handle, header, offset):
        if frame.synced > offset:
            raise Damaged(
                str(path),
                offset,
                f"no whole frame stands here, but the frame at offset {frame.offset} says that everything up to "
                f"{frame.synced} was durable",
            )
    return TornTail(path, offset, end - offset)


def read_tail(disk: Disk, handle: int, path: Path, header: SegmentHeader) -> Tail:
    """Read the last segment and decide about its end (A to E). Changes nothing. Raises `Damaged`, `DiskFailed`."""
    reader = FrameReader(disk, handle, header)
    newest = {record.kind: record for record in header.carried}
    last_index = header.first_index - 1
    last_kind: int | None = None
    for frame in reader:
        for record in records_of(path, frame):
            last_kind = record.kind
            if last_kind == KIND_ENTRY:
                last_index = record.index
            elif last_kind < CONTROL_KIND_MIN:
                newest[last_kind] = record
    if last_kind == KIND_CONTINUED:
        return Tail("G", reader.offset, reader.crc, reader.synced, last_kind, last_index, newest, None)
    torn = judge_rest(disk, handle, path, header, reader)
    case = "C" if torn else "A" if last_kind == KIND_SEAL else "B"
    return Tail(case, reader.offset, reader.crc, reader.synced, last_kind, last_index, newest, torn)


class LogEnd(NamedTuple):
    """The segments and how the last of them ends. In case F that is the prepared one, under its prepared name.

    left: in case F the tail of the segment before it, whose last frame may be in the page cache only; else None.
    """

    segments: list[SegmentFile]
    header: SegmentHeader
    tail: Tail
    left: Tail | None


def read_end(directory: Path, disk: Disk, salt: bytes | None) -> LogEnd:
    """Find the segments and decide how the log ends.

    Changes nothing. Raises `Damaged`, `DiskFailed`; there must be a segment.
    """
    segments, prepared = checked_segments(directory, disk)
    last = segments[-1]
    header, tail = _read_closed(disk, last, salt)
    if tail.case != "G":
        return LogEnd(segments, header, tail, None)
    follower = SegmentFile(prepared_path(directory, last.sequence + 1), last.sequence + 1, tail.last_index + 1)
    if follower.path not in prepared:
        raise Damaged(
            str(last.path), tail.offset, f"segment {follower.sequence:016x}, which follows this one, is missing"
        )
    follower_header, follower_tail = _read_closed(disk, follower, salt)
    check_link(follower, follower_header, tail.crc)
    return LogEnd([*segments, follower], follower_header, follower_tail._replace(case="F"), tail)


def _read_closed(disk: Disk, segment: SegmentFile, salt: bytes | None) -> tuple[SegmentHeader, Tail]:
    handle, header = open_segment(disk, segment, salt)
    try:
        return header, read_tail(disk, handle, segment.path, header)
    finally:
        disk.close(handle)


def is_unborn(disk: Disk, segments: list[SegmentFile]) -> bool:
    """Say whether the only segment is the first ever and ends inside its header (H)."""
    if len(segments) != 1 or segments[0].sequence != 1:
        return False
    handle = disk.open(segments[0].path, "read")
    try:
        return disk.size(handle) < HEADER_BYTES
    finally:
        disk.close(handle)


def repair_tail(disk: Disk, handle: int, header: SegmentHeader, tail: Tail) -> None:
    """Cut a torn tail, fill the file up to its capacity, and make the rest durable by writing it anew."""
    if tail.torn:
        write_zeros(disk, handle, tail.offset, tail.offset + tail.torn.length)
    size = disk.size(handle)
    if size < header.capacity:
        write_zeros(disk, handle, size, header.capacity)
    rewrite_tail(disk, handle, tail)


def rewrite_tail(disk: Disk, handle: int, tail: Tail) -> None:
    """Write the frames that no later frame says to be durable once more, and sync."""
    for offset in range(tail.synced, tail.offset, REWRITE_SLICE_BYTES):
        count = min(REWRITE_SLICE_BYTES, tail.offset - offset)
        disk.pwritev(handle, (disk.pread(handle, count, offset),), offset)
    disk.fsync(handle)
