"""A cluster in one thread: real nodes, cores and logs, disks in memory, and a switch that delivers when it is told to.

Tests read: make a cluster, do something, ``settle`` (everything that needs no time happens), look. Time passes with
``tick`` only. A member that is killed keeps its disk; one whose power is cut keeps what was synced.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from persistence.errors import StorageError
from persistence.wal import Wal, WalOptions
from replication.core.log import RaftLog
from replication.core.membership import Change, Configuration
from replication.core.messages import EntryKind, InstallSnapshot, Message
from replication.core.raft import Raft, Settings
from replication.leased_node import LeasedNode
from replication.node import TICK_MS, Node
from replication.storage import Storage
from tests.harness.disk import FaultyDisk
from tests.harness.key_values import KeyValues, Snapshot, Waiter

WAL_DIRECTORY = Path("/data/wal")
SALT = b"saltsalt"
ROUNDS_MAX = 2000
"""Rounds of the switch until everything has come to rest; a cluster that needs more talks for ever."""


class KilledError(BaseException):
    """The process of a member was killed at a crash point. No code under test catches it."""


class Member:
    """One node with its disk; what outlives a crash is the disk and the snapshots."""

    node: Node
    machine: KeyValues
    wal: Wal
    storage: Storage

    def __init__(self, cluster: Cluster, name: str, initial: Configuration) -> None:
        self.cluster = cluster
        self.name = name
        self.initial = initial
        self.settings = cluster.settings
        """As of the next start."""
        self.disk = FaultyDisk()
        self.snapshots: list[Snapshot] = []
        self.incarnation = 0
        self.is_up = False
        self.is_disk_stalled = False
        self.damage: list[StorageError] = []
        self.killed_at = ""
        """The crash point at which it was killed last."""
        self._kill_at = ("", 0)

    def start(self) -> None:
        """Recover from the disk and start."""
        cluster, name = self.cluster, self.name
        self.wal, _ = Wal.open(WAL_DIRECTORY, self.disk, cluster.wal_options, salt=SALT)
        self.storage = Storage(self.wal)
        snapshot = self.snapshots[-1] if self.snapshots else None
        index, term = (snapshot.last_index, snapshot.last_term) if snapshot else (0, 0)
        end = self.storage.recover(index, term)
        log = RaftLog(
            end.last_index,
            end.last_term,
            index,
            committed=end.commit_index,
            runs=end.term_runs,
            configuration_indexes=[entry.index for entry in end.configurations],
        )
        members = snapshot.configuration if snapshot else self.initial
        raft = Raft(name, self.settings, end.hard_state, members, log, cluster.chance.randrange)
        self.machine = KeyValues(self, snapshot)
        self.node = (LeasedNode if self.settings.read_lease else Node)(
            raft,
            self.storage,
            self.machine,
            Switchboard(cluster, self),
            wall_clock_ms=lambda: cluster.now_ms,
            last_stamp_ms=end.last_stamp_ms,
            kept_bytes=cluster.kept_bytes,
            crash_point=self._reach,
            on_damage=self._damage_found,
            on_failed=self.damage.append,
        )
        if isinstance(self.node, LeasedNode):
            self.node.lease_clock_ms = lambda: cluster.now_ms
        self.incarnation += 1
        self.is_up = True
        self.node.start()
        self.node.replay_some(lambda: False)

    def kill_at(self, point: str, nth: int = 1) -> None:
        """Have it killed when it comes to a crash point for the nth time from now on."""
        self._kill_at = point, nth

    def _reach(self, point: str) -> None:
        wanted, left = self._kill_at
        if point == wanted:
            self._kill_at = point, left - 1
            if left == 1:
                self.killed_at = point
                raise KilledError

    def run(self, act: Callable[[Member], None]) -> None:
        """Let the member do something; if it is killed by that, so it is."""
        try:
            act(self)
        except KilledError:
            self.cluster.kill(self.name)

    def _damage_found(self, error: StorageError) -> None:
        self.damage.append(error)
        self.take_snapshot()

    @property
    def has_begun_to_lead(self) -> bool:
        """Whether this member leads, and has applied an entry of its term."""
        if not self.is_up or not self.node.is_leader:
            return False
        return any(term == self.node.term for _, term, _ in self.machine.applied[-1:])

    def write_disk(self) -> bool:
        """Let the log write what is queued; tell whether there was anything."""
        if not self.is_up or self.is_disk_stalled:
            return False
        token = self.wal.write_queued()
        if token is not None:
            self.run(lambda member: member.node.durable(token))
        if not self.node.is_replayed:
            self.node.replay_some(lambda: False)
        return token is not None

    def take_snapshot(self) -> Snapshot:
        """Keep the state as it is now, and drop the log before it."""
        machine, node = self.machine, self.node
        index, term, _ = machine.applied[-1]
        snapshot = Snapshot(index, term, node.configuration, dict(machine.values), list(machine.applied))
        self.snapshots.append(snapshot)
        node.purge(index + 1)
        return snapshot


class Switchboard:
    """The transport of one member in one life."""

    def __init__(self, cluster: Cluster, member: Member) -> None:
        self._cluster = cluster
        self._member = member
        self._incarnation = member.incarnation + 1

    def send(self, peer: str, messages: list[Message]) -> None:
        self._cluster.post(self._member.name, peer, lambda to: self._hand_over(to, messages), lambda: None)

    def _hand_over(self, to: Member, messages: list[Message]) -> None:
        name, settings = self._member.name, self._member.node.raft.settings
        if isinstance(to.node, LeasedNode):
            # The greeting of the connection.
            to.node.promised(name, settings.election_ticks_min * TICK_MS if settings.read_lease else 0)
        to.node.receive(name, self._incarnation, messages)

    def send_snapshot(self, peer: str, snapshot: InstallSnapshot) -> None:
        sender = self._member
        self._cluster.post(
            sender.name,
            peer,
            lambda to: self._carry(to, snapshot.term),
            lambda: sender.node.snapshot_sent(peer, False),
        )

    def _carry(self, receiver: Member, term: int) -> None:
        sender = self._member
        newest = sender.snapshots[-1]
        receiver.snapshots.append(newest)
        receiver.node.snapshot_received(
            sender.name, InstallSnapshot(term, newest.last_index, newest.last_term, newest.configuration)
        )
        sender.node.snapshot_sent(receiver.name, True)

    def peers_changed(self, configuration: Configuration) -> None:
        pass


class Letter(NamedTuple):
    """Something on its way between two members."""

    sender: str
    receiver: str
    deliver: Callable[[Member], None]
    lose: Callable[[], None]


class Cluster:
    """Members n1, n2, … of one group."""

    def __init__(
        self, voters: int = 3, *, seed: int = 0, settings: Settings | None = None, kept_bytes: int = 64 * 1024
    ) -> None:
        self.chance = random.Random(seed)
        self.settings = settings or Settings()
        self.kept_bytes = kept_bytes
        self.wal_options = WalOptions(segment_bytes=64 * 1024)
        self.now_ms = 1_000_000
        self.initial = Configuration(tuple(f"n{number}" for number in range(1, voters + 1)))
        self.members: dict[str, Member] = {}
        self._letters: deque[Letter] = deque()
        self._cut: set[tuple[str, str]] = set()
        for name in self.initial.voters:
            self.add(name, self.initial)

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def add(self, name: str, initial: Configuration | None = None) -> Member:
        """Start a member with an empty disk; without an initial configuration it waits to be told."""
        member = self.members[name] = Member(self, name, initial or Configuration(()))
        member.start()
        return member

    # -- time and delivery --------------------------------------------------------------------------------------------

    def post(self, sender: str, receiver: str, deliver: Callable[[Member], None], lose: Callable[[], None]) -> None:
        """Put something on its way."""
        self._letters.append(Letter(sender, receiver, deliver, lose))

    def settle(self) -> None:
        """Let disks write and messages arrive until nothing is left to do."""
        for _ in range(ROUNDS_MAX):
            wrote = [member.write_disk() for member in self.members.values()]
            letters, self._letters = self._letters, deque()
            for letter in letters:
                receiver = self.members.get(letter.receiver)
                if not self.members[letter.sender].is_up:
                    continue
                if receiver is None or not receiver.is_up or (letter.sender, letter.receiver) in self._cut:
                    letter.lose()
                else:
                    receiver.run(letter.deliver)
            if not any(wrote) and not letters:
                return
        raise AssertionError("the cluster does not come to rest")

    def tick(self, count: int = 1) -> None:
        """Let time pass, 10 ms a tick."""
        for _ in range(count):
            self.now_ms += 10
            for member in list(self.members.values()):
                if member.is_up:
                    member.run(lambda member: member.node.tick())
            self.settle()

    def until(self, condition: Callable[[], bool], ticks_max: int = 1000) -> None:
        """Let time pass until something is so."""
        for _ in range(ticks_max):
            if condition():
                return
            self.tick()
        raise AssertionError("it did not become so in time")

    # -- who leads ----------------------------------------------------------------------------------------------------

    @property
    def leader(self) -> Member:
        """The member that leads in the highest term."""
        leaders = [member for member in self.members.values() if member.is_up and member.node.is_leader]
        assert leaders, "nobody leads"
        return max(leaders, key=lambda member: member.node.term)

    @property
    def followers(self) -> list[Member]:
        """The members that are up and do not lead."""
        leader = self.leader
        return [member for member in self.members.values() if member.is_up and member is not leader]

    def elect(self, name: str = "n1") -> Member:
        """Have a member win the first election."""
        if self.settings.read_lease:
            # Nobody gives a vote away before.
            self.tick(self.settings.election_ticks_min - 1)
        self.members[name].node.raft.campaign()
        self.tick()
        assert self.leader.name == name
        return self.leader

    def await_leader(self) -> Member:
        """Let time pass until a leader has applied an entry of its term."""
        self.until(lambda: any(member.has_begun_to_lead for member in self.members.values()))
        return self.leader

    # -- clients ------------------------------------------------------------------------------------------------------

    def write(self, text: str, at: Member | None = None) -> Waiter:
        """Propose ``key=value`` at a member, by default at the leader."""
        waiter = Waiter(text.partition("=")[0])

        def propose(member: Member) -> None:
            member.node.propose(EntryKind.COMMANDS, text.encode(), waiter)

        (at or self.leader).run(propose)
        return waiter

    def read(self, key: str, at: Member | None = None) -> Waiter:
        """Ask for a key at a member, by default at the leader."""
        waiter = Waiter(key)
        (at or self.leader).node.read(waiter)
        return waiter

    def change(self, *changes: Change) -> list[Exception | None]:
        """Change the members at the leader; what is returned gets the outcome."""
        outcome: list[Exception | None] = []
        self.leader.node.change(changes, outcome.append)
        return outcome

    def values(self, key: str) -> list[str | None]:
        """What each member that is up has applied for a key."""
        return [member.machine.values.get(key) for member in self.members.values() if member.is_up]

    # -- faults -------------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a member's process; its peers see the connections reset."""
        self._crash(name, self[name].disk.after_kill())

    def cut_power(self, name: str) -> None:
        """Cut a member's power: what was not synced is gone."""
        self._crash(name, self[name].disk.after_power_cut())

    def _crash(self, name: str, disk: FaultyDisk) -> None:
        member = self[name]
        member.is_up = False
        member.node.stop()
        member.disk = disk
        for other in self.members.values():
            if other.is_up:
                other.node.peer_lost(name)

    def restart(self, name: str) -> Member:
        """Start a member again from its disk."""
        self[name].start()
        return self[name]

    def isolate(self, *names: str) -> None:
        """Cut the links between these members and the others, in silence."""
        for inside in names:
            for outside in self.members:
                if outside not in names:
                    self._cut |= {(inside, outside), (outside, inside)}

    def heal(self) -> None:
        """Mend all links."""
        self._cut.clear()

    def check(self, members: Sequence[str] = ()) -> None:
        """Check that what was applied is the same, as far as each member has come."""
        logs = [self[name].machine.applied for name in members or self.members]
        longest = max(logs, key=len)
        for log in logs:
            assert log == longest[: len(log)]


def led() -> Cluster:
    """Return three members, led by n1."""
    cluster = Cluster()
    cluster.elect("n1")
    return cluster
