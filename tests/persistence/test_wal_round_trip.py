"""What was written comes back: over restarts, segments, purges, large records and replaced entries."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.disk import RealDisk
from persistence.errors import Damaged
from persistence.log_writer import FRAME_SPLIT_BYTES, WalOptions
from persistence.record import KIND_ENTRY, WalRecord
from persistence.wal import Wal
from tests.harness.disk import FaultyDisk
from tests.persistence.logs import (
    DIRECTORY,
    SALT,
    SMALL,
    entry,
    frames_of,
    hard_state,
    log_of,
    open_log,
    read_back,
    segment_paths,
    write,
    write_each,
)

RECORDS = st.builds(
    WalRecord, st.sampled_from([1, 1, 1, 2, 3, 239]), st.integers(0, 2**64 - 1), st.binary(max_size=3000)
)


def test_a_new_log_is_empty_and_says_that_it_is_new() -> None:
    wal, report = open_log(FaultyDisk())
    assert report.created
    assert (report.first_index, report.last_index, report.segments) == (1, 0, 1)
    assert list(wal.records()) == []


def test_records_come_back_after_a_clean_stop() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(1), entry(1), entry(2))
    wal.close()
    wal, report = open_log(disk)
    assert list(wal.records()) == [hard_state(1), entry(1), entry(2)]
    assert (report.case, report.last_index) == ("A", 2)


def test_appends_that_were_queued_together_are_one_frame() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    for index in range(1, 6):
        wal.append([entry(index)], token=index * 10)
    assert wal.write_queued() == 50
    assert wal.write_queued() is None
    assert len(frames_of(disk, segment_paths(disk)[0])) == 1
    assert [record.index for record in wal.records()] == [1, 2, 3, 4, 5]


def test_an_append_without_records_writes_nothing_and_reports_its_token() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    calls = len(disk.calls)
    wal.append([], token=7)
    assert wal.write_queued() == 7
    assert len(disk.calls) == calls


@settings(max_examples=60)
@given(st.lists(st.lists(st.lists(RECORDS, max_size=4), min_size=1, max_size=4), max_size=12), st.data())
def test_any_records_come_back_in_order_over_any_restarts(
    batches: list[list[list[WalRecord]]], data: st.DataObject
) -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    written: list[WalRecord] = []
    for batch in batches:
        for token, records in enumerate(batch):
            wal.append(records, token)
            written += records
        assert wal.write_queued() == len(batch) - 1
        restart = data.draw(st.sampled_from(["no", "close", "kill", "power cut", "idle"]))
        if restart == "idle":
            wal.mark_idle()
        elif restart != "no":
            wal.close(seal=restart == "close")
            disk = disk.after_power_cut() if restart == "power cut" else disk.after_kill()
            wal, _ = open_log(disk)
    assert list(wal.records()) == written


def test_the_log_continues_over_many_segments() -> None:
    records = [entry(index, 500) for index in range(1, 600)]
    disk = log_of(*records)
    assert len(segment_paths(disk)) > 4
    assert read_back(disk) == records


def test_segments_double_from_1_mib_up_to_the_size_that_was_asked_for() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk, WalOptions(segment_bytes=4 * 1024 * 1024))
    write_each(wal, (entry(index, 100_000) for index in range(1, 130)))
    sizes = [len(disk.content(path)) // (1024 * 1024) for path in segment_paths(disk)]
    assert sizes == [1, 2, 4, 4, 4]
    assert wal.stats.bytes_on_disk == 15 * 1024 * 1024


@pytest.mark.parametrize("size", [65_000, 65_536, 70_000, 1_000_000])
def test_a_record_larger_than_a_segment_gets_a_segment_of_its_size(size: int) -> None:
    records = [entry(1), entry(2, size), entry(3), entry(4, size)]
    disk = log_of(*records)
    assert read_back(disk) == records


def test_every_frame_size_around_the_end_of_a_segment_fits() -> None:
    for size in range(64_000, 65_500, 7):
        records = [entry(1, size), entry(2), entry(3)]
        disk = FaultyDisk()
        wal, _ = open_log(disk)
        write(wal, records[0])
        wal.mark_idle()
        wal.close()
        wal, _ = open_log(disk)
        write_each(wal, records[1:])
        wal.close()
        assert read_back(disk) == records


def test_a_large_batch_is_split_between_appends_and_not_inside_one() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk, WalOptions())
    size = FRAME_SPLIT_BYTES // 2
    for index in range(1, 10, 2):
        wal.append([entry(index, size), entry(index + 1, size)], index)
    assert wal.write_queued() == 9
    assert wal.stats.frames == 5
    assert read_back(disk, WalOptions()) == [entry(index, size) for index in range(1, 11)]


def test_replaced_entries_are_left_to_the_reader_in_the_order_written() -> None:
    records = [entry(1), entry(2), entry(3), WalRecord(KIND_ENTRY, 2, b"other"), entry(3)]
    disk = log_of(*records)
    assert read_back(disk) == records
    assert open_log(disk)[1].last_index == 3


def test_reading_from_an_index_skips_whole_segments_only() -> None:
    disk = log_of(*[entry(index, 500) for index in range(1, 600)])
    wal, _ = open_log(disk)
    for from_index in (1, 2, 128, 129, 300, 599, 600, 1000):
        indexes = [record.index for record in wal.records(from_index)]
        assert indexes == list(range(indexes[0], 600))
        assert indexes[0] <= from_index < indexes[0] + 256 or from_index > 599


def test_purge_removes_segments_before_the_index_and_never_the_active_one() -> None:
    disk = log_of(*[entry(index, 500) for index in range(1, 600)])
    wal, report = open_log(disk)
    wal.purge(1)
    assert wal.stats.segments == report.segments
    assert wal.stats.base_bytes == report.bytes_on_disk
    wal.purge(300)
    assert 1 < wal.first_index <= 300
    assert wal.stats.base_bytes == wal.stats.bytes_on_disk < report.bytes_on_disk
    indexes = [record.index for record in wal.records(300)]
    assert indexes == list(range(wal.first_index, 600))
    wal.purge(10_000)
    assert wal.stats.segments == len(segment_paths(disk)) == 1
    write(wal, entry(600))
    wal.close()
    assert read_back(disk)[-1] == entry(600)


def test_an_entry_that_replaced_others_survives_the_purge_of_what_it_replaced() -> None:
    records = [entry(index, 500) for index in range(1, 300)]
    records += [WalRecord(KIND_ENTRY, index, b"new" * 200) for index in range(100, 400)]
    disk = log_of(*records)
    for before_index in (50, 99, 100, 101, 250, 299, 300, 350, 399):
        wal, _ = open_log(FaultyDisk(disk.files()))
        wal.purge(before_index)
        live = {record.index: record for record in wal.records(before_index)}
        expected = {record.index: record for record in records}
        assert all(live[index] == expected[index] for index in range(before_index, 400))


def test_the_newest_record_of_each_other_kind_outlives_every_purge() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(1), WalRecord(7, 0, b"seven"))
    write(wal, hard_state(2))
    write_each(wal, (entry(index, 500) for index in range(1, 600)))
    wal.purge(600)
    wal.close()
    found = [record for record in read_back(disk) if record.kind != KIND_ENTRY]
    assert found == [hard_state(2), WalRecord(7, 0, b"seven")]


def test_a_record_carried_over_is_not_one_that_a_crash_may_still_take() -> None:
    """The batch that makes the log switch holds a vote; the power fails after the switch, before the batch."""
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(1))
    write(wal, entry(1, 60_000))
    wal.append([hard_state(2), entry(2, 60_000)], 0)
    disk.fail("pwrite", 4, 5)  # zeros, header, continued, and then the batch
    with pytest.raises(Exception, match="pwrite failed"):
        wal.write_queued()
    assert len(segment_paths(disk)) == 2
    assert read_back(disk.after_power_cut()) == [hard_state(1), entry(1, 60_000)]


def test_records_can_be_read_while_the_log_is_written() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, (entry(index, 500) for index in range(1, 200)))
    reading = wal.records()
    first = [next(reading) for _ in range(50)]
    write_each(wal, (entry(index, 500) for index in range(200, 400)))
    assert [record.index for record in [*first, *reading]] == list(range(1, 200))


def test_a_log_that_must_exist_and_does_not_is_damage() -> None:
    with pytest.raises(Damaged, match="the log is missing"):
        open_log(FaultyDisk(), must_exist=True)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="segment_bytes must be at least 65536"):
        open_log(FaultyDisk(), WalOptions(segment_bytes=65_535))
    with pytest.raises(ValueError, match="the salt must have 8 bytes"):
        Wal.open(DIRECTORY, FaultyDisk(), SMALL, salt=b"short")


def test_a_closed_log_takes_no_appends_and_closes_again_in_peace() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    wal.append([entry(1)], 1)
    wal.close()
    wal.close()
    with pytest.raises(ValueError, match="closed"):
        wal.append([entry(2)], 2)
    assert read_back(disk) == [entry(1)]


def test_the_same_log_is_read_by_the_real_disk(tmp_path: Path) -> None:
    records = [entry(index, 900) for index in range(1, 300)]
    wal, _ = Wal.open(tmp_path / "wal", RealDisk(), SMALL, salt=SALT)
    write_each(wal, records)
    wal.purge(100)
    wal.close()
    wal, report = Wal.open(tmp_path / "wal", RealDisk(), SMALL, salt=SALT, must_exist=True)
    assert report.first_index > 1
    assert list(wal.records()) == records[report.first_index - 1 :]
    wal.close()
