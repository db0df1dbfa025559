"""The cluster service: what this node is, how the members stand, and changes of them.

Guarantees: Status answers without the log, so also while there is no leader.
Leaves to the caller: decoding, admission, errors as status (kvservice.api.calls); what a change does
(kvservice.cluster.admin).
Reference: redan/cluster/v1/cluster.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration

from kvservice.api.calls import CallContext
from kvservice.api.commands import check_duration
from kvservice.api.status import InvalidField
from kvservice.cluster.admin import CATCH_UP_SECONDS, AdministeredNode, Administration
from kvservice.cluster.divergence import Agreement
from kvservice.cluster.members import Members
from kvservice.commands.info import redan_version
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.config_values import parse_member_name, parse_reachable_address
from kvservice.errors import Loading
from kvservice.health import NodeHealth
from kvservice.service import Service
from kvservice.starting import StartingNode
from redan.cluster.v1 import cluster_pb2
from replication.core.progress import Progress, ProgressState
from replication.core.raft import Role

if TYPE_CHECKING:
    from replication.node import Node

ROLES: Final = {
    Role.LEADER: cluster_pb2.ROLE_LEADER,
    Role.FOLLOWER: cluster_pb2.ROLE_FOLLOWER,
    Role.CANDIDATE: cluster_pb2.ROLE_CANDIDATE,
}
PEER_STATES: Final = {
    ProgressState.PROBE: cluster_pb2.PEER_STATE_PROBE,
    ProgressState.REPLICATE: cluster_pb2.PEER_STATE_REPLICATE,
    ProgressState.SNAPSHOT: cluster_pb2.PEER_STATE_SNAPSHOT,
}
DIGEST_STATES: Final = {
    Agreement.UNKNOWN: cluster_pb2.DIGEST_STATE_UNSPECIFIED,
    Agreement.EQUAL: cluster_pb2.DIGEST_STATE_EQUAL,
    Agreement.DIVERGED: cluster_pb2.DIGEST_STATE_DIVERGED,
}
CATCH_UP_SECONDS_MAX: Final = 3600


class ClusterService:
    """Calls of redan.cluster.v1.ClusterService; methods have the names of the calls."""

    def __init__(self, service: Service, health: NodeHealth, members: Members) -> None:
        self._service = service
        self._health = health
        self._members = members
        self._administration = Administration(members, self._node)

    def _node(self) -> Node:
        """Return the node. Raise Loading before consensus has begun."""
        node = self._service.node
        if isinstance(node, StartingNode):
            raise Loading
        return node

    async def status(self, _request: cluster_pb2.StatusRequest, _context: CallContext) -> cluster_pb2.StatusResponse:
        """Describe this node, the members that it knows, and its peers if it leads."""
        service = self._service
        node = self._node()
        raft = node.raft
        return cluster_pb2.StatusResponse(
            cluster_id=self._members.cluster_id,
            node=service.config.name,
            version=redan_version(),
            uptime=Duration(seconds=int(time() - service.started_s)),
            role=cluster_pb2.ROLE_LEARNER if self._members.is_learner else ROLES[raft.role],
            term=node.term,
            leader=node.leader_id or "",
            last_index=node.last_index,
            commit_index=node.commit_index,
            applied_index=node.applied_index,
            members=self._member_rows(node),
            peers=self._peer_rows(getattr(raft, "progress", {}), node.last_index) if node.is_leader else [],
            not_ready=self._health.reasons_not_ready(),
            quarantined=getattr(raft, "is_quarantined", False),
            snapshot_index=service.snapshots.last_index,
            log_bytes=service.wal_stats.bytes_on_disk,
        )

    async def list_members(
        self, _request: cluster_pb2.ListMembersRequest, _context: CallContext
    ) -> cluster_pb2.ListMembersResponse:
        """List the members of the last configuration that is applied here."""
        return cluster_pb2.ListMembersResponse(
            members=self._member_rows(self._node()), configuration_index=self._members.configuration_index
        )

    async def add_member(
        self, request: cluster_pb2.AddMemberRequest, _context: CallContext
    ) -> cluster_pb2.AddMemberResponse:
        """Add a learner."""
        try:
            address = parse_reachable_address(request.peer_address)
        except ValueError as error:
            raise InvalidField("peer_address", str(error)) from error
        await self._administration.add(_checked_name(request.name), str(address))
        return cluster_pb2.AddMemberResponse(members=self._member_rows(self._node()))

    async def promote_member(
        self, request: cluster_pb2.PromoteMemberRequest, _context: CallContext
    ) -> cluster_pb2.PromoteMemberResponse:
        """Give a learner a vote."""
        check_duration(request.catch_up_timeout, "catch_up_timeout")
        seconds = request.catch_up_timeout.seconds + request.catch_up_timeout.nanos / 1e9 or CATCH_UP_SECONDS
        if not 0 < seconds <= CATCH_UP_SECONDS_MAX:
            description = f"is {seconds:g} s, allowed are more than 0 and not more than {CATCH_UP_SECONDS_MAX}"
            raise InvalidField("catch_up_timeout", description)
        await self._administration.promote(_checked_name(request.name), seconds)
        return cluster_pb2.PromoteMemberResponse(members=self._member_rows(self._node()))

    async def remove_member(
        self, request: cluster_pb2.RemoveMemberRequest, _context: CallContext
    ) -> cluster_pb2.RemoveMemberResponse:
        """Remove a member."""
        await self._administration.remove(_checked_name(request.name), is_forced=request.force)
        return cluster_pb2.RemoveMemberResponse(members=self._member_rows(self._node()))

    async def transfer_leadership(
        self, request: cluster_pb2.TransferLeadershipRequest, _context: CallContext
    ) -> cluster_pb2.TransferLeadershipResponse:
        """Make another voter the leader."""
        leader = await self._administration.transfer(_checked_name(request.name) if request.name else "")
        return cluster_pb2.TransferLeadershipResponse(leader=leader, term=self._node().term)

    async def take_snapshot(
        self, _request: cluster_pb2.TakeSnapshotRequest, _context: CallContext
    ) -> cluster_pb2.TakeSnapshotResponse:
        """Write a snapshot here."""
        self._node()
        written: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._service.save().then(lambda reply: None if written.done() else written.set_result(reply))
        reply = await written
        if isinstance(reply, ErrorReply):
            raise reply.cause
        snapshots = self._service.snapshots
        return cluster_pb2.TakeSnapshotResponse(last_index=snapshots.taken_index, bytes=snapshots.last_bytes)

    def _member_rows(self, node: AdministeredNode) -> list[cluster_pb2.Member]:
        return [
            cluster_pb2.Member(
                name=row.name,
                voter=row.is_voter,
                peer_address=row.addresses.peer,
                resp_address=row.addresses.resp,
                grpc_address=row.addresses.grpc,
                leader=row.name == node.leader_id,
            )
            for row in self._members.rows()
        ]

    def _peer_rows(self, progress: Mapping[str, Progress], last_index: int) -> list[cluster_pb2.Peer]:
        compared = self._service.divergence.with_peer
        return [
            cluster_pb2.Peer(
                name=name,
                match_index=peer.match,
                lag_entries=max(0, last_index - peer.match),
                state=PEER_STATES[peer.state],
                active=peer.is_heard,
                digest=DIGEST_STATES[compared(name).agreement],
                digest_index=compared(name).index,
            )
            for name, peer in sorted(progress.items())
            if name != self._members.name
        ]


def _checked_name(name: str) -> str:
    try:
        return parse_member_name(name)
    except ValueError as error:
        raise InvalidField("name", str(error)) from error
