"""The driver: persist, commit, apply, answer, in that order and no other."""

from __future__ import annotations

import random

import pytest

from replication.core.messages import EntryKind, HardState
from replication.errors import NotLeading, Stopped
from replication.node import no_crash
from tests.replication.node_bench import Bench


def test_the_order_is_persist_durable_apply_answer() -> None:
    bench = Bench()
    bench.elect()
    bench.propose(b"hello")
    assert bench.told == ["proposed", "persisting", "append 3"]
    bench.report_all()
    assert bench.told[3:] == ["durable", "applying", "apply 2", "answer hello", "applied"]


def test_nothing_is_applied_before_it_is_durable() -> None:
    bench = Bench()
    bench.elect()
    for number in range(5):
        bench.propose(b"%d" % number)
    assert bench.machine.applied == []
    assert bench.node.proposals_pending == 5
    assert bench.node.applied_index == 1
    assert bench.node.last_index == 6
    bench.report_all()
    assert bench.applied_indexes == [2, 3, 4, 5, 6]
    assert bench.node.proposals_pending == 0
    assert bench.node.commit_index == bench.node.applied_index == 6


def test_term_and_vote_are_durable_before_the_node_leads() -> None:
    bench = Bench(term=3)
    bench.node.start()
    leaders = [bench.node.leader_id]
    [(hard_state, entries, token)] = bench.log.appended
    assert (hard_state, entries) == (HardState(4, "n1"), [])
    with pytest.raises(NotLeading):
        bench.propose()
    bench.log.appended.clear()
    bench.node.durable(token)
    assert bench.node.is_leader
    leaders.append(bench.node.leader_id)
    assert leaders == [None, "n1"]
    assert (bench.node.term, bench.node.hard_state) == (4, HardState(4, "n1"))
    [(hard_state, entries, _token)] = bench.log.appended
    assert hard_state is None
    assert [(entry.kind, entry.term, entry.index) for entry in entries] == [(EntryKind.NOOP, 4, 1)]


def test_one_report_stands_for_all_earlier_ones() -> None:
    bench = Bench()
    bench.elect()
    for number in range(4):
        bench.propose(b"%d" % number)
    tokens = [token for _hard_state, _entries, token in bench.log.appended]
    bench.node.durable(tokens[2])
    assert bench.applied_indexes == [2, 3, 4]
    bench.node.durable(tokens[0])
    bench.node.durable(tokens[1])
    assert bench.applied_indexes == [2, 3, 4]
    bench.node.durable(tokens[3])
    bench.node.durable(tokens[3])
    assert bench.applied_indexes == [2, 3, 4, 5]


def test_a_report_of_nothing_changes_nothing() -> None:
    bench = Bench()
    bench.elect()
    bench.node.durable(0)
    assert bench.machine.applied == []


def test_each_entry_is_applied_once_and_in_order_however_reports_come() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        bench = Bench()
        bench.elect()
        expected: list[tuple[int, str]] = []
        newest = 0
        for _ in range(30):
            if chance.random() < 0.6:
                payload = b"%d" % len(expected)
                expected.append((bench.propose(payload), payload.decode()))
            elif bench.log.appended:
                newest = max(newest, chance.choice(bench.log.appended)[2])
                # Reports may be repeated, skip others, or come late.
                bench.node.durable(chance.choice([newest, newest, 1]))
            found = [(entry.index, batch) for entry, batch in bench.machine.applied]
            assert found == expected[: len(found)], seed
            durable = [
                entry.index for _hard, entries, token in bench.log.appended for entry in entries if token <= newest
            ]
            assert [index for index, _batch in found] == [index for index in durable if index > 1][: len(found)], seed
        bench.report_all()
        assert [(entry.index, batch) for entry, batch in bench.machine.applied] == expected, seed


def test_stamps_never_decrease_when_the_clock_steps_back() -> None:
    bench = Bench()
    bench.elect()
    stamps = []
    for now_ms in (5_000, 4_000, 4_999, 5_001, 0, 6_000):
        bench.now_ms = now_ms
        bench.propose()
        stamps.append(bench.log.appended[-1][1][-1].stamp_ms)
    assert stamps == [5_000, 5_000, 5_000, 5_001, 5_001, 6_000]


