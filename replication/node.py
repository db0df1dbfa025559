"""The driver of the consensus core. The order is law and stands here only:

1. *persist*: hand hard state and entries to the log; its thread makes one write and one fdatasync of all that waits;
2. *send*: messages that promise nothing; a leader's entries go out beside its own disk;
3. *commit*: once the log reports them durable, the messages that promise something go out (votes, acknowledgements),
   and the core counts this node's own disk;
4. *apply*: committed entries change the state machine, in order; a follower with many bytes of them does 3 first;
5. *answer*: the state machine answers whom the batch names, and reads that were confirmed are run.

Crash points stand between the steps: replication/crash_points.

Guarantees: an entry is applied once, in order, after it is committed; a promise is sent after what it rests on is
durable. Whoever proposes or reads is answered for once (replication/waiters). No task, future or lock for a proposal.
No clock, no thread, no event loop: whatever waits goes through a port and comes back as a call.
Leaves to the caller: calling on one thread only (the event loop's), a tick every 10 ms, the content of entries, and
that messages come from members of the group.
Reference: etcd-io/raft ``doc.go``, the numbered duties of the caller; Raft thesis, section 10.2.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from persistence.errors import StorageError
from replication.applying import Applying
from replication.changes import ChangeDone, PendingChange
from replication.core.membership import Change
from replication.core.messages import (
    AppendEntries,
    Entry,
    Fetch,
    InstallSnapshot,
    Message,
    Ready,
)
from replication.core.raft import Raft, Role
from replication.crash_points import no_crash
from replication.entry_reader import InlineReader
from replication.errors import NotLeading, ReplicationError, Stopped
from replication.outbox import Outbox
from replication.ports import CrashPoint, EntryReader, LogStore, NoPeers, StateMachine, Transport

__all__ = ["OUTCOME_TIMEOUT_MS", "TICK_MS", "Node", "no_crash"]

TICK_MS: Final = 10
OUTCOME_TIMEOUT_MS: Final = 2000
"""How long after the loss of leadership the fate of a proposal may stay open: several elections."""
FETCH_BYTES_MAX: Final = 1 << 20
"""Read for a peer at once: as much as goes into one append."""
LARGE_BYTES: Final = 16 << 10
"""With more not applied, a follower acknowledges first what it has received: the leader's clients wait for that."""
LATE_TICKS_MAX: Final = 2
"""After so many ticks it applies, whatever its disk does."""
UNAPPLIED_BYTES_MAX: Final = 256 << 20
"""Entries are refused while more waits to be applied: a follower that loads a snapshot does not fill its memory."""
KEPT_BYTES: Final = 64 << 20
"""Log kept beyond the snapshots for a peer that is not further behind, up or not: its restart costs no snapshot."""

LEADER = Role.LEADER


