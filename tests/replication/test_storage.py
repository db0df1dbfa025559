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
    COMMIT_RECORD,
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
        storage.append(None, group, 0, 0)
        storage.wal.write_queued()
    return disk.after_kill()


def records(*groups: list[WalRecord]) -> FaultyDisk:
    """Return a disk with a log of these records, whatever a storage would say of them."""
    disk = FaultyDisk()
    storage = opened(disk)
    for group in groups:
        storage.wal.append(group, 0)
        storage.wal.write_queued()
    return disk.after_kill()


@given(term=NUMBERS, index=NUMBERS, kind=st.integers(0, 255), stamp_ms=NUMBERS, payload=st.binary(max_size=100))
def test_an_entry_comes_back_as_it_was(term: int, index: int, kind: int, stamp_ms: int, payload: bytes) -> None:
    before = Entry(term, index, kind, stamp_ms, payload)
    assert decode_entry(encode_entry(before)) == before


@given(term=st.integers(0, 2**63 - 1), vote=st.text(max_size=20), quarantined=st.booleans(), index=NUMBERS)
def test_a_hard_state_comes_back_as_it_was(term: int, vote: str, quarantined: bool, index: int) -> None:
    before = HardState(term, vote, quarantined)
    assert decode_hard_state(encode_hard_state(before, index)) == before


def test_every_record_can_be_shown_to_people() -> None:
    assert decode_record(encode_entry(Entry(2, 5, 0, 9, b""))) == LogEntry("noop", 5, 2, 9, b"")
    assert decode_record(encode_entry(Entry(2, 5, 1, 9, b"x"))) == LogEntry("commands", 5, 2, 9, b"x")
    assert decode_record(encode_entry(Entry(2, 5, 77, 9, b"x"))).kind == "kind-77"
    assert decode_record(encode_hard_state(HardState(4, "n1"), 5)) == LogEntry("hard-state", 5, 4, 0, b"n1")
    assert decode_record(encode_hard_state(HardState(4, "n1", True), 5)).kind == "hard-state-quarantined"
    assert decode_record(WalRecord(COMMIT_RECORD, 5, b"")) == LogEntry("commit", 5, 0, 0, b"")
    assert decode_record(restart(7, 3)) == LogEntry("restart-behind-snapshot", 7, 3, 0, b"")
    assert decode_record(WalRecord(9, 5, b"?")) == LogEntry("record-9", 5, 0, 0, b"?")


def test_an_empty_log_ends_where_its_snapshot_does() -> None:
    assert opened(FaultyDisk()).recover(0, 0) == LogEnd(0, 0, HardState(0, ""), term_runs=((0, 0),))


def test_a_restart_finds_the_end_the_last_hard_state_and_the_latest_stamp() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(HardState(1, "n1"), [entry(1)], 0, 1)
    storage.append(HardState(2, "n1"), [entry(2, term=2)._replace(stamp_ms=9000), entry(3, term=2)], 0, 2)
    storage.wal.write_queued()
    again = opened(disk.after_kill())
    assert again.recover(0, 0) == LogEnd(3, 2, HardState(2, "n1"), 9000, 0, ((0, 0), (1, 1), (2, 2)))
    assert again.last_index == 3
    assert [found.index for found in again.entries(1, 3)] == [1, 2, 3]


def test_a_hard_state_without_entries_is_durable_by_itself() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(HardState(7, "n1"), [], 0, 1)
    storage.wal.write_queued()
    assert opened(disk.after_power_cut()).recover(0, 0).hard_state == HardState(7, "n1")


def test_the_term_is_never_below_that_of_the_last_entry() -> None:
    storage = opened(written([entry(1, term=6)]))
    assert storage.recover(0, 0).hard_state == HardState(6, "")


def test_a_snapshot_stands_in_for_what_is_before_it() -> None:
    storage = opened(written([entry(index) for index in range(1, 6)]))
    assert storage.recover(3, 1)[:2] == (5, 1)
    assert opened(written([entry(1)])).recover(9, 4) == LogEnd(
        9, 4, HardState(4, ""), commit_index=9, term_runs=((9, 4),)
    )


