"""The leader's side of forwarding: runs calls of other nodes' callers as if the callers were here, and answers each.

Each stream has a session for every caller of the other node that waits for an answer. A stream refuses nothing, or
everything from some point on: when this node does not lead in the term that the other believes in, refuses data
commands, or gets a call back that is not applied. So a later call of a caller is never run before an earlier one that
the other node sends again: on a new stream, when it knows the fate of all that it sent on this one.

Guarantees: every call is answered once: by one reply for each command, or as not applied; those of one caller that are
run are run in their order. Replies that are long together come in several answers to the same call, in order. Nothing
is answered once the stream has ended.
Leaves to the caller: carrying requests and responses (forwarding/streams). A request whose bytes are no commands raises
``CallDamaged``; the stream is to be ended then.
Reference: Raft thesis, section 6.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from kvservice.commands.reply import ErrorReply, Reply, Status
from kvservice.errors import RequestError
from kvservice.forwarding.forwarder import NO_TOUCH
from kvservice.forwarding.reply_codec import encode_replies
from kvservice.gateway.resp import decode_commands
from kvservice.service import Service
from kvservice.session import Session
from redan.raft.v1 import raft_pb2

RESPONSE_BYTES_MAX: Final = 1024 * 1024
"""A response is closed when it is so long."""
REPLY_BYTES_MAX: Final = 1000 * 1024 * 1024
"""A reply that is longer does not fit into a message between nodes."""
_SHORT: Final = frozenset({Status, ErrorReply, int, float, bool, type(None)})


class CallDamaged(ValueError):  # noqa: N818 - named as the errors of the tree
    """The bytes of a call are no commands."""


class ReplyTooLong(RequestError):  # noqa: N818 - named as the rest of the tree
    """The reply does not fit into a message between nodes; only a read can have one like that."""

    grpc_status = "RESOURCE_EXHAUSTED"
    reason = "REPLY_TOO_LARGE"
    default_text = "the reply is too long to be passed on by this node; ask for less, or ask the leader"


class RemoteSession(Session):
    """A caller of another node, while it waits for something."""

    kind = "remote"

    def __init__(self, stream: ForwardedStream, remote_id: int) -> None:
        super().__init__(stream.service.next_session_id(), stream.peer, "", 0.0)
        self.is_trusted = True
        self.remote_id = remote_id
        """The other node's id of the caller."""
        self._stream = stream
        self._calls: deque[tuple[int, int]] = deque()
        """(call id, number of commands) of each call that is not answered, in order."""
        self._replies: list[Reply] = []
        """Replies to the first of them, while they are not complete."""

    def run(self, call: raft_pb2.ForwardCall) -> None:
        """Run a call. Raises CallDamaged."""
        try:
            commands = decode_commands(call.commands)
        except ValueError as error:
            raise CallDamaged(str(error)) from error
        if not commands:
            raise CallDamaged("a call without commands")
        # The same for all calls that wait: a caller that changes it waits for their answers before.
        self.db = call.db
        self.no_touch = bool(call.flags & NO_TOUCH)
        self._calls.append((call.call_id, len(commands)))
        self._stream.service.submit(self, [*commands], call.commands)

    def deliver(self, replies: list[Reply]) -> None:
        """Collect replies; hot."""
        calls = self._calls
        if self.is_closed or not calls:
            return
        if self._replies or len(replies) != calls[0][1]:
            self._replies += replies
            while calls and len(self._replies) >= calls[0][1]:
                call_id, count = calls.popleft()
                self._stream.answered(call_id, self._replies[:count])
                del self._replies[:count]
        else:
            self._stream.answered(calls.popleft()[0], replies)
        if not calls:
            self._stream.forget(self)

    def give_back(self) -> None:
        """Give calls beyond the first ``pending`` ones back to the other node, and take no more."""
        self._stream.refuse_from_now_on()
        self.backlog.clear()
        calls = self._calls
        while len(calls) > self.pending:
            self._stream.returned(calls.pop()[0])
        if not calls:
            self._replies.clear()
            self._stream.forget(self)

    def close(self, after_replies: bool = True) -> None:
        """Answer nothing more; what runs is finished."""
        self.is_closed = True
        self.backlog.clear()


