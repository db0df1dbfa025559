"""The core's log: terms without the disk, what memory keeps, what is replaced and what is let go."""

from __future__ import annotations

import pytest

from replication.core.log import RaftLog
from replication.core.messages import Entry, EntryKind


def grown(*terms: int, size: int = 1) -> RaftLog:
    """A log with durable entries of these terms, each with ``size`` bytes."""
    log = RaftLog(0, 0, 0)
    for index, term in enumerate(terms, 1):
        log.append(Entry(term, index, EntryKind.COMMANDS, 0, b"x" * size))
    log.take_unpersisted()
    log.became_durable(len(terms))
    return log


def test_the_term_of_every_index_from_the_base_on_is_known() -> None:
    log = RaftLog(9, 7, 4, runs=[(4, 2), (5, 3), (8, 7)])
    assert [log.term_of(index) for index in range(3, 11)] == [None, 2, 3, 3, 3, 7, 7, None]


def test_a_log_that_begins_at_its_first_entry_knows_the_place_before_it() -> None:
    log = RaftLog(3, 2, 0, runs=[(1, 1), (3, 2)])
    assert (log.base_index, log.base_term) == (0, 0)
    assert [log.term_of(index) for index in range(4)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [
        (9, 7, (9, 7)),
        (20, 9, (9, 7)),
        (9, 6, (7, 3)),
        (7, 2, (4, 2)),
        (7, 1, (4, 2)),
        (3, 5, (3, 0)),
    ],
)
def test_whole_terms_are_skipped_where_logs_differ(index: int, term: int, found: tuple[int, int]) -> None:
    log = RaftLog(9, 7, 4, runs=[(4, 2), (5, 3), (8, 7)])
    assert log.last_of_term_at_most(index, term) == found


@pytest.mark.parametrize(
    ("bytes_max", "count", "size"), [(1, 1, 10), (10, 1, 10), (19, 1, 10), (20, 2, 20), (99, 3, 30)]
)
def test_a_slice_has_at_least_one_entry_and_stays_under_its_bound(bytes_max: int, count: int, size: int) -> None:
    log = grown(1, 1, 1, 1, size=10)
    entries, entries_bytes = log.sliced(2, bytes_max)
    assert ([entry.index for entry in entries], entries_bytes) == ([2, 3, 4][:count], size)


def test_a_replaced_tail_takes_its_terms_its_bytes_and_its_changes_along() -> None:
    log = grown(1, 1, 2, 3)
    log.append(Entry(3, 5, EntryKind.CONFIGURATION, 0, b"members"))
    log.truncate(2)
    assert (log.last_index, log.last_term, log.durable, log.handed_out) == (2, 1, 2, 2)
    assert (log.run_terms, log.unapplied_bytes, log.configuration_indexes) == ([0, 1], 2, [])
    log.append(Entry(4, 3, EntryKind.NOOP, 0, b""))
    assert [entry.term for entry in log.take_unpersisted()] == [4]


def test_entries_of_an_earlier_run_can_be_replaced() -> None:
    log = RaftLog(9, 7, 4, runs=[(4, 2), (5, 3), (8, 7)])
    log.truncate(6)
    assert (log.last_index, log.last_term, log.memory_first) == (6, 3, 7)
    log.append(Entry(8, 7, EntryKind.NOOP, 0, b""))
    assert (log.term_of(7), log.sliced(7, 9)[0][0].term) == (8, 8)


def test_nothing_committed_is_replaced() -> None:
    log = grown(1, 1, 1)
    log.commit(2)
    with pytest.raises(AssertionError):
        log.truncate(1)


def test_nothing_is_committed_or_durable_that_is_not_there() -> None:
    log = grown(1)
    with pytest.raises(AssertionError):
        log.commit(2)
    log.append(Entry(1, 2, EntryKind.NOOP, 0, b""))
    with pytest.raises(AssertionError):
        log.became_durable(2)


def test_what_is_applied_stays_in_memory_up_to_a_bound() -> None:
    log = grown(*[1] * 20, size=10)
    log.retain_bytes = 80
    log.commit(8)
    log.take_committed()
    assert (log.memory_first, log.applied_bytes) == (1, 80)
    log.commit(9)
    log.take_committed()
    assert (log.memory_first, log.applied_bytes) == (3, 70)
    assert log.term_of(1) == 1


def test_what_is_not_durable_stays_in_memory_though_it_is_applied() -> None:
    log = RaftLog(0, 0, 0)
    for index in (1, 2, 3):
        log.append(Entry(1, index, EntryKind.NOOP, 0, b"x"))
    log.commit(3)
    log.take_unpersisted()
    log.became_durable(1)
    assert len(log.take_committed()) == 3
    assert (log.memory_first, len(log.entries), log.applied_bytes) == (2, 2, 2)


def test_a_compacted_log_knows_nothing_before_its_new_base() -> None:
    log = grown(1, 1, 2, 2, 3)
    log.commit(4)
    log.take_committed()
    log.compact(3)
    assert [log.term_of(index) for index in range(2, 6)] == [None, 2, 2, 3]
    assert (log.base_index, log.base_term, log.run_starts) == (3, 2, [3, 5])
    log.compact(2)
    assert log.base_index == 3
    with pytest.raises(AssertionError):
        log.compact(5)


def test_a_received_snapshot_is_where_the_log_begins_anew() -> None:
    log = grown(1, 1, 2)
    log.retain_bytes = 5
    log.restore(7, 4)
    assert (log.base_index, log.last_index, log.last_term, log.applied, log.durable) == (7, 7, 4, 7, 7)
    assert (log.entries, log.memory_first, log.unapplied_bytes, log.retain_bytes) == ([], 8, 0, 5)
    with pytest.raises(AssertionError):
        log.restore(7, 4)


def test_a_change_of_members_on_disk_counts_until_it_is_replayed() -> None:
    log = RaftLog(9, 7, 4, committed=6, runs=[(4, 2), (5, 7)], configuration_indexes=[3, 6, 8])
    assert log.configuration_indexes == [6, 8]
    assert (log.has_unapplied_configuration, log.replay_end) == (True, 6)
    with pytest.raises(AssertionError):
        log.replayed(6)
    log.replayed(5)
    log.replayed(6)
    with pytest.raises(AssertionError):
        log.replayed(7)
