"""One segment file of the write-ahead log: its name, its header, and reading the chain of frames in it.

Guarantees:
- `read_header` returns only a header whose checksum, number and name agree, else it raises `Damaged`.
- `FrameReader` yields frames that are whole and follow each other without a gap, and stops at the first offset where
  none does; it holds one window of the file, or one frame where that is larger, and never the segment.
Leaves to the caller: what it means that a chain stops (`persistence.recovery`), and writing.

Layout: a file `<sequence:016x>-<first_index:016x>.wal`, or `<sequence:016x>.next` while it is being prepared:

    header   magic 8s "REDANWAL" | version u32 | carried_length u32 | salt 8s | sequence u64 | first_index u64
             | capacity u64 | previous_crc u32 | zero u64 | crc u32
    carried  records of the carried kinds (the vote), the newest of each kind, padded with zeros to a multiple of 8
    frames   see persistence.record
    zeros    up to capacity

- crc: CRC-32C of the header before it and of carried. It starts the chain of the frames.
- previous_crc: crc of the last frame of the segment before; 0 in the first one. So the segments are one chain as well.
- first_index: one more than the index of the last entry when the segment was made. No live entry of an earlier segment
  has this index or a higher one, so earlier segments go when a snapshot reaches it.
- carried: what must outlive the purge of earlier segments stands at the head of each. It is in the header, not in a
  frame, because the header is durable before the file gets its name: it can be damaged, but not torn.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from google_crc32c import value

from persistence.disk import Disk
from persistence.errors import Damaged, DataDirIncompatible
from persistence.record import (
    FRAME_ALIGNMENT,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    Frame,
    FrameKey,
    WalRecord,
    decode_records,
    encode_records,
    frame_at,
    frame_crc,
    frame_key,
    padded,
)

FORMAT_VERSION = 1
HEADER_BYTES = 64
READ_WINDOW_BYTES = 1024 * 1024
"""Large enough that reading is not a matter of system calls, small enough to be nothing next to the keyspace."""

_MAGIC = b"REDANWAL"
_ZEROS = bytes(READ_WINDOW_BYTES)
_HEADER = Struct("<8sII8sQQQIQ")
_CRC = Struct("<I")
_SUFFIX = ".wal"
_PREPARED_SUFFIX = ".next"


class SegmentFile(NamedTuple):
    """A segment as its name tells it."""

    path: Path
    sequence: int
    first_index: int


class SegmentHeader(NamedTuple):
    """The header of a segment whose checksum holds."""

    salt: bytes
    sequence: int
    first_index: int
    capacity: int
    previous_crc: int
    carried: tuple[WalRecord, ...]
    crc: int
    frames_start: int

    @property
    def key(self) -> FrameKey:
        """What ties frames to this segment."""
        return frame_key(self.salt, self.sequence)


def segment_path(directory: Path, sequence: int, first_index: int) -> Path:
    """Return the path of a segment."""
    return directory / f"{sequence:016x}-{first_index:016x}{_SUFFIX}"


def prepared_path(directory: Path, sequence: int) -> Path:
    """Return the path of a segment that is not in use yet."""
    return directory / f"{sequence:016x}{_PREPARED_SUFFIX}"


def list_segments(directory: Path, disk: Disk) -> tuple[list[SegmentFile], list[Path]]:
    """Return the segments by sequence and the prepared files of a directory; other names are left alone."""
    segments: list[SegmentFile] = []
    prepared: list[Path] = []
    for name in disk.listdir(directory):
        path = directory / name
        if name.endswith(_PREPARED_SUFFIX) and _is_hex(name.removesuffix(_PREPARED_SUFFIX)):
            prepared.append(path)
        elif name.endswith(_SUFFIX):
            sequence, _, first_index = name.removesuffix(_SUFFIX).partition("-")
            if _is_hex(sequence) and _is_hex(first_index):
                segments.append(SegmentFile(path, int(sequence, 16), int(first_index, 16)))
    segments.sort(key=lambda segment: (segment.sequence, segment.first_index))
    return segments, prepared


def _is_hex(text: str) -> bool:
    return len(text) == 16 and not text.strip("0123456789abcdef")


def encode_header(
    salt: bytes, sequence: int, first_index: int, capacity: int, previous_crc: int, carried: Iterable[WalRecord]
) -> bytes:
    """Return the header of a segment with its carried records; capacity in bytes, salt 8 bytes."""
    body = padded(encode_records(carried))
    fields = _HEADER.pack(_MAGIC, FORMAT_VERSION, len(body), salt, sequence, first_index, capacity, previous_crc, 0)
    return fields + _CRC.pack(value(fields + body)) + body


def header_crc(header: bytes) -> int:
    """Return the checksum that stands in an encoded header."""
    crc: int = _CRC.unpack_from(header, _HEADER.size)[0]
    return crc


def read_header(disk: Disk, handle: int, path: Path) -> SegmentHeader:
    """Read and check the header of a segment. Raises `Damaged`, `DataDirIncompatible`, `DiskFailed`."""
    content = disk.pread(handle, HEADER_BYTES, 0)
    if len(content) < HEADER_BYTES:
        raise Damaged(str(path), len(content), "the file ends inside the segment header")
    magic, version, carried_length, salt, sequence, first_index, capacity, previous_crc, zero = _HEADER.unpack_from(
        content
    )
    if magic != _MAGIC:
        raise Damaged(str(path), 0, "this is not a log segment: the magic number is wrong")
    # Read the version before the checksum: another version may place it elsewhere. One flipped bit in it would send
    # an operator looking for another program, so a header that is otherwise ours says damage.
    rest = disk.pread(handle, carried_length, HEADER_BYTES) if carried_length <= disk.size(handle) else b""
    crc_holds = value(content[: _HEADER.size] + rest) == header_crc(content)
    if version != FORMAT_VERSION and crc_holds:
        raise DataDirIncompatible(str(path), version, FORMAT_VERSION)
    if not crc_holds or zero:
        raise Damaged(str(path), 0, "the checksum of the segment header does not match")
    try:
        carried = tuple(decode_records(rest))
    except ValueError as error:
        raise Damaged(str(path), HEADER_BYTES, f"the records in the segment header: {error}") from error
    return SegmentHeader(
        salt,
        sequence,
        first_index,
        capacity,
        previous_crc,
        carried,
        header_crc(content),
        HEADER_BYTES + carried_length,
    )


class FrameReader:
    """Iterate over the chained frames of one segment, once, from its first frame on.

    After the iteration: `offset` is where no next frame stands, `crc` the value it would have to continue, `synced` the
    highest mark seen, `broken_chain` whether a whole frame stands there that continues something else.
    """

    def __init__(self, disk: Disk, handle: int, header: SegmentHeader, end: int | None = None) -> None:
        self.offset = header.frames_start
        self.crc = header.crc
        self.synced = header.frames_start
        self.broken_chain = False
        self._disk = disk
        self._handle = handle
        self._key = header.key
        self._end = disk.size(handle) if end is None else end

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames from `offset` on; may be called again, to see what was written since.

        Hot path of a start: a log of small frames has millions, so each is unpacked once and costs about 2 us.
        """
        key = self._key
        unpack = FRAME_HEADER.unpack_from
        new = tuple.__new__
        window = b""
        window_start = offset = self.offset
        while True:
            position = offset - window_start
            start = position + FRAME_HEADER_BYTES
            if start <= len(window):
                marker, length, previous_crc, crc, synced = unpack(window, position)
                end = start + length
                if marker != key.marker or length % FRAME_ALIGNMENT:
                    return
            else:
                end = start
            if end > len(window):
                # A length that leads out of the file is no length: never allocate by it.
                if end - position > self._end - offset:
                    return
                count = min(max(end - position, READ_WINDOW_BYTES), self._end - offset)
                window = self._disk.pread(self._handle, count, offset)
                window_start = offset
                if len(window) < end - position:
                    return
                continue
            payload = window[start:end]
            if frame_crc(key, payload, previous_crc, offset, synced) != crc:
                return
            if previous_crc != self.crc:
                self.broken_chain = True
                return
            following = window_start + end
            frame = new(Frame, (offset, following, previous_crc, crc, synced, payload))
            offset = self.offset = following
            self.crc = crc
            if synced > self.synced:
                self.synced = synced
            yield frame


