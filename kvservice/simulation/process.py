"""One life of a simulated node: the shipped core, driver, log and keyspace, with simulated time, disk and network.

Order of a start: log opened and its tail repaired → snapshot → log read → core → driver → replay. With damage the log
is begun anew, in quarantine, as `kvservice.server` does it.

Guarantees: nothing here waits; the disk works in turns, each writes what was queued and then reports it.
Leaves to the caller: being called through `Host.enter` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kvservice.recovery import new_raft
from kvservice.simulation.clients import Client, ClientSession
from kvservice.simulation.host import Host
from kvservice.simulation.idle import idle_ticks, sleep
from kvservice.simulation.rules import RuleBroken
from kvservice.simulation.snapshots import SimulatedSnapshots
from kvservice.simulation.state import SimulatedState
from kvservice.simulation.streams import SimulatedStream
from persistence.errors import Damaged
from persistence.snapshot import SnapshotMeta, newest_valid, remove_temporaries
from persistence.wal import Wal, WalOptions
from replication.core import membership
from replication.core.membership import Configuration
from replication.core.messages import (
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    Message,
    RequestVote,
    VoteReply,
)
from replication.core.raft import Role
from replication.entry_reader import read_entries
from replication.leased_node import LeasedNode
from replication.node import TICK_MS, Node
from replication.ports import Fetched
from replication.salvage import salvage
from replication.snapshot_receiver import remove_partial_snapshots
from replication.storage import LogEnd, Storage

if TYPE_CHECKING:
    from kvservice.simulation.world import World

OPTIONS: Final = WalOptions("always", 1000, 64 * 1024)
HOUSEKEEPING_US: Final = 500_000
NEVER_US: Final = 1 << 62


class WatchedStorage(Storage):
    """The shipped log; what is queued for the disk is also noted for the rules."""

    def __init__(self, wal: Wal) -> None:
        super().__init__(wal)
        self.queued: list[list[Entry] | int] = []
        """Entries of each append, or the index of a restart, not known to be durable."""
        self.is_waiting = False
        """Whether something was queued since the last write."""
        self.queued_state: HardState | None = None
        """The newest hard state that is not known to be durable."""

    def append(self, hard_state: HardState | None, entries: list[Entry], commit_index: int, token: int) -> None:
        """Queue for the disk."""
        super().append(hard_state, entries, commit_index, token)
        self.is_waiting = True
        if hard_state is not None:
            self.queued_state = hard_state
        if entries:
            self.queued.append(entries)

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        """Let the log go on behind a snapshot."""
        super().restart(snapshot_index, snapshot_term)
        self.queued.append(snapshot_index)


class Process:
    """One incarnation of a node."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.world: World = host.world
        self._clock = host.world.clock
        self.incarnation = host.incarnation
        self.log_directory = host.directory / "wal"
        self.snapshots = host.directory / "snapshots"
        self.streams: list[SimulatedStream] = []
        """Those that other nodes have opened to this one, and this one to others."""
        self.state = SimulatedState(self)
        self.snapshot_files = SimulatedSnapshots(self)
        self._tick_us = int(host.world.tick_us * host.drift)
        self.is_up = False
        """Whether it is past its start: it ticks, listens, and is on the network."""
        self._sessions: list[ClientSession] = []
        self._is_writing = False
        self._is_ready = False
        self._ticked_us = 0
        """The moment of the last tick that was counted."""
        self._idle_ticks = 0
        """How many of the next ones have only to be counted."""
        self._wakes_us = NEVER_US
        """When the event is due that the next tick which is not idle will be called by."""
        self._configurations: list[Configuration] = []
        self._committed_at_election = 0
        self.wal: Wal
        self.storage: WatchedStorage
        self.node: Node

    # ---- starting

    def boot(self) -> None:
        """Recover from the disk and go on. Raises StorageError when that cannot be."""
        host, disk = self.host, self.host.disk
        for directory in (self.log_directory, self.snapshots):
            disk.make_dirs(directory)
        try:
            if host.quarantine is None and host.must_have_log | (host.name in self.world.founders):
                meta, end = self._recover()
            else:
                meta, end = None, self._begin_anew(host.quarantine or HardState(0, ""))
        except Damaged as error:
            if not host.has_rotted:
                raise RuleBroken("no damage by itself", f"{host.name}: {error}") from error
            self.world.trace("%s finds damage: %s", host.name, error)
            self.world.count("damage found at a start")
            meta, end = None, self._begin_anew(salvage(self.log_directory, disk).hard_state)
        if host.is_damaged and not end.hard_state.quarantined:
            self._check_damage_was_harmless(end)
        self._note_durable(end)
        self.world.rules.found(host.name, end.hard_state)
        if not end.hard_state.quarantined:
            self._is_whole()
        configuration = membership.decode(meta.configuration) if meta is not None and meta.configuration else None
        if configuration is None:
            configuration = self.world.founding_for(host.name)
        applied = meta.last_index if meta is not None else 0
        self.snapshot_files.last_index = applied
        self.world.rules.started(host.name, applied)
        raft = new_raft(
            host.name,
            end,
            applied,
            configuration=configuration,
            settings=host.settings,
            chance=host.random.randrange,
        )
        kind = LeasedNode if raft.settings.read_lease else Node
        self.node = kind(
            raft,
            self.storage,
            self.state,
            self,
            wall_clock_ms=host.wall_clock_ms,
            reader=self,
            crash_point=host.reach,
            last_stamp_ms=end.last_stamp_ms,
            outcome_timeout_ms=self.world.outcome_timeout_ms,
            large_bytes=self.world.large_bytes,
        )
        if isinstance(self.node, LeasedNode):
            # In ms of which a tick has ten, whatever it lasts: one quartz drives both.
            self.node.lease_clock_ms = lambda: self._clock.now_us * TICK_MS // self._tick_us
        self.state.attach(self.node)
        self.is_up = True
        self.world.network.attach(host.name, self)
        self._ticked_us = self.world.clock.now_us
        self.node.start()
        self._tick()
        self._housekeep()

    def _recover(self) -> tuple[SnapshotMeta | None, LogEnd]:
        host, disk = self.host, self.host.disk
        self.wal, report = Wal.open(self.log_directory, disk, OPTIONS, salt=b"simulate", must_exist=host.must_have_log)
        host.must_have_log = True
        if report.torn is not None:
            self.world.count("torn tails cut")
        remove_temporaries(self.snapshots, disk)
        remove_partial_snapshots(self.snapshots, disk)
        choice = newest_valid(self.snapshots, disk, log_first_index=self.wal.first_index)
        if choice.damaged and not host.has_rotted:
            raise RuleBroken("no damage by itself", f"{host.name}: {choice.damaged[0]}")
        meta = self.state.load(choice.newest.path) if choice.newest is not None else None
        self.storage = WatchedStorage(self.wal)
        index, term = (meta.last_index, meta.last_term) if meta is not None else (0, 0)
        return meta, self.storage.recover(index, term)

    def _begin_anew(self, hard_state: HardState) -> LogEnd:
        """Begin an empty log that says durably that this node has lost what it had, or may have had."""
        host, disk = self.host, self.host.disk
        # The charter says so first, durably: if this is cut short, it is begun once more.
        host.quarantine = hard_state = hard_state._replace(quarantined=True)
        host.durable.is_doubtful = True
        self.world.rules.loses_disk(host.name)
        host.durable.hard_state = None
        for directory in (self.log_directory, self.snapshots):
            for name in disk.listdir(directory):
                disk.unlink(directory / name)
            disk.fsync_dir(directory)
        self.state = SimulatedState(self)
        self.wal, _ = Wal.open(self.log_directory, disk, OPTIONS, salt=b"simulate")
        self.storage = WatchedStorage(self.wal)
        end = self.storage.recover(0, 0)
        self.storage.append(hard_state, [], 0, 0)
        self.wal.write_queued()
        host.must_have_log = True
        host.is_damaged = False
        host.quarantine = None
        self.world.count("quarantines")
        return end._replace(hard_state=hard_state)

    def _check_damage_was_harmless(self, end: LogEnd) -> None:
        """Damage that was not found must not have taken anything that was durable."""
        durable = self.host.durable
        if end.last_index < durable.last or dict(_terms(end)).get(durable.last, 0) not in (
            0,
            durable.terms.get(durable.last, 0),
        ):
            raise RuleBroken("no loss in silence", f"{self.host.name} had {durable.last}, starts with {end.last_index}")
        self.host.is_damaged = False

    def _note_durable(self, end: LogEnd) -> None:
        """Hold what was recovered against what is known to have been durable, and go on from there."""
        durable = self.host.durable
        terms = dict(_terms(end))
        base = end.term_runs[0][0]
        if not durable.is_doubtful and durable.unreported_from > durable.last:
            last = durable.last
            if last > base and terms.get(last) != durable.terms.get(last):
                raise RuleBroken(
                    "durability",
                    f"{self.host.name} had entry {last} of term {durable.terms.get(last)} on disk, "
                    f"and starts with a log up to {end.last_index}, there of term {terms.get(last)}",
                )
        durable.recovered(base, terms, end.last_index)

    # ---- being called

    @property
    def is_quarantined(self) -> bool:
        """Whether it may not vote yet."""
        return self.is_up and self.node.raft.is_quarantined

    def catch_up(self) -> None:
        """Let the ticks happen that are due; hot. All but the last were found to be idle by `settle`."""
        if not self.is_up:
            return
        passed_us = self._clock.now_us - self._ticked_us
        if passed_us < self._tick_us:
            return
        due = passed_us // self._tick_us
        self._ticked_us += due * self._tick_us
        idle = min(due, self._idle_ticks)
        if idle:
            sleep(self.node, idle)
            self._idle_ticks -= idle
        for _ in range(due - idle):
            self._tick()

    def skip_ticks(self) -> None:
        """Have stood still: one tick is due then and no more, see `kvservice.cluster.ticks`."""
        self._ticked_us = max(self._ticked_us, self.world.clock.now_us - self._tick_us)

    def _tick(self) -> None:
        self.node.tick()
        if not self._is_ready:
            self.node.replay_some(lambda: False)
            if self.node.is_replayed:
                self._is_ready = True
                self.state.ready()

    def _wake(self, due_us: int) -> None:
        """Be there when a tick is due that is not idle."""
        if due_us == self._wakes_us:
            self._wakes_us = NEVER_US

    def _housekeep(self) -> None:
        self.world.clock.after(HOUSEKEEPING_US, self.host.enter, self, self._housekeep)
        self.state.housekeep()
        self.snapshot_files.take_if_due()

    def soon(self, act: Callable[[], None]) -> None:
        """Call something in the next turn of the event loop."""
        self.world.clock.after(1, self.host.enter, self, act)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call something later."""
        self.world.clock.after(int(seconds * 1_000_000), self.host.enter, self, act)

    def settle(self) -> None:
        """Let the disk begin a turn if something waits for it, and sleep until the next tick that is not idle; hot."""
        if not self.is_up:
            return
        self._idle_ticks = idle = idle_ticks(self.node) if self._is_ready else 0
        wakes_us = self._ticked_us + (idle + 1) * self._tick_us
        if wakes_us < self._wakes_us:
            self._wakes_us = wakes_us
            self._clock.after(wakes_us - self._clock.now_us, self.host.enter, self, self._wake, wakes_us)
        if self.storage.is_waiting and not self._is_writing:
            self._is_writing = True
            self.world.clock.after(self._disk_us(), self.host.enter, self, self._write)

    def _disk_us(self) -> int:
        chance = self.host.random.random()
        return (60 + int(500 * chance * chance * chance)) * self.host.disk_factor

    def _write(self) -> None:
        token = self.write_queued()
        if token is None:
            self._is_writing = False
        elif self.host.random.random() < 0.2:
            self.world.clock.after(self._disk_us(), self.host.enter, self, self._report, token)
        else:
            self._report(token)

    def _report(self, token: int) -> None:
        self._is_writing = False
        self.node.durable(token)

    def write_queued(self) -> int | None:
        """Write what is queued, durably, and note that it is. Raises PowerCut, DiskFailed."""
        storage, durable = self.storage, self.host.durable
        queued, storage.queued = storage.queued, []
        storage.is_waiting = False
        durable.begins(queued)
        hard_state, storage.queued_state = storage.queued_state, None
        if hard_state is not None:
            durable.hard_state = None
        token = self.wal.write_queued()
        durable.ends(queued)
        if hard_state is not None:
            durable.hard_state = hard_state
            if not hard_state.quarantined:
                self._is_whole()
        return token

    def _is_whole(self) -> None:
        """Note that the disk says that nothing is missing here."""
        if not self.host.is_damaged:
            self.host.durable.is_doubtful = False

    def end(self, *, resets: bool) -> None:
        """End all sessions; without a reset their clients have to find out by themselves."""
        if self.is_up:
            self.host.durable.begins(self.storage.queued)
        for stream in self.streams:
            stream.party_ended(self, resets=resets)
        for session in self._sessions:
            if resets:
                session.close(after_replies=False)
            else:
                session.is_closed = True
        self.state.let_go()
        self.snapshot_files.let_go()

    # ---- clients

    def open_session(self, client: Client) -> ClientSession:
        """Accept a connection."""
        session = ClientSession(self.state.service.next_session_id(), client, self.incarnation)
        self._sessions = [kept for kept in self._sessions if not kept.is_closed]
        self._sessions.append(session)
        return session

    def submit(self, session: ClientSession, commands: list[list[bytes]]) -> None:
        """Run commands of a session."""
        if self.is_up and not session.is_closed:
            self.state.submit(session, commands)

    # ---- the network

    def deliver(self, sender: str, incarnation: int, messages: list[Any]) -> None:
        """Take messages from the network."""
        self.host.enter(self, self._receive, sender, incarnation, messages)

    def _receive(self, sender: str, incarnation: int, messages: list[Any]) -> None:
        if isinstance(self.node, LeasedNode):
            # The greeting of the connection.
            self.node.promised(sender, self.world.hosts[sender].settings.election_ticks_min * TICK_MS)
        self.node.receive(sender, incarnation, messages)

    def connection_lost(self, peer: str) -> None:
        """Learn from the network that a connection ended."""
        self.host.enter(self, self.node.peer_lost, peer)

    def send(self, peer: str, messages: list[Message]) -> None:
        """Send messages to a peer; what they promise is shown to the rules."""
        host = self.host
        for message in messages:
            if type(message) is AppendReply:
                if message.success:
                    self.world.rules.acknowledges(host.name, message.index)
            elif type(message) is VoteReply:
                if message.granted and not message.pre_vote:
                    self.world.rules.votes(host.name, peer, message.term)
            elif type(message) is RequestVote and not message.pre_vote:
                self.world.rules.votes(host.name, host.name, message.term)
        self.world.network.send(host.name, peer, self.incarnation, messages)

    def send_snapshot(self, peer: str, snapshot: InstallSnapshot) -> None:
        """Stream the newest snapshot to a peer."""
        self.snapshot_files.send(peer, snapshot)

    def peers_changed(self, configuration: Configuration) -> None:
        """Note who the members are."""
        self._configurations = [*self._configurations[-1:], configuration]

    # ---- old entries

    def read(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        """Read old entries of the log, after a while."""
        arguments = (from_index, to_index, bytes_max, done)
        self.world.clock.after(self._disk_us(), self.host.enter, self, self._read_now, *arguments)

    def _read_now(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        done(read_entries(self.storage, from_index, to_index, bytes_max))

    # ---- entries

    def applies(self, entry: Entry) -> None:
        """Show the rules an entry that this node, if it leads, has committed by counting."""
        if entry.kind == EntryKind.CONFIGURATION:
            self.world.configuration_applied(self.host.name, entry.index, membership.decode(entry.payload))
        raft = self.node.raft
        if raft.role is Role.LEADER:
            rules = self.world.rules
            rules.counts(self.host.name, raft.log.committed, self._committed_at_election, raft.term_start_index)
            for peer, progress in raft.progress.items():
                rules.matches(self.host.name, raft.term, peer, progress.match, raft.log.term_of(progress.match))
            if entry.term == raft.term:
                rules.commits(self.host.name, entry, self._configurations)

    def leads(self, term: int) -> None:
        """Show the rules that this node was elected."""
        raft = self.node.raft
        self._committed_at_election = raft.log.committed
        self.world.rules.leads(self.host.name, term, raft.configuration)


def _terms(end: LogEnd) -> Sequence[tuple[int, int]]:
    """Return (index, term) of every entry behind the snapshot."""
    runs = end.term_runs
    ends = [start for start, _ in runs[1:]] + [end.last_index + 1]
    return [(index, term) for (start, term), stop in zip(runs, ends, strict=True) for index in range(start, stop)]
