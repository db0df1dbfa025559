"""Where members are reached: what a node says of itself, and what the leader writes down when one has moved.

Cases, on the leader (``Movers.look``, once a second):

A. its own address is not what the configuration has: the others have to know;
B. a member is reached, and not at the address that the configuration has (replication/peers tries both): it came back
   at another address;
C. a member is reached at the address of the configuration, whatever it says of itself: a person wrote that down, and
   there may be something in between that the member does not know of.

Guarantees: one change at a time, and none to an address that nobody can connect to.
Leaves to the caller: members that all move at once. They cannot find each other: names for addresses are for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvservice.config_values import ANY_HOSTS, HostPort, is_reachable, parse_address
from replication.core.membership import Change, ChangeKind

if TYPE_CHECKING:
    from kvservice.cluster.members import Members
    from kvservice.cluster.peer_plane import PeerPlane
    from replication.node import Node


def advertised(chosen: HostPort | None, bound: HostPort, peer_address: str) -> HostPort:
    """Return what a node says of a plane that is bound to ``bound``.

    That is ``chosen``, or where it is bound, with the host of its peer address if that is any host.
    """
    if chosen is not None:
        return chosen
    peer = parse_address(peer_address)
    return HostPort(peer.host, bound.port) if bound.host in ANY_HOSTS and is_reachable(peer) else bound


def can_be_dialed(peer_address: str) -> bool:
    """Tell whether other nodes can connect to what a node says is its peer address."""
    try:
        return is_reachable(parse_address(peer_address))
    except ValueError:
        return False


class Movers:
    """The members that are to be found elsewhere."""

    def __init__(self, members: Members, peers: PeerPlane) -> None:
        self._members = members
        self._peers = peers

    def look(self, node: Node) -> None:
        """Propose a change of one address, if this node leads and a member has moved."""
        members = self._members
        if not node.is_leader or len(members.configuration.members) < 2:
            return
        for name, address in {members.name: members.own.peer, **self._peers.reached()}.items():
            if can_be_dialed(address) and members.configuration.addresses.get(name) != address:
                node.change([Change(ChangeKind.CHANGE_ADDRESS, name, address)], lambda _error: None)
                return
