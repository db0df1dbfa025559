"""Who waits for what: batches that were proposed here, and reads that wait for a round or for entries to be applied.

Fate of a batch that was proposed as the entry (index, term)::

    CURRENT ── this entry is applied here ──────────────────────────► comes back with ``apply``
       │ leadership is lost
       ▼
    DISPLACED ─ this entry is applied here ─────────────────────────► comes back with ``apply``
              ─ another entry at its index, or one of a later term
                before it, is applied ──────────────────────────────► NotApplied: certain
              ─ a snapshot goes over its index, or the time is up ──► OutcomeUnknown

A later term before it is proof because terms never step back along a log, and what is applied never changes.

Guarantees: each batch is answered for once; in order of proposal where they meet the same fate.
Leaves to the caller: the clock (ticks), and telling the state machine.
Reference: Raft thesis, sections 3.6 and 6.3; hashicorp/raft's ErrLeadershipLost, of which this knows two kinds.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from replication.core.messages import Entry, ReadReady
from replication.errors import NotApplied, OutcomeUnknown

Proposal = tuple[int, int, int, object]
"""Index, term, payload bytes, batch."""


class Refusal(NamedTuple):
    """A batch that will not be applied here as itself, its payload bytes, and why."""

    batch: object
    size: int
    error: NotApplied | OutcomeUnknown


class Proposals:
    """Batches proposed here whose fate is not known yet."""

    __slots__ = ("_displaced", "current")

    def __init__(self) -> None:
        self.current: deque[Proposal] = deque()
        """Of the present leadership, by index; the driver appends and takes from the front. Hot."""
        self._displaced: deque[tuple[int, Proposal]] = deque()
        """(deadline in ticks, proposal) of earlier leaderships, in the order of proposing, so terms never step back."""

    def __len__(self) -> int:
        return len(self.current) + len(self._displaced)

    @property
    def are_displaced(self) -> bool:
        """Whether there are batches of an earlier leadership."""
        return bool(self._displaced)

    def displace(self, deadline_ticks: int) -> None:
        """Let the present leadership end; what it proposed has until ``deadline_ticks`` to meet its fate."""
        self._displaced.extend([(deadline_ticks, proposal) for proposal in self.current])
        self.current.clear()

    def settle(self, entry: Entry) -> tuple[Proposal | None, list[Refusal]]:
        """Return the displaced proposal that ``entry``, about to be applied, is; and those that it disproves.

        Requires that every entry is shown, or a snapshot in its place.
        """
        displaced = self._displaced
        first_index, first_term = displaced[0][1][:2]
        if first_term == displaced[-1][1][1] == entry.term:
            # All of one leadership, and it goes on: not one look at each of many for every entry.
            return (displaced.popleft()[1] if first_index == entry.index else None), []
        own: Proposal | None = None
        refused: list[Refusal] = []
        kept: deque[tuple[int, Proposal]] = deque()
        for deadline, proposal in displaced:
            index, term, size, batch = proposal
            if (index, term) == (entry.index, entry.term):
                own = proposal
            elif index <= entry.index or term < entry.term:
                refused.append(Refusal(batch, size, NotApplied(index, term)))
            else:
                kept.append((deadline, proposal))
        self._displaced = kept
        return own, refused

    def passed_by_snapshot(self, last_index: int, last_term: int) -> list[Refusal]:
        """Return the proposals that a snapshot goes over, or disproves."""
        refused: list[Refusal] = []
        kept: deque[tuple[int, Proposal]] = deque()
        for deadline, proposal in self._displaced:
            index, term, size, batch = proposal
            if index <= last_index:
                reason = f"a snapshot at {last_index} took the place of the log"
                refused.append(Refusal(batch, size, OutcomeUnknown(index, term, reason)))
            elif term < last_term:
                refused.append(Refusal(batch, size, NotApplied(index, term)))
            else:
                kept.append((deadline, proposal))
        self._displaced = kept
        return refused

    def expired(self, ticks: int) -> list[Refusal]:
        """Return the proposals whose time is up; deadlines come in order."""
        refused: list[Refusal] = []
        while self._displaced and self._displaced[0][0] <= ticks:
            index, term, size, batch = self._displaced.popleft()[1]
            refused.append(Refusal(batch, size, OutcomeUnknown(index, term, "no leader told in time")))
        return refused


class Reads:
    """Reads in the order in which they were asked for; each is known to the core by its number."""

    __slots__ = ("_last_context", "_unconfirmed", "confirmed")

    def __init__(self) -> None:
        self._unconfirmed: dict[int, object] = {}
        self.confirmed: deque[tuple[int, object]] = deque()
        """(index that has to be applied, batch). Indexes never step back: rounds are confirmed in order."""
        self._last_context = 0

    def add(self, batch: object) -> int:
        """Let a batch wait; return its number."""
        self._last_context += 1
        self._unconfirmed[self._last_context] = batch
        return self._last_context

    def confirm(self, reads: list[ReadReady]) -> None:
        """Learn from when on reads may be served, in order."""
        for context, index in reads:
            self.confirmed.append((index, self._unconfirmed.pop(context)))

    def lose(self, contexts: list[int]) -> list[object]:
        """Return the batches of reads that will not be confirmed."""
        return [self._unconfirmed.pop(context) for context in contexts]

    def take(self, applied: int) -> list[object]:
        """Return the batches that may be served once ``applied`` is applied."""
        confirmed = self.confirmed
        taken: list[object] = []
        while confirmed and confirmed[0][0] <= applied:
            taken.append(confirmed.popleft()[1])
        return taken
