"""Where admitted calls run: in this node's log, in a round of reads, or at the leader; and where they go if that fails.

Ways of a call, and what they are for:

    writes   a batch becomes one entry; reads of a caller with a call in it ride along, not stored
    reads    a batch waits for one round (``Node.read``); not used where the node reads at once
    away     the forwarder keeps and sends it: this node does not lead, or cannot propose just now

Writes, and reads beside them, are sent off when a turn of the event loop brings no more and the batch before is
applied: an entry costs every node as much as some seven commands in it, and a busy node that sends each turn's writes
off alone stays busy. Reads alone are sent off at the end of their turn, once the round before is answered and most of
its callers have come again (``ReadWindow``). Where they can run as one, they run while their round is under way, and
are answered when it ends.

What a node hands back goes the third way: reads, and writes that are certainly not applied, are tried again by
themselves; a write whose outcome is unknown is answered so. The forwarder brings calls home when this node leads.

Lanes: a number names the way and the leadership during which a caller's pending calls were sent off. Only what may join
them is let in; everything else is held until they are answered. So a caller's calls are never spread over two ways in
another order than its own, and what a lost leadership left behind is answered first.

Guarantees: order per caller; no write is proposed a second time unless the first one is certainly void; only a leader
proposes for the node itself.
Leaves to the caller: admission (service), and holding callers whom ``may_write`` or ``read`` turns away.
Reference: Raft thesis, sections 6.2 (routing requests to the leader) and 6.4 (linearizable reads).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from kvservice.batch import Batch, Call
from kvservice.commands.reply import ErrorReply
from kvservice.errors import CommitTimeout, LeadershipLost, NoLeader, RedanError, ShuttingDown
from kvservice.forwarding.forwarder import RETURNED_SECONDS, Forwarder
from kvservice.gateway.resp import encode_commands
from kvservice.read_window import ReadWindow
from kvservice.runner import Runner
from kvservice.session import NO_LANE, Session
from kvservice.starting import StartingNode
from replication.core.messages import EntryKind
from replication.errors import NotLeading, OutcomeUnknown, ReplicationError, Stopped
from replication.node import Node

TURNS_MAX: Final = 16
"""How many turns of the event loop a batch waits for more."""
CALLS_ENOUGH: Final = 64
"""From so many calls on, more in an entry bring next to nothing."""
APPLY_SECONDS: Final = 0.002
"""What a batch of writes waits at most for the one before; a commit takes longer where disks or links are slow."""
APPLY_SECONDS_PER_CALL: Final = 0.0005
"""Behind more than four calls it waits so long for each of them: the node is busy, and larger entries pay."""
APPLY_SECONDS_MAX: Final = 0.01
"""Behind twenty and more. 30 ms brought no more, and took a tenth from streams of 1,000 clients (three nodes)."""
RETRY_SECONDS: Final = 0.01
"""How soon a leader that could not propose tries again: a hand-over is under way, or too much is not committed."""


class Router:
    """The ways of one node."""

    def __init__(
        self,
        runner: Runner,
        forwarder: Forwarder,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.node: Node | StartingNode = StartingNode()
        self.forwarder = forwarder
        self.is_away = False
        """Whether calls go to the forwarder. False until a leader is known: the first proposal finds out."""
        self.on_switched: Callable[[], None] = lambda: None
        self.admit_home: Callable[[Call], Call] = lambda call: call
        """Checks what the leader alone decides of a call that was meant for another leader."""
        self._runner = runner
        self._call_soon = call_soon
        self._call_later = call_later
        self._lane = NO_LANE + 2
        """Of writes, and of everything while away; the next number is that of reads."""
        self._open: Batch | None = None
        """Writes that are not sent off."""
        self._last = Batch()
        """The batch proposed or opened last: what reads of a caller with pending writes ride on."""
        self._reads: Batch | None = None
        """Reads that are not sent off."""
        self._asked: Batch | None = None
        """Reads whose round is under way."""
        self._window = ReadWindow(call_later, self._window_closed)
        self._is_scheduled = False
        """Whether the end of this turn is waited for."""
        self._turns = 0
        """Turns that the open writes have waited for more."""
        self._seen = 0
        """Calls in them at the end of the last turn."""
        self._proposed: Batch | None = None
        """Writes that the open ones wait for; None if they were applied, or have taken too long."""
        self._timed: Batch | None = None
        """The batch whose wait for those is being timed."""
        forwarder.take_home = self._take_home
        runner.on_refused = self.refused
        runner.on_applied = self.applied
        runner.on_read = self._round_ended
        runner.on_leader = self.switch
        runner.wait_for_time = self._wait_behind

    @property
    def calls_open(self) -> int:
        """Calls that are admitted and not sent off."""
        return sum(len(batch.calls) for batch in (self._open, self._reads) if batch is not None)

    # -- sending off --------------------------------------------------------------------------------------------------

    def may_write(self, session: Session) -> bool:
        """Tell whether a write may join what the session waits for; hot."""
        return not session.pending or session.lane == self._lane

    def enqueue(self, call: Call, payload: bytes) -> None:
        """Put a call into this turn's batch; hot. ``payload`` is its writes; an empty one only asks for time."""
        session = call.session
        session.pending += 1
        session.lane = self._lane
        if self.is_away:
            if session.kind == "normal":
                self.forwarder.take(call, payload if call.row is not None and call.row.is_write else b"")
            else:
                self._try_again([call])
            return
        batch = self._open
        if batch is None:
            batch = self._open = self._last = Batch()
            self._schedule()
        if payload:
            if call.db != batch.db:
                batch.payload.append(b"*2\r\n$6\r\nSELECT\r\n$%d\r\n%d\r\n" % (len(str(call.db)), call.db))
                batch.db = call.db
            batch.payload.append(payload)
        batch.calls.append(call)

    def read(self, call: Call, raw: bytes = b"") -> bool:
        """Let reads wait for their turn; False if the session has to be held instead.

        ``raw`` is the RESP of the call if it is at hand.
        """
        session = call.session
        lane = self._lane
        if session.pending and session.lane != lane:
            if session.lane != lane + 1:
                return False
        elif self.is_away:
            session.pending += 1
            session.lane = lane
            self.forwarder.take(call, raw)
            return True
        elif session.pending:
            session.pending += 1
            self._last.calls.append(call)
            return True
        session.pending += 1
        session.lane = lane + 1
        reads = self._reads
        if reads is None:
            reads = self._reads = Batch()
            self._schedule()
        calls = reads.calls
        calls.append(call)
        if len(calls) == self._window.enough:
            self._schedule()
        return True

    def move_time(self) -> None:
        """Propose an entry that only carries a new stamp, unless one is about to be anyway or another node leads."""
        if self._open is None and not self.is_away:
            self._open = self._last = Batch()
            self._schedule()

    def _wait_behind(self, call: Call) -> None:
        """Let reads, already counted as pending, wait for an entry; nothing may join what waits with them."""
        call.session.pending -= 1
        self.enqueue(call, b"")
        call.session.lane = NO_LANE

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        """Send off what is open, unless this turn has brought more writes, and the next may."""
        batch, reads = self._open, self._reads
        if batch is not None and self._proposed is None:
            count = len(batch.calls)
            if self._seen < count < CALLS_ENOUGH and self._turns < TURNS_MAX:
                self._seen = count
                self._turns += 1
                self._call_soon(self._end_of_turn)
                return
        self._is_scheduled = False
        self._seen = self._turns = 0
        # Reads first: the messages of the entry confirm them as well.
        if reads is not None and ((batch is not None and self._proposed is None) or self._may_ask(reads)):
            self._ask(reads)
        # Not ``batch``: reads that were not taken may have ended the leadership, and with it all that was open.
        if (batch := self._open) is None:
            return
        before = self._proposed
        if before is None:
            self._propose(batch)
        elif self._timed is not batch:
            self._timed = batch
            seconds = min(max(APPLY_SECONDS, len(before.calls) * APPLY_SECONDS_PER_CALL), APPLY_SECONDS_MAX)
            self._call_later(seconds, lambda: self._overdue(batch))

    def flush(self) -> None:
        """Send off what is open without waiting for anything."""
        self._turns = TURNS_MAX
        self._proposed = self._asked = None
        self._window.enough = 0
        self._end_of_turn()

    def _may_ask(self, reads: Batch) -> bool:
        """Tell whether reads alone are sent off now; a node that has stopped ends no round, but refuses."""
        return self.node.is_stopped or (self._asked is None and len(reads.calls) >= self._window.enough)

    def _ask(self, reads: Batch) -> None:
        self._reads = None
        self._asked = reads
        self._window.close(len(reads.calls))
        try:
            self.node.read(reads)
        except ReplicationError as error:
            self._not_taken(reads, error)
        else:
            # Behind the messages of the round, which leave in the next turn: until the answer there is time.
            self._call_soon(lambda: self._read_ahead(reads))

    def _read_ahead(self, reads: Batch) -> None:
        if reads is self._asked and self.node.may_read_ahead:
            self._runner.read_ahead(reads)

    def _round_ended(self, batch: Batch) -> None:
        """Learn that reads are answered; the next ones may wait for those who asked them."""
        if batch is self._asked:
            self._asked = None
            others = 0 if self._reads is None else len(self._reads.calls)
            if not self._window.open(len(batch.calls), others) and others:
                self._schedule()

    def _window_closed(self) -> int:
        if self._reads is None:
            return 0
        self._schedule()
        return len(self._reads.calls)

    def _propose(self, batch: Batch) -> None:
        self._open = self._timed = None
        payload = b"".join(batch.payload)
        try:
            self.node.propose(EntryKind.COMMANDS if payload else EntryKind.NOOP, payload, batch)
        except ReplicationError as error:
            self._not_taken(batch, error)
        else:
            self._proposed = batch

    def _overdue(self, batch: Batch) -> None:
        """Wait no longer for what was proposed before ``batch``."""
        if self._open is batch:
            self._proposed = None
            self._schedule()

    def applied(self, batch: Batch) -> None:
        """Learn that a batch needs no waiting for any more."""
        if batch is self._proposed:
            self._proposed = None
            if self._open is not None:
                self._schedule()

    # -- what comes back ----------------------------------------------------------------------------------------------

    def _not_taken(self, batch: Batch, error: ReplicationError) -> None:
        """Learn that nothing was appended."""
        if isinstance(error, Stopped):
            self._end(batch.calls)
            return
        node = self.node
        if node.is_leader:
            self.switch(None, False, node.term)
            self._call_later(RETRY_SECONDS, self._retry)
        else:
            self.switch(error.leader if isinstance(error, NotLeading) else None, False, node.term)
        self._try_again(batch.calls)

    def refused(self, batch: Batch, error: ReplicationError) -> None:
        """Learn that a batch the node had taken will not be applied or read, or that its fate is unknown."""
        self.applied(batch)
        if batch is self._asked:
            self._asked = None
        if isinstance(error, Stopped):
            self._end(batch.calls)
            return
        if not isinstance(error, OutcomeUnknown) or not batch.payload:
            self._try_again(batch.calls)
            return
        error_of_writes = CommitTimeout() if self.node.is_leader else LeadershipLost()
        calls = Counter(call.session for call in batch.calls)
        again: list[Call] = []
        has_lost = {session for session, count in calls.items() if session.pending - session.away > count}
        """Callers with a write behind whose outcome is unknown, or may be: a read run again would see it too early."""
        for call in reversed(batch.calls):
            session = call.session
            if session in has_lost or session.kind != "normal":
                again.append(call.refused(error_of_writes))
            elif call.has_writes:
                has_lost.add(session)
                again.append(call.lost(error_of_writes))
            else:
                again.append(call)
        self._try_again(again[::-1], RETURNED_SECONDS)

    def _try_again(self, calls: list[Call], wait_s: float | None = None) -> None:
        """Let calls that nothing has come of be tried again by whoever can; ``wait_s``: see ``Forwarder.take``."""
        for call in calls:
            session = call.session
            if session.kind != "normal" and (session.kind == "internal" or not call.admitted()):
                self._answer([call], NoLeader())
            elif session.kind == "remote":
                self._give_back(session)
            else:
                session.lane = NO_LANE
                self.forwarder.take(call, b"", wait_s)

    def _end(self, calls: list[Call]) -> None:
        """Refuse calls of this node's callers, who end with it, and give those of others back to be tried elsewhere."""
        for call in calls:
            if call.session.kind == "remote":
                self._give_back(call.session)
            else:
                self._answer([call], ShuttingDown())

    def _give_back(self, session: Session) -> None:
        session.pending -= 1
        session.give_back()
        self._runner.settle(session)

    def _answer(self, calls: list[Call], error: RedanError) -> None:
        for call in calls:
            self._runner.answer(call, call.with_refusals([ErrorReply(error)] * len(call.admitted())))

    # -- leadership ---------------------------------------------------------------------------------------------------

    def switch(self, leader: str | None, is_leader: bool, term: int) -> None:
        """Learn who leads in which term."""
        self._lane += 2
        self.is_away = not is_leader
        self.on_switched()
        self.forwarder.led_by(leader, is_leader, term)
        # What this turn brought must not overtake what its callers proposed in the leadership that is over.
        for batch in (self._reads, self._open):
            if batch is not None:
                self._try_again(batch.calls)
        self._reads = self._open = self._proposed = self._asked = None

    def _retry(self) -> None:
        if self.is_away and self.node.is_leader:
            self.switch(None, True, self.node.term)

    def _take_home(self, call: Call) -> None:
        """Run a call, counted as pending, that the forwarder had kept."""
        call.session.pending -= 1
        call = self.admit_home(call)
        writes = call.writes()
        self.enqueue(call, encode_commands(writes) if writes else b"")
        call.session.lane = NO_LANE