class ForwardedStream:
    """The calls that come over one stream."""

    def __init__(self, service: Service, peer: str, wake: Callable[[], None]) -> None:
        self.service = service
        self.peer = peer
        self.is_refusing = False
        """Whether everything that comes is refused, for good."""
        self._wake = wake
        """Told when ``next_response`` has something."""
        self._sessions: dict[int, RemoteSession] = {}
        """By the other node's id of the caller: those that wait for something."""
        self._has_ended = False
        self._outgoing: deque[tuple[int, list[Reply] | None]] = deque()
        """(call id, replies) not yet taken; None = not applied. Replies refer to the keyspace's own values."""

    @property
    def callers(self) -> int:
        """Callers that wait for something."""
        return len(self._sessions)

    def received(self, request: raft_pb2.ForwardRequest) -> None:
        """Run the calls of a request, or refuse them. Raises CallDamaged."""
        service = self.service
        node = service.node
        if service.refusal is not None or service.is_away or not node.is_leader or node.term != request.term:
            self.refuse_from_now_on()
        for call in request.calls:
            if self.is_refusing:
                self.returned(call.call_id)
            elif call.db >= len(service.machine.databases):
                self.answered(call.call_id, _no_such_database(call))
            else:
                session = self._sessions.get(call.session_id)
                if session is None:
                    session = self._sessions[call.session_id] = RemoteSession(self, call.session_id)
                session.run(call)

    def refuse_from_now_on(self) -> None:
        """Refuse what comes from now on, and give back what was not proposed yet."""
        if self.is_refusing:
            return
        self.is_refusing = True
        for session in list(self._sessions.values()):
            session.give_back()

    def next_response(self) -> raft_pb2.ForwardResponse | None:
        """Return the next response, or None if there is nothing to say."""
        outgoing = self._outgoing
        if not outgoing:
            return None
        answers: list[raft_pb2.ForwardReply] = []
        length = 0
        while outgoing and length < RESPONSE_BYTES_MAX:
            call_id, replies = outgoing.popleft()
            if replies is None:
                answers.append(raft_pb2.ForwardReply(call_id=call_id, not_applied=True))
                continue
            first = _first_part(replies)
            if first < len(replies):
                outgoing.appendleft((call_id, replies[first:]))
                replies = replies[:first]
            encoded = encode_replies(replies)
            if len(encoded) > REPLY_BYTES_MAX:
                encoded = encode_replies([ErrorReply(ReplyTooLong())] * len(replies))
            length += len(encoded)
            answers.append(raft_pb2.ForwardReply(call_id=call_id, replies=encoded))
        return raft_pb2.ForwardResponse(replies=answers, term=self.service.node.term, refused=self.is_refusing)

    def ended(self) -> None:
        """Learn that the other node has gone: nobody is there to be answered."""
        self._has_ended = True
        self.is_refusing = True
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._outgoing.clear()

    # -- for its sessions ---------------------------------------------------------------------------------------------

    def answered(self, call_id: int, replies: list[Reply]) -> None:
        """Send the replies of a call."""
        self._put(call_id, replies)

    def returned(self, call_id: int) -> None:
        """Send that a call was not applied."""
        self._put(call_id, None)

    def forget(self, session: RemoteSession) -> None:
        """Drop a caller that waits for nothing."""
        self._sessions.pop(session.remote_id, None)

    def _put(self, call_id: int, replies: list[Reply] | None) -> None:
        if self._has_ended:
            return
        if not self._outgoing:
            self._wake()
        self._outgoing.append((call_id, replies))


def _no_such_database(call: raft_pb2.ForwardCall) -> list[Reply]:
    error = ErrorReply(RequestError("DB index is out of range"))
    return [error] * len(decode_commands(call.commands))


def _first_part(replies: list[Reply]) -> int:
    """Return how many of the replies go together: all, unless they are long; the rest follows in other responses."""
    kinds = set(map(type, replies))
    if len(replies) == 1 or kinds <= _SHORT:
        return len(replies)
    length = 0
    for count, reply in enumerate(replies):
        length += _length(reply)
        if length > RESPONSE_BYTES_MAX:
            return max(1, count)
    return len(replies)


def _length(reply: Reply) -> int:
    """Return about how many bytes a reply is encoded in."""
    if type(reply) is bytes:
        return len(reply)
    return sum(map(_length, reply)) if isinstance(reply, list) else 16
