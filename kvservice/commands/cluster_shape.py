"""The members of the cluster in the shape in which Redis shows servers: one shard of all slots, master and replicas.

The leader is shown as the master of all slots, since commands sent there take no further step, and the others as its
replicas. Without a known leader the node that is asked shows itself: it keeps commands until there is one, and cluster
clients that find a master for no slot give up.

Guarantees: a member's id and the shard's depend on names alone, so that all nodes show the same, at any time.
Leaves to the caller: the form of the reply (commands/cluster, info, server).
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

from kvservice.commands.ports import GroupPort, MemberView, PeerView, ServicePort


class Endpoint(NamedTuple):
    """Where clients reach a member; host "" and port 0 if it has not said yet."""

    host: str
    port: int


class Shape(NamedTuple):
    """The cluster as one shard."""

    master: MemberView
    replicas: list[MemberView]


def is_clustered(service: ServicePort) -> bool:
    """Tell whether clients should see a cluster: there is more than one member."""
    return len(service.group.members()) > 1


def endpoint_of(address: str) -> Endpoint:
    """Return host and port of ``host:port``; an IPv6 host comes without brackets."""
    host, _, port = address.rpartition(":")
    return Endpoint(host.strip("[]"), int(port)) if port.isdigit() else Endpoint("", 0)


def shape_of(service: ServicePort) -> Shape:
    """Return who serves all slots, and everybody else."""
    members = list(service.group.members())
    leader, own = service.node.leader_id, service.config.name
    reachable = {member.name: member for member in members if member.resp_address}
    master = next((reachable[name] for name in (leader, own) if name in reachable), members[0])
    return Shape(master, [member for member in members if member is not master])


def followers(group: GroupPort) -> list[tuple[Endpoint, PeerView]]:
    """Return those that follow this node and are heard from, if it leads, with where clients reach them."""
    endpoints = {member.name: endpoint_of(member.resp_address) for member in group.members()}
    return [(endpoints[peer.name], peer) for peer in group.peers() if peer.is_active and peer.name in endpoints]


def node_id(group: GroupPort, name: str) -> str:
    """Return the id of a member: 40 hexadecimal digits."""
    return sha1(f"{group.cluster_id}/{name}".encode(), usedforsecurity=False).hexdigest()


def shard_id(group: GroupPort) -> str:
    """Return the id of the one shard."""
    return sha1(group.cluster_id.encode(), usedforsecurity=False).hexdigest()
