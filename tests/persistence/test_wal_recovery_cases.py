"""The decision table of `persistence.recovery`, case by case, by its letters."""

from collections.abc import Callable

import pytest

from persistence.errors import Damaged, DataDirIncompatible
from persistence.log_writer import WalOptions
from persistence.record import FRAME_HEADER, RECORD_HEADER, WalRecord, frame_crc, frame_key
from persistence.segment import encode_header, prepared_path
from persistence.wal import Wal
from tests.harness.disk import FaultyDisk, PowerCutError
from tests.persistence.logs import (
    DIRECTORY,
    SALT,
    SMALL,
    entry,
    frames_of,
    hard_state,
    kept_prefix,
    log_of,
    open_log,
    read_back,
    segment_paths,
    write,
    write_each,
)

THREE = [entry(1), entry(2, 2000), entry(3)]
INTERVAL = SMALL._replace(fsync="interval")


def three_segments() -> FaultyDisk:
    disk = log_of(*[entry(index, 1000) for index in range(1, 150)])
    assert len(segment_paths(disk)) == 3
    return disk


def refuse(disk: FaultyDisk, match: str) -> Damaged:
    """The log must be refused when it is opened or read, and nothing on the disk may change."""
    before = disk.files()
    with pytest.raises(Damaged, match=match) as caught:
        read_back(disk)
    assert {path: content for path, content in disk.files().items() if path in before} == before
    assert "redan verify DIR" in str(caught.value)
    assert str(caught.value.offset) in str(caught.value)
    return caught.value


def test_case_a_a_seal_and_zeros_are_a_clean_end() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, THREE)
    wal.close()
    wal, report = open_log(disk)
    assert (report.case, report.torn) == ("A", None)
    write(wal, entry(4))
    wal.close()
    assert read_back(disk) == [*THREE, entry(4)]


def test_case_b_zeros_without_a_seal_are_an_end_that_nothing_was_torn_from() -> None:
    disk = log_of(*THREE)
    assert open_log(disk)[1].case == "B"
    assert read_back(disk) == THREE


def test_case_c_a_torn_last_frame_is_cut_durably_and_reported() -> None:
    disk = log_of(*THREE)
    path = segment_paths(disk)[0]
    last = frames_of(disk, path)[-1]
    disk.flip(path, last.end - 10)
    wal, report = open_log(disk)
    assert report.case == "C"
    assert report.torn is not None
    assert (report.torn.file, report.torn.offset) == (path, last.offset)
    assert 0 < report.torn.length <= last.end - last.offset
    after = disk.after_power_cut()
    assert not after.content(path)[last.offset :].strip(b"\0")
    write(wal, WalRecord(1, 3, b"again"))
    assert list(wal.records()) == [*THREE[:2], WalRecord(1, 3, b"again")]


def test_case_c_frames_that_no_sync_covered_may_be_lost_in_any_order() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk, INTERVAL)
    write_each(wal, [entry(index, 2000) for index in range(1, 6)])
    frames = frames_of(disk, segment_paths(disk)[0])
    lost = frames[1].offset // 512 + 1
    after = disk.after_power_cut(keep=lambda _path, sector: sector != lost)
    assert read_back(after, INTERVAL) == [entry(1, 2000)]
    assert read_back(after, INTERVAL) == [entry(1, 2000)]


def test_case_d_a_frame_that_was_known_durable_and_does_not_check_is_damage() -> None:
    disk = log_of(*THREE)
    path = segment_paths(disk)[0]
    second, third = frames_of(disk, path)[1:]
    disk.flip(path, second.offset + 100)
    error = refuse(disk, f"the frame at offset {third.offset} says that everything up to {third.offset} was durable")
    assert (error.file, error.offset) == (str(path), second.offset)


