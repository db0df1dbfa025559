"""The plane between nodes, assembled: who this node says it is, what it answers to others, and its links to them.

Order: ``start`` binds and answers Introduce, also while the node has no cluster → ``enter`` once the charter is durable
→ ``attach`` once the log is read: from here on peers reach the node → ``stop``.

Guarantees: an address that cannot be had is an OSError. A node that asks to join under the name of a member that lives
elsewhere is refused.
Leaves to the caller: the decision how to begin (kvservice/cluster/bootstrap), and what happens to messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import grpc

from kvservice.certificates import peer_tls
from kvservice.cluster.addresses import advertised, can_be_dialed
from kvservice.cluster.admin import Administration
from kvservice.cluster.bootstrap import ASK_SECONDS, Newcomer, answer_of
from kvservice.cluster.charter import Charter
from kvservice.cluster.errors import NotTheLeader
from kvservice.cluster.hearing import Hearing
from kvservice.cluster.members import Addresses, Members
from kvservice.config import Config
from kvservice.config_values import HostPort, parse_member_name, parse_reachable_address
from kvservice.errors import RedanError, RequestError
from kvservice.logs import Event, Log
from kvservice.stats import PeerTraffic
from persistence.disk import Disk
from redan.raft.v1 import raft_pb2
from replication.core import membership
from replication.core.membership import Configuration
from replication.leased_node import LeasedNode
from replication.peer_channel import Dialer, PeerOptions
from replication.peer_greeting import Introduction, NodeIdentity
from replication.peer_secret import ClusterSecret
from replication.peer_server import PeerServer
from replication.peer_servicer import Attached, ForwardStream, PeerServicer, RpcRefused
from replication.peers import PeerEvent, Peers
from replication.snapshot_receiver import SnapshotReceiver
from replication.snapshot_stream import SnapshotSender
from replication.wire import StateDigest

if TYPE_CHECKING:
    from replication.node import Node

REFUSED_NAMES_MAX: Final = 128
"""Names of callers that were refused and are remembered: twice the members that a cluster can have."""
REFUSED_LINES_MAX: Final = 128
"""Lines about refused callers in REFUSED_SECONDS: one for each name; whoever invents names fills no disk with them."""
REFUSED_SECONDS: Final = 60.0

log = Log("peers")

_EVENTS: Final = {
    PeerEvent.CONNECTED: (Event.PEER_CONNECTED, log.info),
    PeerEvent.LOST: (Event.PEER_LOST, log.warning),
    PeerEvent.UNREACHABLE: (Event.PEER_UNREACHABLE, log.warning),
    PeerEvent.SNAPSHOT_SENT: (Event.SNAPSHOT_SENT, log.info),
    PeerEvent.SNAPSHOT_NOT_SENT: (Event.SNAPSHOT_NOT_SENT, log.warning),
}


class PeerPlane:
    """What other nodes see of this one, and it of them."""

    def __init__(
        self, config: Config, members: Members, snapshots: Path, disk: Disk, directory_id: str, incarnation: int
    ) -> None:
        # snapshots: their directory. directory_id: random, of this data directory. incarnation: greater at each start.
        self._config = config
        self._members = members
        self._snapshots = snapshots
        self._disk = disk
        self._directory_id = directory_id
        self._charter: Charter | None = None
        self._node: Node | None = None
        self._receiver: SnapshotReceiver | None = None
        self._snapshots_sent = 0
        self.first = Configuration(())
        """What the settings say of the first members; told to others that found a cluster."""
        self.on_useless_snapshot: Callable[[Path | None, str], None] = lambda _path, _reason: None
        """Told which snapshot is damaged and how, or with None that there is none for a peer that needs one."""
        options = PeerOptions(snapshot_bytes_per_second=config.snapshot_transfer_bytes_per_second)
        tls = peer_tls(config)
        self.identity = NodeIdentity(
            config.name, incarnation, read_mode=config.read_mode, election_timeout_ms=config.election_timeout_ms
        )
        secret = ClusterSecret(config.cluster_secret) if config.cluster_secret else None
        self.dialer = Dialer(options, tls, name=config.name, secret=secret)
        self._refused: dict[str, str] = {}
        """Why callers were refused that were not let in since, by the name that they gave."""
        self._refused_lines = 0
        """Lines about them, since the moment below."""
        self._refused_since_s = 0.0
        self.servicer = PeerServicer(
            self.identity,
            introduce=self._introduce,
            join=self._join,
            on_greeted=self._greeted,
            on_unheard=lambda sender: self.peers.unheard(sender),
            on_refused=self._log_refusal,
            secret=secret,
        )
        self._server = PeerServer(str(config.peer_addr), self.servicer, options, tls)
        sender = SnapshotSender(
            snapshots,
            disk,
            self.identity,
            self.dialer,
            on_useless=lambda path, reason: self.on_useless_snapshot(path, reason),
        )
        self.peers = Peers(self.identity, self.dialer, sender, hears=self.servicer.hears, on_event=self._happened)
        self.hearing = Hearing(self._has_stream)
        """Whether other members are there."""

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self, resp: HostPort, grpc_address: HostPort) -> None:
        """Bind and answer Introduce; the other planes are bound there. Raises OSError."""
        # Before anybody can ask, and once more when the system has chosen a port.
        self._advertise(resp, grpc_address)
        await self._server.start()
        self._advertise(resp, grpc_address)
        log.info(Event.LISTENING, plane="peer", address=self._server.address)

    def _advertise(self, resp: HostPort, grpc_address: HostPort) -> None:
        """Settle where this node says it is reached."""
        config = self._config
        listed = {member.name: str(member.address) for member in config.initial_cluster}
        peer = str(config.advertise_peer_addr or listed.get(config.name) or self._server.address)
        own = Addresses(
            peer,
            str(advertised(config.advertise_resp_addr, resp, peer)),
            str(advertised(config.advertise_grpc_addr, grpc_address, peer)),
        )
        self._members.own = own
        identity = self.identity
        identity.peer_address, identity.resp_address, identity.grpc_address = own
        if not can_be_dialed(own.peer):
            identity.peer_address = ""
        addresses = listed or {config.name: own.peer}
        self.first = Configuration(tuple(sorted(addresses)), addresses=addresses)

    def newcomer(self, *, may_found: bool) -> Newcomer:
        """Return how this node presents itself while it has no cluster."""
        return Newcomer(self._config.name, self._directory_id, self._members.own.peer, may_found)

    def enter(self, charter: Charter) -> None:
        """Belong to a cluster; its charter is durable."""
        self._charter = charter
        self._members.cluster_id = self.identity.cluster_id = charter.cluster_id

    def attach(
        self,
        node: Node,
        forward: Callable[[ForwardStream], Awaitable[None]],
        on_digest: Callable[[str, StateDigest], None],
    ) -> None:
        """Let peers reach the node."""
        self._node = node
        self._receiver = SnapshotReceiver(self._snapshots, self._disk, node.snapshot_received)
        self._administration = Administration(self._members, lambda: node)
        self.peers.attach(node)
        self.servicer.attach(Attached(node, self._receiver, forward, on_digest))

    def configuration_changed(self, configuration: Configuration, index: int) -> None:
        """Take over who the members are."""
        before = self._members.configuration
        self._members.configuration_changed(configuration, index)
        self.hearing.keep(configuration.members)
        for introduction in self.peers.introductions.values():
            self._meet(introduction)
        if configuration != before:
            log.info(
                Event.MEMBERS_CHANGED,
                voters=", ".join(configuration.voters),
                learners=", ".join(configuration.learners),
                outgoing=", ".join(configuration.outgoing),
                index=index,
            )

    async def stop(self) -> None:
        """End links, streams and the server; may be called without a start."""
        await self.peers.stop()
        await self._server.stop()
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            await receiver.stop()

    # -- what others ask ----------------------------------------------------------------------------------------------

    def _introduce(self, _request: raft_pb2.IntroduceRequest) -> raft_pb2.IntroduceResponse:
        identity, charter, node = self.identity, self._charter, self._node
        response = raft_pb2.IntroduceResponse(
            cluster_id=identity.cluster_id,
            name=identity.name,
            resp_address=identity.resp_address,
            grpc_address=identity.grpc_address,
            incarnation=identity.incarnation,
        )
        if charter is None:
            response.is_fresh = True
            response.fresh_cluster_id = self._directory_id
            response.configuration = membership.encode(self.first)
            return response
        response.founders.update(charter.founders)
        response.configuration = membership.encode(self._members.configuration)
        if node is not None:
            response.term = node.term
            response.commit_index = node.commit_index
            response.leader = node.leader_id or ""
        return response

    async def _join(self, request: raft_pb2.JoinRequest) -> raft_pb2.JoinResponse:
        """Add the node that asks as a learner, or say where the leader is."""
        node, members = self._node, self._members
        if node is None or self._charter is None:
            raise RpcRefused(grpc.StatusCode.UNAVAILABLE, f"{self.identity.name} has no cluster yet")
        if request.cluster_id and request.cluster_id != members.cluster_id:
            text = f"this is cluster {members.cluster_id}, and {request.cluster_id} was asked for"
            raise RpcRefused(grpc.StatusCode.FAILED_PRECONDITION, text)
        if not node.is_leader:
            return self._not_the_leader()
        try:
            name, address = parse_member_name(request.name), str(parse_reachable_address(request.peer_address))
        except ValueError as error:
            raise RpcRefused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        progress = node.raft.progress.get(name)
        known = members.configuration.addresses.get(name)
        if name == members.name or (known not in (None, address) and progress is not None and progress.is_heard):
            text = f"a member named {name} lives at {known or members.own.peer}: choose another name"
            raise RpcRefused(grpc.StatusCode.FAILED_PRECONDITION, text)
        try:
            await self._administration.add(name, address)
        except NotTheLeader:
            return self._not_the_leader()
        except RedanError as error:
            final = isinstance(error, RequestError)
            code = grpc.StatusCode.FAILED_PRECONDITION if final else grpc.StatusCode.UNAVAILABLE
            raise RpcRefused(code, error.text) from error
        return raft_pb2.JoinResponse(
            accepted=True,
            cluster_id=members.cluster_id,
            leader=members.name,
            leader_address=members.own.peer,
            configuration=membership.encode(members.configuration),
        )

    def _not_the_leader(self) -> raft_pb2.JoinResponse:
        leader = (self._node.leader_id if self._node is not None else None) or ""
        address = self._members.addresses_of(leader).peer if leader else ""
        return raft_pb2.JoinResponse(cluster_id=self._members.cluster_id, leader=leader, leader_address=address)

    def traffic(self) -> PeerTraffic:
        """Return what has gone between this node and others to replicate, and what waits."""
        links = self.peers.links.values()
        return PeerTraffic(
            self.servicer.bytes_received + (self._receiver.bytes_received if self._receiver is not None else 0),
            self.peers.bytes_sent,
            self._snapshots_sent,
            self.servicer.streams + sum(link.is_open for link in links),
            sum(link.queued_bytes for link in links),
            self.servicer.messages_received,
            self.peers.messages_sent,
        )

    # -- where others are ---------------------------------------------------------------------------------------------

    def reached(self) -> dict[str, str]:
        """Return where members are reached, by name; without those that are not."""
        links = self.peers.links.items()
        return {name: link.target for name, link in links if link.is_open and name in self._members}

    def _has_stream(self, peer: str) -> bool:
        link = self.peers.links.get(peer)
        return (link is not None and link.is_open) or self.servicer.hears(peer)

    # -- what this node asks ------------------------------------------------------------------------------------------

    async def is_removed(self) -> bool:
        """Ask the other members whether this node was removed behind its back: who is removed is told nothing more."""
        members = self._members
        request = raft_pb2.IntroduceRequest(cluster_id=members.cluster_id, name=members.name)
        for name, address in members.configuration.addresses.items():
            if name == members.name:
                continue
            try:
                answer = answer_of(await self.peers.introduce(address, request, ASK_SECONDS))
            except (grpc.aio.AioRpcError, OSError, ValueError):
                continue
            # Somebody who knows less may not have heard yet that this node was added.
            least = members.configuration_index + (members.name in members)
            is_late = answer.cluster_id == members.cluster_id and answer.commit_index >= least
            if is_late and answer.leader and members.name not in answer.configuration.members:
                return True
        return False

    # -- what happens -------------------------------------------------------------------------------------------------

    def _greeted(self, introduction: Introduction) -> None:
        self._refused.pop(introduction.name, None)
        self._meet(introduction)
        if isinstance(self._node, LeasedNode):
            self._hear_promise(self._node, introduction)
        self.hearing.greeted(introduction.name)
        self.peers.greeted(introduction)

    def _hear_promise(self, node: LeasedNode, peer: Introduction) -> None:
        """Tell the node whether a peer honours leases, and for how long; say it once if not long enough for its own."""
        if node.promised(peer.name, peer.election_timeout_ms if peer.read_mode == "lease" else 0):
            log.warning(
                Event.LEASE_NOT_HONOURED,
                peer=peer.name,
                peer_read_mode=peer.read_mode,
                peer_election_timeout_ms=peer.election_timeout_ms,
                read_mode=self._config.read_mode,
                election_timeout_ms=self._config.election_timeout_ms,
            )

    def _log_refusal(self, name: str, address: str, text: str) -> None:
        """Say who was not let in and why, once for each reason: a peer tries again every second."""
        if self._refused.pop(name, "") != text:
            if (now_s := monotonic()) >= self._refused_since_s + REFUSED_SECONDS:
                self._refused_since_s, self._refused_lines = now_s, 0
            if self._refused_lines >= REFUSED_LINES_MAX:
                return
            self._refused_lines += 1
            log.warning(Event.PEER_REFUSED, peer=name, address=address.partition(":")[2], text=text)
        while len(self._refused) >= REFUSED_NAMES_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[name] = text

    def _happened(self, event: PeerEvent, peer: str, text: str) -> None:
        name, write = _EVENTS[event]
        write(name, peer=peer, text=text)
        self._snapshots_sent += event is PeerEvent.SNAPSHOT_SENT
        if event is PeerEvent.CONNECTED:
            self._members.problems.pop(peer, None)
        elif event in (PeerEvent.LOST, PeerEvent.UNREACHABLE) and peer in self._members:
            self._members.problems[peer] = text
        if (introduction := self.peers.introductions.get(peer)) is not None:
            self._meet(introduction)

    def _meet(self, introduction: Introduction) -> None:
        addresses = Addresses(introduction.peer_address, introduction.resp_address, introduction.grpc_address)
        self._members.met(introduction.name, addresses)
