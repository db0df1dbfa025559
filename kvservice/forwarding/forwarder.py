"""Calls that this node cannot run itself: kept in the order of their callers, sent to the leader, answered once.

States of a call: waiting (for a leader, a link, or what its caller asked before) → sent on one link → answered; or back
to waiting, when the leader says that it was not applied, or the link ends and nothing of it can have changed anything.

What is done when, for the calls of one caller in their order:

    the link ends      a write that was sent is answered LeadershipLost, and so are the reads that its caller sent
                       before it, which would see it if they were run again; all else waits again
    another leader     writes, and the reads of their callers, wait for the old leader's word: for 0.4 s in a later
                       term, for ``outcome_timeout_s`` while nobody leads; other reads wait again at once
    not applied        it waits again, and the link that said so is replaced: it takes nothing more
    sending            only if all earlier ones are sent on the same link, or answered
    answering          only if all earlier ones are answered, also those that wait in this node's own log
    no leader          ``leader_wait_s`` after it came it is answered NoLeader, if it could be sent now; one that comes
                       back later than that has RETURNED_SECONDS: callers that wait much longer send it again
    this node leads    it is run here

Guarantees: replies reach the caller that asked, in the order in which it asked; no write is sent twice unless the first
one was certainly not applied; the memory of waiting and sent calls is bounded.
Leaves to the caller: the stream to the leader (``Link``), and admission. Calls one thread only; reads no clock itself.
Reference: Raft thesis, section 6.2; RedisRaft's defects with proxied commands (Jepsen, 2020).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from kvservice.batch import Call
from kvservice.commands.reply import Reply
from kvservice.errors import LeadershipLost, NoLeader, Overloaded
from kvservice.forwarding.reply_codec import RepliesDamaged, decode_replies
from kvservice.forwarding.waiting import Dial, Link, Waiting, arrival
from kvservice.gateway.resp import encode_commands
from kvservice.session import Session
from redan.raft.v1 import raft_pb2

BYTES_MAX: Final = 64 * 1024 * 1024
"""Calls beyond this are refused as Overloaded, but for one that is longer and alone: half a second of a network of
1 Gbit/s."""
REQUEST_BYTES_MAX: Final = 1024 * 1024
"""A request is closed when it is so long: larger ones save nothing."""
TICK_SECONDS: Final = 0.005
"""How often is looked after calls that wait, while any does: what they wait for is not always told here."""
TICK_SECONDS_PER_CALL: Final = 10e-6
"""Ten times what a look costs, so that ten thousand callers that wait for a leader take a tenth of the processor."""
REDIAL_SECONDS_MIN: Final = 0.01
REDIAL_SECONDS_MAX: Final = 0.5
OLD_LEADER_SECONDS: Final = 0.4
"""How long a leader of an earlier term may take to tell what became of a write, from when the next one is known. If it
runs and hears the next one, it knows within some ms; one that is stopped says nothing for as long as it is."""
RETURNED_SECONDS: Final = 0.1
"""For a link to a leader that is known by then."""
NO_TOUCH: Final = 1
"""Bit of ForwardCall.flags: the call does not count as a use of its keys (CLIENT NO-TOUCH)."""


class Forwarder:
    """The calls of one node that are run elsewhere, or later."""

    def __init__(
        self,
        answer: Callable[[Call, list[Reply]], None],
        now: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.dial: Dial | None = None
        """None: there are no other nodes."""
        self.take_home: Callable[[Call], None] = lambda _call: None
        """Runs a call on this node, which leads; it is still counted as pending."""
        self.leader_wait_s = 2.0
        self.outcome_timeout_s = 2.0
        self.bytes_pending = 0
        self.calls_sent = 0
        self.calls_returned = 0
        """Sent, certainly not applied, and so to be sent again."""
        self.calls_lost = 0
        """Writes whose outcome could not be learnt."""
        self._answer_caller = answer
        self.now = now
        self._call_soon = call_soon
        self._call_later = call_later
        self._waiting: dict[int, Waiting] = {}
        """By call id. Invariant: those of one link are in the order in which they were given to it."""
        self._last_id = 0
        self._is_settled = True
        """Whether every call is sent on the link in use, so that a new one may follow at once."""
        self._leader: str | None = None
        self._is_home = True
        self._term = 0
        self._link: Link | None = None
        """The link in use: calls are sent on it."""
        self._dialing: Link | None = None
        self._old_links: dict[Link, int] = {}
        """Links that take nothing more and may still answer, and the term of each."""
        self._outgoing: deque[raft_pb2.ForwardCall] = deque()
        """Given to the link in use, and not yet taken by it."""
        self._redial_s = REDIAL_SECONDS_MIN
        self._is_look_due = False
        self._has_new = False
        """Whether a call came since the last look began, perhaps from a caller that was answered by it."""
        self._is_ticking = False

    @property
    def calls_pending(self) -> int:
        """Calls that are not answered."""
        return len(self._waiting)

    @property
    def is_linked(self) -> bool:
        """Whether there is a stream to the leader."""
        return self._link is not None

    # -- taking and sending -------------------------------------------------------------------------------------------

    def take(self, call: Call, commands: bytes, wait_s: float | None = None) -> None:
        """Keep a call, counted as pending by its caller, until it is answered; hot on a follower.

        ``commands`` is the RESP of all its commands if it is at hand, else empty. ``wait_s``: what it waits for a
        leader, if not ``leader_wait_s``.
        """
        if not commands and (admitted := call.admitted()):
            commands = encode_commands(admitted)
        if self.bytes_pending and self.bytes_pending + len(commands) > BYTES_MAX and commands:
            call, commands = call.refused(Overloaded()), b""
        waiting = Waiting(call, commands, self.now() + (self.leader_wait_s if wait_s is None else wait_s))
        self._last_id += 1
        call_id = self._last_id
        self._waiting[call_id] = waiting
        self.bytes_pending += waiting.bytes
        session = call.session
        session.away += 1
        if self._is_settled and self._link is not None and waiting.replies is None and session.pending == session.away:
            self._send(call_id, waiting, self._link)
            return
        self._is_settled = False
        self._has_new = True
        if self._link is not None or self._is_home or waiting.replies is not None:
            self._look_soon()
        else:
            self._tick_later()

    def _send(self, call_id: int, waiting: Waiting, link: Link) -> None:
        call = waiting.call
        waiting.link = link
        self.calls_sent += 1
        if not self._outgoing:
            link.wake()
        self._outgoing.append(
            raft_pb2.ForwardCall(
                call_id=call_id,
                session_id=call.session.id,
                db=call.db,
                commands=waiting.commands,
                flags=NO_TOUCH if call.session.no_touch else 0,
            )
        )

    def next_request(self, link: Link) -> raft_pb2.ForwardRequest | None:
        """Return what is to be sent on a link next, or None."""
        outgoing = self._outgoing
        if link is not self._link or not outgoing:
            return None
        calls: list[raft_pb2.ForwardCall] = []
        length = 0
        while outgoing and length < REQUEST_BYTES_MAX:
            call = outgoing.popleft()
            calls.append(call)
            length += len(call.commands)
        return raft_pb2.ForwardRequest(term=self._term, calls=calls)

    # -- links --------------------------------------------------------------------------------------------------------

    def led_by(self, leader: str | None, is_leader: bool, term: int) -> None:
        """Learn who leads in which term; ``leader`` is None as long as nobody is known, or it is this node."""
        if (leader, is_leader, term) == (self._leader, self._is_home, self._term):
            return
        self._retire()
        self._leader = None if is_leader else leader
        self._is_home = is_leader
        self._term = term
        if is_leader or leader is not None:
            for link, its_term in self._old_links.items():
                if its_term < term:
                    self._call_later(OLD_LEADER_SECONDS, partial(self.broken, link))
        self._redial_s = REDIAL_SECONDS_MIN
        self._dial()
        if self._waiting:
            self._is_settled = False
            self._look_soon()

    def opened(self, link: Link) -> None:
        """Learn that a link can take requests."""
        if link is not self._dialing:
            link.close()
            return
        self._dialing, self._link = None, link
        self._look()

    def broken(self, link: Link) -> None:
        """Learn that a link has ended or never opened."""
        if link is self._dialing:
            self._dialing = None
            self._redial_later()
        elif link is self._link:
            self._take_back_outgoing()
            self._link = None
            self._redial_later()
        elif link in self._old_links:
            del self._old_links[link]
        else:
            return
        link.close()
        self._lose(link)
        self._look()

    def received(self, link: Link, response: raft_pb2.ForwardResponse) -> None:
        """Take the leader's answers."""
        has_returned = False
        for answer in response.replies:
            waiting = self._waiting.get(answer.call_id)
            if waiting is None or waiting.link is not link:
                continue  # a read that was sent again meanwhile
            if answer.not_applied:
                self._wait_again(waiting)
                self.calls_returned += 1
                has_returned = True
                continue
            try:
                replies = decode_replies(answer.replies)
                if waiting.parts:
                    waiting.parts += replies
                    replies = waiting.parts
                missing = len(waiting.call.admitted()) - len(replies)
                if missing < 0:
                    raise RepliesDamaged("more replies than commands")
            except RepliesDamaged:
                self.broken(link)
                return
            if missing:
                waiting.parts = replies
                continue
            if waiting.call.row is None:
                replies = waiting.call.with_refusals(replies)
            self._redial_s = REDIAL_SECONDS_MIN
            if self._is_settled:
                self._answer(answer.call_id, waiting, replies)
            else:
                waiting.link = None
                waiting.replies = replies
        if has_returned and link is self._link:
            self._retire()
            self._redial_later()
        if not self._is_settled:
            self._look_soon()

    def _dial(self) -> None:
        if self._leader is not None and self.dial is not None and self._link is None and self._dialing is None:
            self._dialing = self.dial(self._leader)

    def _redial_later(self) -> None:
        term = self._term
        self._call_later(self._redial_s, lambda: self._dial() if self._term == term else None)
        self._redial_s = min(2 * self._redial_s, REDIAL_SECONDS_MAX)

    def _retire(self) -> None:
        """Send nothing more on the link in use; what was sent may still be answered."""
        if self._dialing is not None:
            self._dialing.close()
            self._dialing = None
        link = self._link
        if link is None:
            return
        self._take_back_outgoing()
        self._link = None
        self._is_settled = False
        sent = [waiting for waiting in self._waiting.values() if waiting.link is link]
        writers = {waiting.call.session for waiting in sent if waiting.call.has_writes}
        for waiting in sent:
            if waiting.call.session not in writers:
                self._wait_again(waiting)
        self._old_links[link] = self._term
        self._call_later(self.outcome_timeout_s, partial(self.broken, link))

    def _take_back_outgoing(self) -> None:
        """Let calls wait again that the link in use was given and has not taken."""
        while self._outgoing:
            self._wait_again(self._waiting[self._outgoing.popleft().call_id])

    def _lose(self, link: Link) -> None:
        """Decide about what was sent on a link that has ended: from the last call of each caller to its first."""
        has_lost: set[Session] = set()
        """Callers with a write behind whose outcome is unknown: a read run again would see it too early."""
        for _call_id, waiting in sorted(self._waiting.items(), key=arrival, reverse=True):
            if waiting.link is not link:
                continue
            self._wait_again(waiting)
            call = waiting.call
            if call.session in has_lost:
                self._replace(waiting, call.refused(LeadershipLost()))
            elif call.has_writes:
                self.calls_lost += 1
                has_lost.add(call.session)
                self._replace(waiting, call.lost(LeadershipLost()))

    def _wait_again(self, waiting: Waiting) -> None:
        waiting.link = None
        waiting.parts = []
        waiting.due_s = max(waiting.due_s, self.now() + RETURNED_SECONDS)
        self._is_settled = False

    def _replace(self, waiting: Waiting, call: Call) -> None:
        """Keep a call with errors in place of some of its commands."""
        waiting.call = call
        waiting.commands = encode_commands(call.admitted())
        if not waiting.commands:
            waiting.replies = call.with_refusals([])

    # -- looking after what waits -------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        if not self._is_look_due:
            self._is_look_due = True
            self._call_soon(self._look)

    def _tick_later(self) -> None:
        if not self._is_ticking:
            self._is_ticking = True
            self._call_later(max(TICK_SECONDS, len(self._waiting) * TICK_SECONDS_PER_CALL), self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        self._look()

    def _look(self) -> None:
        """Send, run at home, answer or give up what waits, as far as the order of each caller allows."""
        self._is_look_due = False
        if self._is_settled:
            return
        self._has_new = False
        now_s = self.now()
        may_follow: dict[Session, bool] = {}
        """Of each caller with a call that stays: whether the next one may be sent behind it."""
        is_settled = True
        for call_id, waiting in sorted(self._waiting.items(), key=arrival):
            session = waiting.call.session
            is_first = session not in may_follow
            if is_first and session.pending > session.away:
                is_first = may_follow[session] = False
            if waiting.link is not None:
                may_follow[session] = may_follow.get(session, True) and waiting.link is self._link
                is_settled &= waiting.link is self._link
            elif waiting.replies is not None:
                if is_first:
                    self._answer(call_id, waiting, waiting.replies)
                else:
                    is_settled = False
                    if self._is_home:
                        # What runs here is answered by others, who know nothing of this answer.
                        may_follow[session] = False
            elif not may_follow.get(session, True):
                is_settled = False
            elif self._is_home:
                self._forget(call_id, waiting)
                self.take_home(waiting.call)
                may_follow[session] = True
            elif self._link is not None:
                self._send(call_id, waiting, self._link)
                may_follow[session] = True
            elif is_first and now_s >= waiting.due_s:
                waiting.call = waiting.call.refused(NoLeader())
                self._answer(call_id, waiting, waiting.call.with_refusals([]))
            else:
                may_follow[session] = False
                is_settled = False
        self._is_settled = is_settled and not self._has_new
        self._close_old_links()
        if not self._is_settled:
            self._tick_later()

    def _close_old_links(self) -> None:
        """Close links that have said all that there was to say."""
        if self._old_links:
            used = {id(waiting.link) for waiting in self._waiting.values()}
            for link in [link for link in self._old_links if id(link) not in used]:
                del self._old_links[link]
                link.close()

    def _answer(self, call_id: int, waiting: Waiting, replies: list[Reply]) -> None:
        self._forget(call_id, waiting)
        self._answer_caller(waiting.call, replies)

    def _forget(self, call_id: int, waiting: Waiting) -> None:
        del self._waiting[call_id]
        self.bytes_pending -= waiting.bytes
        waiting.call.session.away -= 1