@pytest.mark.parametrize(("machine_stamp_ms", "last_stamp_ms"), [(7_000, 0), (0, 7_000), (7_000, 6_000)])
def test_no_stamp_is_before_those_of_earlier_runs(machine_stamp_ms: int, last_stamp_ms: int) -> None:
    bench = Bench(machine_stamp_ms=machine_stamp_ms, last_stamp_ms=last_stamp_ms)
    bench.node.start()
    bench.node.durable(bench.log.appended.pop()[2])
    [no_op] = bench.log.appended[-1][1]
    assert no_op.stamp_ms == 7_000
    bench.report_all()
    bench.propose()
    assert bench.log.appended[-1][1][0].stamp_ms == 7_000


def test_entries_of_earlier_runs_are_applied_from_the_log_before_new_ones() -> None:
    bench = Bench(stored=5, applied=2, term=1)
    assert (bench.node.applied_index, bench.node.replay_remaining, bench.node.is_replayed) == (2, 3, False)
    bench.node.start()
    bench.report_all()
    assert bench.node.is_leader
    assert bench.machine.applied == [], "replay belongs to its own slices"
    bench.propose(b"new")
    bench.report_all()
    assert bench.machine.applied == []
    bench.node.replay_some(lambda: False)
    assert bench.applied_indexes == [3, 4, 5, 6, 7]
    assert [batch for _entry, batch in bench.machine.applied] == [None, None, None, None, "new"]
    assert bench.node.is_replayed
    assert bench.node.applied_index == 7


def test_asking_for_the_replay_again_starts_no_second_election() -> None:
    bench = Bench(stored=5, term=1)
    bench.node.start()
    for _ in range(10):
        bench.node.replay_some(lambda: False)
    assert bench.node.term == 2
    bench.report_all()
    bench.node.replay_some(lambda: False)
    assert bench.applied_indexes == [1, 2, 3, 4, 5, 6]


def test_replay_goes_on_where_its_deadline_stopped_it() -> None:
    bench = Bench(stored=5, term=1)
    bench.node.start()
    bench.report_all()
    for done in range(1, 6):
        bench.node.replay_some(lambda: True)
        assert bench.node.replay_remaining == 5 - done
        assert bench.node.applied_index == (done if done < 5 else 6)
    assert bench.applied_indexes == [1, 2, 3, 4, 5, 6]
    assert bench.log.reads == 1, "the log is read once, whatever the number of slices"


def test_nothing_is_replayed_before_the_election_has_committed_it() -> None:
    bench = Bench(stored=3, term=1)
    bench.node.start()
    bench.node.replay_some(lambda: False)
    assert bench.machine.applied == []


def test_a_log_without_anything_to_replay_is_not_read() -> None:
    bench = Bench(stored=3, applied=3, term=1)
    bench.node.replay_some(lambda: False)
    bench.node.start()
    bench.report_all()
    bench.node.replay_some(lambda: False)
    assert bench.log.reads == 0
    assert bench.applied_indexes == [4]


def test_a_stopped_node_takes_and_answers_nothing() -> None:
    bench = Bench()
    bench.elect()
    bench.propose()
    bench.node.stop()
    with pytest.raises(Stopped):
        bench.propose()
    bench.report_all()
    assert bench.machine.applied == []
    assert bench.node.last_index == 2


def test_a_log_that_refuses_stops_the_node_without_an_answer() -> None:
    bench = Bench()
    bench.elect()
    bench.log.has_failed = True
    bench.propose()
    assert bench.node.is_stopped
    with pytest.raises(Stopped):
        bench.propose()
    assert bench.machine.applied == []


def test_a_failure_of_the_disk_in_the_election_stops_the_node() -> None:
    bench = Bench()
    bench.log.has_failed = True
    bench.node.start()
    assert bench.node.is_stopped
    assert not bench.node.is_leader


def test_bytes_that_wait_are_those_proposed_and_not_applied() -> None:
    bench = Bench()
    bench.elect()
    bench.propose(b"12345")
    bench.propose(b"123")
    assert bench.node.bytes_pending == 8
    bench.node.durable(bench.log.appended[0][2])
    assert bench.node.bytes_pending == 3
    bench.report_all()
    assert bench.node.bytes_pending == 0


def test_the_crash_point_of_production_does_nothing() -> None:
    no_crash("applied")
