"""Reading from the middle of the log: everything that is wanted, and little else."""

import random

import pytest

from persistence.frame_index import STEP_BYTES, FrameIndex, FramePlace
from persistence.record import KIND_ENTRY, WalRecord
from persistence.wal import Wal, WalOptions
from tests.harness.disk import FaultyDisk
from tests.persistence.logs import entry, open_log, write, write_each

ENTRY_BYTES = 64 * 1024
LARGE = WalOptions(segment_bytes=2 * 1024 * 1024)


def filled(count: int) -> Wal:
    """Return a log with entries of 64 KiB, one a frame."""
    wal, _ = open_log(FaultyDisk(), LARGE)
    for index in range(1, count + 1):
        write(wal, entry(index, ENTRY_BYTES))
    return wal


def live_from(wal: Wal, from_index: int) -> list[WalRecord]:
    """Read what is left of the entries from an index on when each replaces the tail from its own."""
    live: list[WalRecord] = []
    for record in wal.records(from_index):
        if record.kind == KIND_ENTRY:
            live = [kept for kept in live if kept.index < record.index] + [record]
    return [record for record in live if record.index >= from_index]


def test_reading_from_an_index_yields_it_and_all_after_it() -> None:
    wal = filled(80)
    for from_index in range(1, 82):
        assert [record.index for record in live_from(wal, from_index)] == list(range(from_index, 81))


def test_reading_from_an_index_begins_less_than_two_steps_before_it() -> None:
    wal = filled(80)
    for from_index in (30, 60, 80):
        first = next(iter(wal.records(from_index)))
        assert 0 <= from_index - first.index < 2 * STEP_BYTES // ENTRY_BYTES


def test_a_log_of_an_earlier_run_learns_its_places_by_being_read_once() -> None:
    disk = FaultyDisk()
    wal, _ = open_log(disk, LARGE)
    for index in range(1, 81):
        write(wal, entry(index, ENTRY_BYTES))
    again, _ = open_log(disk.after_kill(), LARGE)
    assert [record.index for record in again.records(0)] == list(range(1, 81))
    write_each(again, (entry(index, ENTRY_BYTES) for index in range(81, 100)))
    for from_index in range(1, 101):
        records = [record.index for record in again.records(from_index)]
        assert records[-1] == 99
        assert from_index - records[0] < 2 * STEP_BYTES // ENTRY_BYTES


@pytest.mark.parametrize("seed", range(6))
def test_replaced_tails_are_never_missed(seed: int) -> None:
    chance = random.Random(seed)
    wal, _ = open_log(FaultyDisk(), LARGE)
    model: list[WalRecord] = []
    for number in range(120):
        start = chance.randint(max(1, len(model) - 30), len(model) + 1) if chance.random() < 0.1 else len(model) + 1
        record = WalRecord(KIND_ENTRY, start, b"%d " % number * 10_000)
        model[start - 1 :] = [record]
        write(wal, record)
        from_index = chance.randint(1, len(model))
        assert live_from(wal, from_index) == model[from_index - 1 :]


def test_places_of_removed_segments_are_forgotten() -> None:
    wal = filled(80)
    wal.purge(60)
    assert [record.index for record in live_from(wal, 60)] == list(range(60, 81))
    assert live_from(wal, wal.first_index)[0].index == wal.first_index


def test_a_place_is_worth_noting_a_step_behind_the_one_before() -> None:
    index = FrameIndex()
    assert not index.wants(1, STEP_BYTES - 8)
    assert index.wants(1, STEP_BYTES)
    index.note(FramePlace(1, STEP_BYTES, 0, 10))
    assert not index.wants(1, 2 * STEP_BYTES - 8)
    assert not index.wants(2, STEP_BYTES - 8)
    assert index.wants(1, 2 * STEP_BYTES)
    assert index.place_for(10) is None
    assert index.place_for(11) == FramePlace(1, STEP_BYTES, 0, 10)