def test_a_gap_between_snapshot_and_log_is_damage() -> None:
    storage = opened(gap_after_2())
    with pytest.raises(Damaged, match="continues at index 5, but snapshot and log end at 2"):
        storage.recover(0, 0)


def test_a_snapshot_over_the_gap_closes_it() -> None:
    storage = opened(gap_after_2())
    assert storage.recover(4, 1)[:2] == (6, 1)
    assert [found.index for found in storage.entries(5, 6)] == [5, 6]


def test_a_purged_log_without_its_snapshot_is_damage_and_not_an_empty_node() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    for index in range(1, 100):
        storage.append(None, [entry(index, size=8000)], 0, 0)
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
    storage.append(None, new, 0, 1)
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


def gap_after_2() -> FaultyDisk:
    """Return a disk whose log holds 1, 2, 5 and 6."""
    return records([encode_entry(entry(index)) for index in (1, 2, 5, 6)])


def restart(index: int, term: int) -> WalRecord:
    """Return the record that a storage writes for a received snapshot."""
    disk = FaultyDisk()
    storage = opened(disk)
    storage.restart(index, term)
    storage.append(None, [], 0, 0)
    storage.wal.write_queued()
    [record] = storage.wal.records(0)
    return record


def test_an_entry_that_was_replaced_and_put_back_comes_once() -> None:
    first = [entry(index, term=1) for index in range(1, 6)]
    storage = opened(written(first, [entry(2, term=2)], first[1:4], [entry(5, term=4)]))
    end = storage.recover(0, 0)
    assert end.term_runs == ((0, 0), (1, 1), (5, 4))
    assert list(storage.entries(1, 5)) == [*first[:4], entry(5, term=4)]


def test_an_entry_that_is_gone_is_damage_and_not_skipped() -> None:
    disk = gap_after_2()
    storage = opened(disk)
    storage.recover(4, 1)
    with pytest.raises(Damaged, match="the entry 2 is not there"):
        list(storage.entries(2, 6))


def test_entries_that_the_disk_has_not_got_yet_are_left_out() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(None, [entry(1), entry(2)], 0, 1)
    storage.wal.write_queued()
    storage.append(None, [entry(3)], 0, 2)
    assert [found.index for found in storage.entries(1, 3)] == [1, 2]


def test_what_was_known_to_be_committed_is_known_after_a_restart() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(None, [entry(1), entry(2), entry(3)], 0, 1)
    storage.append(None, [entry(4)], 3, 2)
    storage.append(None, [entry(5)], 3, 3)
    storage.wal.write_queued()
    again = opened(disk.after_kill())
    assert (again.recover(0, 0).commit_index, again.recover(4, 1).commit_index) == (3, 4)
    marks = [record.index for record in again.wal.records(0) if record.kind == COMMIT_RECORD]
    assert marks == [3], "a mark that says nothing new is not written"


def test_a_commit_mark_outlives_the_segment_that_it_was_written_in() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    for index in range(1, 100):
        storage.append(None, [entry(index, size=8000)], 7 if index == 9 else 0, 0)
        storage.wal.write_queued()
    storage.purge(90)
    assert opened(disk.after_kill()).recover(90, 1).commit_index == 90
    assert any(record.kind == COMMIT_RECORD for record in storage.wal.records(0))


def test_a_log_that_ends_before_what_was_committed_is_damage() -> None:
    storage = opened(records([encode_entry(entry(1)), WalRecord(COMMIT_RECORD, 3, b"")]))
    with pytest.raises(Damaged, match="up to 3 were committed, but the log ends at 1"):
        storage.recover(0, 0)


def test_the_log_goes_on_behind_a_received_snapshot() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.append(None, [entry(index) for index in range(1, 51)], 0, 1)
    storage.restart(80, 3)
    storage.append(HardState(3, "n2"), [entry(81, term=3), entry(82, term=4)], 80, 2)
    storage.wal.write_queued()
    again = opened(disk.after_kill())
    assert again.recover(80, 3) == LogEnd(82, 4, HardState(3, "n2")._replace(term=4, vote=""), 1082, 80, RUNS_BEHIND_80)
    assert list(again.entries(81, 82)) == [entry(81, term=3), entry(82, term=4)]
    for snapshot_index in (0, 50, 79):
        with pytest.raises(Damaged, match=f"behind a snapshot at index 80, but the newest one is at {snapshot_index}"):
            again.recover(snapshot_index, 1)


