"""The driver of the consensus core. The order is law and stands here only:

1. *persist*: hand hard state and entries to the log; its thread makes one write and one fdatasync of all that waits;
2. *send*: messages to peers (none with one voter);
3. *commit*: the durable report goes into the core, which counts it and moves the commit index;
4. *apply*: committed entries change the state machine, in order;
5. *answer*: the state machine answers whom the batch names.

Crash points, in this order: ``proposed``, ``persisting``, ``durable``, ``applying``, ``applied``.

Guarantees: an entry is applied after it is durable, once, in order. No task, future or lock for a proposal.
Leaves to the caller: calling on one thread only (the event loop's); time; the content of entries.
Reference: etcd-io/raft ``doc.go``, the numbered duties of the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from persistence.errors import StorageError
from replication.core.messages import Entry, EntryKind, HardState
from replication.core.raft import Raft, Role
from replication.errors import Stopped
from replication.ports import CrashPoint, LogStore, StateMachine


def no_crash(_point: str) -> None:
    """Do nothing: production's crash point."""


class Node:
    """One node of one consensus group."""

    def __init__(
        self,
        raft: Raft,
        storage: LogStore,
        machine: StateMachine,
        *,
        wall_clock_ms: Callable[[], int],
        crash_point: CrashPoint = no_crash,
        last_stamp_ms: int = 0,
    ) -> None:
        # last_stamp_ms: the latest stamp in the log, which may be ahead of the machine's and of a clock that stepped.
        self.raft = raft
        self.machine = machine
        self._storage = storage
        self._wall_clock_ms = wall_clock_ms
        self._crash_point = crash_point
        self._batches: deque[tuple[int, object]] = deque()
        """(index, batch) of entries proposed here and not yet applied, in order of index."""
        self._unpersisted: deque[tuple[int, int, int]] = deque()
        """(token, term, last index) of what the log was given and has not reported durable."""
        self._token = 0
        self._last_stamp_ms = max(machine.stamp_ms, last_stamp_ms)
        self._replayed_to = raft.log.applied
        self._replay_end = raft.log.last_index
        self._replay: Iterator[Entry] | None = None
        self.is_stopped = False
        self.bytes_pending = 0
        """Payload bytes proposed here and not yet applied."""

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.raft.role is Role.LEADER

    @property
    def leader_id(self) -> str | None:
        """Name of the leader, or None during an election."""
        return self.raft.leader

    @property
    def term(self) -> int:
        """Current term."""
        return self.raft.term

    @property
    def last_index(self) -> int:
        """Index of the last entry of the log."""
        return self.raft.log.last_index

    @property
    def commit_index(self) -> int:
        """Index of the last committed entry."""
        return self.raft.log.committed

    @property
    def applied_index(self) -> int:
        """Index of the last applied entry."""
        return self._replayed_to if not self.is_replayed else self.raft.log.applied

    @property
    def hard_state(self) -> HardState:
        """Term and vote."""
        return HardState(self.raft.term, self.raft.vote)

    @property
    def is_replayed(self) -> bool:
        """Whether every entry of earlier runs is applied."""
        return self._replayed_to >= self._replay_end

    @property
    def replay_remaining(self) -> int:
        """Entries of earlier runs still to apply."""
        return max(0, self._replay_end - self._replayed_to)

    @property
    def proposals_pending(self) -> int:
        """Entries proposed here and not yet applied."""
        return len(self._batches)

    # -- proposing ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Campaign: with one voter the election ends with the next durable report."""
        self.raft.campaign()
        self._persist()

    def next_stamp_ms(self) -> int:
        """Return the stamp of the next entry: the wall clock, but never before an earlier stamp."""
        now_ms = self._wall_clock_ms()
        self._last_stamp_ms = max(self._last_stamp_ms, self.machine.stamp_ms, now_ms)
        return self._last_stamp_ms

    def propose(self, kind: int, payload: bytes, batch: object) -> int:
        """Append an entry and start to make it durable; return its index. ``batch`` comes back with ``apply``.

        Raises NotLeading or Stopped; nothing was appended then.
        """
        if self.is_stopped:
            raise Stopped
        entry = self.raft.propose(kind, self.next_stamp_ms(), payload)
        self._batches.append((entry.index, batch))
        self.bytes_pending += len(payload)
        self._crash_point("proposed")
        self._persist()
        return entry.index

    def stop(self) -> None:
        """Refuse further proposals and reports; what was not reported durable is never answered."""
        self.is_stopped = True

    def _persist(self) -> None:
        ready = self.raft.ready()
        if ready is None:
            return
        self._crash_point("persisting")
        self._token += 1
        self._unpersisted.append((self._token, self.raft.term, self.raft.log.last_index))
        try:
            self._storage.append(ready.hard_state, ready.entries, 0, self._token)
        except StorageError:
            # The log has failed, and its own report of that is on its way: until then nothing more is taken.
            self.is_stopped = True

    # -- durable, committed, applied ----------------------------------------------------------------------------------

    def durable(self, token: int) -> None:
        """Learn from the log that everything up to ``token`` is durable; apply what that commits."""
        if self.is_stopped:
            return
        self._crash_point("durable")
        unpersisted = self._unpersisted
        report: tuple[int, int, int] | None = None
        while unpersisted and unpersisted[0][0] <= token:
            report = unpersisted.popleft()
        if report is None:
            return
        self.raft.persisted(report[1], report[2], self.next_stamp_ms())
        self._persist()
        if self.is_replayed:
            self._apply_committed()

    def replay_some(self, deadline: Callable[[], bool]) -> None:
        """Apply entries of earlier runs that are committed, until ``deadline()`` is true or none is left."""
        if not self.replay_remaining or self.raft.log.committed < self._replay_end:
            return
        if self._replay is None:
            self._replay = self._storage.entries(self._replayed_to + 1, self._replay_end)
        for entry in self._replay:
            self._apply(entry, None)
            self._replayed_to = entry.index
            if deadline():
                break
        if self.is_replayed:
            self._replay = None
            self.raft.log.applied = self._replay_end
            self._apply_committed()

    def _apply_committed(self) -> None:
        batches = self._batches
        for entry in self.raft.take_committed():
            batch: object | None = None
            if batches and batches[0][0] == entry.index:
                batch = batches.popleft()[1]
                self.bytes_pending -= len(entry.payload)
            self._crash_point("applying")
            self._apply(entry, batch)
            self._crash_point("applied")

    def _apply(self, entry: Entry, batch: object | None) -> None:
        assert entry.kind in (EntryKind.NOOP, EntryKind.COMMANDS)
        self.machine.apply(entry, batch)
