"""The service of a simulated process: the shipped admission, router, forwarder, runner and keyspace, watched by rules.

Guarantees: every entry that is applied, every state after it and every leadership is shown to the rules.
Leaves to the caller: order (replication/node), time, and what the disk and the network do.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command
from kvservice.config import Config
from kvservice.errors import Loading
from kvservice.keyspace.expiry import expire_slice
from kvservice.keyspace.image import ImageDamaged, ImageLoader
from kvservice.keyspace.machine import Machine
from kvservice.service import Service
from kvservice.simulation.clients import ClientSession
from kvservice.simulation.rules import RuleBroken, digest_of
from kvservice.simulation.streams import SimulatedStream
from kvservice.stats import Stats
from persistence.errors import Damaged
from persistence.snapshot import SnapshotMeta, SnapshotReader, snapshot_path

if TYPE_CHECKING:
    from kvservice.simulation.process import Process
    from replication.core.membership import Configuration
    from replication.core.messages import Entry, InstallSnapshot
    from replication.errors import ReplicationError
    from replication.node import Node

DATABASES: Final = 1
CONFIG: Final = Config(databases=DATABASES)
COMPARED_EVERY: Final = 512
"""Whole states are compared at each index that this divides; the chain of digests after every entry."""
EXPIRED_KEYS: Final = 50


class SimulatedState:
    """The service of one incarnation, and what its node sees as the state machine."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._rules = process.host.world.rules
        self._name = process.host.name
        self.machine = new_machine()
        clock = process.host.world.clock
        self.service = Service(CONFIG, TABLE, self.machine, Stats(CONFIG), process.soon, process.later)
        self.service.forwarder.now = lambda: clock.now_us / 1_000_000
        self.service.forwarder.dial = lambda leader: SimulatedStream(process, leader)
        runner = self.service.runner
        runner.wall_clock_ms = process.host.wall_clock_ms
        runner.watch(-1, 0)
        runner.on_restore = self._restore_later
        self._runner = runner
        self.node: Node

    def attach(self, node: Node) -> None:
        """Serve through a node."""
        self.node = self.service.node = node

    def ready(self) -> None:
        """Take commands from now on."""
        self.service.refusal = None

    def let_go(self) -> None:
        """Free the keys now: nothing will ask for them, and to find that out costs more."""
        self.machine.snapshot = None
        for database in self.machine.databases:
            database.clear()
            database.retired.clear()

    def submit(self, session: ClientSession, commands: list[list[bytes]]) -> None:
        """Run commands of a client."""
        self.service.submit(session, [*commands], None)

    def housekeep(self) -> None:
        """Move time where a deadline has passed, and remove expired keys, as kvservice/housekeeping does."""
        machine = self.machine
        if self.service.refusal is not None:
            return
        for database in machine.databases:
            due_ms = database.expiry.next_deadline_ms()
            if due_ms is not None and machine.clock.stamp_ms < due_ms <= self._process.host.wall_clock_ms():
                self.service.move_time()
        expire_slice(machine.databases, machine.clock.stamp_ms, EXPIRED_KEYS, machine.save_before)

    # ---- the port

    @property
    def stamp_ms(self) -> int:
        """Stamp of the last applied entry in ms."""
        return self._runner.stamp_ms

    def apply(self, entry: Entry, batch: object | None) -> None:
        """Apply a committed entry and answer who proposed it."""
        rules, machine, index = self._rules, self.machine, entry.index
        rules.applies(self._name, entry)
        self._process.applies(entry)
        self._runner.apply(entry, batch)
        if machine.digests.is_known:
            rules.state(self._name, index, machine.digests.value)
        if not index % COMPARED_EVERY:
            rules.state(self._name, -index, digest_of(machine.databases, machine.clock.stamp_ms))

    def read(self, batch: object) -> None:
        """Run reads that are confirmed."""
        self._runner.read(batch)

    def refused(self, batch: object, error: ReplicationError) -> None:
        """Pass on that a batch will not be run."""
        self._runner.refused(batch, error)

    def configuration_changed(self, configuration: Configuration) -> None:
        """Pass on who the members are."""
        self._runner.configuration_changed(configuration)

    def on_leadership(self, leader: str | None, is_leader: bool, term: int) -> None:
        """Show the rules who leads."""
        if is_leader:
            self._process.leads(term)
            self._process.host.world.trace("%s leads term %d", self._name, term)
        self._runner.on_leadership(leader, is_leader, term)

    def restore(self, snapshot: InstallSnapshot) -> None:
        """Load a received snapshot in the place of the state."""
        self._runner.restore(snapshot)

    # ---- snapshots

    def _restore_later(self, snapshot: InstallSnapshot) -> None:
        host = self._process.host
        path = snapshot_path(self._process.snapshots, snapshot.last_index, snapshot.last_term)
        if self.service.refusal is None:
            self.service.refusal = Loading()
        host.world.clock.after(500 + host.random.randrange(20_000), host.enter, self._process, self._restore, path)

    def _restore(self, path: Path) -> None:
        self.load(path)
        self.service.refusal = None
        self.node.restored()

    def load(self, path: Path) -> SnapshotMeta:
        """Replace the state by that of a snapshot. Raises StorageError."""
        machine = new_machine()
        with SnapshotReader.open(path, self._process.host.disk) as reader:
            meta = reader.meta
            loader = ImageLoader(machine.databases, machine.once)
            try:
                for chunk in reader.chunks():
                    loader.load(chunk)
                assert reader.footer is not None
                loader.check(reader.footer.item_count, reader.footer.digest)
            except ImageDamaged as error:
                raise Damaged(str(path), 0, str(error)) from error
        machine.stand_at(meta.last_index, meta.last_term, meta.stamp_ms, loader.chain)
        machine.configuration = meta.configuration
        self.machine.replace_by(machine)
        self._rules.started(self._name, meta.last_index)
        return meta


class LateChance:
    """The chance of an entry; seeded only when something is drawn, which no write does yet."""

    __slots__ = ("_index", "_random")

    def __init__(self, index: int) -> None:
        self._index = index
        self._random: Random | None = None

    def randrange(self, start: int, stop: int, /) -> int:
        """Return a number in [start, stop)."""
        if self._random is None:
            self._random = Random(self._index)
        return self._random.randrange(start, stop)


def new_machine() -> Machine:
    """Return an empty state machine whose defects end the run."""
    machine = Machine(TABLE, DATABASES, LateChance)
    machine.on_defect = _raise_defect
    return machine


def _raise_defect(row: Command, error: BaseException) -> None:
    raise RuleBroken("no internal error", f"{row.name} raised {error!r}") from error
