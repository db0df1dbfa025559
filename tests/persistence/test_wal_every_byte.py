"""The log cut at every byte, flipped at every byte, torn at every subset of sectors."""

from itertools import chain, combinations
from pathlib import Path
from random import Random

import pytest

from persistence.errors import Damaged
from persistence.recovery import read_tail
from persistence.segment import read_header
from tests.harness.disk import SECTOR_BYTES, FaultyDisk, PowerCutError
from tests.persistence.logs import (
    SMALL,
    entry,
    frames_of,
    kept_prefix,
    log_of,
    open_log,
    read_back,
    segment_paths,
    write,
    write_each,
)

FULL = [entry(index, 1900) for index in range(1, 34)]
"""Fills one segment of 64 KiB to within one frame."""


def full_log() -> tuple[FaultyDisk, Path, bytes]:
    disk = log_of(*FULL)
    [path] = segment_paths(disk)
    content = disk.content(path)
    assert len(content) == 64 * 1024
    return disk, path, content


def test_cut_at_every_byte_the_tail_is_never_damage_and_ends_with_the_last_whole_frame() -> None:
    disk, path, content = full_log()
    ends = [frame.end for frame in frames_of(disk, path)]
    whole = 0
    for size in range(64, len(content) + 1):
        while whole < len(ends) and ends[whole] <= size:
            whole += 1
        cut = FaultyDisk({path: content[:size]})
        handle = cut.open(path, "read")
        tail = read_tail(cut, handle, path, read_header(cut, handle, path))
        assert tail.offset == (ends[whole - 1] if whole else 64)
        assert tail.last_index == whole
        assert tail.case in "BC"


def test_cut_around_every_frame_and_in_all_of_the_last_two_the_log_opens_and_keeps_all_whole_batches() -> None:
    disk, path, content = full_log()
    frames = frames_of(disk, path)
    sizes = set(range(frames[-2].offset, len(content)))
    for frame in frames:
        sizes |= set(range(frame.offset - 4, frame.offset + 40))
    for size in sorted(sizes - set(range(64))):
        cut = FaultyDisk({path: content[:size]})
        assert kept_prefix(cut, FULL) == sum(frame.end <= size for frame in frames)
        assert len(cut.content(path)) == len(content), "the file is filled up again"


def test_a_cut_log_goes_on_where_it_ends() -> None:
    disk, path, content = full_log()
    third = frames_of(disk, path)[2]
    cut = FaultyDisk({path: content[: third.offset + 1000]})
    wal, report = open_log(cut)
    assert report.last_index == 2
    write_each(wal, [entry(3), entry(4)])
    wal.close(seal=False)
    assert read_back(cut.after_power_cut()) == [*FULL[:2], entry(3), entry(4)]


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_in_any_byte_of_a_small_log_is_damage_or_a_tear_of_the_last_frame(bit: int) -> None:
    records = [entry(1), entry(2, 37), entry(3, 100)]
    disk = log_of(*records)
    [path] = segment_paths(disk)
    content = disk.content(path)
    last = frames_of(disk, path)[-1]
    for offset in range(last.end + 100):
        flipped = FaultyDisk({path: content})
        flipped.flip(path, offset, 1 << bit)
        if offset < last.offset:
            with pytest.raises(Damaged):
                read_back(flipped)
        else:
            assert kept_prefix(flipped, records) == (2 if offset < last.end else 3)


@pytest.mark.parametrize("end", ["mark", "seal"])
def test_a_bit_flipped_in_any_byte_of_a_covered_log_is_damage(end: str) -> None:
    records = [entry(1), entry(2, 37), entry(3, 100)]
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, records)
    wal.mark_idle() if end == "mark" else wal.close()
    [path] = segment_paths(disk)
    content = disk.content(path)
    cover = frames_of(disk, path)[-1]
    for offset in range(cover.end):
        flipped = FaultyDisk({path: content})
        flipped.flip(path, offset, 1 << offset % 8)
        if offset < cover.offset:
            with pytest.raises(Damaged):
                read_back(flipped)
        else:
            assert kept_prefix(flipped, records) == 3


def test_a_bit_flipped_in_any_of_several_segments_never_drops_a_record_in_silence() -> None:
    records = [entry(index, 700) for index in range(1, 250)]
    disk = log_of(*records)
    paths = segment_paths(disk)
    last = frames_of(disk, paths[-1])[-1]
    random = Random(2)
    refused = 0
    for _ in range(500):
        path = random.choice(paths)
        offset = random.randrange(64 * 1024)
        flipped = FaultyDisk(disk.files())
        flipped.flip(path, offset, 1 << random.randrange(8))
        try:
            kept = kept_prefix(flipped, records)
        except Damaged:
            refused += 1
        else:
            in_last_frame = path == paths[-1] and last.offset <= offset < last.end
            assert kept == len(records) - in_last_frame
    assert refused > 300


@pytest.mark.parametrize("size", [100, 700, 2300])
def test_of_the_last_batch_any_subset_of_sectors_may_reach_the_disk(size: int) -> None:
    """The power fails while a batch is written: it is there whole or not at all, and what was acknowledged is there."""
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, FULL[:3])
    disk.cut_power_at(2, after=False)
    batch = [entry(4, size), entry(5, size)]
    wal.append(batch, 0)
    with pytest.raises(PowerCutError):
        wal.write_queued()
    [path] = segment_paths(disk.after_power_cut())
    dirty = disk.dirty_sectors(path)
    assert len(dirty) >= 2 * size // SECTOR_BYTES
    outcomes = set()
    for kept in chain.from_iterable(combinations(dirty, count) for count in range(len(dirty) + 1)):
        chosen = set(kept)
        after = disk.after_power_cut(keep=lambda _path, sector, chosen=chosen: sector in chosen)  # type: ignore[misc]
        outcomes.add(kept_prefix(after, [*FULL[:3], *batch]))
    assert outcomes == {3, 5}


def test_with_fsync_interval_any_subset_of_unsynced_sectors_leaves_a_prefix_with_all_that_was_synced() -> None:
    options = SMALL._replace(fsync="interval")
    records = [entry(index, 600) for index in range(1, 9)]
    disk = FaultyDisk()
    wal, _ = open_log(disk, options)
    write_each(wal, records[:2])
    wal.mark_idle()
    write_each(wal, records[2:])
    [path] = segment_paths(disk)
    dirty = disk.dirty_sectors(path)
    assert len(dirty) >= 7
    outcomes = set()
    for mask in range(1 << len(dirty)):
        chosen = {sector for position, sector in enumerate(dirty) if mask >> position & 1}
        after = disk.after_power_cut(keep=lambda _path, sector, chosen=chosen: sector in chosen)  # type: ignore[misc]
        outcomes.add(kept_prefix(after, records, options))
    assert min(outcomes) == 2
    assert max(outcomes) == 8


def test_writing_goes_on_after_a_tear_as_if_it_had_not_been() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk)
    write_each(wal, FULL[:3])
    disk.cut_power_at(2, after=False)
    wal.append([entry(4, 3000)], 0)
    with pytest.raises(PowerCutError):
        wal.write_queued()
    after = disk.after_power_cut(keep=lambda _path, sector: sector % 2 == 0)
    wal, report = open_log(after)
    assert report.case == "C"
    write(wal, entry(4, 300))
    wal.close()
    assert read_back(after.after_power_cut()) == [*FULL[:3], entry(4, 300)]