def find_frames(disk: Disk, handle: int, header: SegmentHeader, start: int) -> Iterator[Frame]:
    """Yield every frame that checks by itself at or after start, chained or not. For recovery and `verify`."""
    key = header.key
    marker = _CRC.pack(key.marker)
    end = disk.size(handle)
    for window_start in range(start, end, READ_WINDOW_BYTES):
        # Three bytes more, so that a marker across the border of two windows is seen.
        window = disk.pread(handle, min(READ_WINDOW_BYTES + 3, end - window_start), window_start)
        position = window.find(marker)
        while position >= 0:
            offset = window_start + position
            if offset % 8 == 0 and (frame := _frame_on_disk(disk, handle, key, offset, end)):
                yield frame
            position = window.find(marker, position + 1)


def _frame_on_disk(disk: Disk, handle: int, key: FrameKey, offset: int, end: int) -> Frame | None:
    fields = disk.pread(handle, FRAME_HEADER_BYTES, offset)
    if len(fields) < FRAME_HEADER_BYTES:
        return None
    length = FRAME_HEADER.unpack(fields)[1]
    if length > end - offset - FRAME_HEADER_BYTES:
        return None
    return frame_at(key, disk.pread(handle, FRAME_HEADER_BYTES + length, offset), 0, offset)


def last_nonzero(disk: Disk, handle: int, start: int) -> int | None:
    """Return the end of the last byte that is not zero at or after start, None when all are zero."""
    last: int | None = None
    end = disk.size(handle)
    for window_start in range(start, end, READ_WINDOW_BYTES):
        window = disk.pread(handle, min(READ_WINDOW_BYTES, end - window_start), window_start)
        # The comparison is 20 times as fast as the strip, and nearly all of a fresh segment is zeros.
        if window != _ZEROS[: len(window)]:
            last = window_start + len(window.rstrip(b"\0"))
    return last
