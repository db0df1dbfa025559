"""Which node to ask: the leader if it is known, for any other node has to ask it too; else any that answers.

Guarantees: a node that failed is asked again only when no other is left, or after ``AVOID_SECONDS``. The addresses that
the caller gave are never forgotten, whatever the cluster says of its own: those may lead nowhere from here.
Leaves to the caller: asking for Status, and the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from redan_client.stubs import cluster_pb2, kv_pb2

AVOID_SECONDS: Final = 2.0
"""About as long as a node needs to start anew, and longer than an election."""
DEFAULT_PORT: Final = 7400


def with_port(address: str) -> str:
    """Return host:port of an address that may lack the port. Raise ValueError for one that is none."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{address!r} is no address; host:port is one, [::1]:7400 too")
    return f"{host}:{port}"


class Routes:
    """The nodes as one client knows them."""

    def __init__(self, addresses: Sequence[str]) -> None:
        if isinstance(addresses, str):
            addresses = addresses.split(",")
        self._given = list(dict.fromkeys(with_port(address.strip()) for address in addresses))
        if not self._given:
            raise ValueError("at least one address is needed")
        self._members: list[str] = []
        """Addresses of members, as the cluster told them."""
        self._avoided: dict[str, float] = {}
        """Address → until when."""
        self._target = ""
        self._term = 0

    def target(self) -> str:
        """Return whom to ask, "" if it has to be found out first."""
        return self._target

    def candidates(self, now: float) -> list[str]:
        """Return whom to ask for Status, in order: those that failed of late come last, the latest at the end."""
        known = list(dict.fromkeys([*self._given, *self._members]))
        return sorted(known, key=lambda address: until if (until := self._avoided.get(address, 0.0)) > now else 0.0)

    def failed(self, address: str, now: float) -> None:
        """Note that a node should not be asked next."""
        self._avoided[address] = now + AVOID_SECONDS
        if self._target == address:
            self._target = ""

    def learned(self, address: str, status: cluster_pb2.StatusResponse, now: float) -> None:
        """Note what the node at an address said of the cluster."""
        self._members = [member.grpc_address for member in status.members if member.grpc_address]
        self._term = max(self._term, status.term)
        self._target = address
        for member in status.members:
            if member.leader and member.grpc_address and self._avoided.get(member.grpc_address, 0.0) <= now:
                self._target = member.grpc_address
        if status.node == status.leader:
            self._target = address

    def use(self, address: str) -> None:
        """Ask this node until it fails."""
        self._target = address

    def answered(self, header: kv_pb2.ResponseHeader) -> None:
        """Note a response: in a new term there may be a new leader, which has to be found out."""
        if header.term > self._term:
            self._term, self._target = header.term, ""