RUNS_BEHIND_80 = ((80, 3), (82, 4))


def test_entries_of_before_a_received_snapshot_are_void_though_their_index_is_behind_it() -> None:
    storage = opened(written([entry(index, term=3) for index in range(1, 101)]))
    storage.recover(0, 0)
    storage.restart(80, 2)
    storage.append(None, [], 0, 1)
    storage.wal.write_queued()
    assert storage.recover(80, 2)[:2] == (80, 2)
    storage.append(None, [entry(81, term=5)], 0, 2)
    storage.wal.write_queued()
    assert storage.recover(80, 2)[:2] == (81, 5)
    assert list(storage.entries(81, 81)) == [entry(81, term=5)]


@pytest.mark.parametrize(("snapshot_term", "kept"), [(3, 100), (2, 80), (4, 80)])
def test_a_crash_before_the_restart_was_written_voids_a_log_of_another_term(snapshot_term: int, kept: int) -> None:
    storage = opened(written([entry(index, term=3) for index in range(1, 101)]))
    assert storage.recover(80, snapshot_term).last_index == kept
    assert storage.recover(80, snapshot_term).last_term == snapshot_term


def test_the_terms_of_entries_before_the_snapshot_are_told_while_the_log_has_them() -> None:
    log = [entry(index, term=index // 10) for index in range(10, 100)]
    disk = records([encode_entry(found) for found in log])
    assert opened(disk).recover(40, 4).term_runs == tuple((index, index // 10) for index in range(10, 100, 10))
    assert opened(disk).recover(9, 1).term_runs[:2] == ((9, 1), (20, 2))
    assert opened(disk).recover(9, 0).term_runs[:3] == ((9, 0), (10, 1), (20, 2))
    assert opened(disk).recover(9, 2) == LogEnd(9, 2, HardState(2, ""), 1099, 9, ((9, 2),))


def test_a_restart_outlives_the_segment_that_it_was_written_in() -> None:
    disk = FaultyDisk()
    storage = opened(disk)
    storage.restart(10, 1)
    for index in range(11, 100):
        storage.append(None, [entry(index, size=8000)], 0, 0)
        storage.wal.write_queued()
    storage.purge(90)
    again = opened(disk.after_kill())
    assert again.recover(90, 1)[:2] == (99, 1)
    assert [found.index for found in again.entries(91, 99)] == list(range(91, 100))


def test_a_replaced_tail_is_void_though_a_snapshot_stands_over_the_place() -> None:
    old = [entry(index, term=1) for index in range(1, 121)]
    new = [entry(index, term=2) for index in range(90, 111)]
    assert opened(written(old, new)).recover(110, 2)[:2] == (110, 2)


def test_changes_of_members_behind_the_snapshot_are_reported() -> None:
    changes = [entry(index)._replace(kind=EntryKind.CONFIGURATION) for index in (2, 4, 6)]
    log = [entry(1), changes[0], entry(3), changes[1], entry(5), changes[2]]
    assert opened(written(log)).recover(2, 1).configurations == (changes[1], changes[2])
    assert opened(written(log, [entry(5, term=2)])).recover(0, 0).configurations == (changes[0], changes[1])
    assert opened(written(log)).recover(4, 7).configurations == ()


def test_bytes_from_an_index_on_shrink_as_it_grows() -> None:
    storage = opened(FaultyDisk())
    for index in range(1, 100):
        storage.append(None, [entry(index, size=8000)], 0, 0)
        storage.wal.write_queued()
    sizes = [storage.bytes_from(index) for index in (1, 50, 99)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 99 * 8000 > sizes[1] > sizes[2] > 8000


def test_records_are_entries_of_the_write_ahead_log() -> None:
    storage = opened(written([entry(1), entry(2)]))
    assert [record.kind for record in storage.wal.records(0)] == [ENTRY_RECORD, ENTRY_RECORD]