def test_case_d_the_mark_of_an_idle_log_covers_its_last_frame() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, THREE)
    wal.mark_idle()
    calls = len(disk.calls)
    wal.mark_idle()
    assert len(disk.calls) == calls, "one mark is enough"
    wal.close(seal=False)
    path = segment_paths(disk)[0]
    disk.flip(path, frames_of(disk, path)[2].end - 10)
    refuse(disk, "was durable")


def test_case_d_a_seal_covers_the_last_frame() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, THREE)
    wal.close()
    path = segment_paths(disk)[0]
    disk.flip(path, frames_of(disk, path)[2].end - 10)
    refuse(disk, "was durable")


def test_case_d_with_fsync_interval_a_sync_covers_what_was_written_before_it() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk, INTERVAL)
    write_each(wal, THREE)
    wal.mark_idle()
    write(wal, entry(4))
    wal.close(seal=False)
    path = segment_paths(disk)[0]
    disk.flip(path, frames_of(disk, path)[0].offset + 30)
    refuse(disk, "was durable")


def test_case_e_a_whole_frame_that_continues_another_one_is_damage() -> None:
    disk, other = log_of(*THREE), log_of(entry(1), entry(2, 2001), entry(3))
    path = segment_paths(disk)[0]
    last = frames_of(disk, path)[-1]
    assert last == frames_of(other, path)[-1]
    swapped = disk.content(path)[: last.offset] + other.content(path)[last.offset :]
    disk.put(path, swapped)
    assert refuse(disk, "does not continue the one before it").offset == last.offset


def switch_cut_at(step: str) -> FaultyDisk:
    """Cut the power during a switch of segments: before the call that is named."""
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(3), entry(1, 60_000))
    calls = len(disk.calls)
    write(wal, entry(2, 60_000))
    wanted = next(position for position, call in enumerate(disk.calls[calls:], 1) if call[0] == step)
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(3), entry(1, 60_000))
    disk.cut_power_at(wanted, after=False)
    wal.append([entry(2, 60_000)], 0)
    with pytest.raises(PowerCutError):
        wal.write_queued()
    return disk.after_power_cut()


def test_case_f_a_crash_in_the_switch_is_finished_with_the_prepared_segment() -> None:
    disk = switch_cut_at("rename")
    assert prepared_path(DIRECTORY, 2) in disk.files()
    wal, report = open_log(disk)
    assert (report.case, report.segments, report.last_index) == ("F", 2, 1)
    write(wal, entry(2))
    wal.close(seal=False)
    assert prepared_path(DIRECTORY, 2) not in disk.files()
    assert read_back(disk.after_power_cut()) == [hard_state(3), entry(1, 60_000), entry(2)]


def test_case_f_a_prepared_segment_that_does_not_continue_the_log_is_damage() -> None:
    disk = switch_cut_at("rename")
    header = encode_header(SALT, 2, 2, 64 * 1024, 0xBAD, [])
    disk.put(prepared_path(DIRECTORY, 2), header.ljust(64 * 1024, b"\0"))
    refuse(disk, "stale or swapped")


def test_case_g_a_last_segment_that_someone_removed_is_damage() -> None:
    disk = three_segments()
    disk.remove(segment_paths(disk)[-1])
    refuse(disk, "segment 0000000000000003, which follows this one, is missing")


@pytest.mark.parametrize("size", [0, 1, 63])
def test_case_h_the_first_segment_ever_that_ends_in_its_header_is_begun_again(size: int) -> None:
    disk = log_of(*THREE)
    path = segment_paths(disk)[0]
    disk.put(path, disk.content(path)[:size])
    wal, report = open_log(disk)
    assert (report.case, report.torn is not None) == ("H", True)
    write(wal, entry(1))
    assert read_back(disk.after_power_cut()) == [entry(1)]


def test_case_i_every_flipped_bit_of_a_header_is_damage() -> None:
    disk = three_segments()
    for path in segment_paths(disk):
        for offset in range(64):
            flipped = FaultyDisk(disk.files())
            flipped.flip(path, offset, 1 << offset % 8)
            refuse(flipped, "magic number|checksum|ends inside")


