"""What must hold in a cluster at every moment, whatever fails: checked while a run goes on.

Rules, by the Raft paper's names where it has one:

    election safety        one leader a term
    one vote               a voter gives its vote to one candidate a term, also across restarts; not if its disk is lost
    elected                who leads was given votes of a majority (of both sets while joint)
    durable vote           a vote that is told, or asked with, is on the voter's disk, and found there at the next start
    state machine safety   what one node applied at an index, every node applies there, and never something else
    order of applying      each node applies every index once, in order
    durable acknowledgment no follower reports more than its disk has
    quorum                 what a leader applies is durable on a majority (of both sets while joint)
    match                  what the newest leader counts of a peer is on the peer's disk
    own term               a leader commits by counting no entry that is not of its term
    equal states           at the same index all machines are in the same state

Guarantees: a rule that is broken raises `RuleBroken` at the event that broke it.
Leaves to the caller: telling it what happens; histories (`kvservice.simulation.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

from kvservice.keyspace.database import NO_VALUES, Database
from kvservice.keyspace.kinds import kind_of
from kvservice.keyspace.slots import SLOTS

if TYPE_CHECKING:
    from replication.core.membership import Configuration
    from replication.core.messages import Entry, HardState

REMEMBERED: Final = 20_000
"""Indexes whose entry and digest are kept: a node that is further behind gets a snapshot."""
NEVER: Final = 1 << 62
PLAIN: Final = frozenset({bytes, int})


class RuleBroken(Exception):  # noqa: N818 - says what is the case
    """The cluster did what it must never do."""

    def __init__(self, rule: str, text: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {text}")


class DurableLog:
    """What one disk is known to hold durably of the log: the term of each index. Survives its processes.

    base: all up to here is in a snapshot. is_doubtful: the disk was damaged since, so nothing is concluded from it.
    unreported_from: the lowest index that a write changes of which it is not known whether it happened.
    """

    __slots__ = ("base", "hard_state", "is_doubtful", "last", "terms", "unreported_from")

    def __init__(self) -> None:
        self.terms: dict[int, int] = {}
        self.base = 0
        self.last = 0
        self.is_doubtful = False
        self.hard_state: HardState | None = None
        """The newest that is known to be durable."""
        self.unreported_from = NEVER

    def begins(self, queued: Sequence[list[Entry] | int]) -> None:
        """Note that a write begins, of entries or of the index that the log goes on behind."""
        for written in queued:
            first = written if isinstance(written, int) else written[0].index
            self.unreported_from = min(self.unreported_from, first)

    def ends(self, queued: Sequence[list[Entry] | int]) -> None:
        """Note that the write that began last is durable."""
        self.unreported_from = NEVER
        for written in queued:
            if isinstance(written, int):
                self.restart(written)
            else:
                self.append(written)

    def recovered(self, base: int, terms: dict[int, int], last: int) -> None:
        """Go on from what a start has found."""
        self.base, self.terms, self.last = base, terms, last
        self.unreported_from = NEVER

    def append(self, entries: Iterable[Entry]) -> None:
        """Note entries that became durable; one that is not after the last replaces the tail."""
        terms = self.terms
        for entry in entries:
            index = entry.index
            if index <= self.last:
                for gone in range(index, self.last + 1):
                    terms.pop(gone, None)
            terms[index] = entry.term
            self.last = index

    def restart(self, index: int) -> None:
        """Note that the log goes on behind a snapshot."""
        self.terms.clear()
        self.base = self.last = index

    def forget(self, before_index: int) -> None:
        """Drop what no rule will ask for any more."""
        if before_index > self.base + REMEMBERED:
            for index in range(self.base, before_index):
                self.terms.pop(index, None)
            self.base = before_index - 1

    def holds(self, index: int, term: int) -> bool:
        """Tell whether the entry is durable here, as far as is known."""
        return index <= self.base or self.terms.get(index) == term


class Rules:
    """The rules of one run."""

    def __init__(self) -> None:
        self.disks: dict[str, DurableLog] = {}
        self.leaders: dict[int, str] = {}
        self.applied_max = 0
        self.entries_applied = 0
        self.states_compared = 0
        self._votes: dict[str, dict[int, str]] = {}
        self._voters: dict[tuple[int, str], set[str]] = {}
        """Who was ever told to vote for a candidate in a term."""
        self._entries: dict[int, Entry] = {}
        self._digests: dict[int, tuple[str, int]] = {}
        self._applied: dict[str, int] = {}

    def started(self, name: str, applied: int) -> None:
        """Note that a process begins with a state at an index, or has restored one."""
        self._applied[name] = applied

    def leads(self, name: str, term: int, configuration: Configuration) -> None:
        """Note that a node considers itself the leader of a term, elected by a configuration."""
        leader = self.leaders.setdefault(term, name)
        if leader != name:
            raise RuleBroken("election safety", f"{name} leads term {term}, and so does {leader}")
        voted = self._voters.get((term, name), set()) | {name}
        for voters in (configuration.voters, configuration.outgoing):
            if voters and sum(voter in voted for voter in voters) * 2 <= len(voters):
                raise RuleBroken("elected", f"{name} leads term {term} by votes of {sorted(voted)} out of {voters}")

    def votes(self, voter: str, candidate: str, term: int) -> None:
        """Note a vote that leaves a node."""
        disk = self.disks[voter]
        if disk.hard_state is not None and disk.hard_state[:2] != (term, candidate):
            raise RuleBroken(
                "durable vote", f"{voter} votes for {candidate} in term {term}, disk has {disk.hard_state}"
            )
        self._voters.setdefault((term, candidate), set()).add(voter)
        earlier = self._votes.setdefault(voter, {}).setdefault(term, candidate)
        if earlier != candidate:
            raise RuleBroken("one vote", f"{voter} votes for {candidate} in term {term}, and has voted for {earlier}")

    def loses_disk(self, voter: str) -> None:
        """Note that a node begins anew, in quarantine, and cannot know its votes.

        It is safe to vote again once a leader has committed an entry without it: whoever got its vote before has not
        that entry, and a majority that voted for them would have refused the leader's append, or refuses them now.
        """
        self._votes.pop(voter, None)

    def acknowledges(self, name: str, index: int) -> None:
        """Note that a node reports its log to be durable up to an index."""
        disk = self.disks[name]
        if index > max(disk.last, disk.base) and not disk.is_doubtful:
            raise RuleBroken("durable acknowledgment", f"{name} reports {index}, its disk has {disk.last}")

    def applies(self, name: str, entry: Entry) -> None:
        """Note that a node is about to apply an entry; hot."""
        index = entry.index
        known = self._entries.get(index)
        if known is None:
            if index > self.applied_max:
                self._remember(entry)
        elif known != entry:
            raise RuleBroken("state machine safety", f"{name} applies {_named(entry)}, others {_named(known)}")
        expected = self._applied[name] + 1
        if index != expected:
            raise RuleBroken("order of applying", f"{name} applies {index}, {expected} is next")
        self._applied[name] = index
        self.entries_applied += 1

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.index] = entry
        self.applied_max = entry.index
        if len(self._entries) > 2 * REMEMBERED:
            first = entry.index - REMEMBERED
            self._entries = {index: kept for index, kept in self._entries.items() if index >= first}
            self._digests = {index: kept for index, kept in self._digests.items() if index >= first}

    def found(self, name: str, hard_state: HardState) -> None:
        """Note the hard state that a node starts with."""
        known = self.disks[name].hard_state
        if known is not None and (
            hard_state.term < known.term or (hard_state.term == known.term and known.vote not in ("", hard_state.vote))
        ):
            raise RuleBroken("durable vote", f"{name} had {known} on disk, and starts with {hard_state}")
        self.disks[name].hard_state = hard_state

    def counts(self, leader: str, committed: int, committed_at_election: int, term_start_index: int) -> None:
        """Note how far a leader's log is committed, and was when it was elected."""
        if committed_at_election < committed < term_start_index:
            raise RuleBroken("own term", f"{leader} commits {committed}, its term begins at {term_start_index}")

    def matches(self, leader: str, leader_term: int, peer: str, index: int, term: int | None) -> None:
        """Note up to which entry a leader takes a peer's log for its own. Older leaders may be behind the times."""
        disk = self.disks.get(peer)
        if disk is None or disk.is_doubtful or term is None or leader_term < max(self.leaders):
            return
        if index < disk.unreported_from and not disk.holds(index, term):
            text = f"{leader} counts entry {index} of term {term} on {peer}, whose disk has {disk.last}"
            raise RuleBroken("match", text)

    def commits(self, leader: str, entry: Entry, configurations: Sequence[Configuration]) -> None:
        """Note that a leader applies an entry of its own term: a quorum must have it durably.

        By one of the newest configurations: with an entry that changes them, those before it may have been committed.
        """
        if not any(self._is_on_quorum(entry, configuration) for configuration in configurations):
            voters = [configuration.voters for configuration in configurations]
            holders = [name for name in self.disks if self._has(name, entry)]
            raise RuleBroken("quorum", f"{leader} applies {_named(entry)}, durable on {holders}, voters {voters}")

    def _is_on_quorum(self, entry: Entry, configuration: Configuration) -> bool:
        for voters in (configuration.voters, configuration.outgoing):
            if voters and sum(self._has(name, entry) for name in voters) * 2 <= len(voters):
                return False
        return True

    def _has(self, name: str, entry: Entry) -> bool:
        disk = self.disks.get(name)
        return disk is not None and (disk.is_doubtful or disk.holds(entry.index, entry.term))

    def state(self, name: str, index: int, digest: int) -> None:
        """Note the digest of a node's state at an index."""
        known = self._digests.setdefault(index, (name, digest))
        self.states_compared += known[0] != name
        if known[1] != digest:
            raise RuleBroken("equal states", f"at index {index} the states of {name} and {known[0]} differ")


def _named(entry: Entry) -> str:
    return f"entry {entry.index} of term {entry.term} kind {int(entry.kind)} stamp {entry.stamp_ms} {entry.payload!r}"


def digest_of(databases: Sequence[Database], stamp_ms: int) -> int:
    """Return a digest of all keys that are not expired, in whatever order; equal states are equal in one process only.

    The order of keys in a slot depends on when a node removed expired ones, which no command can observe.
    """
    parts: list[object] = []
    for database in databases:
        if database.values is NO_VALUES:
            continue
        for slot in compress(range(SLOTS), database.values):
            values, deadlines = database.values[slot], database.expires[slot] or {}
            for key in sorted(values):
                deadline = deadlines.get(key)
                if deadline is None or deadline > stamp_ms:
                    value = values[key]
                    plain = value if type(value) in PLAIN else repr(kind_of(value).frozen(value))
                    parts.append((database.index, key, deadline, plain))
    return hash(tuple(parts))
