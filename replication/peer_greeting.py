"""The greeting at the start of every stream between nodes: who speaks, to whom, of which cluster.

Guarantees: a stream carries nothing before its greeting was accepted. A node of another cluster, a node under another
name (an address that was given to somebody else), and a node that speaks to itself are refused with a text that names
both sides.
Leaves to the caller: proof of the name; that is what certificates are for.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from redan.raft.v1 import raft_pb2

FEATURE_LEVEL: Final = 1


class GreetingRefused(Exception):  # noqa: N818 -- it says what happened
    """The other side is not who it should be; the text is for an operator."""


class Introduction(NamedTuple):
    """What a peer said of itself."""

    name: str
    incarnation: int
    """Which start of the peer this is; grows with every start."""
    peer_address: str
    resp_address: str
    grpc_address: str
    feature_level: int
    in_return: bool = False
    """The peer knows this node only because this node had greeted it."""
    read_mode: str = ""
    """What its reads rest on; empty from an earlier version."""
    election_timeout_ms: int = 0


class NodeIdentity:
    """Who this node is; ``cluster_id`` is empty until it belongs to a cluster, and then stays."""

    __slots__ = (
        "cluster_id",
        "election_timeout_ms",
        "grpc_address",
        "incarnation",
        "name",
        "peer_address",
        "read_mode",
        "resp_address",
    )

    def __init__(
        self,
        name: str,
        incarnation: int,
        *,
        cluster_id: str = "",
        peer_address: str = "",
        resp_address: str = "",
        grpc_address: str = "",
        read_mode: str = "",
        election_timeout_ms: int = 0,
    ) -> None:
        # Addresses are host:port, as others reach this node. Incarnation: see Introduction.
        self.cluster_id = cluster_id
        self.name = name
        self.incarnation = incarnation
        self.peer_address = peer_address
        self.resp_address = resp_address
        self.grpc_address = grpc_address
        self.read_mode = read_mode
        self.election_timeout_ms = election_timeout_ms

    def greeting(self, receiver: str, *, in_return: bool = False) -> raft_pb2.Greeting:
        """Return what this node says first to ``receiver``; ``in_return`` if it is in no configuration known here."""
        return raft_pb2.Greeting(
            cluster_id=self.cluster_id,
            sender=self.name,
            receiver=receiver,
            feature_level=FEATURE_LEVEL,
            incarnation=self.incarnation,
            peer_address=self.peer_address,
            resp_address=self.resp_address,
            grpc_address=self.grpc_address,
            in_return=in_return,
            read_mode=self.read_mode,
            election_timeout_ms=self.election_timeout_ms,
        )

    def accept(self, greeting: raft_pb2.Greeting, *, expected: str | None = None) -> Introduction:
        """Return who greets. Raise GreetingRefused if it is nobody that this node talks to.

        ``expected`` is the name of the peer that was dialed; None where this node was dialed.
        """
        if not greeting.sender:
            raise GreetingRefused("the first request of a stream has to be a greeting that names its sender")
        if greeting.cluster_id != self.cluster_id:
            raise GreetingRefused(
                f"{greeting.sender} belongs to cluster {greeting.cluster_id or '(none)'}, and {self.name} to "
                f"{self.cluster_id or '(none)'}"
            )
        if greeting.receiver != self.name:
            raise GreetingRefused(f"{greeting.sender} looks for a node named {greeting.receiver}, this is {self.name}")
        if greeting.sender == self.name:
            raise GreetingRefused(f"a node named {self.name} speaks to a node of that name: names have to differ")
        if expected is not None and greeting.sender != expected:
            raise GreetingRefused(f"{expected} was dialed, and {greeting.sender} answered: its address is another's")
        return Introduction(
            greeting.sender,
            greeting.incarnation,
            greeting.peer_address,
            greeting.resp_address,
            greeting.grpc_address,
            min(greeting.feature_level, FEATURE_LEVEL),
            greeting.in_return,
            greeting.read_mode,
            greeting.election_timeout_ms,
        )
