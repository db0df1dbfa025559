"""A call that waits for another node, and the stream that it waits on, as the forwarder sees them.

Guarantees: no behaviour beyond what a call costs and where it stands.
Leaves to the caller: what is done with it, and when (forwarding/forwarder).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from kvservice.batch import Call
from kvservice.commands.reply import Reply

CALL_BYTES: Final = 512
"""What a call costs besides its commands; so at most 131,072 calls wait."""


class Link(Protocol):
    """A stream to one leader; it is told to wake when ``Forwarder.next_request`` has something for it."""

    def wake(self) -> None:
        """Take requests soon, until there is none. No call waits."""

    def close(self) -> None:
        """End the stream; nothing that comes over it counts any more."""


Dial = Callable[[str], Link]
"""Opens a link to a named node; ``Forwarder.opened`` or ``broken`` is to be called later, not in this call."""


class Waiting:
    """A call and how far it is."""

    __slots__ = ("bytes", "call", "commands", "due_s", "link", "parts", "replies", "since_ns")

    def __init__(self, call: Call, commands: bytes, due_s: float) -> None:
        self.call = call
        self.since_ns = call.arrived_ns
        """When it arrived here; grows from call to call of one caller, and is its place among them."""
        self.commands = commands
        """RESP of what is to be run; empty if nothing is."""
        self.bytes = len(commands) + CALL_BYTES
        self.link: Link | None = None
        """The link that it was given to."""
        self.parts: list[Reply] = []
        """The first replies, while they are not complete."""
        self.replies: list[Reply] | None = None if commands else call.with_refusals([])
        self.due_s = due_s
        """When it has waited long enough."""


def arrival(item: tuple[int, Waiting]) -> int:
    """Return the place of a call, given with its id, among those of its caller."""
    return item[1].since_ns
