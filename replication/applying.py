"""What a node does with committed entries: the machine applies them, those who wait are answered or told their fate.

Order, for each entry: who it belongs to is looked up → crash point ``applying`` → the machine applies and answers → a
change of members is told → crash point ``applied``. Reads that were confirmed run after the entries they wait for.

Guarantees: entries are applied once and in order; nothing is applied while the machine loads a snapshot, or before the
entries of earlier runs.
Leaves to the caller (replication/node): when, and everything that comes before: durability, messages, commitment.
Reference: Raft thesis, section 3.8 (state machines); chapter 4: a configuration takes effect when it is applied.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from persistence.errors import StorageError
from replication.changes import Changes, PendingChange
from replication.core.membership import Configuration, decode
from replication.core.messages import Entry, EntryKind, InstallSnapshot
from replication.core.raft import Raft
from replication.errors import NotLeading
from replication.node_status import NodeStatus
from replication.ports import CrashPoint, EntryReader, LogStore, StateMachine, Transport
from replication.replay import Replay
from replication.waiters import Proposals, Reads, Refusal

CONFIGURATION = EntryKind.CONFIGURATION


class Applying(NodeStatus):
    """The part of ``Node`` behind the commit index."""

    def __init__(
        self,
        raft: Raft,
        storage: LogStore,
        reader: EntryReader,
        machine: StateMachine,
        transport: Transport,
        crash_point: CrashPoint,
        last_stamp_ms: int,
        on_failed: Callable[[StorageError], None],
    ) -> None:
        self.raft = raft
        self.machine = machine
        self.transport = transport
        self._log = raft.log
        self._crash_point = crash_point
        self._on_failed = on_failed
        self._last_stamp_ms = max(machine.stamp_ms, last_stamp_ms)
        """At least that of any entry of the log, applied or not."""
        self._proposals = Proposals()
        self._current = self._proposals.current
        self._reads = Reads()
        self._changes = Changes()
        self._replay = Replay(raft, storage, reader, self._apply_replayed)
        self._restoring: InstallSnapshot | None = None
        """The snapshot that the machine is loading."""
        self._is_change_applied = False
        """Whether a change of members was applied that the log has not been told to be committed."""
        self.is_stopped = False
        self.reads_at_once = False
        """Whether reads may run on the applied state without asking: this node is the only voter, and leads."""
        self.bytes_pending = 0
        """Payload bytes proposed here whose fate is not known."""

    @property
    def may_read_ahead(self) -> bool:
        """Whether reads that wait for a round may run now, to be answered when it ends.

        They miss nothing that anybody acknowledged before this moment if this node still leads, which is what the round
        is to show: everything committed is applied, the no-op of the own term with it.
        """
        log, raft = self._log, self.raft
        return self.is_leader and log.applied == log.committed >= raft.term_start_index and self._restoring is None

    @abstractmethod
    def _advance(self) -> None:
        """Do what the core asks for."""

    # -- applying -----------------------------------------------------------------------------------------------------

    def _apply_committed(self) -> None:
        """Apply what is committed, then run reads that waited for it.

        Hot: everything that is acknowledged goes through here.
        """
        if self._restoring is not None:
            return
        log = self._log
        if log.committed != log.applied:
            replay = self._replay
            if not replay.is_finished and not replay.is_caught_up:
                if not replay.remaining:
                    replay.read_part(self._part_replayed)
                return
            current, machine, crash_point = self._current, self.machine, self._crash_point
            for entry in self.raft.take_committed():
                batch: object | None = None
                if current and current[0][0] == entry.index:
                    _, _, size, batch = current.popleft()
                    self.bytes_pending -= size
                elif self._proposals.are_displaced:
                    batch = self._settle(entry)
                crash_point("applying")
                if entry.kind == CONFIGURATION:
                    self._apply_configuration(entry, batch)
                else:
                    machine.apply(entry, batch)
                crash_point("applied")
            if not self.reads_at_once:
                self._let_reads_at_once()
        if self._reads.confirmed:
            for batch in self._reads.take(log.applied):
                self.machine.read(batch)

    def _settle(self, entry: Entry) -> object | None:
        own, refused = self._proposals.settle(entry)
        self._refuse(refused)
        if own is None:
            return None
        self.bytes_pending -= own[2]
        return own[3]

    def _refuse(self, refused: list[Refusal]) -> None:
        for batch, size, error in refused:
            self.bytes_pending -= size
            if isinstance(batch, PendingChange):
                batch.done(error)
            else:
                self.machine.refused(batch, error)

    def _refuse_reads(self, contexts: list[int]) -> None:
        error = NotLeading(self.raft.leader)
        for batch in self._reads.lose(contexts):
            self.machine.refused(batch, error)

    def _apply_configuration(self, entry: Entry, batch: object | None) -> None:
        configuration = decode(entry.payload)
        self._is_change_applied = True
        self.machine.apply(entry, None)
        self._tell_configuration(configuration)
        self._changes.applied(batch, is_joint=configuration.is_joint)

    def _tell_configuration(self, configuration: Configuration) -> None:
        self._let_reads_at_once()
        self.machine.configuration_changed(configuration)
        self.transport.peers_changed(configuration)

    def _let_reads_at_once(self) -> None:
        """Only after the own no-op: before it, not everything that is committed is known to be, and applied."""
        raft = self.raft
        self.reads_at_once = self.is_leader and raft.is_sole_voter and self._log.applied >= raft.term_start_index

    # -- entries of earlier runs --------------------------------------------------------------------------------------

    def _apply_replayed(self, entry: Entry) -> None:
        self._last_stamp_ms = max(self._last_stamp_ms, entry.stamp_ms)
        self._crash_point("applying")
        if entry.kind == CONFIGURATION:
            self._apply_configuration(entry, None)
        else:
            self.machine.apply(entry, None)
        self._crash_point("applied")

    def _part_replayed(self, error: StorageError | None) -> None:
        if self.is_stopped:
            return
        if error is not None:
            self.is_stopped = True
            self._on_failed(error)
        self._advance()
