"""The log as records on disk: what comes back after a restart, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.errors import Damaged
from persistence.record import WalRecord
from persistence.wal import Wal, WalOptions
from replication.core.messages import Entry, EntryKind, HardState
from replication.storage import (
    ENTRY_RECORD,
    LogEnd,
    LogEntry,
    Storage,
    decode_entry,
    decode_hard_state,
    decode_record,
    encode_entry,
    encode_hard_state,
)
from tests.harness.disk import FaultyDisk
from tests.persistence.logs import DIRECTORY, SALT

NUMBERS = st.integers(0, 2**64 - 1)
SMALL = WalOptions(segment_bytes=64 * 1024)


def entry(index: int, term: int = 1, size: int = 8) -> Entry:
    return Entry(term, index, EntryKind.COMMANDS, 1000 + index, (b"%d.%d " % (term, index) * size)[:size])


def opened(disk: FaultyDisk) -> Storage:
    wal, _report = Wal.open(DIRECTORY, disk, SMALL, salt=SALT)
    return Storage(wal)


def written(*groups: list[Entry]) -> FaultyDisk:
    """Return a disk with a log that was given these entries, one append a group, and left as by a kill."""
    disk = FaultyDisk()
    storage = opened(disk)
    for group in groups:
        storage.append(None, group, 0)
        storage.wal.write_queued()
    return disk.after_kill()


@given(term=NUMBERS, index=NUMBERS, kind=st.integers(0, 255), stamp_ms=NUMBERS, payload=st.binary(max_size=100))
def test_an_entry_comes_back_as_it_was(term: int, index: int, kind: int, stamp_ms: int, payload: bytes) -> None:
    before = Entry(term, index, kind, stamp_ms, payload)
    assert decode_entry(encode_entry(before)) == before


@given(term=NUMBERS, vote=st.text(max_size=20), index=NUMBERS)
def test_a_hard_state_comes_back_as_it_was(term: int, vote: str, index: int) -> None:
    before = HardState(term, vote)
    assert decode_hard_state(encode_hard_state(before, index)) == before


def test_every_record_can_be_shown_to_people() -> None:
    assert decode_record(encode_entry(Entry(2, 5, 0, 9, b""))) == LogEntry("noop", 5, 2, 9, b"")
    assert decode_record(encode_entry(Entry(2, 5, 1, 9, b"x"))) == LogEntry("commands", 5, 2, 9, b"x")
    assert decode_record(encode_entry(Entry(2, 5, 77, 9, b"x"))).kind == "kind-77"
    assert decode_record(encode_hard_state(HardState(4, "n1"), 5)) == LogEntry("hard-state", 5, 4, 0, b"n1")
    assert decode_record(WalRecord(9, 5, b"?")) == LogEntry("record-9", 5, 0, 0, b"?")


def test_an_empty_log_ends_where_its_snapshot_does() -> None:
    assert opened(FaultyDisk()).recover(0, 0) == LogEnd(0, 0, HardState(0, ""), 0)


def test_a_restart_finds_the_end_the_last_hard_state_and_the_latest_stamp() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(HardState(1, "n1"), [entry(1)], 1)
    storage.append(HardState(2, "n1"), [entry(2, term=2)._replace(stamp_ms=9000), entry(3, term=2)], 2)
    storage.wal.write_queued()
    again = opened(disk.after_kill())
    assert again.recover(0, 0) == LogEnd(3, 2, HardState(2, "n1"), 9000)
    assert again.last_index == 3
    assert [found.index for found in again.entries(1, 3)] == [1, 2, 3]


def test_a_hard_state_without_entries_is_durable_by_itself() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(HardState(7, "n1"), [], 1)
    storage.wal.write_queued()
    assert opened(disk.after_power_cut()).recover(0, 0).hard_state == HardState(7, "n1")


def test_the_term_is_never_below_that_of_the_last_entry() -> None:
    storage = opened(written([entry(1, term=6)]))
    assert storage.recover(0, 0).hard_state == HardState(6, "")


def test_a_snapshot_stands_in_for_what_is_before_it() -> None:
    storage = opened(written([entry(index) for index in range(1, 6)]))
    assert storage.recover(3, 1)[:2] == (5, 1)
    assert opened(written([entry(1)])).recover(9, 4) == LogEnd(9, 4, HardState(4, ""), 0)


def test_a_gap_between_snapshot_and_log_is_damage() -> None:
    storage = opened(written([entry(1), entry(2)], [entry(5), entry(6)]))
    with pytest.raises(Damaged, match="continues at index 5, but snapshot and log end at 2"):
        storage.recover(0, 0)


def test_a_snapshot_over_the_gap_closes_it() -> None:
    storage = opened(written([entry(1), entry(2)], [entry(5), entry(6)]))
    assert storage.recover(4, 1)[:2] == (6, 1)


def test_a_purged_log_without_its_snapshot_is_damage_and_not_an_empty_node() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    for index in range(1, 100):
        storage.append(None, [entry(index, size=8000)], 0)
        storage.wal.write_queued()
    storage.purge(90)
    assert storage.wal.first_index > 1
    again = opened(disk.after_kill())
    with pytest.raises(Damaged, match="snapshot and log end at 0"):
        again.recover(0, 0)
    assert again.recover(90, 1).last_index == 99


def test_replaced_entries_do_not_come_back() -> None:
    old = [entry(index, term=1) for index in range(1, 8)]
    new = [entry(index, term=2) for index in range(4, 7)]
    storage = opened(written(old, new))
    assert storage.recover(0, 0)[:2] == (6, 2)
    assert list(storage.entries(1, 6)) == old[:3] + new
    assert list(storage.entries(5, 5)) == [new[1]]


def test_entries_replaced_in_this_run_do_not_come_back_either() -> None:
    old = [entry(index, term=1) for index in range(1, 6)]
    new = [entry(2, term=3)]
    storage = opened(written(old))
    storage.recover(0, 0)
    storage.append(None, new, 1)
    storage.wal.write_queued()
    assert list(storage.entries(1, 2)) == [old[0], *new]
    assert storage.last_index == 2


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5)), min_size=1, max_size=12))
def test_the_log_reads_back_as_the_list_that_replacing_makes(steps: list[tuple[int, int]]) -> None:
    model: list[Entry] = []
    groups: list[list[Entry]] = []
    for term, (start, count) in enumerate(steps, 1):
        first = min(start, len(model) + 1)
        group = [entry(index, term) for index in range(first, first + count)]
        model = model[: first - 1] + group
        groups.append(group)
    storage = opened(written(*groups))
    end = storage.recover(0, 0)
    assert end.last_index == len(model)
    assert list(storage.entries(1, len(model))) == model


def test_records_are_entries_of_the_write_ahead_log() -> None:
    storage = opened(written([entry(1), entry(2)]))
    assert [record.kind for record in storage.wal.records(0)] == [ENTRY_RECORD, ENTRY_RECORD]
