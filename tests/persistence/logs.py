"""Short ways to write, crash and reopen a log in tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from persistence.disk import Disk
from persistence.log_writer import WalOptions, WalReport
from persistence.record import KIND_ENTRY, WalRecord
from persistence.segment import FrameReader, list_segments, read_header
from persistence.wal import Wal
from tests.harness.disk import FaultyDisk

DIRECTORY = Path("/data/wal")
SALT = b"saltsalt"
HARD_STATE = 2
SMALL = WalOptions(segment_bytes=64 * 1024)


def open_log(disk: Disk, options: WalOptions = SMALL, *, must_exist: bool = False) -> tuple[Wal, WalReport]:
    return Wal.open(DIRECTORY, disk, options, salt=SALT, must_exist=must_exist)


def entry(index: int, size: int = 20) -> WalRecord:
    """An entry whose body says its index, so that a mix-up shows."""
    return WalRecord(KIND_ENTRY, index, (b"%d," % index * (size // 2 + 1))[:size])


def hard_state(term: int, index: int = 0) -> WalRecord:
    return WalRecord(HARD_STATE, index, b"term %d" % term)


def write(wal: Wal, *records: WalRecord) -> None:
    """Write records as one frame."""
    wal.append(records, 0)
    wal.write_queued()


def write_each(wal: Wal, records: Iterable[WalRecord]) -> None:
    """Write each record as a frame of its own."""
    for record in records:
        write(wal, record)


def read_back(disk: Disk, options: WalOptions = SMALL) -> list[WalRecord]:
    """Open the log, read it, leave it as a kill would."""
    wal, _ = open_log(disk, options)
    records = list(wal.records())
    wal.close(seal=False)
    return records


def kept_prefix(disk: Disk, records: list[WalRecord], options: WalOptions = SMALL) -> int:
    """Open the log and return how many records it holds, which must be the first ones of those given."""
    found = read_back(disk, options)
    assert found == records[: len(found)]
    return len(found)


class FramePlace(NamedTuple):
    """Where a frame stands in its segment."""

    offset: int
    end: int


def segment_paths(disk: Disk) -> list[Path]:
    return [segment.path for segment in list_segments(DIRECTORY, disk)[0]]


def frames_of(disk: Disk, path: Path) -> list[FramePlace]:
    handle = disk.open(path, "read")
    try:
        reader = FrameReader(disk, handle, read_header(disk, handle, path))
        return [FramePlace(frame.offset, frame.end) for frame in reader]
    finally:
        disk.close(handle)


def log_of(*records: WalRecord, options: WalOptions = SMALL) -> FaultyDisk:
    """A log with one frame a record, left as a kill leaves it."""
    disk = FaultyDisk()
    wal, _ = open_log(disk, options)
    write_each(wal, records)
    wal.close(seal=False)
    return disk
