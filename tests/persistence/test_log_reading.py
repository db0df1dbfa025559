"""Reading the log offline: what `redan log` and `redan verify` see, without changing a byte."""

from pathlib import Path

import pytest

from persistence.disk import RealDisk
from persistence.errors import Damaged
from persistence.segment import prepared_path
from persistence.wal import Wal, read_log, verify_log
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
    segment_paths,
    write,
    write_each,
)
from tests.persistence.test_wal_recovery_cases import switch_cut_at


def states(disk: FaultyDisk) -> list[str]:
    before = disk.files()
    found = [finding.state for finding in verify_log(DIRECTORY, disk)]
    assert disk.files() == before
    return list(found)


def test_every_record_is_read_with_its_segment_and_the_offset_of_its_frame() -> None:
    records = [entry(index, 900) for index in range(1, 150)]
    disk = log_of(*records)
    found = list(read_log(DIRECTORY, disk))
    assert [record for _, _, record in found] == records
    places = [(path, frame.offset) for path in segment_paths(disk) for frame in frames_of(disk, path)]
    assert {(path, offset) for path, offset, _ in found} <= set(places)


def test_records_of_the_log_itself_are_not_shown() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, entry(1))
    wal.mark_idle()
    wal.close()
    assert [record for _, _, record in read_log(DIRECTORY, disk)] == [entry(1)]


def test_reading_ends_at_a_torn_tail_and_cuts_nothing() -> None:
    disk = log_of(entry(1), entry(2), entry(3))
    [path] = segment_paths(disk)
    disk.flip(path, frames_of(disk, path)[2].end - 9)
    assert [record.index for _, _, record in read_log(DIRECTORY, disk)] == [1, 2]
    assert states(disk) == ["torn"]


def test_reading_raises_at_damage_after_what_stands_before_it() -> None:
    disk = log_of(entry(1), entry(2), entry(3))
    [path] = segment_paths(disk)
    disk.flip(path, frames_of(disk, path)[1].end - 9)
    reading = read_log(DIRECTORY, disk)
    assert next(reading)[2] == entry(1)
    with pytest.raises(Damaged):
        next(reading)


def test_a_log_in_use_is_read_up_to_what_was_written(tmp_path: Path) -> None:
    wal, _ = Wal.open(tmp_path, RealDisk(), SMALL, salt=SALT)
    reading = None
    for index in range(1, 200):
        write(wal, entry(index, 900))
        if index == 30:
            reading = read_log(tmp_path, RealDisk())
            next(reading)
    assert reading is not None
    assert len(list(read_log(tmp_path, RealDisk()))) == 199
    wal.close()


def test_a_frame_that_was_finished_while_the_tail_was_read_is_no_damage() -> None:
    """A reader of a live log may see half of a frame, and then the next one whole."""
    disk = log_of(entry(1), entry(2), entry(3))
    [path] = segment_paths(disk)
    whole = disk.content(path)
    second = frames_of(disk, path)[1]

    class Racing(FaultyDisk):
        """Shows the second frame half written until the sixth read, which is the one of the frames for `read_log`."""

        reads_left = 6

        def pread(self, handle: int, count: int, offset: int) -> bytes:
            content = super().pread(handle, count, offset)
            self.reads_left -= 1
            if self.reads_left == 0:
                assert content != whole[offset : offset + count]
                self.put(path, whole)
                self._handles[handle] = path, self._names[path]
            return content

    racing = Racing({path: whole[: second.offset + 30] + bytes(16) + whole[second.offset + 46 :]})
    assert [record.index for _, _, record in read_log(DIRECTORY, racing)] == [1, 2, 3]


def test_an_empty_directory_and_one_that_never_got_its_first_header_have_no_records() -> None:
    disk = FaultyDisk()
    disk.make_dirs(DIRECTORY)
    assert list(read_log(DIRECTORY, disk)) == []
    assert verify_log(DIRECTORY, disk) == []
    disk = log_of(entry(1))
    [path] = segment_paths(disk)
    disk.put(path, b"")
    assert list(read_log(DIRECTORY, disk)) == []
    assert states(disk) == ["torn"]


def test_a_sound_log_is_reported_segment_by_segment() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, hard_state(1))
    write_each(wal, [entry(index, 900) for index in range(1, 150)])
    assert states(disk) == ["continued", "continued", "open"]
    wal.close()
    findings = verify_log(DIRECTORY, disk)
    assert [finding.state for finding in findings] == ["continued", "continued", "sealed"]
    assert sum(finding.records for finding in findings) == 150
    assert (findings[0].first_index, findings[-1].last_index) == (1, 149)
    assert findings[0].last_index + 1 == findings[1].first_index
    assert {finding.size for finding in findings} == {64 * 1024}
    assert all(finding.damage is None for finding in findings)


def test_verify_goes_on_after_damage_and_says_what_is_wrong_in_each_segment() -> None:
    disk = log_of(*[entry(index, 900) for index in range(1, 300)])
    paths = segment_paths(disk)
    assert len(paths) == 5
    disk.flip(paths[0], 2000)
    disk.flip(paths[2], 3)
    disk.remove(paths[3])
    findings = verify_log(DIRECTORY, disk)
    assert [finding.state for finding in findings] == ["damaged", "continued", "damaged", "damaged"]
    assert "a later segment exists" in str(findings[0].damage)
    assert "magic number" in str(findings[2].damage)
    assert "does not follow" in str(findings[3].damage)


def test_verify_sees_a_flipped_bit_in_every_byte_of_a_closed_segment() -> None:
    disk = log_of(*[entry(index, 4000) for index in range(1, 20)])
    first = segment_paths(disk)[0]
    for offset in range(0, 64 * 1024, 97):
        flipped = FaultyDisk(disk.files())
        flipped.flip(first, offset)
        assert verify_log(DIRECTORY, flipped)[0].state == "damaged"


def test_a_switch_that_a_crash_interrupted_is_read_and_verified_with_the_prepared_segment() -> None:
    disk = switch_cut_at("rename")
    assert [record.kind for _, _, record in read_log(DIRECTORY, disk)] == [2, 1]
    assert states(disk) == ["continued", "open"]
    disk.flip(prepared_path(DIRECTORY, 2), 70)
    assert states(disk) == ["continued", "damaged"]
    disk.remove(prepared_path(DIRECTORY, 2))
    assert states(disk) == ["continued", "damaged"]
    with pytest.raises(Damaged, match="is missing"):
        list(read_log(DIRECTORY, disk))
