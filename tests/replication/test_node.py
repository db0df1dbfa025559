"""The driver: persist, commit, apply, answer, in that order and no other."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from persistence.errors import DiskFailed
from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import Entry, EntryKind, HardState, InstallSnapshot
from replication.core.raft import Raft, Settings
from replication.errors import NotLeading, ReplicationError, Stopped
from replication.node import Node, no_crash


class FakeLog:
    """A log whose durable reports a test makes; ``told`` is the diary that it shares with the machine."""

    def __init__(self, told: list[str], stored: list[Entry]) -> None:
        self.told = told
        self.stored = stored
        """Entries of earlier runs, with those that were replaced taken out."""
        self.appended: list[tuple[HardState | None, list[Entry], int]] = []
        self.reads = 0
        self.has_failed = False

    def append(self, hard_state: HardState | None, entries: list[Entry], _commit_index: int, token: int) -> None:
        if self.has_failed:
            raise DiskFailed("fdatasync", "wal", 5)
        self.appended.append((hard_state, entries, token))
        self.told.append(f"append {token}")

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        self.told.append(f"restart behind {snapshot_index} of term {snapshot_term}")

    def bytes_from(self, index: int) -> int:
        return sum(len(entry.payload) for entry in self.stored if entry.index >= index)

    def purge(self, before_index: int) -> None:
        self.told.append(f"purge before {before_index}")

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        self.reads += 1
        yield from (entry for entry in self.stored if from_index <= entry.index <= to_index)


class FakeMachine:
    """A state machine that writes down what it is given."""

    def __init__(self, told: list[str], stamp_ms: int) -> None:
        self.told = told
        self.stamp_ms = stamp_ms
        self.applied: list[tuple[Entry, object | None]] = []

    def apply(self, entry: Entry, batch: object | None) -> None:
        self.told.append(f"apply {entry.index}")
        self.applied.append((entry, batch))
        self.stamp_ms = max(self.stamp_ms, entry.stamp_ms)
        if batch is not None:
            self.told.append(f"answer {batch}")

    def read(self, batch: object) -> None:
        self.told.append(f"read {batch}")

    def refused(self, batch: object, error: ReplicationError) -> None:
        self.told.append(f"refuse {batch} {type(error).__name__}")

    def configuration_changed(self, configuration: Configuration) -> None:
        self.told.append(f"members {' '.join(configuration.members)}")

    def restore(self, snapshot: InstallSnapshot) -> None:
        self.told.append(f"restore {snapshot.last_index}")

    def on_leadership(self, leader: str | None, is_leader: bool, term: int) -> None:
        self.told.append(f"{leader} leads {term}")


class Bench:
    """A node with everything around it in a test's hands."""

    def __init__(
        self, *, stored: int = 0, applied: int = 0, term: int = 0, machine_stamp_ms: int = 0, last_stamp_ms: int = 0
    ) -> None:
        self.told: list[str] = []
        self.now_ms = 1_000
        kept = [Entry(term, index, EntryKind.COMMANDS, 500, b"%d" % index) for index in range(1, stored + 1)]
        self.log = FakeLog(self.told, kept)
        self.machine = FakeMachine(self.told, machine_stamp_ms)
        members = Configuration(("n1",))
        log = RaftLog(stored, term, applied)
        raft = Raft("n1", Settings(), HardState(term, ""), members, log, lambda _count: 0)
        self.node = Node(
            raft,
            self.log,
            self.machine,
            wall_clock_ms=lambda: self.now_ms,
            crash_point=lambda point: self.told.append(point),
            last_stamp_ms=last_stamp_ms,
        )

    def propose(self, payload: bytes = b"x") -> int:
        """Propose an entry whose batch is its payload as text."""
        return self.node.propose(EntryKind.COMMANDS, payload, payload.decode())

    def report_all(self) -> None:
        """Report durable all that was appended, one report at a time."""
        for _ in range(100):
            if not self.log.appended:
                return
            _hard_state, _entries, token = self.log.appended.pop(0)
            self.node.durable(token)
        raise AssertionError("the node appends for ever")

    def elect(self) -> None:
        """Win the election and forget how."""
        self.node.start()
        self.report_all()
        assert self.node.is_leader
        self.told.clear()
        self.machine.applied.clear()

    @property
    def applied_indexes(self) -> list[int]:
        """What was applied, in order."""
        return [entry.index for entry, _batch in self.machine.applied]


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
