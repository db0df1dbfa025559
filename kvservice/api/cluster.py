"""The cluster service: what this node is and how it stands.

Guarantees: answers without the log, so also while there is no leader.
Leaves to the caller: decoding, admission, errors as status (kvservice.api.calls).
Reference: redan/cluster/v1/cluster.proto.
"""

from __future__ import annotations

from time import time

from google.protobuf.duration_pb2 import Duration

from kvservice.api.calls import CallContext
from kvservice.commands.info import redan_version
from kvservice.errors import Loading
from kvservice.service import Service
from kvservice.starting import StartingNode
from redan.cluster.v1 import cluster_pb2
from replication.core.raft import Role

ROLES = {
    Role.LEADER: cluster_pb2.ROLE_LEADER,
    Role.FOLLOWER: cluster_pb2.ROLE_FOLLOWER,
    Role.CANDIDATE: cluster_pb2.ROLE_CANDIDATE,
}


class ClusterService:
    """Calls of redan.cluster.v1.ClusterService; methods have the names of the calls."""

    def __init__(self, service: Service, cluster_id: str) -> None:
        self._service = service
        self._cluster_id = cluster_id

    async def status(self, _request: cluster_pb2.StatusRequest, _context: CallContext) -> cluster_pb2.StatusResponse:
        """Describe this node and the members that it knows. Raise Loading before consensus has begun."""
        service = self._service
        config = service.config
        node = service.node
        if isinstance(node, StartingNode):
            raise Loading
        members = [
            cluster_pb2.Member(name=member.name, voter=True, peer_address=str(member.address))
            for member in config.members
        ]
        return cluster_pb2.StatusResponse(
            cluster_id=self._cluster_id,
            node=config.name,
            version=redan_version(),
            uptime=Duration(seconds=int(time() - service.started_s)),
            role=ROLES[node.raft.role],
            term=node.term,
            leader=node.leader_id or "",
            last_index=node.last_index,
            commit_index=node.commit_index,
            applied_index=node.applied_index,
            members=members,
        )
