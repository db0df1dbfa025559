"""The consensus core: proposals and durability reports in, one Ready batch out. No clock, no files, no asyncio.

States: follower → candidate (term + 1, own vote handed out for the disk) → leader (once a majority has granted its
vote; the own vote counts only when it is durable). A leader appends a no-op of its term first; only entries of the own
term are committed by counting, earlier ones with them.

Order (law, kept by replication/node): ``ready`` → make hard state and entries durable → ``persisted`` →
``take_committed`` → apply → answer.

Guarantees: term and vote never go back; nothing is committed that a majority has not reported durable; this node
counts itself by the same report as any other.
Leaves to the caller: durability, time, and reading entries of earlier runs from disk.
Scope: one voter. Elections and replication between voters enter here without a change for the callers.
Reference: Raft thesis, chapter 3 and section 10.2.1; etcd-io/raft's Ready.
"""

from __future__ import annotations

from enum import Enum

from replication.core.log import RaftLog
from replication.core.messages import Entry, EntryKind, HardState, Ready
from replication.core.quorum import committed_index, is_granted
from replication.errors import NotLeading


class Role(Enum):
    """Roles of a node in its term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Raft:
    """One node's view of one consensus group."""

    __slots__ = (
        "_granted",
        "_hard_state_handed_out",
        "_match",
        "leader",
        "log",
        "name",
        "role",
        "term",
        "vote",
        "voters",
    )

    def __init__(self, name: str, voters: list[str], hard_state: HardState, log: RaftLog) -> None:
        assert voters == [name], "more than one voter is not served yet"
        self.name = name
        self.voters = voters
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.log = log
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self._hard_state_handed_out = hard_state
        self._granted: set[str] = set()
        self._match: dict[str, int] = {}

    def campaign(self) -> None:
        """Start an election: become a candidate of the next term and vote for oneself."""
        assert self.role is not Role.LEADER
        self.role = Role.CANDIDATE
        self.term += 1
        self.vote = self.name
        self.leader = None
        self._granted = set()

    def propose(self, kind: int, stamp_ms: int, payload: bytes) -> Entry:
        """Append an entry to the leader's log and return it.

        Raises NotLeading if this node does not lead.
        """
        if self.role is not Role.LEADER:
            raise NotLeading(self.leader)
        entry = Entry(self.term, self.log.last_index + 1, kind, stamp_ms, payload)
        self.log.append(entry)
        return entry

    def ready(self) -> Ready | None:
        """Return what has to become durable now, or None if there is nothing."""
        hard_state: HardState | None = None
        handed_out = self._hard_state_handed_out
        if handed_out.term != self.term or handed_out.vote != self.vote:
            hard_state = self._hard_state_handed_out = HardState(self.term, self.vote)
        entries = self.log.take_unpersisted()
        if hard_state is None and not entries:
            return None
        return Ready(hard_state, entries, [], [], [], None, [], [])

    def persisted(self, term: int, last_index: int, stamp_ms: int) -> None:
        """Learn that everything handed out up to ``last_index`` and the hard state of ``term`` are durable.

        ``stamp_ms`` is the stamp for the no-op, should this report win an election.
        """
        if term != self.term:
            return
        if self.role is Role.CANDIDATE:
            self._granted.add(self.name)
            if is_granted(self.voters, self._granted):
                self._become_leader(stamp_ms)
        elif self.role is Role.LEADER:
            self._match[self.name] = max(last_index, self._match.get(self.name, 0))
            self._maybe_commit()

    def take_committed(self) -> list[Entry]:
        """Return committed entries of this run that are to be applied now, in order."""
        return self.log.take_committed()

    def _become_leader(self, stamp_ms: int) -> None:
        self.role = Role.LEADER
        self.leader = self.name
        self._match = {}
        self.log.append(Entry(self.term, self.log.last_index + 1, EntryKind.NOOP, stamp_ms, b""))

    def _maybe_commit(self) -> None:
        """Advance the commit index to what a majority holds; does nothing before an entry of this term is among it.

        The log holds entries of this run only, so with one voter every entry above the election's no-op is of the
        current term (thesis, section 3.6.2).
        """
        index = committed_index(self.voters, self._match)
        first_of_term = self.log.entries[0].index if self.log.entries else self.log.last_index + 1
        if index > self.log.committed and index >= first_of_term:
            self.log.committed = index