def test_case_i_a_flipped_bit_in_a_carried_vote_is_damage() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(9))
    write_each(wal, (entry(index, 1000) for index in range(1, 100)))
    wal.purge(99)
    [path] = segment_paths(disk)
    disk.flip(path, 64 + 15)
    refuse(disk, "checksum of the segment header")


@pytest.mark.parametrize("position", [1, 2])
def test_case_i_a_later_segment_that_ends_in_its_header_is_damage(position: int) -> None:
    disk = three_segments()
    path = segment_paths(disk)[position]
    disk.put(path, disk.content(path)[:40])
    refuse(disk, "ends inside the segment header")


def test_case_i_a_segment_of_another_log_is_damage() -> None:
    with pytest.raises(Damaged, match="another log"):
        Wal.open(DIRECTORY, log_of(*THREE), SMALL, salt=b"anothers")


def test_case_i_a_segment_under_a_wrong_name_is_damage() -> None:
    disk = log_of(*THREE)
    [path] = segment_paths(disk)
    disk.put(DIRECTORY / "0000000000000001-0000000000000002.wal", disk.content(path))
    disk.remove(path)
    refuse(disk, "the name does not")


def test_an_unknown_format_version_with_a_good_checksum_is_another_programs_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("persistence.segment.FORMAT_VERSION", 2)
    disk = log_of(*THREE)
    monkeypatch.undo()
    with pytest.raises(DataDirIncompatible, match="has format version 2, this program reads 1"):
        open_log(disk)


def drop_middle(disk: FaultyDisk) -> None:
    disk.remove(segment_paths(disk)[1])


def duplicate(disk: FaultyDisk) -> None:
    disk.put(DIRECTORY / "0000000000000002-00000000000000ff.wal", disk.content(segment_paths(disk)[1]))


def swap(disk: FaultyDisk) -> None:
    first, second, _ = segment_paths(disk)
    contents = disk.content(first), disk.content(second)
    disk.put(first, contents[1])
    disk.put(second, contents[0])


def stale(disk: FaultyDisk) -> None:
    """The middle segment is that of an older backup of the log that went on differently."""
    older = log_of(*[entry(index, 1000) for index in range(1, 100)], *[entry(index, 999) for index in range(100, 150)])
    disk.put(segment_paths(disk)[1], older.content(segment_paths(older)[1]))


def shorten(disk: FaultyDisk) -> None:
    path = segment_paths(disk)[1]
    disk.put(path, disk.content(path)[:-200])


def unseal(disk: FaultyDisk) -> None:
    """The first segment loses its last frame, the one that says that another segment follows."""
    path = segment_paths(disk)[0]
    last = frames_of(disk, path)[-1]
    disk.put(path, disk.content(path)[: last.offset].ljust(64 * 1024, b"\0"))


@pytest.mark.parametrize(
    ("case", "harm", "match"),
    [
        ("J", drop_middle, "1 segments are missing"),
        ("J", duplicate, "is there twice"),
        ("I", swap, "the name does not"),
        ("K", unseal, "a later segment exists"),
        ("L", stale, "stale or swapped"),
    ],
)
def test_cases_j_to_l_segments_that_do_not_form_one_log_are_damage(
    case: str, harm: Callable[[FaultyDisk], None], match: str
) -> None:
    disk = three_segments()
    harm(disk)
    refuse(disk, match)


def test_case_k_an_earlier_segment_that_lost_its_end_is_damage() -> None:
    disk = three_segments()
    path = segment_paths(disk)[0]
    disk.put(path, disk.content(path)[: frames_of(disk, path)[-1].end - 1])
    refuse(disk, "a later segment exists")


def test_a_segment_that_lost_only_zeros_lost_nothing() -> None:
    disk = three_segments()
    shorten(disk)
    assert len(read_back(disk)) == 149


