"""The cluster as INFO, CLUSTER, ROLE, WAIT and /metrics show it: put together from what the parts of the node know.

Guarantees: what is shown was true a moment ago on this node; only a leader knows exactly how far others are.
Leaves to the caller: the forms of Redis (kvservice/commands).
"""

from __future__ import annotations

from kvservice.cluster.divergence import Agreement
from kvservice.cluster.errors import Removed
from kvservice.cluster.hearing import Hearing
from kvservice.cluster.members import Members
from kvservice.commands.ports import MemberView, PeerView, Sighting
from kvservice.service import Service
from kvservice.starting import StartingNode


class GroupView:
    """The cluster as one node sees it."""

    def __init__(self, service: Service, members: Members, hearing: Hearing) -> None:
        self._service = service
        self._members = members
        self._hearing = hearing

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster; "" while the node is in none."""
        return self._members.cluster_id

    @property
    def role(self) -> str:
        """What the node is: leader, follower, candidate or learner."""
        node = self._service.node
        if self._members.is_learner:
            return "learner"
        return "follower" if isinstance(node, StartingNode) else node.raft.role.value

    @property
    def is_quarantined(self) -> bool:
        """Whether the node lost what it had acknowledged, and has no say until it has caught up."""
        node = self._service.node
        return not isinstance(node, StartingNode) and node.raft.is_quarantined

    @property
    def is_removed(self) -> bool:
        """Whether the node belongs to its cluster no more, and refuses commands on data."""
        return isinstance(self._service.refusal, Removed)

    @property
    def durable_index(self) -> int:
        """Index of the last entry that is on this node's own disk."""
        node = self._service.node
        return 0 if isinstance(node, StartingNode) else node.raft.log.durable

    @property
    def agreement(self) -> str:
        """What comparing states with all others gave: equal, diverged or unknown; of a removed node unknown."""
        return Agreement.UNKNOWN.value if self.is_removed else self._service.divergence.agreement.value

    def agreement_with(self, name: str) -> str:
        """What comparing states with one other member gave: equal, diverged or unknown."""
        return self._service.divergence.with_peer(name).agreement.value

    @property
    def checkpoint(self) -> tuple[int, int] | None:
        """Index and digest of the newest state that others are told."""
        return self._service.machine.digests.checkpoint()

    @property
    def requests_remembered(self) -> int:
        """Writes with a request id whose first answers are kept."""
        return len(self._service.machine.once)

    def members(self) -> list[MemberView]:
        """Return every member, voters first; this node alone before any are known."""
        rows = [
            MemberView(row.name, row.is_voter, row.addresses.resp, row.addresses.peer) for row in self._members.rows()
        ]
        own = self._members.own
        return rows or [MemberView(self._members.name, True, own.resp, own.peer)]

    def sighting(self, name: str) -> Sighting:
        """Return what this node knows of another member by itself, whether it leads or not."""
        node = self._service.node
        if isinstance(node, StartingNode):
            return Sighting(False, 0)
        if node.is_leader:
            progress = node.raft.progress.get(name)
            return Sighting(False, 0) if progress is None else Sighting(progress.is_heard, progress.match)
        index = self._hearing.index_of(name)
        if name == node.leader_id:
            return Sighting(node.hears_leader, max(index, node.raft.leader_committed or 0))
        return Sighting(self._hearing.hears(name), index)

    def peers(self) -> list[PeerView]:
        """Return how far the other members are, by name, if this node leads; nothing else."""
        node = self._service.node
        if isinstance(node, StartingNode) or not node.is_leader:
            return []
        last_index = node.last_index
        divergence = self._service.divergence
        return [
            PeerView(
                name,
                progress.match,
                max(0, last_index - progress.match),
                progress.state.value,
                progress.is_heard,
                divergence.with_peer(name).agreement.value,
            )
            for name, progress in sorted(node.raft.progress.items())
            if name != self._members.name
        ]
