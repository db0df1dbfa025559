"""Whether this node was removed from its cluster, and what follows from it.

Nobody speaks to a node that was removed, and perhaps not even the news of its removal came in time: so a node that
knows no leader asks the other members, every ASK_TICKS, whether they have one without it. A configuration without this
node is no proof: one that joins passes through those of times when it was no member.

Guarantees: a removed node says so in its log, refuses data commands at once instead of letting clients wait for
a leader, is not ready, and stands for no election. All of that ends when a leader speaks to it again.
Leaves to the caller: a tick every 10 ms, and the asking itself (kvservice/cluster/peer_plane).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvservice.cluster.errors import Removed
from kvservice.logs import Event, Log

if TYPE_CHECKING:
    from kvservice.cluster.members import Members
    from kvservice.service import Service
    from replication.node import Node

ASK_TICKS: Final = 200
"""Two seconds without a leader, several elections: time to ask whether the others have one without this node."""

log = Log("cluster")


class Removal:
    """What one node knows of its own removal."""

    def __init__(self, service: Service, members: Members, ask: Callable[[], None]) -> None:
        # ask: begin to ask the other members; `answered` is called with what they say.
        self._service = service
        self._members = members
        self._ask = ask
        self._leaderless_ticks = 0
        self._is_removed = False
        self._refusal = Removed()

    @property
    def is_removed(self) -> bool:
        """Whether the node belongs to its cluster no more."""
        return self._is_removed

    @property
    def refusal(self) -> Removed | None:
        """What data commands are answered, None while they are run."""
        return self._refusal if self._is_removed else None

    def tick(self, node: Node) -> None:
        """Let 10 ms pass."""
        if node.leader_id is not None:
            self._leaderless_ticks = 0
            if self._is_removed and self._members.name in self._members:
                self._belong()
            return
        self._leaderless_ticks += 1
        if self._leaderless_ticks % ASK_TICKS == 0 and not self._is_removed:
            self._ask()

    def answered(self, node: Node, *, is_removed: bool) -> None:
        """Learn what the other members say; it counts if there is still no leader."""
        if is_removed and node.leader_id is None:
            node.raft.is_removed = True
            self._leave()

    def _leave(self) -> None:
        if self._is_removed:
            return
        self._is_removed = True
        log.error(Event.REMOVED_FROM_CLUSTER, cluster=self._members.cluster_id)
        if self._service.refusal is None:
            self._service.refusal = self._refusal

    def _belong(self) -> None:
        self._is_removed = False
        if self._service.refusal is self._refusal:
            self._service.refusal = None
