"""The consensus core: messages, ticks, proposals and durability reports in, one Ready batch out.

States (see follower, candidate, leader)::

    FOLLOWER ── timer, leader lost ──► CANDIDATE (pre-vote, then vote) ── majority ──► LEADER
        ▲                                  │ leader of this term, refused                │ later term, no majority,
        └──────────────────────────────────┴─────────────────────────────────────────────┘ removed

The driver's duties, in this order (law, kept by replication/node):

1. set ``stamp_ms``, then call ``step``, ``tick``, ``propose`` …;
2. call ``ready``; restore its snapshot; hand hard state and entries to the disk, *with the commit index as it is now*
   (a node that has an entry on disk also has what was committed when the entry was sent: the safety of one membership
   change after the other rests on it); send ``messages``;
3. once all of it is durable: send ``messages_after`` and call ``persisted``;
4. apply what ``take_committed`` returns; repeat from 2 until neither it nor ``ready`` returns anything, as a membership
   change that is applied may commit more, and may have to be told;
5. answer ``reads`` once applied.

Guarantees: no clock, no chance, no files. Term and vote never go back; nothing is committed that a majority has not
reported durable; this node counts itself by the same report as any other; a promise to another node is told only when
it is durable.
Leaves to the caller: dropping messages of an earlier life of their sender; the membership of who sends.
Reference: Raft thesis, chapters 3, 4 and 6, section 10.2.1; etcd-io/raft's Ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from replication.core import candidate, follower, leader, sending
from replication.core.membership import (
    Change,
    ChangeRefused,
    Configuration,
    Refusal,
    changed,
    decode,
    encode,
    leave_joint,
)
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    Ready,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from replication.core.settings import Role, Settings
from replication.core.state import RaftState
from replication.errors import NotLeading, Overloaded

if TYPE_CHECKING:
    from replication.core.log import RaftLog

__all__ = ["Raft", "Role", "Settings"]

Handler = Callable[["Raft", str, Any], None]

HANDLERS: Final[dict[Role, dict[type, Handler]]] = {
    Role.FOLLOWER: {
        AppendEntries: follower.append_entries,
        Heartbeat: follower.heartbeat,
        InstallSnapshot: follower.install_snapshot,
        RequestVote: follower.request_vote,
        TimeoutNow: candidate.timeout_now,
    },
    Role.CANDIDATE: {
        AppendEntries: candidate.yield_to_leader,
        Heartbeat: candidate.yield_to_leader,
        InstallSnapshot: candidate.yield_to_leader,
        RequestVote: follower.request_vote,
        VoteReply: candidate.vote_reply,
    },
    Role.LEADER: {
        AppendReply: leader.append_reply,
        HeartbeatReply: leader.heartbeat_reply,
        RequestVote: follower.request_vote,
    },
}
"""Who does what with which message of the own term; what is not here is late, and dropped."""

LEADERS_MESSAGES: Final = (AppendEntries, Heartbeat, InstallSnapshot)
LEASE_EIGHTHS: Final = 7
"""Of the shortest election timeout: the rest is for clocks that do not run alike."""
LEADER: Final = Role.LEADER


class Raft(RaftState):
    """One node's view of one consensus group. Attributes belong to the role modules, and are read by the driver."""

    __slots__ = ()

    def __init__(
        self,
        name: str,
        settings: Settings,
        hard_state: HardState,
        configuration: Configuration,
        log: RaftLog,
        chance: Callable[[int], int],
    ) -> None:
        super().__init__(name, settings, hard_state, configuration, log, chance)
        self.use_configuration(configuration)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def is_learner(self) -> bool:
        """Whether this node receives the log and counts in no majority."""
        return self.configuration.is_learner(self.name)

    @property
    def has_lease(self) -> bool:
        """Whether no other leader can have been elected yet, by the clocks (thesis, section 6.4.1).

        Requires ``read_lease`` on every node, and that ``tick`` was called for all time that has passed.
        """
        if self.role is not LEADER or self.transferee is not None or self.log.committed < self.term_start_index:
            return False
        if self.is_sole_voter:
            return True
        tick = self.reads.lease_tick
        return tick >= 0 and self.ticks - tick < self.settings.election_ticks_min * LEASE_EIGHTHS // 8

    # -- what comes in ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick of 10 ms pass."""
        if self.role is LEADER:
            leader.tick(self)
        else:
            candidate.tick(self)

    def step(self, sender: str, message: Message) -> None:
        """Take a message of a peer; a snapshot only once its file is complete and durable."""
        if message[0] != self.term and not self._admit(sender, message):
            return
        handler = HANDLERS[self.role].get(type(message))
        if handler is not None:
            handler(self, sender, message)

    def _admit(self, sender: str, message: Message) -> bool:
        """Tell whether to handle a message of another term; one of a later term makes this node a follower of it."""
        if message.term < self.term:
            if isinstance(message, RequestVote):
                follower.refuse_vote(self, sender, message)
            elif isinstance(message, LEADERS_MESSAGES):
                # It leads no more, or this node is ahead of all: either has to learn of this term (thesis, 9.6).
                self.send(sender, AppendReply(self.term, False, 0, 0, 0, 0))
            return False
        if isinstance(message, RequestVote):
            if not message.leadership_transfer and self._hears_leader():
                return False
            if message.pre_vote:
                return True
        elif isinstance(message, VoteReply) and message.pre_vote and message.granted:
            return True
        follower.become_follower(self, message.term, sender if isinstance(message, LEADERS_MESSAGES) else None)
        return True

    def _hears_leader(self) -> bool:
        """Tell whether a leader was heard of within the shortest election timeout: no vote is given away then."""
        settings = self.settings
        return settings.check_quorum and self.leader is not None and self.election_elapsed < settings.election_ticks_min

    def campaign(self) -> None:
        """Start an election, if this node may (a voter, not in quarantine, every known change of members applied)."""
        if candidate.may_campaign(self):
            candidate.campaign(self)

    def propose(self, kind: int, stamp_ms: int, payload: bytes) -> Entry:
        """Append an entry to the leader's log and return it.

        Raises NotLeading, also while leadership is being transferred, and Overloaded.
        """
        if self.role is not LEADER:
            raise NotLeading(self.leader)
        if self.transferee is not None:
            raise NotLeading(None)
        log = self.log
        waiting = log.unapplied_bytes
        if waiting and waiting + len(payload) > self.settings.uncommitted_bytes_max:
            raise Overloaded
        entry = Entry(self.term, log.last_index + 1, kind, stamp_ms, payload)
        log.append(entry)
        return entry

    def propose_change(self, changes: Sequence[Change], stamp_ms: int, auto_leave: bool = True) -> Entry:
        """Append a membership change; with no ``changes``, the end of a joint configuration.

        ``auto_leave`` False keeps a joint configuration until it is ended so. Raises NotLeading, and ChangeRefused (a
        ValueError) also while an earlier change is not applied.
        """
        if self.role is not LEADER:
            raise NotLeading(self.leader)
        if self.transferee is not None:
            raise NotLeading(None)
        if self.log.applied < self.pending_configuration_index:
            raise ChangeRefused(Refusal.CHANGE_UNDER_WAY)
        if changes:
            configuration = changed(self.configuration, changes)
            if configuration.is_joint:
                configuration = configuration._replace(auto_leave=auto_leave)
        else:
            configuration = leave_joint(self.configuration)
        self.stamp_ms = stamp_ms
        self.pending_configuration_index = leader.append(self, EntryKind.CONFIGURATION, encode(configuration))
        return self.log.entries[-1]

    def read_index(self, context: int) -> None:
        """Ask from when on a read may be served; it comes back in a Ready, served or lost. Raises NotLeading."""
        if self.role is not LEADER:
            raise NotLeading(self.leader)
        self.reads.waiting.append(context)

    def transfer(self, to: str) -> None:
        """Hand leadership to the voter ``to``; given up after ``election_ticks_min``.

        Raises NotLeading, and ValueError if ``to`` does not vote or is this node.
        """
        if self.role is not LEADER:
            raise NotLeading(self.leader)
        if to == self.name or not self.configuration.is_voter(to):
            raise ValueError(f"{to}: not another voter")
        if self.transferee == to:
            return
        self.transferee = to
        self.election_elapsed = 0
        progress = self.progress[to]
        progress.resume()
        if progress.match < self.log.last_index and progress.state is leader.REPLICATE:
            # What is under way to it may be lost. Its answer tells, and nobody is served until it has come.
            sending.nudge(self, to, progress)
        leader.maybe_hand_over(self)

    def forget_leader(self) -> None:
        """Admit that another leads, without waiting for the timer; nothing where reads rest on the leader's lease."""
        if self.role is Role.FOLLOWER and not self.settings.read_lease:
            self.leader = None

    def peer_unreachable(self, peer: str) -> None:
        """Learn that the connection to ``peer`` was reset: what was sent is lost; if it led, look for another leader.

        One cut link deposes nobody: votes are given only by nodes that have forgotten the leader too.
        """
        if self.role is LEADER:
            progress = self.progress.get(peer)
            if progress is not None and progress.state is leader.REPLICATE:
                progress.become_probe()
        elif self.leader == peer and not self.settings.read_lease:
            follower.leader_lost(self)

    def fetched(self, peer: str, from_index: int, entries: list[Entry]) -> None:
        """Take entries read from disk for ``peer``; none at all if they cannot be read: it gets a snapshot instead."""
        sending.fetched(self, peer, from_index, entries)

    def snapshot_sent(self, peer: str, ok: bool) -> None:
        """Learn how the transfer of a snapshot ended; what the peer holds now, it says itself."""
        progress = self.progress.get(peer)
        if progress is None or progress.state is not leader.SNAPSHOT:
            return
        if ok:
            progress.become_probe()
        else:
            progress.snapshot_failed()
        progress.is_awaited = True

    def persisted(self, term: int, last_index: int, stamp_ms: int, last_term: int | None = None) -> None:
        """Learn that everything handed out up to ``last_index`` and the hard state of ``term`` are durable.

        ``term``, ``last_index`` and ``last_term`` are those of the core and its log after the ``ready`` reported.
        Without ``last_term`` nothing is believed in a term in which a tail was replaced: the entry meant may be another
        by now. ``stamp_ms`` is the stamp for the no-op, should this report win an election.
        """
        if term != self.term:
            return
        self.stamp_ms = stamp_ms
        if self.is_tail_replaced and (last_term is None or self.log.term_of(last_index) != last_term):
            return
        self.log.became_durable(last_index)
        if self.role is LEADER:
            leader.maybe_commit(self)
        elif self.role is Role.CANDIDATE:
            candidate.became_durable(self)
        else:
            follower.maybe_end_quarantine(self)

    # -- what goes out ------------------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """Return the work there is now, or None if there is nothing."""
        if self.role is LEADER and (self.peers or self.reads.waiting):
            sending.compose(self)
        elif self.acknowledged_leader is not None:
            follower.send_acknowledgement(self)
        hard_state: HardState | None = None
        handed_out = self.handed_out
        if (
            handed_out.term != self.term
            or handed_out.vote != self.vote
            or handed_out.quarantined is not self.is_quarantined
        ):
            hard_state = self.handed_out = HardState(self.term, self.vote, self.is_quarantined)
        entries = self.log.take_unpersisted()
        if (
            not entries
            and hard_state is None
            and not self.messages
            and not self.messages_after
            and not self.fetches
            and self.snapshot is None
            and not self.reads_ready
            and not self.lost_reads
        ):
            return None
        ready = Ready(
            hard_state,
            entries,
            self.messages,
            self.messages_after,
            self.fetches,
            self.snapshot,
            self.reads_ready,
            self.lost_reads,
        )
        self.empty_outbox()
        return ready

    def take_committed(self) -> list[Entry]:
        """Return committed entries that are to be applied now, in order; membership changes take effect with this.

        Returns nothing while older entries are on disk only: those up to ``log.replay_end`` go through ``replayed``.
        """
        log = self.log
        taken = log.take_committed()
        if log.configuration_indexes and log.configuration_indexes[0] <= log.applied:
            for entry in taken:
                if entry.kind == EntryKind.CONFIGURATION:
                    self._apply_configuration(entry)
        if self.configuration.outgoing and self.role is LEADER:
            leader.maybe_leave_joint(self)
        return taken

    def replayed(self, entry: Entry) -> None:
        """Count the next committed entry, read from disk, as applied."""
        self.log.replayed(entry.index)
        if entry.kind == EntryKind.CONFIGURATION:
            self._apply_configuration(entry)

    # -- membership ---------------------------------------------------------------------------------------------------

    def use_configuration(self, configuration: Configuration) -> None:
        """Let ``configuration`` take effect."""
        self.configuration = configuration
        self.peers = tuple(member for member in configuration.members if member != self.name)
        self.is_sole_voter = configuration.voters == (self.name,) and not configuration.outgoing
        self.log.retain_bytes = self.settings.memory_bytes_max if self.peers else 0
        if self.role is LEADER:
            leader.configuration_applied(self)

    def _apply_configuration(self, entry: Entry) -> None:
        indexes = self.log.configuration_indexes
        if indexes and indexes[0] == entry.index:
            del indexes[0]
        self.use_configuration(decode(entry.payload))
        if self.is_campaign_due and candidate.may_campaign(self):
            self.is_campaign_due = False
            candidate.campaign(self, is_transfer=True)
