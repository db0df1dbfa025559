"""WAIT and WAITAOF: how many other members have the caller's writes on their disks, and waiting until enough have.

A write is answered when a majority has it, so that many are known on every node, at once; more may have to be waited
for. The index waited for is that of the last entry applied when the command came, as none of the caller's is behind it:
but for a write that was answered as unknown. Until the caller has another one applied, no copy is certain, at once.

Only the leader knows how far each member is. Elsewhere the command goes to it in pieces of at most ``PIECE_MS``, so
that nothing is left behind there when the caller goes; it is asked again wherever leadership moves. A piece is shorter
than the time that is left, so that the leader's last word is there when the time is over.

Guarantees: a member is counted only if the entry is durable there and the same; the answer comes when enough are
counted or the time is over, and is then what is known for certain, enough or not.
Leaves to the caller: checking the arguments (kvservice/commands/server).
Reference: the Redis command pages of WAIT and WAITAOF.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from kvservice.batch import Call
from kvservice.commands.reply import ErrorReply, Pending, Reply, Status
from kvservice.commands.table import Args, Command
from kvservice.session import Session

if TYPE_CHECKING:
    from kvservice.service import Service

LOOK_SECONDS_MIN: Final = 0.001
"""The first look after this: a third member is usually some 100 us behind the second."""
LOOK_SECONDS_MAX: Final = 0.02
PIECE_MS: Final = 1_000

HERE: Final = Status(b"HERE")
"""What a command that was meant for another leader is answered when this node has become the leader meanwhile."""


def _is_here(_context: object, _args: Args) -> Reply:
    return HERE


ASKED: Final = Command("redan.ask", _is_here, -1, frozenset({"fast"}))
"""Row of a command on its way to the leader."""

Answer = Callable[[int, bool], Reply]
"""Makes the reply of how many others have the entry, and whether it is durable on the leader."""
IsEnough = Callable[[Reply], bool]


class Question(Session):
    """One command that another node is asked, on behalf of a caller."""

    def __init__(self, session_id: int, db: int, answered: Callable[[Reply], None]) -> None:
        super().__init__(session_id, "", "", 0.0)
        self.db = db
        self._answered = answered

    def deliver(self, replies: list[Reply]) -> None:
        """Pass the answer on."""
        self._answered(replies[0])

    def close(self, after_replies: bool = True) -> None:
        """Be asked on; what comes is for nobody."""
        self.is_closed = True


class Wait:
    """One caller that waits."""

    def __init__(
        self,
        service: Service,
        session: Session,
        args: Args,
        timeout_ms: int,
        answer: Answer,
        is_enough: IsEnough,
    ) -> None:
        # args: the command, whose last argument is the time; another node is asked with less of it.
        self.pending = Pending(is_timed=timeout_ms > 0)
        self._service = service
        self._session = session
        self._args = args
        self._answer = answer
        self._is_enough = is_enough
        self._index = service.node.applied_index
        self._told: Reply | None = None
        """The last word of a leader."""
        self._deadline_s = service.forwarder.now() + timeout_ms / 1000 if timeout_ms else None
        self._look_s = LOOK_SECONDS_MIN
        if session.is_in_doubt:
            self.pending.resolve(answer(0, False))
            return
        if self._deadline_s is not None:
            service.after(timeout_ms / 1000, self._give_up)
        self._look()

    def _look(self) -> None:
        """Answer if that is possible by now; else ask, or look again later."""
        if self.pending.is_resolved or self._session.is_closed:
            return
        reply = self._known()
        if self._is_enough(reply):
            self.pending.resolve(reply)
        elif self._service.node.is_leader:
            self._look_later()
        else:
            self._ask()

    def _known(self) -> Reply:
        """Return the reply that this node can give for certain."""
        group, is_leader = self._service.group, self._service.node.is_leader
        counted = sum(peer.match_index >= self._index for peer in group.peers())
        voters = sum(member.is_voter for member in group.members())
        return self._answer(max(counted, voters // 2), is_leader and group.durable_index >= self._index)

    def _look_later(self) -> None:
        self._service.after(self._look_s, self._look)
        self._look_s = min(2 * self._look_s, LOOK_SECONDS_MAX)

    def _ask(self) -> None:
        """Let the leader answer, as far as one piece of the time goes."""
        service = self._service
        piece_ms = PIECE_MS
        if self._deadline_s is not None:
            left_ms = round((self._deadline_s - service.forwarder.now()) * 1000)
            piece_ms = max(1, min(PIECE_MS, left_ms // 2))
        args = [*self._args[:-1], b"%d" % piece_ms]
        question = Question(service.next_session_id(), self._session.db, self._asked)
        service.router.enqueue(Call(question, question.db, [ASKED], [args], perf_counter_ns(), ASKED), b"")

    def _asked(self, reply: Reply) -> None:
        if reply is HERE or isinstance(reply, ErrorReply):
            self._look_later()
        elif self._is_enough(reply):
            self.pending.resolve(reply)
        else:
            self._told = reply
            self._look_later()

    def _give_up(self) -> None:
        known = self._known()
        if self._told is not None and not self._service.node.is_leader:
            known = self._told
        self.pending.resolve(known)
