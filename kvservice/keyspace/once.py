"""The first answers to writes that carry a request id, so that one that is sent again is answered and not done again.

Part of the replicated state: every node has the same answers, after a failover and from a snapshot as well. The oldest
are forgotten first, when there are more than ``REQUESTS_MAX`` or they take more than ``BYTES_MAX``: at 1,000 such
writes a second a client has 100 seconds to try again, which is longer than any deadline it should have.

Guarantees: the same calls give the same content and the same digest on every node. An id comes back with its first
answer only for the same command on the same database.
Leaves to the caller: asking before a command runs, remembering after it ran (commands/once).
Cost: 3 us a write: the digest of its arguments, and the encoding of its reply.
Reference: Raft thesis, section 6.3 (sessions; ids of requests instead, as calls have no session here).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

import google_crc32c

from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args
from kvservice.errors import OutcomeUnknownError, RequestError
from kvservice.forwarding.reply_codec import decode_replies, encode_replies

REQUESTS_MAX: Final = 100_000
BYTES_MAX: Final = 32 * 1024 * 1024
"""About 300 bytes for each at most: few answers are longer than that."""
REPLY_BYTES_MAX: Final = 1024 * 1024
"""A longer answer (the old value of a SET …) is not kept: it would push out thousands of others."""
REQUEST_BYTES: Final = 200
"""What a request costs besides its reply: an id, a digest, a tuple, and its place in the dict."""
ID_BYTES_MAX: Final = 64
"""A UUID has 36 as text."""


class RequestIdReused(RequestError):  # noqa: N818 - named as the rest of the tree
    """The request id came with another command."""

    reason = "REQUEST_ID_REUSED"
    default_text = "the request id was used before, for another command; each write needs one of its own"


class ReplyNotKept(OutcomeUnknownError):  # noqa: N818 - named as the rest of the tree
    """The command ran when it came first; its reply was too long to be remembered."""

    grpc_status = "RESOURCE_EXHAUSTED"
    reason = "REPLY_NOT_KEPT"
    default_text = "the command was executed when it came first, and its reply was too long to be kept"


class Answer(NamedTuple):
    """What is remembered of a request."""

    request_id: bytes
    arguments: bytes
    """Digest of database and command."""
    reply: bytes
    """Encoded; empty if it was too long."""

    @property
    def cost(self) -> int:
        """Bytes that it is counted with."""
        return REQUEST_BYTES + len(self.reply)

    @property
    def digest(self) -> int:
        """A number that differs when any part differs."""
        return int(google_crc32c.value(self.request_id + self.arguments + self.reply))


class OnceTable:
    """Answers by request id, oldest first."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Answer] = {}
        self.bytes_used = 0
        self.digest = 0
        """Sum of the digests of all answers."""

    def take(self, other: OnceTable) -> None:
        """Hold what another table holds, instead of what this one held."""
        self._answers, self.bytes_used, self.digest = other._answers, other.bytes_used, other.digest

    def __len__(self) -> int:
        return len(self._answers)

    def knows(self, request_id: bytes) -> bool:
        """Tell whether a request is remembered."""
        return request_id in self._answers

    def first_reply(self, request_id: bytes, arguments: bytes) -> tuple[Reply] | None:
        """Return the reply that a request got first, or None if it is new or forgotten.

        Raises RequestIdReused, ReplyNotKept, and the error that the request got.
        """
        answer = self._answers.get(request_id)
        if answer is None:
            return None
        if answer.arguments != arguments:
            raise RequestIdReused
        if not answer.reply:
            raise ReplyNotKept
        [reply] = decode_replies(answer.reply)
        if isinstance(reply, ErrorReply):
            raise reply.cause
        return (reply,)

    def remember(self, request_id: bytes, arguments: bytes, reply: Reply) -> None:
        """Keep the reply to a request that was not known."""
        encoded = encode_replies([reply])
        self.load(Answer(request_id, arguments, encoded if len(encoded) <= REPLY_BYTES_MAX else b""))

    def load(self, answer: Answer) -> None:
        """Add an answer behind all others, and forget the oldest if there is no room."""
        assert answer.request_id not in self._answers, "a request is answered once"
        self._answers[answer.request_id] = answer
        self.bytes_used += answer.cost
        self.digest += answer.digest
        while len(self._answers) > REQUESTS_MAX or self.bytes_used > BYTES_MAX:
            oldest = self._answers.pop(next(iter(self._answers)))
            self.bytes_used -= oldest.cost
            self.digest -= oldest.digest

    def answers(self) -> list[Answer]:
        """Return all answers, oldest first; they never change."""
        return list(self._answers.values())


def digest_of(db: int, command: Args) -> bytes:
    """Return the digest of a command on a database."""
    digest = blake2b(b"%d" % db, digest_size=16)
    for argument in command:
        digest.update(b":%d:" % len(argument))
        digest.update(argument)
    return digest.digest()
