"""Simulated clients: each has one connection at a time, asks, waits, and draws only the conclusions it may draw.

Rules of a client: an answer is an answer; "not applied" may be forgotten; "unknown", a lost connection and silence mean
unknown, and it goes on elsewhere. A connection that was refused has sent nothing.

Guarantees: what it was told goes to the ledger exactly as it may be understood.
Leaves to the caller: the hosts, and what becomes of a session when its process ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, Protocol

from kvservice.commands.reply import ErrorReply, Reply, Status
from kvservice.errors import NotAppliedError, OutcomeUnknownError, RequestError
from kvservice.session import Session
from kvservice.simulation.clock import VirtualClock
from kvservice.simulation.history import Answer
from kvservice.simulation.ledger import Asked, Ledger
from kvservice.simulation.rules import RuleBroken

TIMEOUT_US: Final = 8_000_000
LATENCY_US: Final = 400
DEPTH_MAX: Final = 3
"""Commands that a client sends at once."""
CHORE_SHARE: Final = 0.15
"""Of the commands, those whose answers nobody judges: only the states of the nodes are compared."""


class Door(Protocol):
    """A host as its clients see it."""

    name: str

    @property
    def is_listening(self) -> bool:
        """Whether a process would accept a connection."""

    def connect(self, client: Client) -> ClientSession:
        """Open a session of the process that runs."""

    def submit(self, session: ClientSession, commands: list[list[bytes]]) -> None:
        """Give commands to the process of a session, at once or when it runs again; nothing if it is gone."""


class ClientSession(Session):
    """A connection as the server sees it. sent: what waits for its reply, in order; None is a chore."""

    def __init__(self, session_id: int, client: Client, incarnation: int) -> None:
        super().__init__(session_id, client.name, "", 0.0)
        self.client = client
        self.incarnation = incarnation
        self.sent: deque[Asked | None] = deque()
        self.replied_us = 0
        """When the newest replies arrive at the client."""

    def deliver(self, replies: list[Reply]) -> None:
        """Send replies to the client."""
        if not self.is_closed:
            self.client.replies_left(self, replies)

    def close(self, after_replies: bool = True) -> None:
        """End the session."""
        if not self.is_closed:
            self.is_closed = True
            self.client.reset_left(self)


class Client:
    """One client."""

    def __init__(
        self,
        name: str,
        clock: VirtualClock,
        random: Random,
        ledger: Ledger,
        doors: Callable[[], list[Door]],
        pause_us: int,
        *,
        only_reads: bool = False,
    ) -> None:
        self.name = name
        self._only_reads = only_reads
        """It never waits for a write, so a node that leads no more, unknown to itself, can still answer it."""
        self.is_closing = False
        """Only last reads are still wanted."""
        self._clock = clock
        self._random = random
        self._ledger = ledger
        self._doors = doors
        self._pause_us = self._usual_pause_us = pause_us
        self._door: Door | None = None
        self._session: ClientSession | None = None
        self._turn = 0
        self._is_waiting = False
        self._chores = 0
        self._asks = 0
        """Counts plans to ask: only the newest is carried out."""
        self._later()

    # ---- asking

    def hurry(self, pause_us: int) -> None:
        """Ask with another mean pause from now on; 0 is the usual one."""
        self._pause_us = pause_us or self._usual_pause_us
        if not self._is_waiting:
            self._later()

    def _later(self) -> None:
        self._asks += 1
        self._clock.after(1 + self._random.randrange(2 * self._pause_us), self._ask, self._asks)

    def _ask(self, number: int) -> None:
        if self._is_waiting or number != self._asks:
            return
        if self._session is None and not self._connects():
            self._later()
            return
        sent: list[Asked | None] = []
        while len(sent) < 1 + self._random.randrange(DEPTH_MAX):
            asked = self._ledger.last_read(self.name)
            if asked is None:
                if self.is_closing:
                    break
                if self._only_reads or self._random.random() >= CHORE_SHARE:
                    asked = self._ledger.next(self.name, only_reads=self._only_reads)
            sent.append(asked)
        if not sent:
            self._later()
            return
        assert self._session is not None
        commands = [asked.args if asked is not None else self._chore() for asked in sent]
        self._session.sent.extend(sent)
        self._is_waiting = True
        self._turn += 1
        latency_us = self._latency()
        if self._random.random() < 0.5:
            self._clock.after(latency_us, self._arrive, self._session, commands)
        else:
            # As separate packets: later ones arrive before earlier ones are answered, or after.
            for args in commands:
                self._clock.after(latency_us, self._arrive, self._session, [args])
                latency_us += self._random.randrange(LATENCY_US)
        self._clock.after(TIMEOUT_US, self._timed_out, self._turn)

    def _connects(self) -> bool:
        doors = self._doors()
        if not doors:
            return False
        self._door = self._random.choice(doors)
        if not self._door.is_listening:
            return False
        self._session = self._door.connect(self)
        return True

    def _arrive(self, session: ClientSession, commands: list[list[bytes]]) -> None:
        if not session.is_closed and self._door is not None:
            self._door.submit(session, commands)

    def _latency(self) -> int:
        return LATENCY_US + self._random.randrange(LATENCY_US)

    def _chore(self) -> list[bytes]:
        """Return a command that changes keys nobody judges: deadlines, renames, bits."""
        choose = self._random.randrange
        self._chores += 1
        key, other, text = b"{c}%d" % choose(8), b"{c}%d" % choose(8), b"%d" % self._chores
        return self._random.choice(
            [
                [b"SET", key, text, b"PX", b"%d" % (1 + choose(5000))],
                [b"PEXPIRE", key, b"%d" % (1 + choose(3000))],
                [b"PERSIST", key],
                [b"RENAME", key, other],
                [b"COPY", key, other, b"REPLACE"],
                [b"SETBIT", key, b"%d" % choose(64), b"1"],
                [b"SETRANGE", key, b"%d" % choose(9), text],
                [b"INCRBYFLOAT", key, b"0.5"],
                [b"GETEX", key, b"PX", b"%d" % (1 + choose(3000))],
                [b"DEL", key, other],
                [b"SET", b"c%d" % choose(200), text, b"EX", b"%d" % (1 + choose(30))],
            ]
        )

    # ---- what comes back

    def replies_left(self, session: ClientSession, replies: list[Reply]) -> None:
        """Carry replies to the client."""
        # A connection keeps the order.
        arrives_us = max(self._clock.now_us + self._latency(), session.replied_us + 1)
        session.replied_us = arrives_us
        self._clock.after(arrives_us - self._clock.now_us, self._answered, session, replies)

    def reset_left(self, session: ClientSession) -> None:
        """Carry the end of a connection to the client."""
        arrives_us = max(self._clock.now_us + self._latency(), session.replied_us + 1)
        self._clock.after(arrives_us - self._clock.now_us, self._reset, session)

    def _answered(self, session: ClientSession, replies: list[Reply]) -> None:
        if session is not self._session:
            return
        if len(replies) > len(session.sent):
            raise RuleBroken("one reply a command", f"{self.name} got {replies!r} too many")
        disappointed = False
        for reply in replies:
            disappointed |= not self._take(session.sent.popleft(), reply)
        if not session.sent:
            self._is_waiting = False
            if disappointed or self._random.random() < 0.02:
                self._leave()
            self._later()

    def _take(self, asked: Asked | None, reply: Reply) -> bool:
        """Note a reply; False if another node may serve better."""
        if isinstance(reply, ErrorReply):
            cause = reply.cause
            if isinstance(cause, RequestError):
                if asked is not None:
                    self._ledger.answered(asked, [b"ERR"] * len(asked.commands))
                return True
            if not isinstance(cause, (NotAppliedError, OutcomeUnknownError)):
                raise RuleBroken("no internal error", f"{asked and asked.args} is answered {reply!r}")
            if asked is not None:
                is_unknown = isinstance(cause, OutcomeUnknownError)
                (self._ledger.lost if is_unknown else self._ledger.not_applied)(asked)
            return False
        if asked is not None:
            self._ledger.answered(asked, _answers(reply, len(asked.commands)))
        return True

    def _reset(self, session: ClientSession) -> None:
        if session is self._session:
            self._give_up()

    def _timed_out(self, turn: int) -> None:
        if self._is_waiting and turn == self._turn:
            self._give_up()

    def _give_up(self) -> None:
        """Nothing comes any more on this connection: what waits is unknown."""
        session = self._session
        assert session is not None
        self._leave()
        for asked in session.sent:
            if asked is not None:
                self._ledger.lost(asked)
        session.sent.clear()
        if self._is_waiting:
            self._is_waiting = False
            self._later()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.is_closed = True


def _answers(reply: Reply, count: int) -> list[Answer]:
    """Return the answer of each command on one key: of a reply to one, or of MGET and MSET."""
    if isinstance(reply, list):
        return [_answer(part) for part in reply]
    return [_answer(reply)] * count


def _answer(reply: Reply) -> Answer:
    if isinstance(reply, Status):
        return reply.text
    assert reply is None or isinstance(reply, (bytes, int)), f"a command answers {reply!r}"
    return reply
