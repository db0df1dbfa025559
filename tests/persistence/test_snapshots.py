"""Snapshots: what was put comes back; a crash leaves the old or the new; every flipped byte is found."""

import threading
from errno import EIO, ENOSPC
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence import snapshot
from persistence.disk import Disk, RealDisk
from persistence.errors import Damaged, DataDirIncompatible, DiskFailed
from persistence.snapshot import (
    SnapshotFooter,
    SnapshotMeta,
    SnapshotReader,
    SnapshotWriter,
    list_snapshots,
    newest_valid,
    purge_snapshots,
    remove_temporaries,
    snapshot_path,
)
from tests.harness.disk import FaultyDisk, PowerCutError, keep_all

DIRECTORY = Path("/data/snapshots")
META = SnapshotMeta(100, 3, 1_700_000_000_000, b"members: n1")
CHUNKS = [b"key value " * 100, Random(1).randbytes(700), b"", b"x"]


class Outcome:
    """The callbacks of a writer."""

    def __init__(self) -> None:
        self.finished: list[Path] = []
        self.failures: list[DiskFailed] = []


def begin(disk: Disk, meta: SnapshotMeta = META, directory: Path = DIRECTORY) -> tuple[SnapshotWriter, Outcome]:
    disk.make_dirs(directory)
    outcome = Outcome()
    writer = SnapshotWriter(directory, disk, meta, outcome.finished.append, outcome.failures.append, threaded=False)
    return writer, outcome


def save(disk: Disk, meta: SnapshotMeta = META, chunks: list[bytes] = CHUNKS) -> Outcome:
    writer, outcome = begin(disk, meta)
    for chunk in chunks:
        assert writer.put(chunk)
    writer.finish(len(chunks), b"digest")
    writer.run()
    return outcome


def load(disk: Disk, path: Path) -> tuple[SnapshotMeta, list[bytes], SnapshotFooter | None]:
    with SnapshotReader.open(path, disk) as reader:
        return reader.meta, list(reader.chunks()), reader.footer


def saved(chunks: list[bytes] = CHUNKS) -> tuple[FaultyDisk, Path]:
    disk = FaultyDisk()
    save(disk, chunks=chunks)
    return disk, snapshot_path(DIRECTORY, 100, 3)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=5000)), st.binary(max_size=100), st.binary(max_size=40))
def test_any_chunks_come_back_with_what_was_said_about_them(
    chunks: list[bytes], configuration: bytes, digest: bytes
) -> None:
    disk = FaultyDisk()
    meta = SnapshotMeta(2**64 - 1, 2**63, 7, configuration)
    writer, outcome = begin(disk, meta)
    assert all(writer.put(chunk) for chunk in chunks)
    writer.finish(12345, digest)
    writer.run()
    [path] = outcome.finished
    assert load(disk.after_power_cut(), path) == (meta, chunks, SnapshotFooter(len(chunks), 12345, digest))
    assert writer.stats.file_bytes == len(disk.content(path))
    assert writer.stats.raw_bytes == sum(map(len, chunks))


def test_a_thread_writes_while_the_caller_goes_on(tmp_path: Path) -> None:
    done = threading.Event()
    outcome = Outcome()

    def on_finished(path: Path) -> None:
        outcome.finished.append(path)
        done.set()

    writer = SnapshotWriter(tmp_path, RealDisk(), META, on_finished, outcome.failures.append)
    chunks = [Random(seed).randbytes(300_000) for seed in range(40)]
    for chunk in chunks:
        while not writer.put(chunk):
            assert not done.wait(0.001)
    writer.finish(40, b"")
    assert done.wait(20)
    assert writer.join(20)
    assert load(RealDisk(), outcome.finished[0])[1] == chunks
    assert [path.name for path in tmp_path.iterdir()] == [outcome.finished[0].name]


def test_what_waits_is_bounded_and_a_chunk_larger_than_the_bound_goes_when_nothing_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "QUEUE_BYTES_MAX", 1000)
    writer, _ = begin(FaultyDisk())
    assert writer.room == 1000
    assert writer.put(b"x" * 600)
    assert writer.room == 400
    assert not writer.put(b"x" * 401)
    assert writer.put(b"x" * 400)
    assert not writer.put(b"x")
    writer, _ = begin(FaultyDisk())
    assert writer.put(b"x" * 5000)
    assert writer.room == 0


