"""The peer plane of a node without the node: server, links, and a listener that writes down what it is told.

Guarantees: every wait has a bound; addresses are 127.0.0.x, ports are the system's choice.
Leaves to the caller: ending every node with ``stop`` (``async with`` does it).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Self

import grpc

from persistence.disk import Disk, RealDisk
from redan.raft.v1 import raft_pb2
from replication.core.membership import Configuration
from replication.core.messages import InstallSnapshot, Message
from replication.peer_channel import Dialer, PeerOptions
from replication.peer_greeting import NodeIdentity
from replication.peer_pems import PeerTls
from replication.peer_secret import ClusterSecret
from replication.peer_server import PeerServer
from replication.peer_servicer import Attached, ForwardStream, PeerServicer, RpcRefused
from replication.peers import PeerEvent, Peers
from replication.snapshot_receiver import SnapshotReceiver
from replication.snapshot_stream import SnapshotSender
from replication.wire import StateDigest

WAIT_SECONDS: Final = 60.0
CLUSTER: Final = "c1"
QUICK: Final = PeerOptions(retry_seconds_max=0.1, greeting_seconds=30.0)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until ``condition()`` is true, in steps of a millisecond."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Listener:
    """What a node would be told."""

    def __init__(self) -> None:
        self.received: list[tuple[str, int, Message]] = []
        self.lost: list[tuple[str, float]] = []
        self.sent: list[tuple[str, bool]] = []
        self.snapshots: list[tuple[str, InstallSnapshot]] = []
        self.digests: list[tuple[str, StateDigest]] = []
        self.events: list[tuple[PeerEvent, str, str]] = []
        self.batches: list[int] = []
        """How many messages each call brought."""
        self.raises: Exception | None = None

    def receive(self, sender: str, incarnation: int, messages: list[Message]) -> None:
        if self.raises is not None:
            raise self.raises
        self.batches.append(len(messages))
        self.received.extend((sender, incarnation, message) for message in messages)

    def peer_lost(self, peer: str) -> None:
        self.lost.append((peer, asyncio.get_running_loop().time()))

    def snapshot_sent(self, peer: str, ok: bool) -> None:
        self.sent.append((peer, ok))

    def snapshot_received(self, sender: str, snapshot: InstallSnapshot) -> None:
        self.snapshots.append((sender, snapshot))

    def digest_received(self, sender: str, digest: StateDigest) -> None:
        self.digests.append((sender, digest))

    def note(self, event: PeerEvent, peer: str, text: str) -> None:
        self.events.append((event, peer, text))


async def echo(stream: ForwardStream) -> None:
    """Answer every call with its own commands."""
    while (request := await stream.read()) is not None:
        replies = [raft_pb2.ForwardReply(call_id=call.call_id, replies=call.commands) for call in request.calls]
        await stream.write(raft_pb2.ForwardResponse(replies=replies, term=request.term))


class PeerNode:
    """One node's peer plane."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cluster_id: str = CLUSTER,
        incarnation: int = 1,
        options: PeerOptions = QUICK,
        tls: PeerTls | None = None,
        disk: Disk | None = None,
        forward: Callable[[ForwardStream], Awaitable[None]] = echo,
        attached: bool = True,
        secret: str = "",
    ) -> None:
        self.name = name
        self.directory = directory
        self.disk = disk or RealDisk()
        self.disk.make_dirs(directory)
        self.listener = Listener()
        self.defects: list[BaseException] = []
        self.identity = NodeIdentity(name, incarnation, cluster_id=cluster_id, resp_address=f"{name}:6379")
        self.secret = ClusterSecret(secret) if secret else None
        self.dialer = Dialer(options, tls, name=name, secret=self.secret)
        self.refused: list[tuple[str, str]] = []
        """Who was not let in, by the name that it gave, and why."""
        self.receiver = SnapshotReceiver(directory, self.disk, self.listener.snapshot_received)
        self.useless: list[tuple[Path | None, str]] = []
        """Snapshots of this node that nobody can use, and why."""
        self.sender = SnapshotSender(
            directory,
            self.disk,
            self.identity,
            self.dialer,
            on_useless=lambda path, reason: self.useless.append((path, reason)),
        )
        self.servicer = PeerServicer(
            self.identity,
            introduce=self._introduce,
            join=self._join,
            on_greeted=lambda introduction: self.peers.greeted(introduction),
            on_unheard=lambda sender: self.peers.unheard(sender),
            on_defect=self.defects.append,
            on_refused=lambda caller, _address, text: self.refused.append((caller, text)),
            secret=self.secret,
        )
        self.peers = Peers(
            self.identity, self.dialer, self.sender, hears=self.servicer.hears, on_event=self.listener.note
        )
        self.peers.attach(self.listener)
        self.server = PeerServer(f"{host}:{port}", self.servicer, options, tls)
        self._forward = forward
        if attached:
            self.attach()

    def attach(self) -> None:
        self.servicer.attach(Attached(self.listener, self.receiver, self._forward, self.listener.digest_received))

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.identity.peer_address = self.address
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        await self.peers.stop()
        await self.server.stop()
        await self.receiver.stop()

    @property
    def address(self) -> str:
        return self.server.address

    def knows(self, *others: PeerNode, at: dict[str, str] | None = None) -> None:
        """Take the others, and this one, as the voters; ``at`` has addresses other than their own."""
        addresses = {node.name: node.address for node in (self, *others)} | (at or {})
        self.peers.peers_changed(Configuration(tuple(sorted(addresses)), addresses=addresses))

    async def has_opened(self, *others: PeerNode) -> None:
        await until(lambda: all(other.name in self.peers.links for other in others))
        await until(lambda: all(self.peers.links[other.name].is_open for other in others))

    def _introduce(self, request: raft_pb2.IntroduceRequest) -> raft_pb2.IntroduceResponse:
        return raft_pb2.IntroduceResponse(name=self.name, cluster_id=self.identity.cluster_id, leader=request.name)

    async def _join(self, request: raft_pb2.JoinRequest) -> raft_pb2.JoinResponse:
        if not request.name:
            raise RpcRefused(grpc.StatusCode.INVALID_ARGUMENT, "who joins has a name")
        return raft_pb2.JoinResponse(accepted=True, cluster_id=self.identity.cluster_id, leader=self.name)


class Proxy:
    """A TCP relay in front of a node, which can hold bytes back, or cut every connection."""

    def __init__(self, target: str) -> None:
        self.host, _, port = target.rpartition(":")
        self._port = int(port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.bytes_relayed = 0
        self.cut_after_bytes: int | None = None
        """Once so many bytes were relayed in all, every connection is cut and this is None again."""
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=16)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Relay nothing from here on; connections stay open."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            other_reader, other_writer = await asyncio.open_connection(self.host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, other_writer]
        for source, sink in ((reader, other_writer), (other_reader, writer)):
            task = asyncio.ensure_future(self._relay(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while content := await source.read(65536):
                await self._flows.wait()
                sink.write(content)
                await sink.drain()
                self.bytes_relayed += len(content)
                if self.cut_after_bytes is not None and self.bytes_relayed >= self.cut_after_bytes:
                    self.cut_after_bytes = None
                    self.cut()
            sink.close()
        except OSError:
            sink.transport.abort()
