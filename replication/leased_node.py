"""A node that, while it leads, serves reads on its clock alone: ``read_mode`` lease.

The lease begins when a round of heartbeats began that a majority has answered, and lasts 7/8 of the shortest time in
which a follower may give its vote away: that is the shortest election timeout but for one tick, since the first of its
ticks may come at once. So the lease is over in time while no clock runs a seventh faster than another, at every
timeout. It rests on clocks that run alike, on voters that honour it, and on nothing else: the end is compared with the
clock at each read, so that a process which was paused does not serve what it knew.

A node honours leases that were made of an election timeout no longer than its own, if it is in this mode: then it
forgets no leader early. So there is no lease before every other voter has said in its present life that it does, and
reads go by rounds. Whoever starts again with other settings has to be down for an election timeout before: what it
promised in its last life may be what a lease rests on.

Guarantees: no lease beside a voter that is not known to honour it, nor in a term in which leadership was offered to
another voter: the offer may arrive late, and an election that the leader asked for waits for nobody's lease. No vote of
a node that has just started: what it promised by following, before, it has forgotten.
Leaves to the caller: ``lease_clock_ms``, which has to go on while the process is stopped or the machine sleeps.
Reference: Raft thesis, section 6.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from replication.core.messages import Message, RequestVote
from replication.core.raft import LEASE_EIGHTHS
from replication.node import TICK_MS, Node

TICKS_REMEMBERED = 256
"""More than the longest lease: a round that began earlier gives none any more."""


class LeasedNode(Node):
    """A node whose reads rest on a lease where there are other voters."""

    lease_clock_ms: Callable[[], int]
    """A monotonic clock in ms; to be set before the start."""

    _is_sole_leader = False
    _lease_end_ms = 0
    _term_without_lease = 0

    @property
    def reads_at_once(self) -> bool:
        """Whether reads may run on the applied state without asking, at this moment."""
        return self._is_sole_leader or self.lease_clock_ms() < self._lease_end_ms

    @reads_at_once.setter
    def reads_at_once(self, is_sole_leader: bool) -> None:
        self._is_sole_leader = is_sole_leader

    def start(self) -> None:
        """Do what every node does at the start."""
        self._tick_times: dict[int, int] = {}
        """When each of the newest ticks as a leader began, in ms of the lease's clock."""
        self._promises: dict[str, int] = {}
        """For how long each peer follows a leader that it has heard, at least, in ms. Bound: those who greeted."""
        super().start()

    def tick(self) -> None:
        """Let 10 ms pass."""
        tick = self.raft.ticks + 1
        self._tick_times[tick] = self.lease_clock_ms()
        self._tick_times.pop(tick - TICKS_REMEMBERED, None)
        super().tick()

    def receive(self, sender: str, incarnation: int, messages: Iterable[Message]) -> None:
        """Take messages of one life of a peer; give no vote away until no lease of before the start can be left."""
        if self._ticks < self.raft.settings.election_ticks_min:
            messages = [message for message in messages if type(message) is not RequestVote]
        super().receive(sender, incarnation, messages)

    def promised(self, peer: str, promised_ms: int) -> bool:
        """Learn how long a peer votes for nobody in its present life, once it has heard of a leader; 0: no time at all.

        To be called before ``receive`` is given messages of that life. Return whether it is news that the peer does not
        honour the leases of this node.
        """
        is_news = self._promises.get(peer) != promised_ms
        self._promises[peer] = promised_ms
        if self._is_honoured_by((peer,)):
            return False
        # Until it is looked whether this one has a vote.
        self._lease_end_ms = 0
        return is_news

    def _is_honoured_by(self, voters: tuple[str, ...]) -> bool:
        """Tell whether a lease of this node is honoured by all of these but itself."""
        raft, promises = self.raft, self._promises
        least_ms = raft.settings.election_ticks_min * TICK_MS
        return all(promises.get(voter, 0) >= least_ms for voter in voters if voter != raft.name)

    def stop(self) -> None:
        """Refuse everything from now on."""
        self._lease_end_ms = 0
        super().stop()

    def transfer(self, to: str) -> None:
        """Hand leadership to another voter: whatever comes of it, the lease of this term is over."""
        self._term_without_lease = self.raft.term
        self._lease_end_ms = 0
        super().transfer(to)

    def _advance(self) -> None:
        super()._advance()
        raft = self.raft
        self._lease_end_ms = 0
        began_ms = self._tick_times.get(raft.reads.lease_tick)
        if (
            began_ms is not None
            and raft.has_lease
            and raft.term != self._term_without_lease
            and raft.log.applied >= raft.term_start_index
            and not self.is_restoring
            and self._is_honoured_by(raft.configuration.voters + raft.configuration.outgoing)
        ):
            promised_ms = (raft.settings.election_ticks_min - 1) * TICK_MS
            self._lease_end_ms = began_ms + promised_ms * LEASE_EIGHTHS // 8

    def _change_leadership(self) -> None:
        self._lease_end_ms = 0
        super()._change_leadership()