def test_an_aborted_snapshot_leaves_nothing_and_reports_nothing() -> None:
    disk = FaultyDisk()
    writer, outcome = begin(disk)
    writer.put(b"half")
    writer.abort()
    writer.run()
    assert disk.files() == {}
    assert (outcome.finished, outcome.failures) == ([], [])


def test_a_power_cut_at_every_call_leaves_the_old_snapshot_and_the_new_one_whole_or_not_at_all() -> None:
    older = META._replace(last_index=50)
    probe = FaultyDisk()
    save(probe)
    for nth in range(1, len(probe.calls) + 1):
        for after in (False, True):
            disk = FaultyDisk()
            save(disk, older)
            disk.cut_power_at(nth, after=after)
            with pytest.raises(PowerCutError):
                save(disk)
            for survivor in (
                disk.after_power_cut(),
                disk.after_power_cut(keep_all, disk.names_pending),
                disk.after_power_cut(lambda _path, sector: sector % 2 == 0, disk.names_pending),
            ):
                choice = newest_valid(DIRECTORY, survivor, log_first_index=51)
                assert choice.damaged == []
                assert choice.newest is not None
                meta, chunks, _ = load(survivor, choice.newest.path)
                assert (meta, chunks) in ((older, CHUNKS), (META, CHUNKS))
                remove_temporaries(DIRECTORY, survivor)
                assert {path.suffix for path in survivor.files()} == {".snap"}


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
def test_every_failing_call_is_reported_and_no_snapshot_is(errno: int) -> None:
    probe = FaultyDisk()
    save(probe)
    kinds = [call for call, _ in probe.calls]
    assert kinds.count("pwrite") == len(CHUNKS) + 2
    for position, kind in enumerate(kinds):
        disk = FaultyDisk()
        disk.fail(kind, kinds[: position + 1].count(kind), errno)
        outcome = save(disk)
        assert outcome.finished == []
        assert [(failure.call, failure.errno) for failure in outcome.failures] == [(kind, errno)]
        choice = newest_valid(DIRECTORY, disk.after_power_cut(), log_first_index=1)
        assert choice.newest is None or kind == "fsync_dir"


def test_a_writer_that_failed_takes_no_more_chunks() -> None:
    disk = FaultyDisk()
    writer, outcome = begin(disk)
    disk.fail("pwrite", 1, ENOSPC)
    writer.put(b"x")
    writer.run()
    assert len(outcome.failures) == 1
    assert not writer.put(b"y")


def test_a_bug_in_the_thread_is_reported_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "encode_header", lambda _meta: 1 / 0)
    outcome = save(FaultyDisk())
    assert "unexpected ZeroDivisionError" in str(outcome.failures[0])


def test_every_flipped_byte_is_damage_whether_chunks_are_unpacked_or_only_checked() -> None:
    disk, path = saved()
    content = disk.content(path)
    for offset in range(len(content)):
        flipped = FaultyDisk({path: content})
        flipped.flip(path, offset, 1 << offset % 8)
        with pytest.raises(Damaged):
            load(flipped, path)
        with pytest.raises(Damaged), SnapshotReader.open(path, flipped) as reader:
            reader.verify()


def test_a_snapshot_cut_at_every_byte_or_with_bytes_behind_it_is_damage() -> None:
    disk, path = saved()
    content = disk.content(path)
    for size in range(len(content)):
        with pytest.raises(Damaged):
            load(FaultyDisk({path: content[:size]}), path)
    with pytest.raises(Damaged, match="bytes follow the footer"):
        load(FaultyDisk({path: content + b"\0"}), path)


