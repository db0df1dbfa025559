"""What is learnt of a damaged log: never more than it said, and all that is whole."""

from __future__ import annotations

import pytest

from persistence.errors import Damaged
from persistence.record import WalRecord
from persistence.wal import Wal, WalOptions
from replication.core.messages import Entry, EntryKind, HardState
from replication.salvage import Salvaged, salvage
from replication.storage import Storage, encode_hard_state
from tests.harness.disk import FaultyDisk
from tests.persistence.logs import DIRECTORY, SALT, frames_of, segment_paths

SMALL = WalOptions(segment_bytes=64 * 1024)


def entry(index: int, term: int) -> Entry:
    return Entry(term, index, EntryKind.COMMANDS, 1000, b"%d" % index * 2000)


def log_of_three_terms() -> FaultyDisk:
    """Return a log of several segments: terms 1 to 3, ten entries each, committed five entries later."""
    disk = FaultyDisk()
    wal, _ = Wal.open(DIRECTORY, disk, SMALL, salt=SALT)
    storage = Storage(wal)
    for index in range(1, 31):
        term = (index + 9) // 10
        hard_state = HardState(term, f"n{term}") if index % 10 == 1 else None
        storage.append(hard_state, [entry(index, term)], max(0, index - 5), index)
        wal.write_queued()
    assert len(segment_paths(disk)) > 1
    return disk.after_kill()


def is_damaged(disk: FaultyDisk) -> bool:
    try:
        wal, _ = Wal.open(DIRECTORY, disk, SMALL, salt=SALT)
        Storage(wal).recover(0, 0)
    except Damaged:
        return True
    return False


def test_a_whole_log_tells_everything() -> None:
    assert salvage(DIRECTORY, log_of_three_terms()) == Salvaged(30, 3, HardState(3, "n3"), 25)


def test_a_log_without_a_file_tells_nothing() -> None:
    disk = FaultyDisk()
    disk.make_dirs(DIRECTORY)
    assert salvage(DIRECTORY, disk) == Salvaged(0, 0, HardState(0, ""), 0)


@pytest.mark.parametrize("place", ["header", "body"])
def test_one_flipped_bit_in_any_segment_costs_at_most_its_frame(place: str) -> None:
    count = len(segment_paths(log_of_three_terms()))
    for number in range(count):
        disk = log_of_three_terms()
        path = segment_paths(disk)[number]
        offset = 20 if place == "header" else frames_of(disk, path)[0].offset + 30
        disk.flip(path, offset)
        assert is_damaged(disk)
        found = salvage(DIRECTORY, disk)
        assert found._replace(hard_state=HardState(3, "")) == Salvaged(30, 3, HardState(3, ""), 25)
        assert found.hard_state.term == 3
        assert found.hard_state.vote in (("n3",) if place == "header" else ("n3", ""))


def test_a_lost_hard_state_is_never_below_the_entries() -> None:
    disk = log_of_three_terms()
    for path in segment_paths(disk)[1:]:
        disk.remove(path)
    found = salvage(DIRECTORY, disk)
    assert found.last_term == found.hard_state.term
    assert found.last_index == found.commit_index + 5
    assert 0 < found.last_index < 30


def test_of_one_term_the_later_hard_state_stands() -> None:
    disk = FaultyDisk()
    wal, _ = Wal.open(DIRECTORY, disk, SMALL, salt=SALT)
    storage = Storage(wal)
    storage.append(HardState(7, ""), [], 0, 1)
    storage.append(HardState(7, "n2", True), [], 0, 2)
    storage.restart(40, 6)
    storage.append(None, [entry(41, 9)], 0, 3)
    wal.write_queued()
    assert salvage(DIRECTORY, disk) == Salvaged(41, 9, HardState(9, "", True), 40)


def test_records_of_another_program_and_older_hard_states_are_passed_over() -> None:
    disk = FaultyDisk()
    wal, _ = Wal.open(DIRECTORY, disk, SMALL, salt=SALT)
    wal.append([encode_hard_state(HardState(5, "n1"), 0), encode_hard_state(HardState(4, "n2"), 0)], 0)
    wal.append([WalRecord(77, 3, b"?")], 0)
    wal.write_queued()
    assert salvage(DIRECTORY, disk) == Salvaged(0, 0, HardState(5, "n1"), 0)
    assert Storage(wal).recover(0, 0).last_index == 0


def test_a_file_that_cannot_be_read_leaves_the_others() -> None:
    disk = log_of_three_terms()
    disk.fail("open", 2, 5)
    assert salvage(DIRECTORY, disk).last_index == 30
