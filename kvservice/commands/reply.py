"""The values that commands answer with; the edges encode them as RESP2, RESP3 or protobuf.

A reply is one of ``bytes`` (bulk string), ``int``, ``float`` (RESP3 double), ``bool`` (RESP3 boolean), ``None`` (null),
``list`` (array), ``dict`` (RESP3 map, flat array in RESP2), or one of the classes below.

Guarantees: a reply never aliases a mutable value of the keyspace, so that it may be encoded after later commands ran.
Leaves to the caller: encoding (gateway/resp, api/convert).
Reference: RESP3 specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, Union

from kvservice.errors import RedanError


class Status:
    """A RESP simple string, such as ``+OK``."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Status) and other.text == self.text

    def __hash__(self) -> int:
        return hash((Status, self.text))

    def __repr__(self) -> str:
        return f"Status({self.text!r})"


class ErrorReply:
    """A RESP error line without the leading dash, and the error that caused it (for gRPC details)."""

    __slots__ = ("cause", "text")

    def __init__(self, cause: RedanError) -> None:
        self.cause = cause
        self.text = cause.line.encode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ErrorReply) and other.text == self.text

    def __hash__(self) -> int:
        return hash((ErrorReply, self.text))

    def __repr__(self) -> str:
        return f"ErrorReply({self.text!r})"


class Verbatim:
    """A RESP3 verbatim string (``txt``), a bulk string in RESP2; INFO and the doctors answer with it."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


class SetReply(list["Reply"]):
    """A RESP3 set, an array in RESP2."""

    __slots__ = ()


class PushReply(list["Reply"]):
    """A RESP3 out-of-band push, an array in RESP2."""

    __slots__ = ()


class Pending:
    """A reply that comes later; the connection's following commands wait for it.

    States: pending → resolved, once; resolving a second time is a no-op, because a timer and a closed connection may
    both want to end the wait.
    """

    __slots__ = ("_on_resolved", "_reply", "is_resolved", "is_timed")

    def __init__(self, is_timed: bool = False) -> None:
        self.is_timed = is_timed
        """The caller set a limit to its wait."""
        self.is_resolved = False
        self._reply: Reply = None
        self._on_resolved: Callable[[Reply], None] | None = None

    def then(self, on_resolved: Callable[[Reply], None]) -> None:
        """Call ``on_resolved`` with the reply: now if it is there, else when it comes. One listener only."""
        assert self._on_resolved is None, "a pending reply has one listener"
        self._on_resolved = on_resolved
        if self.is_resolved:
            on_resolved(self._reply)

    def resolve(self, reply: Reply) -> None:
        """Give the reply."""
        if self.is_resolved:
            return
        self.is_resolved = True
        self._reply = reply
        if self._on_resolved is not None:
            self._on_resolved(reply)


Reply: TypeAlias = Union[  # noqa: UP007 - the alias names itself, and X | "Reply" is no type at run time
    bytes, int, float, bool, Status, ErrorReply, Verbatim, list["Reply"], dict["Reply", "Reply"], None
]

OK: Final = Status(b"OK")
PONG: Final = Status(b"PONG")
