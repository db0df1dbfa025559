"""Every call that changes the disk fails, or the power is cut before and after it: while writing and in recovery."""

from collections.abc import Callable, Iterator
from errno import EIO, ENOSPC, EROFS
from random import Random

import pytest

from persistence.errors import DiskFailed
from persistence.log_writer import WalOptions
from persistence.record import KIND_ENTRY
from persistence.wal import Wal
from tests.harness.disk import FaultyDisk, KeepSector, PowerCutError, keep_all, keep_none
from tests.persistence.logs import HARD_STATE, SMALL, entry, hard_state, open_log, read_back, write, write_each

INTERVAL = SMALL._replace(fsync="interval")


class Life:
    """A log that lives through all that happens to one, and what it promised: the entries and term acknowledged."""

    def __init__(self, options: WalOptions = SMALL) -> None:
        self.disk = FaultyDisk()
        self.options = options
        self.acknowledged = 0
        self.term = 0
        self.purged_before = 0
        self.written = 0

    def run(self) -> None:
        wal, _ = open_log(self.disk, self.options)
        self._write(wal, 1, 4, 900)
        self._write(wal, 5, 5, 62_000)  # fills the segment, the next batch switches
        self._write(wal, 6, 8, 900)
        wal.mark_idle()
        wal.close()
        if self.options.fsync != "always":
            self.acknowledged = self.written
        wal, _ = open_log(self.disk, self.options)
        self._write(wal, 9, 9, 100_000)  # larger than a segment
        self._write(wal, 10, 12, 50)
        self.purged_before = 9
        wal.purge(9)
        self._write(wal, 13, 14, 3000)
        wal.close(seal=False)

    def _write(self, wal: Wal, first: int, last: int, size: int) -> None:
        for index in range(first, last + 1):
            self.written = index
            wal.append([hard_state(index), entry(index, size)], index)
            token = wal.write_queued()
            assert token == index
            if self.options.fsync == "always":
                self.acknowledged = self.term = index

    def check(self, disk: FaultyDisk) -> None:
        """What was promised is there, what is there was written, and writing can go on."""
        records = read_back(disk, self.options)
        entries = [record.index for record in records if record.kind == KIND_ENTRY]
        if entries:
            assert entries == list(range(entries[0], entries[-1] + 1))
            assert entries[0] <= max(1, self.purged_before)
        # Entries before the purge are in a snapshot, so that is where a log without any goes on.
        last = entries[-1] if entries else max(self.purged_before - 1, 0)
        assert self.acknowledged <= last <= self.written
        terms = [int(record.body.split()[1]) for record in records if record.kind == HARD_STATE]
        assert max(terms, default=0) == last, "term and entry of one batch live or die together"
        wal, _ = open_log(disk, self.options)
        write(wal, entry(last + 1))
        wal.close()
        assert read_back(disk.after_power_cut(), self.options)[-1] == entry(last + 1)


def changing_calls(options: WalOptions) -> int:
    life = Life(options)
    life.run()
    return len(life.disk.calls)


def survivors(disk: FaultyDisk, seed: int) -> Iterator[FaultyDisk]:
    """Yield the disks that a power cut may leave: nothing unsynced, all of it, and two draws between."""
    random = Random(seed)
    drawn: KeepSector = lambda _path, _sector: random.random() < 0.5  # noqa: E731
    yield disk.after_power_cut(keep_none)
    yield disk.after_power_cut(keep_all, disk.names_pending)
    yield disk.after_power_cut(drawn, random.randint(0, disk.names_pending))
    yield disk.after_power_cut(drawn, disk.names_pending)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("options", [SMALL, INTERVAL], ids=lambda options: options.fsync)
def test_a_power_cut_at_every_call_loses_nothing_that_was_acknowledged(options: WalOptions, after: bool) -> None:
    count = changing_calls(options)
    assert count > 60
    for nth in range(1, count + 1):
        life = Life(options)
        life.disk.cut_power_at(nth, after=after)
        with pytest.raises(PowerCutError):
            life.run()
        for survivor in survivors(life.disk, nth):
            life.check(survivor)


