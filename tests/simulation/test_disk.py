"""The simulated disk, and the shipped log on it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from kvservice.simulation.disk import EIO, ENOSPC, SECTOR_BYTES, PowerCut, SimulatedDisk
from persistence.errors import DiskFailed
from persistence.record import KIND_ENTRY, WalRecord
from persistence.wal import Wal, WalOptions

FOLDER = Path("/d")
FILE = FOLDER / "f"


def disk_with_a_file(content: bytes) -> tuple[SimulatedDisk, int]:
    disk = SimulatedDisk()
    disk.make_dirs(FOLDER)
    handle = disk.open(FILE, "create")
    disk.pwritev_durable(handle, [content], 0)
    disk.fsync_dir(FOLDER)
    return disk, handle


def test_a_power_cut_takes_what_was_not_synced() -> None:
    disk, handle = disk_with_a_file(b"a" * 1024)
    disk.pwritev(handle, [b"b" * 1024], 512)
    assert disk.content(FILE) == b"a" * 512 + b"b" * 1024
    disk.power_returns(lambda: False)
    assert disk.content(FILE) == b"a" * 1024


def test_a_power_cut_keeps_each_unsynced_sector_or_not() -> None:
    left = set()
    for mask in range(8):
        disk, handle = disk_with_a_file(b"a" * 1024)
        disk.pwritev(handle, [b"b" * 1024], 512)
        choices = iter([bool(mask & 1), bool(mask & 2)])
        disk.power_returns(lambda choices=choices: next(choices))  # type: ignore[misc]
        left.add(disk.content(FILE))
    a, b = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES
    assert left == {a + a, a + b, a + a + b, a + b + b}


def test_a_sector_that_survives_behind_one_that_does_not_leaves_zeros_between() -> None:
    disk, handle = disk_with_a_file(b"a" * SECTOR_BYTES)
    disk.pwritev(handle, [b"b" * 2 * SECTOR_BYTES], SECTOR_BYTES)
    choices = iter([False, True])
    disk.power_returns(lambda: next(choices))
    assert disk.content(FILE) == b"a" * SECTOR_BYTES + bytes(SECTOR_BYTES) + b"b" * SECTOR_BYTES


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_what_was_synced_survives(sync: str) -> None:
    disk, handle = disk_with_a_file(b"a" * 10)
    disk.pwritev(handle, [b"b" * 2000], 5)
    getattr(disk, sync)(handle)
    disk.power_returns(lambda: False)
    assert disk.content(FILE) == b"a" * 5 + b"b" * 2000


def test_a_durable_write_makes_only_its_own_sectors_durable() -> None:
    disk, handle = disk_with_a_file(b"a" * 2048)
    disk.pwritev(handle, [b"b" * 512], 0)
    disk.pwritev_durable(handle, [b"c" * 512], 1024)
    disk.power_returns(lambda: False)
    assert disk.content(FILE) == b"a" * 1024 + b"c" * 512 + b"a" * 512


def test_the_end_of_a_process_loses_nothing_and_closes_its_files() -> None:
    disk, handle = disk_with_a_file(b"a")
    disk.pwritev(handle, [b"b"], 0)
    disk.close_all()
    assert disk.content(FILE) == b"b"
    with pytest.raises(KeyError):
        disk.pread(handle, 1, 0)


def test_a_name_survives_from_the_sync_of_its_directory_on() -> None:
    disk, _ = disk_with_a_file(b"a")
    other = FOLDER / "g"
    disk.rename(FILE, other)
    assert disk.paths() == [other]
    assert disk.names_pending == 1
    disk.power_returns(lambda: True)
    assert disk.paths() == [FILE]
    disk.rename(FILE, other)
    disk.fsync_dir(FOLDER)
    disk.power_returns(lambda: True)
    assert disk.paths() == [other]
    disk.unlink(other)
    disk.power_returns(lambda: True, names_kept=1)
    assert disk.paths() == []


def test_a_failed_sync_is_not_made_good_by_a_later_one() -> None:
    disk, handle = disk_with_a_file(b"a" * 512)
    disk.pwritev(handle, [b"b" * 512], 0)
    disk.fail("sync", 1, EIO)
    with pytest.raises(DiskFailed):
        disk.fdatasync(handle)
    disk.fdatasync(handle)
    assert disk.content(FILE) == b"b" * 512
    disk.power_returns(lambda: True)
    assert disk.content(FILE) == b"a" * 512


def test_a_full_disk_takes_what_makes_no_file_longer() -> None:
    disk, handle = disk_with_a_file(b"a" * 512)
    disk.is_full = True
    disk.pwritev_durable(handle, [b"b" * 512], 0)
    with pytest.raises(DiskFailed) as failure:
        disk.pwritev(handle, [b"c"], 512)
    assert failure.value.errno == ENOSPC
    disk.mend()
    disk.pwritev(handle, [b"c"], 512)


def test_after_the_power_is_cut_every_call_says_so() -> None:
    disk, handle = disk_with_a_file(b"a" * 512)
    disk.cut_power_at(1, after=False)
    with pytest.raises(PowerCut):
        disk.pwritev(handle, [b"b"], 0)
    with pytest.raises(PowerCut):
        disk.pread(handle, 1, 0)
    disk.power_returns(lambda: True)
    assert disk.content(FILE) == b"a" * 512


def test_a_wiped_disk_is_empty() -> None:
    disk, _ = disk_with_a_file(b"a")
    disk.wipe()
    assert disk.paths() == []


def test_rot_changes_bytes_where_they_are() -> None:
    disk, handle = disk_with_a_file(b"aaaa")
    disk.rot(FILE, 1, b"zz")
    assert disk.pread(handle, 4, 0) == b"azza"


def test_the_log_keeps_what_it_reported_through_power_cuts_at_random_calls() -> None:
    random = Random(3)
    torn = 0
    for _ in range(300):
        disk = SimulatedDisk()
        options = WalOptions(segment_bytes=64 * 1024)
        folder = FOLDER / "wal"
        wal, _ = Wal.open(folder, disk, options, salt=b"saltsalt")
        reported = queued = 0
        disk.cut_power_at(random.randrange(1, 30), after=random.random() < 0.5)
        try:
            while True:
                for _ in range(random.randrange(1, 4)):
                    queued += 1
                    wal.append([WalRecord(KIND_ENTRY, queued, bytes(random.randrange(6000)))], queued)
                reported = wal.write_queued() or reported
        except PowerCut:
            pass
        disk.power_returns(lambda: random.random() < 0.5, random.randrange(disk.names_pending + 1))
        wal, report = Wal.open(folder, disk, options, salt=b"saltsalt")
        torn += report.torn is not None
        found = [record.index for record in wal.records() if record.kind == KIND_ENTRY]
        assert found == list(range(1, len(found) + 1))
        assert reported <= len(found) <= queued
    assert torn > 10
