"""The state of a whole cluster as `redan ctl status` shows it: every member asked, at one time.

Guarantees: a member that does not answer is a row and a problem, and delays the others by PROBE_SECONDS at most.
Leaves to the caller: printing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import grpc

from kvservice.cluster.client import PROBE_SECONDS, ClusterClient
from redan.cluster.v1 import cluster_pb2

ASKED_AT_ONCE: Final = 16


HEADINGS: Final = (
    "NODE",
    "ROLE",
    "TERM",
    "LAST",
    "COMMIT",
    "APPLIED",
    "LAG",
    "DIGEST",
    "READY",
    "RESP",
    "GRPC",
    "VERSION",
    "UPTIME",
)


class Overview(NamedTuple):
    """What was found."""

    cluster_id: str
    leader: str
    nodes: dict[str, Any]
    """By name the StatusResponse of each member, None of one that did not answer."""
    members: dict[str, Any]
    peers: dict[str, Any]
    """By name, how the leader sees the others."""
    problems: list[str]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table, one row a node."""
        return [self._row(name) for name in self.nodes]

    def _row(self, name: str) -> tuple[str, ...]:
        state, peer, member = self.nodes[name], self.peers.get(name), self.members.get(name)
        lag = digest = "-"
        # Of a member that the leader does not hear of, old findings are no news; that it diverged stays true.
        if peer is not None and peer.active:
            lag = str(peer.lag_entries)
        if peer is not None and (peer.active or peer.digest == cluster_pb2.DIGEST_STATE_DIVERGED):
            digest = digest_name(peer.digest)
        resp, where = (member.resp_address, member.grpc_address) if member is not None else ("", "")
        if state is None:
            role = "learner?" if member is not None and not member.voter else "?"
            return (name, role, "-", "-", "-", "-", lag, digest, "no answer", resp or "-", where or "-", "-", "-")
        ready = "yes" if not state.not_ready else ", ".join(state.not_ready)
        return (
            name,
            role_name(state.role),
            str(state.term),
            str(state.last_index),
            str(state.commit_index),
            str(state.applied_index),
            lag,
            digest,
            "quarantined" if state.quarantined else ready,
            resp or "-",
            where or "-",
            state.version,
            f"{state.uptime.seconds}s",
        )

    def as_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "cluster_id": self.cluster_id,
            "leader": self.leader,
            "problems": self.problems,
            "nodes": [self._node_json(name) for name in self.nodes],
        }

    def _node_json(self, name: str) -> dict[str, Any]:
        state, peer, member = self.nodes[name], self.peers.get(name), self.members.get(name)
        found: dict[str, Any] = {"name": name, "answers": state is not None}
        if member is not None:
            found |= {"voter": member.voter, "peer_address": member.peer_address}
            found |= {"resp_address": member.resp_address, "grpc_address": member.grpc_address}
        if state is not None:
            keys = ("version", "term", "leader", "last_index", "commit_index", "applied_index", "quarantined")
            found |= {key: getattr(state, key) for key in (*keys, "snapshot_index", "log_bytes")}
            found |= {"role": role_name(state.role), "not_ready": list(state.not_ready)}
            found |= {"uptime_seconds": state.uptime.seconds}
        if peer is not None:
            found |= {"match_index": peer.match_index, "lag_entries": peer.lag_entries, "active": peer.active}
            found |= {"state": cluster_pb2.PeerState.Name(peer.state).removeprefix("PEER_STATE_").lower()}
            found |= {"digest": digest_name(peer.digest), "digest_index": peer.digest_index}
        return found


def role_name(role: Any) -> str:
    """Return a role in a word."""
    return str(cluster_pb2.Role.Name(role)).removeprefix("ROLE_").lower()


def digest_name(digest: Any) -> str:
    """Return the outcome of comparing two states in a word; a dash before any."""
    if digest == cluster_pb2.DIGEST_STATE_UNSPECIFIED:
        return "-"
    return str(cluster_pb2.DigestState.Name(digest)).removeprefix("DIGEST_STATE_").lower()


def overview(client: ClusterClient, endpoints: Sequence[str]) -> Overview:
    """Ask an endpoint for the members, and then every member for itself. Raises CallFailed if no endpoint answers."""
    first = client.call("Status", cluster_pb2.StatusRequest())
    members = {member.name: member for member in first.members}
    nodes: dict[str, Any] = {name: first if name == first.node else None for name in members}
    addresses = [member.grpc_address for member in first.members if member.name != first.node and member.grpc_address]
    others = dict.fromkeys([*addresses, *endpoints])
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        for state in pool.map(lambda address: _state_of(client, address), others):
            if state is not None and state.cluster_id == first.cluster_id:
                nodes[state.node] = state
    states = [state for state in nodes.values() if state is not None]
    leading = [state for state in states if state.role == cluster_pb2.ROLE_LEADER]
    latest = max(leading, key=lambda state: int(state.term), default=None)
    peers = {peer.name: peer for peer in latest.peers} if latest is not None else {}
    seen = Overview(first.cluster_id, latest.node if latest is not None else "", nodes, members, peers, [])
    seen.problems.extend(_problems(seen))
    return seen


def _state_of(client: ClusterClient, address: str) -> Any:
    try:
        return client.ask(address, "Status", cluster_pb2.StatusRequest(), PROBE_SECONDS)
    except grpc.RpcError:
        return None


def _problems(seen: Overview) -> list[str]:
    found = [f"{name} does not answer" for name, state in seen.nodes.items() if state is None]
    if not seen.leader:
        found.append("no node that answers leads")
    found += [
        f"{name} has diverged from the leader: see docs/operations.md"
        for name, peer in seen.peers.items()
        if peer.digest == cluster_pb2.DIGEST_STATE_DIVERGED
    ]
    found += [
        f"{name} is not ready: {', '.join(state.not_ready)}"
        for name, state in seen.nodes.items()
        if state is not None and state.not_ready
    ]
    return found
