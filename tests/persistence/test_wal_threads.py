"""The log with its threads: order of reports, the fsync modes, failure, idle marks, work in the background."""

import threading
from collections.abc import Callable, Iterator, Sequence
from errno import EIO, ENOSPC
from pathlib import Path
from time import monotonic

import pytest

from persistence.disk import OpenMode, RealDisk
from persistence.errors import DiskFailed
from persistence.log_writer import FsyncMode, WalOptions
from persistence.record import CONTROL_KIND_MIN, WalRecord, decode_records
from persistence.segment import FrameReader, list_segments, read_header
from persistence.segment_preparer import SegmentPreparer
from persistence.wal import Wal
from tests.harness.disk import FaultyDisk
from tests.persistence.logs import (
    DIRECTORY,
    SALT,
    SMALL,
    entry,
    hard_state,
    open_log,
    read_back,
    segment_paths,
    write_each,
)

WAIT_SECONDS = 60.0


class Reports:
    """The callbacks of a log, and waiting for them."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.failures: list[DiskFailed] = []
        self._changed = threading.Condition()

    def on_durable(self, token: int) -> None:
        with self._changed:
            self.tokens.append(token)
            self._changed.notify_all()

    def on_failed(self, error: DiskFailed) -> None:
        with self._changed:
            self.failures.append(error)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_SECONDS), "the log did not report in time"

    def wait_for_token(self, token: int) -> None:
        self.wait_for(lambda: bool(self.tokens) and self.tokens[-1] >= token)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody reports."""
    deadline = monotonic() + WAIT_SECONDS
    waiting = threading.Event()
    while not condition():
        assert monotonic() < deadline, "it did not happen in time"
        waiting.wait(0.002)


def append_each(wal: Wal, reports: Reports, indexes: range) -> None:
    """Start a log, append entries of which two fill a segment, each when the one before is durable, and close it."""
    wal.start(reports.on_durable, reports.on_failed)
    for index in indexes:
        wal.append([entry(index, 25_000)], index)
        reports.wait_for_token(index)
    wal.close()


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def started(reports: Reports) -> Iterator[Callable[..., tuple[FaultyDisk, Wal]]]:
    """Start logs on a faulty disk, and stop them at the end of the test."""
    logs: list[Wal] = []

    def start(options: WalOptions = SMALL) -> tuple[FaultyDisk, Wal]:
        disk = FaultyDisk()
        wal, _ = open_log(disk, options)
        wal.start(reports.on_durable, reports.on_failed)
        logs.append(wal)
        return disk, wal

    yield start
    for wal in logs:
        wal.close(seal=False)


def kinds_on(disk: FaultyDisk, path: Path) -> list[int]:
    """Return the kind of the first record of each frame of a segment."""
    handle = disk.open(path, "read")
    reader = FrameReader(disk, handle, read_header(disk, handle, path))
    return [next(iter(decode_records(frame.payload))).kind for frame in reader]


@pytest.mark.parametrize("fsync", ["always", "interval", "os"])
def test_every_append_is_reported_in_order_and_comes_back(fsync: FsyncMode, tmp_path: Path, reports: Reports) -> None:
    options = SMALL._replace(fsync=fsync)
    wal, _ = Wal.open(tmp_path / "wal", RealDisk(), options, salt=SALT)
    wal.start(reports.on_durable, reports.on_failed)
    for index in range(1, 1001):
        wal.append([entry(index, 300)], index)
        if index % 20 == 0:
            reports.wait_for_token(index)
    wal.close()
    assert reports.tokens == sorted(set(reports.tokens))
    assert reports.failures == []
    wal, report = Wal.open(tmp_path / "wal", RealDisk(), options, salt=SALT)
    assert (report.case, report.last_index) == ("A", 1000)
    assert list(wal.records()) == [entry(index, 300) for index in range(1, 1001)]
    assert report.segments > 4
    wal.close()


def test_what_is_queued_while_the_disk_works_shares_one_sync(tmp_path: Path, reports: Reports) -> None:
    wal, _ = Wal.open(tmp_path / "wal", RealDisk(), WalOptions(), salt=SALT)
    wal.start(reports.on_durable, reports.on_failed)
    for index in range(1, 2001):
        wal.append([entry(index)], index)
    reports.wait_for_token(2000)
    assert wal.stats.records == 2000
    assert wal.stats.syncs < 1000
    assert sum(wal.stats.sync_buckets) == wal.stats.syncs
    wal.close()