@pytest.mark.parametrize("errno", [EIO, ENOSPC, EROFS])
def test_every_call_that_fails_stops_the_log_and_what_was_acknowledged_is_there_later(errno: int) -> None:
    life = Life()
    life.run()
    kinds = [call for call, _ in life.disk.calls]
    for position, kind in enumerate(kinds):
        nth = kinds[: position + 1].count(kind)
        life = Life()
        life.disk.fail(kind, nth, errno)
        with pytest.raises(DiskFailed) as caught:
            life.run()
        assert caught.value.errno == errno
        assert caught.value.file.startswith("/data")
        for survivor in [*survivors(life.disk, position), life.disk.after_kill()]:
            life.check(survivor)


def test_a_log_that_failed_takes_nothing_more() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    disk.fail("fdatasync", 1, EIO)
    wal.append([entry(1)], 1)
    with pytest.raises(DiskFailed, match=r"fdatasync failed on /data/wal/.*wal: Input/output error \(errno 5\)"):
        wal.write_queued()
    with pytest.raises(DiskFailed, match="fdatasync failed"):
        wal.append([entry(2)], 2)
    assert wal.stats.last_error.startswith("fdatasync failed")
    wal.close()


def torn() -> FaultyDisk:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, [entry(1), entry(2)])
    disk.cut_power_at(2, after=False)
    wal.append([entry(3, 9000)], 0)
    with pytest.raises(PowerCutError):
        wal.write_queued()
    return disk.after_power_cut(keep=lambda _path, sector: sector % 3 != 1)


def in_the_switch() -> FaultyDisk:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write(wal, entry(1), entry(2, 60_000))
    nth = 1
    while True:
        probe = disk.after_power_cut()
        wal, _ = open_log(probe)
        probe.cut_power_at(nth, after=False)
        wal.append([entry(3, 60_000)], 0)
        with pytest.raises(PowerCutError):
            wal.write_queued()
        if probe.calls[-1][0] == "rename":
            return probe.after_power_cut()
        nth += 1


def cut_off() -> FaultyDisk:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, [entry(1), entry(2), entry(3, 9000)])
    [path] = [path for path in disk.files() if path.suffix == ".wal"]
    disk.put(path, disk.content(path)[:5000])
    return disk


@pytest.mark.parametrize("make", [torn, in_the_switch, cut_off])
def test_a_power_cut_at_every_call_of_recovery_changes_nothing_of_what_is_recovered(
    make: Callable[[], FaultyDisk],
) -> None:
    start = make()
    expected = read_back(FaultyDisk(start.files()))
    probe = FaultyDisk(start.files())
    read_back(probe)
    assert len(probe.calls) >= 2
    for nth in range(1, len(probe.calls) + 1):
        for after in (False, True):
            disk = FaultyDisk(start.files())
            disk.cut_power_at(nth, after=after)
            with pytest.raises(PowerCutError):
                read_back(disk)
            for survivor in survivors(disk, nth):
                assert read_back(survivor) == expected


@pytest.mark.parametrize("make", [torn, in_the_switch, cut_off])
def test_every_failing_call_of_recovery_is_reported_and_changes_nothing_of_what_is_recovered(
    make: Callable[[], FaultyDisk],
) -> None:
    start = make()
    expected = read_back(FaultyDisk(start.files()))
    probe = FaultyDisk(start.files())
    read_back(probe)
    kinds = [call for call, _ in probe.calls]
    for position, kind in enumerate(kinds):
        disk = FaultyDisk(start.files())
        disk.fail(kind, kinds[: position + 1].count(kind), EIO)
        with pytest.raises(DiskFailed):
            read_back(disk)
        for survivor in [*survivors(disk, position), disk.after_kill()]:
            assert read_back(survivor) == expected
