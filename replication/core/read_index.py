"""Reads that are in no log: which of them a majority has confirmed.

A read may be served once the leader knows that no later leader had been elected when the read arrived. It learns so
from a majority that answers messages sent after that. Every append and heartbeat carries the number of the newest round
and its answer gives it back; a round counts as answered when a majority has answered it or a later one. Matching is by
number: an answer that was on its way when the read arrived has a lower one.

States of a read: waiting → joined (a round began after it came) → confirmed → served by the driver once applied.

Guarantees: at most one round of heartbeats that were sent only for reads is unanswered at any time; appends carry
rounds for free. A round whose messages were lost is asked again with the second tick, and then of everybody.
Leaves to the caller: asking no round before the first commit of the own term; the bound on reads that wait.
Reference: Raft thesis, section 6.4.
"""

from __future__ import annotations

from collections import deque

from replication.core.messages import ReadReady

TIMED_ROUNDS_MAX = 16
"""Heartbeats whose time is remembered for the lease: more than fit into the shortest election timeout."""


class ReadRounds:
    """The reads of one leader in one term."""

    __slots__ = (
        "_last_ticked",
        "_timed",
        "asked",
        "confirmed",
        "dedicated",
        "is_repeated",
        "joined",
        "lease_tick",
        "round",
        "waiting",
    )

    def __init__(self) -> None:
        self.round = 0
        """The number that messages carry now."""
        self.waiting: list[int] = []
        """Reads that have not joined a round."""
        self.joined: deque[tuple[int, int, list[int]]] = deque()
        """(round, commit index at its start, reads), of rounds that are not confirmed."""
        self.confirmed = 0
        """The last round that a majority has answered."""
        self.asked = 0
        """The last round that a majority was asked for."""
        self.dedicated = 0
        """The last round for which heartbeats were sent."""
        self.is_repeated = False
        """Whether a round was not answered in time: whoever was asked may be gone."""
        self.lease_tick = -1
        """When the newest timed round began that a majority has answered; -1 if none."""
        self._timed: deque[tuple[int, int]] = deque(maxlen=TIMED_ROUNDS_MAX)
        self._last_ticked = 0

    @property
    def is_asking(self) -> bool:
        """Whether answers of peers are of use."""
        return bool(self.joined or self._timed)

    @property
    def is_heartbeat_due(self) -> bool:
        """Whether reads wait for a round that no majority was asked for, and heartbeats may be sent for it."""
        return bool(self.joined) and self.joined[-1][0] > self.asked and self.dedicated <= self.confirmed

    def start(self, commit_index: int) -> None:
        """Begin a round that all waiting reads join; messages must carry it from now on."""
        self.round += 1
        self.joined.append((self.round, commit_index, self.waiting))
        self.waiting = []

    def start_timed(self, tick: int) -> None:
        """Begin a round for the lease at ``tick``."""
        self.round += 1
        self._timed.append((self.round, tick))

    def confirm(self, answered: int) -> list[ReadReady]:
        """Learn that a majority has answered round ``answered``; return the reads that may be served now."""
        if answered <= self.confirmed:
            return []
        assert answered <= self.round
        self.confirmed = answered
        self.is_repeated = False
        while self._timed and self._timed[0][0] <= answered:
            self.lease_tick = self._timed.popleft()[1]
        ready: list[ReadReady] = []
        while self.joined and self.joined[0][0] <= answered:
            _, index, contexts = self.joined.popleft()
            ready += [ReadReady(context, index) for context in contexts]
        return ready

    def tick(self) -> None:
        """Ask again for what has been asked since before the last tick: messages were lost, or the disk is slow."""
        if self.joined and self.joined[0][0] <= self._last_ticked:
            self.asked = self.dedicated = self.confirmed
            self.is_repeated = True
        self._last_ticked = self.round

    def drop(self) -> list[int]:
        """Return the reads that are not confirmed; they never will be."""
        lost = [context for _, _, contexts in self.joined for context in contexts] + self.waiting
        self.joined.clear()
        self.waiting = []
        return lost
