"""What leaves for the peers, grouped by peer.

Guarantees: messages to one peer keep their order; those of one call travel together.
Leaves to the caller: holding back what rests on the disk until that has reported (replication/node).
"""

from __future__ import annotations

from collections.abc import Iterable

from replication.core.messages import InstallSnapshot, Message
from replication.ports import CrashPoint, Transport

Addressed = tuple[str, Message]


class Outbox:
    """Sends what a Ready brings."""

    __slots__ = ("_crash_point", "_transport")

    def __init__(self, transport: Transport, crash_point: CrashPoint) -> None:
        self._transport = transport
        self._crash_point = crash_point

    def send(self, messages: list[Addressed]) -> None:
        """Send messages that promise nothing."""
        self._crash_point("sending")
        self._group_and_send(messages)
        self._crash_point("sent")

    def promise(self, promises: list[Addressed], term: int) -> None:
        """Send what rests on the disk. A promise of an earlier term than ``term`` is of use to nobody any more."""
        self._crash_point("promising")
        self._group_and_send(promise for promise in promises if promise[1].term >= term)
        self._crash_point("promised")

    def _group_and_send(self, messages: Iterable[Addressed]) -> None:
        by_peer: dict[str, list[Message]] = {}
        for peer, message in messages:
            if type(message) is InstallSnapshot:
                self._transport.send_snapshot(peer, message)
            elif peer in by_peer:
                by_peer[peer].append(message)
            else:
                by_peer[peer] = [message]
        for peer, group in by_peer.items():
            self._transport.send(peer, group)
