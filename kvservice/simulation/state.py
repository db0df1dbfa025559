"""The state machine of a simulated process: the shipped keyspace and command table, watched by the rules.

Guarantees: every entry that is applied, every state at a checkpoint and every leadership is shown to the rules first.
Leaves to the caller: order (replication/node), and what a session is.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from kvservice.commands.registry import TABLE
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Command
from kvservice.errors import LeadershipLost, NoLeader
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.image import ImageDamaged, ImageLoader
from kvservice.keyspace.machine import Machine
from kvservice.simulation.clients import ClientSession
from kvservice.simulation.rules import RuleBroken, digest_of
from persistence.errors import Damaged
from persistence.snapshot import SnapshotMeta, SnapshotReader, snapshot_path
from replication.core import membership
from replication.core.messages import EntryKind
from replication.errors import OutcomeUnknown, ReplicationError

if TYPE_CHECKING:
    from kvservice.simulation.process import Process
    from replication.core.membership import Configuration
    from replication.core.messages import Entry, InstallSnapshot
    from replication.node import Node

DATABASES: Final = 1
COMPARED_EVERY: Final = 512
"""Whole states are compared at each index that this divides."""


class SimulatedBatch(NamedTuple):
    """Commands of one session that run together."""

    session: ClientSession
    rows: list[Command]
    commands: list[list[bytes]]
    has_writes: bool


class SimulatedState:
    """One incarnation's state machine."""

    def __init__(self, process: Process) -> None:
        self.machine = Machine(TABLE, DATABASES, Random)
        self.machine.on_defect = _raise_defect
        self.node: Node | None = None
        self._process = process
        self._rules = process.host.world.rules
        self._name = process.host.name
        self._wall_clock_ms = process.host.wall_clock_ms
        self.configuration: Configuration | None = None

    # ---- what clients send

    def submit(self, session: ClientSession, commands: list[list[bytes]]) -> None:
        """Propose commands, or have them read."""
        rows = [row for args in commands if (row := TABLE.find(args[0])) is not None]
        has_writes = any(row.is_write for row in rows)
        batch = SimulatedBatch(session, rows, commands, has_writes)
        self._send(batch)

    def _send(self, batch: SimulatedBatch) -> None:
        assert self.node is not None
        writes = [args for row, args in zip(batch.rows, batch.commands, strict=True) if row.is_write]
        try:
            if batch.has_writes:
                kind = EntryKind.COMMANDS if writes else EntryKind.NOOP
                self.node.propose(kind, encode_commands(writes) if writes else b"", batch)
            else:
                self.node.read(batch)
        except ReplicationError:
            batch.session.deliver([ErrorReply(NoLeader())] * len(batch.commands))

    # ---- the port

    @property
    def stamp_ms(self) -> int:
        """Stamp of the last applied entry in ms."""
        return self.machine.clock.stamp_ms

    def apply(self, entry: Entry, batch: object | None) -> None:
        """Apply a committed entry and answer who proposed it."""
        machine, rules, index = self.machine, self._rules, entry.index
        rules.applies(self._name, entry)
        self._process.applies(entry)
        machine.begin_entry(index, entry.term, entry.stamp_ms, entry.payload)
        if isinstance(batch, SimulatedBatch):
            replies = machine.execute(0, batch.rows, batch.commands)
            machine.failures.clear()
            batch.session.deliver(replies)
        elif entry.payload and entry.kind == EntryKind.COMMANDS:
            machine.replay(entry.payload)
        machine.end_entry()
        if machine.digests.is_known:
            rules.state(self._name, index, machine.digests.value)
        if not index % COMPARED_EVERY:
            rules.state(self._name, -index, digest_of(machine.databases, machine.clock.stamp_ms))

    def read(self, batch: object) -> None:
        """Answer reads from the applied state; what meets a deadline that has just passed waits for time to move."""
        assert isinstance(batch, SimulatedBatch)
        self.machine.begin_read(self._wall_clock_ms())
        replies: list[Reply] = self.machine.execute(0, batch.rows, batch.commands)
        self.machine.failures.clear()
        batch.session.deliver(replies)
        if (count := len(replies)) < len(batch.rows):
            self._send(SimulatedBatch(batch.session, batch.rows[count:], batch.commands[count:], has_writes=True))

    def refused(self, batch: object, error: ReplicationError) -> None:
        """Tell whoever waits that the batch does not come back."""
        assert isinstance(batch, SimulatedBatch)
        cause = LeadershipLost() if isinstance(error, OutcomeUnknown) else NoLeader()
        batch.session.deliver([ErrorReply(cause)] * len(batch.commands))

    def configuration_changed(self, configuration: Configuration) -> None:
        """Remember who the members are."""
        self.configuration = configuration
        self.machine.configuration = membership.encode(configuration)

    def on_leadership(self, leader: str | None, is_leader: bool, term: int) -> None:
        """Show the rules who leads."""
        if is_leader:
            self._rules.leads(self._name, term)
            self._process.host.world.trace("%s leads term %d", self._name, term)

    def restore(self, snapshot: InstallSnapshot) -> None:
        """Load a received snapshot in the place of the state; the node hears of it after a while."""
        host = self._process.host
        path = snapshot_path(self._process.snapshots, snapshot.last_index, snapshot.last_term)
        host.world.clock.after(1_000, host.enter, self._process, self._restore, path)

    def _restore(self, path: Path) -> None:
        assert self.node is not None
        self.load(path)
        self.node.restored()

    # ---- snapshots

    def load(self, path: Path) -> SnapshotMeta:
        """Replace the state by that of a snapshot. Raises StorageError."""
        machine = Machine(TABLE, DATABASES, Random)
        machine.on_defect = _raise_defect
        with SnapshotReader.open(path, self._process.host.disk) as reader:
            meta = reader.meta
            loader = ImageLoader(machine.databases, machine.once)
            try:
                for chunk in reader.chunks():
                    loader.load(chunk)
                footer = reader.footer
                assert footer is not None
                loader.check(footer.item_count, footer.digest)
            except ImageDamaged as error:
                raise Damaged(str(path), 0, str(error)) from error
        machine.stand_at(meta.last_index, meta.last_term, meta.stamp_ms, loader.chain)
        machine.configuration = meta.configuration
        self.machine = machine
        self._rules.started(self._name, meta.last_index)
        return meta


def _raise_defect(row: Command, error: BaseException) -> None:
    raise RuleBroken("no internal error", f"{row.name} raised {error!r}") from error