def test_case_m_a_log_that_vanished_is_damage_and_case_n_a_new_one_is_none() -> None:
    disk = FaultyDisk()
    assert open_log(disk)[1].case == "N"
    for path in segment_paths(disk):
        disk.remove(path)
    with pytest.raises(Damaged, match="the log is missing"):
        open_log(disk, must_exist=True)
    assert open_log(disk)[1].case == "N"


def test_leftovers_of_a_prepared_segment_are_removed_and_foreign_files_stay() -> None:
    disk = log_of(*THREE)
    foreign = DIRECTORY / "notes.txt"
    disk.put(foreign, b"mine")
    disk.put(prepared_path(DIRECTORY, 2), bytes(1000))
    assert read_back(disk) == THREE
    assert prepared_path(DIRECTORY, 2) not in disk.files()
    assert disk.content(foreign) == b"mine"


def test_a_copy_of_a_frame_in_a_clients_value_is_not_a_frame() -> None:
    """A torn value that holds whole frames of this very log must be cut like any other, not taken for damage."""
    disk = log_of(*THREE)
    path = segment_paths(disk)[0]
    frames = disk.content(path)[: frames_of(disk, path)[-1].end]
    wal, _ = open_log(disk)
    for shift in range(8):
        write(wal, WalRecord(1, 4 + shift, bytes(shift) + frames * 3))
    wal.close(seal=False)
    last = frames_of(disk, path)[-1]
    disk.flip(path, last.offset + 24)
    assert kept_prefix(disk, read_back(FaultyDisk(disk.files()))) == 10


def test_after_a_failed_sync_what_reads_back_is_made_durable_before_it_counts() -> None:
    """The page cache says that the frame is there, the disk does not have it: a new start must write it again."""
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, entry(1))
    disk.fail("fdatasync", 1, 5)
    wal.append([entry(2)], 2)
    with pytest.raises(Exception, match="fdatasync failed"):
        wal.write_queued()
    restarted = disk.after_kill()
    wal, report = open_log(restarted)
    assert report.last_index == 2
    assert read_back(restarted.after_power_cut()) == [entry(1), entry(2)]


def test_a_torn_value_full_of_frame_headers_does_not_slow_the_scan_down() -> None:
    """The scan looks for 4 bytes that a client cannot know: headers of another log, or guessed ones, cost nothing."""
    options = WalOptions(segment_bytes=8 * 1024 * 1024)
    disk = FaultyDisk()
    wal, _ = open_log(disk, options)
    guessed = FRAME_HEADER.pack(frame_key(b"guessed!", 1).marker, 1024 * 1024, 0, 0, 1 << 40)
    write(wal, entry(1))
    write(wal, WalRecord(1, 2, guessed * 100_000))
    wal.close(seal=False)
    path = segment_paths(disk)[-1]
    disk.flip(path, frames_of(disk, path)[-1].end - 100)
    reads = disk.reads
    assert read_back(disk, options) == [entry(1)]
    assert disk.reads - reads < 50


@pytest.mark.parametrize("payload", [RECORD_HEADER.pack(1, 1, 100) + bytes(3), b"\0\0\0\0\0\0\0x"])
def test_a_whole_frame_whose_records_do_not_fill_it_is_damage(payload: bytes) -> None:
    disk = log_of(entry(1))
    [path] = segment_paths(disk)
    content = disk.content(path)
    first = frames_of(disk, path)[0]
    previous_crc = FRAME_HEADER.unpack_from(content, first.offset)[3]
    key = frame_key(SALT, 1)
    crc = frame_crc(key, payload, previous_crc, first.end, first.end)
    frame = FRAME_HEADER.pack(key.marker, len(payload), previous_crc, crc, first.end) + payload
    disk.put(path, content[: first.end] + frame + content[first.end + len(frame) :])
    refuse(disk, "longer than its frame|follow the last record")