def test_chunks_that_are_swapped_dropped_or_of_another_snapshot_are_damage() -> None:
    chunks = [b"a" * 10, b"b" * 10, b"c" * 10]
    disk, path = saved(chunks)
    content = disk.content(path)
    size = 16 + 10  # chunk header and a chunk that does not get shorter
    start = content.index(b"a" * 10) - 16
    first, second = content[start : start + size], content[start + size : start + 2 * size]
    swapped = content[:start] + second + first + content[start + 2 * size :]
    dropped = content[:start] + content[start + size :]
    other = FaultyDisk()
    save(other, META._replace(stamp_ms=8), chunks)
    mixed = content[:start] + other.content(path)[start:]
    for harmed in (swapped, dropped, mixed):
        with pytest.raises(Damaged, match="checksum of a chunk"):
            load(FaultyDisk({path: harmed}), path)


def test_chunks_before_the_damage_are_given_out_and_the_damaged_one_is_not() -> None:
    disk, path = saved([b"a" * 10, b"b" * 10])
    disk.flip(path, disk.content(path).index(b"b" * 10))
    with SnapshotReader.open(path, disk) as reader:
        chunks = reader.chunks()
        assert next(chunks) == b"a" * 10
        with pytest.raises(Damaged) as caught:
            next(chunks)
    assert caught.value.offset == disk.content(path).index(b"a" * 10) + 10
    assert reader.footer is None


def test_a_snapshot_under_a_wrong_name_or_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = saved()
    renamed = snapshot_path(DIRECTORY, 101, 3)
    with pytest.raises(Damaged, match="the name does not"):
        load(FaultyDisk({renamed: disk.content(path)}), renamed)
    monkeypatch.setattr("persistence.snapshot_format.FORMAT_VERSION", 9)
    disk, path = saved()
    with pytest.raises(DataDirIncompatible, match="version 9"):
        load(disk, path)


def three_snapshots() -> FaultyDisk:
    disk = FaultyDisk()
    for index in (10, 20, 30):
        save(disk, META._replace(last_index=index))
    disk.put(DIRECTORY / "notes.snap", b"foreign")
    return disk


def test_the_newest_two_are_kept_and_foreign_files_are_left_alone() -> None:
    disk = three_snapshots()
    kept = purge_snapshots(DIRECTORY, disk)
    assert [file.last_index for file in kept] == [30, 20]
    assert [file.last_index for file in list_snapshots(DIRECTORY, disk.after_power_cut())] == [30, 20]
    assert disk.content(DIRECTORY / "notes.snap") == b"foreign"


def harm(disk: FaultyDisk, last_index: int) -> None:
    path = snapshot_path(DIRECTORY, last_index, 3)
    disk.flip(path, len(disk.content(path)) // 2)


def test_the_newest_whole_snapshot_is_chosen_and_damaged_ones_are_named() -> None:
    disk = three_snapshots()
    choice = newest_valid(DIRECTORY, disk, log_first_index=21)
    assert (choice.newest and choice.newest.last_index, choice.damaged) == (30, [])
    harm(disk, 30)
    choice = newest_valid(DIRECTORY, disk, log_first_index=21)
    assert choice.newest is not None
    assert choice.newest.last_index == 20
    assert [error.file for error in choice.damaged] == [str(snapshot_path(DIRECTORY, 30, 3))]


def test_an_older_snapshot_is_not_chosen_when_the_log_does_not_reach_back_to_it() -> None:
    disk = three_snapshots()
    harm(disk, 30)
    with pytest.raises(Damaged) as caught:
        newest_valid(DIRECTORY, disk, log_first_index=22)
    assert caught.value.file == str(snapshot_path(DIRECTORY, 30, 3))


def test_a_log_that_begins_after_every_snapshot_is_damage_and_a_whole_log_needs_none() -> None:
    disk = FaultyDisk()
    disk.make_dirs(DIRECTORY)
    assert newest_valid(DIRECTORY, disk, log_first_index=1).newest is None
    with pytest.raises(Damaged, match="no snapshot reaches index 4"):
        newest_valid(DIRECTORY, disk, log_first_index=5)
    disk = three_snapshots()
    for index in (10, 20, 30):
        harm(disk, index)
    choice = newest_valid(DIRECTORY, disk, log_first_index=1)
    assert choice.newest is None
    assert len(choice.damaged) == 3
