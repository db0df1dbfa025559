"""Who belongs to the cluster, and where each member is reached, as one node knows it.

Guarantees: the names and peer addresses are those of the last configuration that this node has applied; addresses for
clients are what a member said of itself when it last met this node, and "" before that.
Leaves to the caller: telling it of configurations and of nodes met (kvservice/server).
"""

from __future__ import annotations

from typing import NamedTuple

from kvservice.config import Config
from replication.core.membership import Configuration


class Addresses(NamedTuple):
    """Where one node is reached, each as host:port."""

    peer: str
    resp: str = ""
    grpc: str = ""


class Member(NamedTuple):
    """One member as this node knows it."""

    name: str
    is_voter: bool
    addresses: Addresses


def first_configuration(config: Config) -> Configuration:
    """Return the configuration that a cluster of ``initial_cluster`` begins with."""
    addresses = {member.name: str(member.address) for member in config.members}
    return Configuration(tuple(sorted(addresses)), addresses=addresses)


class Members:
    """The members of the cluster as one node knows them."""

    def __init__(self, name: str, own: Addresses, cluster_id: str = "") -> None:
        self.name = name
        self.own = own
        """Where this node itself is reached; kvservice/server fills in ports that the kernel has chosen."""
        self.cluster_id = cluster_id
        """Identity of the cluster; "" while the node is in none."""
        self.configuration = Configuration(())
        self.configuration_index = 0
        """Index of its entry; 0 if it is the first one."""
        self.problems: dict[str, str] = {}
        """Why members cannot be reached from here, by name."""
        self._met: dict[str, Addresses] = {}

    def configuration_changed(self, configuration: Configuration, index: int) -> None:
        """Take over a configuration that was applied; forget nodes that belong to it no more."""
        self.configuration = configuration
        self.configuration_index = index
        present = set(configuration.members)
        self._met = {name: addresses for name, addresses in self._met.items() if name in present}
        self.problems = {name: problem for name, problem in self.problems.items() if name in present}

    def met(self, name: str, addresses: Addresses) -> None:
        """Remember where a member says it is reached; empty addresses leave what is known."""
        if name == self.name or name not in self.configuration.members:
            return
        known = self._met.get(name, Addresses(""))
        self._met[name] = Addresses(*(new or old for new, old in zip(addresses, known, strict=True)))

    def addresses_of(self, name: str) -> Addresses:
        """Return where a member is reached; the peer address is the configuration's."""
        known = self.own if name == self.name else self._met.get(name, Addresses(""))
        return known._replace(peer=self.configuration.addresses.get(name) or known.peer)

    def said_by(self, name: str) -> str:
        """Return the peer address that a member last told of itself; "" if it has told none."""
        return (self.own if name == self.name else self._met.get(name, Addresses(""))).peer

    @property
    def is_learner(self) -> bool:
        """Whether this node is a member without a vote."""
        return self.configuration.is_learner(self.name)

    def __contains__(self, name: str) -> bool:
        return name in self.configuration.members

    def rows(self) -> list[Member]:
        """Return every member: voters first, then by name."""
        configuration = self.configuration
        rows = [Member(name, configuration.is_voter(name), self.addresses_of(name)) for name in configuration.members]
        return sorted(rows, key=lambda row: (not row.is_voter, row.name))