def test_with_fsync_always_what_is_reported_survives_a_power_cut(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    disk, wal = started()
    for index in range(1, 300):
        wal.append([entry(index, 700)], index)
    reports.wait_for_token(150)
    with disk._lock:
        reported, after = reports.tokens[-1], disk.after_power_cut()
    records = read_back(after)
    assert records == [entry(index, 700) for index in range(1, len(records) + 1)]
    assert len(records) >= reported


def test_with_fsync_interval_a_sync_follows_within_the_interval(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    options = SMALL._replace(fsync="interval", fsync_interval_ms=10)
    disk, wal = started(options)
    wal.append([entry(1)], 1)
    reports.wait_for_token(1)
    wait_until(lambda: read_back(disk.after_power_cut(), options) == [entry(1)])


def test_with_fsync_interval_a_busy_log_is_synced_as_well(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    _, wal = started(SMALL._replace(fsync="interval", fsync_interval_ms=5))
    index = 0
    deadline = monotonic() + WAIT_SECONDS
    while wal.stats.syncs < 3:
        assert monotonic() < deadline
        index += 1
        wal.append([entry(index)], index)
        reports.wait_for_token(index)


def test_with_fsync_os_nothing_is_synced_until_the_log_closes(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    options = SMALL._replace(fsync="os", idle_mark_ms=1, fsync_interval_ms=1)
    disk, wal = started(options)
    wal.append([hard_state(1), entry(1)], 1)
    reports.wait_for_token(1)
    assert wal.stats.syncs == 0
    assert read_back(disk.after_power_cut(), options) == []
    wal.close()
    assert read_back(disk.after_power_cut(), options) == [hard_state(1), entry(1)]


def test_an_idle_log_covers_its_last_frame_once(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    disk, wal = started(SMALL._replace(idle_mark_ms=1))
    for index in (1, 2):
        wal.append([entry(index)], index)
        reports.wait_for_token(index)
        wait_until(lambda: kinds_on(disk, segment_paths(disk)[0])[-1] >= CONTROL_KIND_MIN)
    assert wal._wait_seconds() is None, "the writer sleeps until the next append"
    [path] = segment_paths(disk)
    assert kinds_on(disk, path) == [1, 0xF0, 1, 0xF0]


@pytest.mark.parametrize(("call", "errno"), [("pwrite", ENOSPC), ("pwrite", EIO), ("fdatasync", EIO)])
def test_a_failed_call_is_reported_once_and_nothing_is_reported_durable_ever_after(
    call: str, errno: int, started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    disk, wal = started(SMALL._replace(idle_mark_ms=60_000))
    wal.append([entry(1)], 1)
    reports.wait_for_token(1)
    disk.fail(call, 1, errno)
    wal.append([entry(2)], 2)
    reports.wait_for(lambda: bool(reports.failures))
    with pytest.raises(DiskFailed):
        wal.append([entry(3)], 3)
    wal.close()
    assert reports.tokens == [1]
    assert [(failure.errno, failure.call) for failure in reports.failures] == [(errno, call)]
    assert str(errno) in wal.stats.last_error


def test_a_disk_that_fills_up_while_the_next_segment_is_prepared_stops_the_log(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    disk, wal = started(SMALL._replace(idle_mark_ms=60_000))
    disk.fail("create", 1, ENOSPC)
    wal.append([entry(1, 40_000)], 1)
    reports.wait_for(lambda: bool(reports.failures))
    assert reports.failures[0].errno == ENOSPC
    wal.close()
    assert reports.tokens in ([1], [])


def test_a_writer_that_meets_a_bug_is_reported_and_does_not_die_unheard(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    _, wal = started()
    wal.append([WalRecord(1, -1, b"an index that cannot be encoded")], 1)
    reports.wait_for(lambda: bool(reports.failures))
    assert "unexpected" in str(reports.failures[0])
    assert reports.tokens == []


def test_the_next_segment_is_prepared_before_it_is_needed(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    disk, wal = started()
    wal.append([entry(1, 20_000)], 1)
    reports.wait_for_token(1)
    wait_until(lambda: any(path.suffix == ".next" for path in disk.files()))
    wal.close()
    assert [path.suffix for path in disk.files()] == [".wal"], "what nobody took is removed"


def test_a_full_segment_is_dropped_from_memory_before_zeros_for_the_next_but_one_are_written(reports: Reports) -> None:
    happened: list[tuple[str, str]] = []

    class Noting(FaultyDisk):
        def drop_cached(self, handle: int) -> None:
            happened.append(("drop", self._file(handle)[0].name))

        def open(self, path: Path, mode: OpenMode) -> int:
            if mode == "create":
                happened.append((mode, path.name))
            return super().open(path, mode)

    disk = Noting()
    wal, _ = open_log(disk)
    append_each(wal, reports, range(1, 7))
    assert happened == [
        ("create", "0000000000000001.next"),
        ("create", "0000000000000002.next"),
        ("drop", "0000000000000001-0000000000000001.wal"),
        ("create", "0000000000000003.next"),
        ("drop", "0000000000000002-0000000000000003.wal"),
        ("create", "0000000000000004.next"),
    ]
    assert not disk._handles
    assert len(read_back(disk)) == 6


def test_a_start_drops_what_it_has_read_and_nothing_twice(reports: Reports) -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, [entry(index, 25_000) for index in range(1, 6)])
    wal.close()
    dropped: list[str] = []

    class Noting(FaultyDisk):
        def drop_cached(self, handle: int) -> None:
            dropped.append(self._file(handle)[0].name[:16])

    disk = Noting(disk.files())
    wal, _ = open_log(disk)
    append_each(wal, reports, range(6, 9))
    assert dropped == ["0000000000000001", "0000000000000002", "0000000000000003"]


def test_a_full_segment_that_cannot_be_opened_to_be_dropped_stops_nothing(reports: Reports) -> None:
    refused: list[str] = []

    class Refusing(FaultyDisk):
        def open(self, path: Path, mode: OpenMode) -> int:
            if mode == "read":
                refused.append(path.name[:16])
                raise DiskFailed("open", str(path), EIO)
            return super().open(path, mode)

    wal, _ = open_log(Refusing())
    append_each(wal, reports, range(1, 7))
    assert refused == ["0000000000000001", "0000000000000002"]
    assert not reports.failures


def test_purge_runs_beside_the_writer(started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports) -> None:
    disk, wal = started()
    for index in range(1, 400):
        wal.append([entry(index, 700)], index)
        if index % 50 == 0:
            reports.wait_for_token(index)
            wal.purge(index - 20)
    reports.wait_for_token(399)
    wait_until(lambda: wal.first_index > 200)
    wal.close()
    records = read_back(disk.after_power_cut())
    assert records[0].index <= 330
    assert records == [entry(index, 700) for index in range(records[0].index, 400)]


def test_a_log_closed_twice_or_never_started_leaves_no_thread(tmp_path: Path, reports: Reports) -> None:
    wal, _ = Wal.open(tmp_path / "wal", RealDisk(), SMALL, salt=SALT)
    wal.start(reports.on_durable, reports.on_failed)
    names = {thread.name for thread in threading.enumerate()}
    assert {"wal-writer", "wal-next"} <= names
    wal.append([entry(1)], 1)
    wal.close()
    wal.close()
    assert reports.tokens == [1], "close writes what is queued"
    assert not {"wal-writer", "wal-next"} & {thread.name for thread in threading.enumerate()}
    assert [segment.sequence for segment in list_segments(tmp_path / "wal", RealDisk())[0]] == [1]


def test_the_directory_is_named_by_the_log() -> None:
    assert open_log(FaultyDisk())[0].directory == DIRECTORY


def test_a_segment_that_cannot_be_removed_stops_the_log(
    started: Callable[..., tuple[FaultyDisk, Wal]], reports: Reports
) -> None:
    disk, wal = started(SMALL._replace(idle_mark_ms=60_000))
    for index in range(1, 4):
        wal.append([entry(index, 50_000)], index)
        reports.wait_for_token(index)
    disk.fail("unlink", 1, EIO)
    wal.purge(3)
    reports.wait_for(lambda: bool(reports.failures))
    assert reports.failures[0].call == "unlink"
    with pytest.raises(DiskFailed, match="unlink failed"):
        wal.append([entry(4)], 4)


def test_a_segment_requested_after_the_background_thread_failed_is_an_error_and_not_a_wait_for_ever() -> None:
    failures: list[DiskFailed] = []
    disk = FaultyDisk()
    disk.make_dirs(DIRECTORY)
    preparer = SegmentPreparer(DIRECTORY, disk, failures.append)
    preparer.start()
    preparer.submit(lambda: disk.unlink(DIRECTORY / "none"))
    wait_until(lambda: bool(failures))
    preparer.request(2, 64 * 1024)
    with pytest.raises(DiskFailed, match="unlink failed"):
        preparer.take(2, 64 * 1024)
    preparer.stop()


def test_what_becomes_durable_after_the_failure_was_reported_is_not_reported(reports: Reports) -> None:
    """The background thread fails while the writer is in a call that will succeed."""
    reached, released = threading.Event(), threading.Event()

    class Stalling(FaultyDisk):
        def pwritev_durable(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
            reached.set()
            assert released.wait(WAIT_SECONDS)
            super().pwritev_durable(handle, buffers, offset)

    wal, _ = open_log(Stalling())
    wal.start(reports.on_durable, reports.on_failed)
    wal.append([entry(1)], 1)
    assert reached.wait(WAIT_SECONDS)
    wal._preparer.submit(lambda: wal._disk.unlink(DIRECTORY / "none"))
    reports.wait_for(lambda: bool(reports.failures))
    released.set()
    wal.close()
    assert reports.tokens == []
