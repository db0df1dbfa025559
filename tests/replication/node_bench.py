"""A node with everything around it in a test's hands: log, machine and transport write one diary."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from persistence.errors import Damaged, DiskFailed, StorageError
from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    InstallSnapshot,
    Message,
    VoteReply,
)
from replication.core.raft import Raft, Settings
from replication.errors import ReplicationError
from replication.node import Node
from replication.ports import Fetched


class FakeLog:
    """A log whose durable reports a test makes; ``told`` is the diary that it shares with the machine."""

    def __init__(self, told: list[str], stored: list[Entry]) -> None:
        self.told = told
        self.stored = stored
        """Entries of earlier runs, with those that were replaced taken out."""
        self.appended: list[tuple[HardState | None, list[Entry], int]] = []
        self.marks: list[int] = []
        """The commit index given with each append."""
        self.reads = 0
        self.has_failed = False
        self.is_unreadable = False

    def append(self, hard_state: HardState | None, entries: list[Entry], commit_index: int, token: int) -> None:
        if self.has_failed:
            raise DiskFailed("fdatasync", "wal", 5)
        self.appended.append((hard_state, entries, token))
        self.marks.append(commit_index)
        self.told.append(f"append {token}")

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        self.told.append(f"restart behind {snapshot_index} of term {snapshot_term}")

    def bytes_from(self, index: int) -> int:
        return sum(len(entry.payload) for entry in self.stored if entry.index >= index)

    def purge(self, before_index: int) -> None:
        self.told.append(f"purge before {before_index}")

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        self.reads += 1
        if self.is_unreadable:
            raise Damaged("wal", 0, "flipped")
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


class FakeTransport:
    """A transport that writes down what it is given."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.sent: list[tuple[str, Message]] = []

    def send(self, peer: str, messages: list[Message]) -> None:
        self.told.append(f"send {peer} {' '.join(type(message).__name__ for message in messages)}")
        self.sent += [(peer, message) for message in messages]

    def send_snapshot(self, peer: str, snapshot: InstallSnapshot) -> None:
        self.told.append(f"send {peer} snapshot {snapshot.last_index}")

    def peers_changed(self, configuration: Configuration) -> None:
        """Leave it to the machine's diary."""


class HeldReader:
    """A reader of old entries that answers when a test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, Fetched]] = []

    def read(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        self.asked.append((from_index, to_index, done))


class Bench:
    """A node with everything around it in a test's hands."""

    def __init__(
        self,
        *,
        voters: int = 1,
        stored: int = 0,
        applied: int = 0,
        committed: int = 0,
        term: int = 0,
        machine_stamp_ms: int = 0,
        last_stamp_ms: int = 0,
        reader: HeldReader | None = None,
    ) -> None:
        self.told: list[str] = []
        self.now_ms = 1_000
        kept = [Entry(term, index, EntryKind.COMMANDS, 500, b"%d" % index) for index in range(1, stored + 1)]
        self.log = FakeLog(self.told, kept)
        self.machine = FakeMachine(self.told, machine_stamp_ms)
        self.wire = FakeTransport(self.told)
        self.damage: list[StorageError] = []
        self.failures: list[StorageError] = []
        self.soon: list[Callable[[], None]] = []
        members = Configuration(tuple(f"n{number}" for number in range(1, voters + 1)))
        log = RaftLog(stored, term, applied, committed=max(applied, committed))
        raft = Raft("n1", Settings(), HardState(term, ""), members, log, lambda _count: 0)
        self.node = Node(
            raft,
            self.log,
            self.machine,
            self.wire,
            reader=reader,
            wall_clock_ms=lambda: self.now_ms,
            crash_point=lambda point: self.told.append(point),
            last_stamp_ms=last_stamp_ms,
            soon=self.soon.append,
            on_damage=self.damage.append,
            on_failed=self.failures.append,
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

    def hear(self, *messages: Message, sender: str = "n2") -> None:
        """Have messages of a peer arrive."""
        self.node.receive(sender, 1, messages)

    @property
    def applied_indexes(self) -> list[int]:
        """What was applied, in order."""
        return [entry.index for entry, _batch in self.machine.applied]


THREE = Configuration(("n1", "n2", "n3"))


def entry(index: int, term: int = 1, kind: EntryKind = EntryKind.COMMANDS, payload: bytes = b"x") -> Entry:
    """Return an entry as a leader has stamped it."""
    return Entry(term, index, kind, 2_000 + index, payload)


def append(*entries: Entry, commit_index: int = 0, term: int = 1) -> AppendEntries:
    """Return an append that follows what comes before its first entry, all of one term."""
    previous = entries[0].index - 1
    return AppendEntries(term, previous, 1 if previous else 0, commit_index, list(entries), 0)


def follower() -> Bench:
    """Return a follower of n2 in term 1 whose log is empty."""
    bench = Bench(voters=3)
    bench.node.start()
    bench.hear(Heartbeat(1, 0, 0))
    bench.report_all()
    forget(bench)
    return bench


def leader() -> Bench:
    """Return the leader of term 1, whose no-op is committed."""
    bench = Bench(voters=3)
    bench.node.start()
    bench.node.raft.campaign()
    bench.node.tick()
    bench.hear(VoteReply(1, True, True))
    bench.report_all()
    bench.hear(VoteReply(1, True, False))
    bench.report_all()
    bench.hear(AppendReply(1, True, 1, 0, 0, 0))
    assert bench.node.is_leader
    assert bench.applied_indexes == [1]
    forget(bench)
    return bench


def forget(bench: Bench) -> None:
    """Empty the diary."""
    bench.told.clear()
    bench.wire.sent.clear()
    bench.machine.applied.clear()