class Node(Applying):
    """One node of one consensus group."""

    def __init__(
        self,
        raft: Raft,
        storage: LogStore,
        machine: StateMachine,
        transport: Transport | None = None,
        *,
        wall_clock_ms: Callable[[], int],
        reader: EntryReader | None = None,
        crash_point: CrashPoint = no_crash,
        last_stamp_ms: int = 0,
        outcome_timeout_ms: int = OUTCOME_TIMEOUT_MS,
        kept_bytes: int = KEPT_BYTES,
        large_bytes: int = LARGE_BYTES,
        soon: Callable[[Callable[[], None]], object] = lambda act: act(),
        on_damage: Callable[[StorageError], None] = lambda _error: None,
        on_failed: Callable[[StorageError], None] = lambda _error: None,
    ) -> None:
        # last_stamp_ms: the latest stamp in the log, which may be ahead of the machine's and of a clock that stepped.
        # soon: calls back once what was sent is on its way. on_damage: old entries cannot be read, so a peer is sent a
        # snapshot; it has to be of the state as it is now. on_failed: committed ones cannot be; the node has stopped.
        transport = transport if transport is not None else NoPeers()
        reader = reader if reader is not None else InlineReader(storage)
        super().__init__(raft, storage, reader, machine, transport, crash_point, last_stamp_ms, on_failed)
        self._storage = storage
        self._reader = reader
        self._wall_clock_ms = wall_clock_ms
        self._on_damage = on_damage
        self._kept_bytes = kept_bytes
        self._large_bytes = large_bytes
        self._outcome_ticks = outcome_timeout_ms // TICK_MS
        self._ticks = 0
        self._soon = soon
        self._late_tick = 0
        """When to apply what waits for an acknowledgement to go first, if that takes so long; 0: nothing waits."""
        self._outbox = Outbox(transport, crash_point)
        self._unpersisted: deque[tuple[int, int, int, int, list[tuple[str, Message]]]] = deque()
        """(token, term, last index and its term, promises) of what the log was given and has not reported durable."""
        self._token = 0
        self._leadership: tuple[str | None, bool, int] = (None, False, raft.term)
        """What the machine was told last: leader, whether it is this node, term."""
        self._is_advancing = False
        self._is_advance_due = False
        self._restore_next: InstallSnapshot | None = None
        """A newer one, which came meanwhile."""
        self._incarnations: dict[str, int] = {}
        """The newest life of each peer that a message came from. Bound: the members."""
        self._purged_before = 0

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Tell who the members are; campaign at once where there is no other voter: then its disk is all it needs."""
        self._tell_configuration(self.raft.configuration)
        self._campaign_if_alone()
        self._advance()

    def tick(self) -> None:
        """Let 10 ms pass."""
        if self.is_stopped:
            return
        self._ticks += 1
        self.raft.stamp_ms = self.next_stamp_ms()
        self.raft.tick()
        if self._proposals.are_displaced:
            self._refuse(self._proposals.expired(self._ticks))
        self._advance()

    def stop(self) -> None:
        """Refuse further proposals, messages and reports; what was not reported durable is never answered."""
        self.is_stopped = True

    def _campaign_if_alone(self) -> None:
        if self.raft.is_sole_voter and self.raft.role is Role.FOLLOWER:
            self.raft.stamp_ms = self.next_stamp_ms()
            self.raft.campaign()

    # -- what clients want --------------------------------------------------------------------------------------------

    def next_stamp_ms(self) -> int:
        """Return the stamp of the next entry: the wall clock, but never before an earlier stamp."""
        now_ms = self._wall_clock_ms()
        if now_ms > self._last_stamp_ms:
            self._last_stamp_ms = now_ms
        return self._last_stamp_ms

    def propose(self, kind: int, payload: bytes, batch: object) -> int:
        """Append an entry and start to make it durable; return its index. ``batch`` comes back with ``apply``.

        Raises NotLeading, Overloaded or Stopped; nothing was appended then. Hot.
        """
        if self.is_stopped:
            raise Stopped
        entry = self.raft.propose(kind, self.next_stamp_ms(), payload)
        size = len(payload)
        self._current.append((entry.index, entry.term, size, batch))
        self.bytes_pending += size
        self._crash_point("proposed")
        ready = self.raft.ready()
        assert ready is not None, "an entry was appended"
        self._perform(ready)
        return entry.index

    def read(self, batch: object) -> None:
        """Have reads run as of now: once it is known that nobody else leads, and what was committed is applied.

        ``batch`` comes back with ``StateMachine.read`` or ``refused``, perhaps within this call. Raises NotLeading and
        Stopped.
        """
        if self.is_stopped:
            raise Stopped
        if not self.is_leader:
            raise NotLeading(self.raft.leader)
        self.raft.read_index(self._reads.add(batch))
        self._advance()

    # -- administration -----------------------------------------------------------------------------------------------

    def change(self, changes: Sequence[Change], done: ChangeDone) -> None:
        """Propose a change of the members.

        ``done`` is told None once the new configuration is applied here and no joint one is left; a ReplicationError as
        for a proposal; a ValueError if the members do not admit the change.
        """
        if self.is_stopped:
            done(Stopped())
            return
        try:
            entry = self.raft.propose_change(changes, self.next_stamp_ms())
        except (ReplicationError, ValueError) as error:
            done(error)
            return
        size = len(entry.payload)
        self._current.append((entry.index, entry.term, size, PendingChange(done)))
        self.bytes_pending += size
        self._crash_point("proposed")
        self._advance()

    def transfer(self, to: str) -> None:
        """Hand leadership to another voter; proposals are refused meanwhile. Raises NotLeading, ValueError, Stopped."""
        if self.is_stopped:
            raise Stopped
        self.raft.stamp_ms = self.next_stamp_ms()
        self.raft.transfer(to)
        self._advance()

    def purge(self, before_index: int) -> None:
        """Drop log before an index that snapshots cover, except what a peer needs that is not far behind."""
        for progress in self.raft.progress.values():
            wanted = progress.match + 1
            if wanted < before_index and self._storage.bytes_from(wanted) <= self._kept_bytes:
                before_index = wanted
        if before_index > self._purged_before:
            self._purged_before = before_index
            self._storage.purge(before_index)
            self._log.compact(before_index - 1)

    # -- what peers and ports bring -----------------------------------------------------------------------------------

    def receive(self, sender: str, incarnation: int, messages: Iterable[Message]) -> None:
        """Take messages of one life of a peer, in order; those of an earlier life than the newest known are dropped."""
        if self.is_stopped or incarnation < self._incarnations.get(sender, 0):
            return
        self._incarnations[sender] = incarnation
        raft = self.raft
        raft.stamp_ms = self._last_stamp_ms if raft.role is LEADER else self.next_stamp_ms()
        is_full = self._log.unapplied_bytes > UNAPPLIED_BYTES_MAX
        for message in messages:
            if (is_full and type(message) is AppendEntries and message.entries) or type(message) is InstallSnapshot:
                # A snapshot comes as a file, and through ``snapshot_received``.
                continue
            raft.step(sender, message)
        self._advance()

    def peer_lost(self, peer: str) -> None:
        """Learn that the connection to a peer was reset or refused."""
        if self.is_stopped:
            return
        self.raft.stamp_ms = self.next_stamp_ms()
        self.raft.peer_unreachable(peer)
        self._advance()

    def snapshot_received(self, sender: str, snapshot: InstallSnapshot) -> None:
        """Learn that a snapshot of the leader is complete and durable in the snapshot directory."""
        if self.is_stopped:
            return
        self.raft.stamp_ms = self.next_stamp_ms()
        self.raft.step(sender, snapshot)
        self._advance()

    def snapshot_sent(self, peer: str, ok: bool) -> None:
        """Learn how the sending of a snapshot ended that ``Transport.send_snapshot`` began."""
        if self.is_stopped:
            return
        self.raft.snapshot_sent(peer, ok)
        self._advance()

    def durable(self, token: int) -> None:
        """Learn from the log that everything up to ``token`` is durable; apply what that commits. Hot."""
        if self.is_stopped:
            return
        self._crash_point("durable")
        raft = self.raft
        unpersisted = self._unpersisted
        term = last_index = last_term = -1
        while unpersisted and unpersisted[0][0] <= token:
            _, term, last_index, last_term, promises = unpersisted.popleft()
            if promises:
                self._outbox.promise(promises, raft.term)
        if last_index < 0:
            return
        # A stamp is for the no-op of an election that this report wins.
        stamp_ms = self._last_stamp_ms if raft.role is LEADER else self.next_stamp_ms()
        raft.persisted(term, last_index, stamp_ms, last_term)
        self._advance()
        if self._late_tick:
            self._soon(self._apply_late)

    def _apply_late(self) -> None:
        if self._late_tick and not self.is_stopped:
            self._late_tick = 0
            self._advance()

    # -- the order ----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do what the core asks for until it asks for nothing; called within itself, it only asks for another round."""
        if self._is_advancing:
            self._is_advance_due = True
            return
        self._is_advancing = True
        raft = self.raft
        try:
            while not self.is_stopped:
                self._is_advance_due = False
                ready = raft.ready()
                if ready is not None:
                    self._perform(ready)
                    if ready.entries and not self._late_tick and self._log.unapplied_bytes >= self._large_bytes:
                        self._late_tick = self._ticks + LATE_TICKS_MAX
                leader, is_leader, term = self._leadership
                if raft.leader != leader or raft.term != term or (raft.role is LEADER) is not is_leader:
                    self._change_leadership()
                if ready is not None:
                    if ready.lost_reads:
                        self._refuse_reads(ready.lost_reads)
                    if ready.reads:
                        self._reads.confirm(ready.reads)
                if self._ticks >= self._late_tick or raft.role is not Role.FOLLOWER:
                    self._late_tick = 0
                    self._apply_committed()
                if self._is_change_applied:
                    # Applying a change of members may bring the core more to do.
                    self._is_change_applied = False
                    self._remember_commit()
                elif not self._is_advance_due:
                    return
        finally:
            self._is_advancing = False

    def _perform(self, ready: Ready) -> None:
        """Persist, send, fetch: in this order."""
        hard_state, entries, messages, messages_after, fetches, snapshot, _, _ = ready
        if entries or hard_state is not None or snapshot is not None:
            self._crash_point("persisting")
            raft = self.raft
            self._token += 1
            log = self._log
            self._unpersisted.append((self._token, raft.term, log.last_index, log.last_term, messages_after))
            if entries and entries[-1].stamp_ms > self._last_stamp_ms:
                self._last_stamp_ms = entries[-1].stamp_ms
            # With a single voter everything durable is committed, so there is nothing to remember.
            commit_index = 0 if raft.is_sole_voter else self._log.committed
            try:
                if snapshot is not None:
                    self._storage.restart(snapshot.last_index, snapshot.last_term)
                self._storage.append(hard_state, entries, commit_index, self._token)
            except StorageError:
                # The log has failed, and its own report of that is on its way: until then nothing more is taken.
                self.is_stopped = True
                return
            if hard_state is not None:
                self._crash_point("voting")
        elif messages_after:
            self._promise_later(messages_after)
        if messages:
            self._outbox.send(messages)
        if snapshot is not None:
            self._restore(snapshot)
        for fetch in fetches:
            self._reader.read(
                fetch.from_index, fetch.to_index, FETCH_BYTES_MAX, partial(self._fetched, self.raft.term, fetch)
            )

    def _remember_commit(self) -> None:
        """Have the log say that a change of members is committed, without waiting for an entry to say it with.

        Those that it removes may be gone when this node starts again, and the rest may be this node alone: it would ask
        in vain for a majority of members that are no more.
        """
        self._token += 1
        try:
            self._storage.append(None, [], self._log.committed, self._token)
        except StorageError:
            self.is_stopped = True

    def _promise_later(self, promises: list[tuple[str, Message]]) -> None:
        """Make promises that rest on nothing new, once everything is durable that is on its way to the disk."""
        if self._unpersisted:
            token, term, last_index, last_term, earlier = self._unpersisted[-1]
            self._unpersisted[-1] = token, term, last_index, last_term, earlier + promises
        else:
            self._outbox.promise(promises, self.raft.term)

    def _fetched(self, term: int, fetch: Fetch, found: list[Entry] | StorageError) -> None:
        if self.is_stopped or self.raft.term != term or not self.is_leader:
            return
        if isinstance(found, StorageError):
            if fetch.from_index >= self._purged_before:
                self._on_damage(found)
            found = []
        self.raft.fetched(fetch.peer, fetch.from_index, found)
        self._advance()

    def _change_leadership(self) -> None:
        """Tell the machine who leads; what was proposed in a leadership that is over waits for its fate."""
        raft = self.raft
        _, was_leader, term = self._leadership
        is_leader = raft.role is LEADER
        self._leadership = raft.leader, is_leader, raft.term
        if was_leader and self._current and not (is_leader and raft.term == term):
            self._proposals.displace(self._ticks + self._outcome_ticks)
        self._let_reads_at_once()
        self.machine.on_leadership(raft.leader, is_leader, raft.term)

    # -- entries of earlier runs, and snapshots -----------------------------------------------------------------------

    def replay_some(self, deadline: Callable[[], bool]) -> None:
        """Apply entries of earlier runs that are committed, until ``deadline()`` is true or none is left.

        Raises StorageError: the node has stopped then.
        """
        if self.is_stopped or self._replay.is_finished:
            return
        try:
            self._replay.some(deadline)
        except StorageError:
            self.is_stopped = True
            raise
        if self._replay.is_caught_up or not self._replay.remaining:
            self._campaign_if_alone()
            self._advance()

    def _restore(self, snapshot: InstallSnapshot) -> None:
        """Have the machine load a snapshot, after the one that it is loading already."""
        self._replay.abandon()
        # This node leads no more, though nobody was told yet.
        self._proposals.displace(self._ticks + self._outcome_ticks)
        self._refuse(self._proposals.passed_by_snapshot(snapshot.last_index, snapshot.last_term))
        if self._restoring is not None:
            self._restore_next = snapshot
            return
        self._restoring = snapshot
        self._crash_point("restoring")
        self.machine.restore(snapshot)

    def restored(self) -> None:
        """Learn that the machine's state is that of the snapshot which it was told to restore."""
        snapshot, self._restoring = self._restoring, None
        assert snapshot is not None, "nothing was to be restored"
        if self.is_stopped:
            return
        self._crash_point("restored")
        self._last_stamp_ms = max(self._last_stamp_ms, self.machine.stamp_ms)
        newer, self._restore_next = self._restore_next, None
        if newer is not None:
            self._restore(newer)
            return
        self._tell_configuration(snapshot.configuration)
        self._changes.applied(None, is_joint=snapshot.configuration.is_joint)
        self._advance()
