"""The consensus group as this node runs it: opened, ticked, restored from what others send, handed over, closed.

Order: ``open`` (charter → log → snapshot → core → peers attached → started) → ``replay`` → the node serves →
``hand_over`` → ``close``.

Guarantees: in quarantine that has just begun nothing is said to anybody before it is durable. Who leads, and the end of
a quarantine, are logged.
Leaves to the caller: binding the planes before, answering clients, and what a failing disk means for the process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime_ns
from typing import TYPE_CHECKING, Final

from kvservice import recovery
from kvservice.cluster import charter as charters
from kvservice.cluster.addresses import Movers
from kvservice.cluster.admin import furthest_voter
from kvservice.cluster.charter import Charter
from kvservice.cluster.members import Members
from kvservice.cluster.opening import Opened, charter_of, open_group, set_aside_snapshots
from kvservice.cluster.peer_plane import PeerPlane
from kvservice.cluster.readiness import reasons_of
from kvservice.cluster.removal import Removal
from kvservice.cluster.ticks import Ticks
from kvservice.commands.registry import TABLE
from kvservice.config import Config
from kvservice.errors import Loading, RedanError, RequestError
from kvservice.forwarding.streams import dial, serve_forward
from kvservice.keyspace.machine import Machine
from kvservice.logs import Event, Log
from kvservice.reload import Reload
from kvservice.service import Service
from kvservice.snapshots import Snapshots
from persistence.data_dir import DataDir
from persistence.disk import Disk
from persistence.errors import StorageError
from persistence.snapshot import snapshot_path
from persistence.wal import Wal
from replication.core.membership import Configuration
from replication.core.messages import InstallSnapshot
from replication.errors import ReplicationError
from replication.leased_node import LeasedNode
from replication.node import Node
from replication.ports import CrashPoint
from replication.threaded_reader import ThreadedReader
from replication.wire import StateDigest

if TYPE_CHECKING:
    from kvservice.planes import Planes

HAND_OVER_SECONDS: Final = 2.0
"""For the successor to catch up and win: three elections at the default timeout."""
POLL_SECONDS: Final = 0.005
DIGEST_TICKS: Final = 100
"""Peers are told of our state, and compared with it, once a second."""
NO_DIGEST: Final = StateDigest(0, 0)
"""Told by a node that has computed none since its start, or since its state was replaced: nothing to compare with."""
FIRST_TOKEN: Final = 0
"""Of what is written before there is a node, whose own begin at 1."""

log = Log("cluster")


class Group:
    """One consensus group and this node's part in it."""

    def __init__(
        self,
        config: Config,
        directory: DataDir,
        disk: Disk,
        service: Service,
        members: Members,
        peers: PeerPlane,
        loop: asyncio.AbstractEventLoop,
        *,
        wall_clock_ms: Callable[[], int],
        crash_point: CrashPoint,
        on_failed: Callable[[StorageError], None],
    ) -> None:
        # on_failed: told, once or more often, that the node has stopped for want of its disk.
        self.node: Node | None = None
        self.wal: Wal | None = None
        self.is_unreadable = False
        """Whether META could not be read, so that this directory founds nothing."""
        self._config = config
        self._directory = directory
        self._disk = disk
        self._service = service
        self._members = members
        self._peers = peers
        self._loop = loop
        self._wall_clock_ms = wall_clock_ms
        self._crash_point = crash_point
        self._on_failed = on_failed
        self._ticks = Ticks(loop, self._tick, has_leases=config.read_mode == "lease")
        self._ticks_to_digest = DIGEST_TICKS
        self._index_told = 0
        """Index of the last applied entry when digests were exchanged last."""
        self._reader: ThreadedReader | None = None
        self._charter: Charter | None = None
        self._charter_turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leader_seen: tuple[str | None, int] = (None, 0)
        self._is_quarantined = False
        self._is_replacing_snapshot = False
        self._loading = Loading()
        """What clients are told while a received snapshot is loaded."""
        self._movers = Movers(members, peers)
        self._removal = Removal(service, members, lambda: self._spawn(self._ask_whether_removed()))
        self._on_durable: Callable[[int], None] = lambda _token: None

    # -- opening ------------------------------------------------------------------------------------------------------

    async def open(self, planes: Planes) -> None:
        """Read the directory, take part in the group. Raises BootstrapRefused, StorageError, OSError."""
        config, service = self._config, self._service
        charter = await charter_of(config, self._directory, self._disk, self._peers, is_unreadable=self.is_unreadable)
        self._peers.enter(charter)
        machines = [service.machine]
        opened, machine = await open_group(
            config,
            self._directory,
            self._disk,
            lambda: machines.pop() if machines else self._new_machine(),
            charter,
        )
        if machine is not service.machine:
            service.machine.replace_by(machine)
        service.stats.keys_loaded = sum(database.key_count for database in service.machine.databases)
        self._charter = opened.charter
        self.wal = opened.wal
        self._start_log(opened.wal)
        if opened.charter.is_quarantined:
            await self._begin_quarantine(opened)
        self.node = self._new_node(opened)
        service.node = self.node
        service.wal_stats = opened.wal.stats
        self.snapshots = Snapshots(
            self._directory.snapshots, self._disk, config, service.machine, self.node, opened.wal.stats, self._loop
        )
        self.snapshots.last_index = opened.snapshot_index
        service.snapshots = self.snapshots
        service.start_save = self.snapshots.save
        service.start_reload = Reload(
            self._directory.snapshots, self._disk, service.runner, self.snapshots, self._new_machine, self._spawn
        ).start
        planes.log_opened(opened.wal.stats)
        self._attach(self.node)
        self._is_quarantined = opened.raft.is_quarantined
        self.node.start()
        self._ticks.start()

    async def replay(self) -> None:
        """Apply what the log holds; see kvservice/recovery."""
        assert self.node is not None
        await recovery.replay(self.node)

    def _new_machine(self) -> Machine:
        machine = Machine(TABLE, self._config.databases, random.Random)
        machine.on_defect = self._service.machine.on_defect
        return machine

    def _start_log(self, wal: Wal) -> None:
        call = self._loop.call_soon_threadsafe
        wal.start(lambda token: call(self._durable, token), lambda error: call(self._on_failed, error))

    def _durable(self, token: int) -> None:
        self._on_durable(token)

    async def _begin_quarantine(self, opened: Opened) -> None:
        """Make the quarantine durable in the log itself; from then on the charter need not say so."""
        log.warning(Event.QUARANTINE_BEGUN, term=opened.end.hard_state.term)
        durable = asyncio.Event()
        self._on_durable = lambda _token: durable.set()
        opened.storage.append(opened.end.hard_state, [], 0, FIRST_TOKEN)
        await durable.wait()
        await self._write_charter(opened.charter._replace(is_quarantined=False))

    def _new_node(self, opened: Opened) -> Node:
        call = self._loop.call_soon_threadsafe
        self._reader = ThreadedReader(opened.storage, call)
        kind = LeasedNode if self._config.read_mode == "lease" else Node
        node = kind(
            opened.raft,
            opened.storage,
            self._service.runner,
            self._peers.peers,
            wall_clock_ms=self._wall_clock_ms,
            reader=self._reader,
            crash_point=self._crash_point,
            last_stamp_ms=opened.end.last_stamp_ms,
            outcome_timeout_ms=self._config.outcome_timeout_ms,
            soon=self._loop.call_soon,
            on_damage=self._old_entries_damaged,
            on_failed=self._on_failed,
        )
        if isinstance(node, LeasedNode):
            node.lease_clock_ms = lambda: clock_gettime_ns(CLOCK_BOOTTIME) // 1_000_000
        self._on_durable = node.durable
        return node

    def _attach(self, node: Node) -> None:
        service = self._service
        service.runner.on_configuration.append(self._configuration_changed)
        service.runner.on_restore = self._restore
        dial(service.forwarder, self._peers.peers.open_forward)
        self._peers.on_useless_snapshot = self._snapshot_useless
        self._peers.attach(node, lambda stream: serve_forward(service, stream), self._digest_received)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def is_stopped(self) -> bool:
        """Whether it takes no part any more."""
        return self.node is None or self.node.is_stopped

    def reasons_not_ready(self) -> list[str]:
        """Return why clients should not be sent here, once the log is read; empty when they should."""
        reasons = reasons_of(self.node)
        if self._removal.is_removed or (self._members.cluster_id and self._members.name not in self._members):
            reasons.append("not a member")
        return reasons

    @property
    def refusal(self) -> RedanError | None:
        """What clients are told instead of being served, once the log is read; None in the ordinary course."""
        if self.node is not None and self.node.is_restoring:
            return self._loading
        return self._removal.refusal

    # -- running ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        node = self.node
        assert node is not None
        node.tick()
        seen = node.leader_id, node.term
        if seen != self._leader_seen:
            self._leader_seen = seen
            log.info(Event.LEADER_CHANGED, leader=seen[0] or "", term=seen[1])
            self._movers.look(node)
        self._removal.tick(node)
        if self._is_quarantined and not node.raft.is_quarantined:
            self._is_quarantined = False
            log.info(Event.QUARANTINE_ENDED, index=node.applied_index)
        self._ticks_to_digest -= 1
        if not self._ticks_to_digest:
            self._ticks_to_digest = DIGEST_TICKS
            self._exchange_digests()
            self._movers.look(node)

    def _exchange_digests(self) -> None:
        """Tell the others our newest checkpoint, and compare theirs that were ahead of us."""
        machine = self._service.machine
        if machine.index == self._index_told:
            machine.digests.mark(machine.index)
        self._index_told = machine.index
        self._service.divergence.compare_again()
        newest = machine.digests.checkpoint()
        # Without one too: it is all that nodes which follow hear of each other (kvservice/cluster/hearing).
        self._peers.peers.send_digest(StateDigest(*newest) if newest is not None else NO_DIGEST)

    async def _ask_whether_removed(self) -> None:
        is_removed = await self._peers.is_removed()
        if self.node is not None:
            self._removal.answered(self.node, is_removed=is_removed)

    def _digest_received(self, peer: str, digest: StateDigest) -> None:
        """Take a checkpoint of a peer's state."""
        if peer in self._members:
            self._peers.hearing.told(peer, digest.covered_index)
            self._service.divergence.heard(peer, digest.covered_index, digest.digest)

    def _configuration_changed(self, configuration: Configuration) -> None:
        self._peers.configuration_changed(configuration, self._service.machine.index)
        self._service.divergence.keep(configuration.members)
        charter = self._charter
        if charter is not None and charter.latest != configuration:
            self._charter = charter._replace(latest=configuration)
            self._spawn(self._write_charter(self._charter))

    async def _write_charter(self, charter: Charter) -> None:
        self._charter = charter
        async with self._charter_turn:
            try:
                await asyncio.to_thread(self._directory.write_charter, charters.encode(charter), log_created=True)
            except StorageError as error:
                self._on_failed(error)

    def _old_entries_damaged(self, error: StorageError) -> None:
        """Take a snapshot for the peer that needed entries which cannot be read."""
        log.error(Event.DAMAGE_FOUND, error=str(error))
        with suppress(RequestError):  # one is being written already
            self.snapshots.save()

    def _snapshot_useless(self, path: Path | None, reason: str) -> None:
        """Take a snapshot for a peer that needs one, in place of the damaged one at ``path`` if there is one."""
        # While one is being written there is nothing to do: the peer asks once more when it is there.
        if not self._is_replacing_snapshot and not self.snapshots.in_progress:
            self._is_replacing_snapshot = True
            self._spawn(self._replace_snapshot(path, reason))

    async def _replace_snapshot(self, path: Path | None, reason: str) -> None:
        try:
            if path is not None:
                await asyncio.to_thread(set_aside_snapshots, self._directory, [path], reason)
            with suppress(RequestError):
                self.snapshots.save()
        except StorageError as error:
            self._on_failed(error)
        finally:
            self._is_replacing_snapshot = False

    def _restore(self, snapshot: InstallSnapshot) -> None:
        log.info(Event.SNAPSHOT_RECEIVED, index=snapshot.last_index, term=snapshot.last_term)
        self._spawn(self._load_received(snapshot))

    async def _load_received(self, snapshot: InstallSnapshot) -> None:
        """Put the state of a received snapshot in place of the present one, while clients are told to wait.

        Their commands are not passed on: a node may come to lead while it loads, and would decide about memory and the
        length of values by the keys of before; DEBUG DIGEST would answer for them.
        """
        service, node = self._service, self.node
        assert node is not None
        if service.refusal is None:
            service.refusal = self._loading
        index, term = snapshot.last_index, snapshot.last_term
        fresh = self._new_machine()
        try:
            await recovery.load_file(snapshot_path(self._directory.snapshots, index, term), self._disk, fresh)
        except StorageError as error:
            node.stop()
            self._on_failed(error)
            return
        service.machine.replace_by(fresh)
        self.snapshots.last_index = max(self.snapshots.last_index, index)
        if service.refusal is self._loading:
            service.refusal = self._removal.refusal
        node.restored()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- closing ------------------------------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Make the voter that is furthest the leader, if this node leads; for HAND_OVER_SECONDS at most."""
        node = self.node
        if node is None or not node.is_leader:
            return
        deadline = self._loop.time() + HAND_OVER_SECONDS
        target = ""
        while node.is_leader and not node.is_stopped and self._loop.time() < deadline:
            target = furthest_voter(self._members, node.raft.progress)
            if not target:
                return
            if node.raft.transferee is None:
                with suppress(ReplicationError, ValueError):
                    node.transfer(target)
            await asyncio.sleep(POLL_SECONDS)
        while node.leader_id is None and self._loop.time() < deadline:  # noqa: ASYNC110 - the core tells by its state
            await asyncio.sleep(POLL_SECONDS)
        log.info(Event.LEADERSHIP_HANDED_OVER, leader=node.leader_id or "", term=node.term)

    def stop(self) -> None:
        """Take part no more: nothing is proposed, answered or counted from here on."""
        self._ticks.stop()
        if self.node is not None:
            self.node.stop()

    async def close(self, *, seal: bool) -> None:
        """Close the log; may be called without an ``open``. Raises StorageError."""
        self.stop()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await asyncio.to_thread(reader.close)
        if self.wal is not None:
            wal, self.wal = self.wal, None
            await asyncio.to_thread(wal.close, seal=seal)
