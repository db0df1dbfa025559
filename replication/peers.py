"""The other nodes, as this one reaches them: a link to each, snapshots to those far behind, calls to any of them.

Implements the port Transport. One task a peer: a slow or dead one costs the others nothing.

Guarantees: `send`, `send_snapshot`, `send_digest` and `peers_changed` never wait. The loss of a peer is reported in the
event loop's turn in which a stream to it breaks or a dial is refused. While the peer's own stream to this node is open
a refused dial is no loss: it lives, and only the way there is closed.
A member is dialed at the address that the configuration has. A node that greets and is in no configuration known here
(it leads, and this node has yet to learn of its group) is dialed at the address that it gave, as long as it is heard.
A member that greets and cannot be reached at the configuration's address is looked for where it says that it is, too.
Leaves to the caller: telling it about the inbound side (`greeted`, `unheard`, `hears`), what is sent, and stopping it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from redan.raft.v1 import raft_pb2, raft_pb2_grpc
from replication.core.membership import MEMBERS_MAX, Configuration
from replication.core.messages import InstallSnapshot, Message
from replication.peer_channel import Dialer, problem_of
from replication.peer_greeting import GreetingRefused, Introduction, NodeIdentity
from replication.peer_link import LinkBroken, PeerLink
from replication.peer_secret import Proof
from replication.snapshot_stream import SnapshotSender, TransferFailed
from replication.wire import StateDigest

FORWARD: Final = "/redan.raft.v1.RaftService/Forward"
DRAIN_SECONDS: Final = 2.0
"""For what waits for a peer that was removed: with it goes the news of its removal."""
REASONS_MAX: Final = 2
"""A member has two addresses at most: that of the configuration, and its own word."""
SNAPSHOT_PAUSE_SECONDS: Final = 1.0
"""Between a snapshot that failed and the report of it: the core asks for another as soon as it hears."""


class PeerEvent(Enum):
    """What is worth a line in the log."""

    CONNECTED = "connected"
    LOST = "lost"
    UNREACHABLE = "unreachable"
    """The first of a row of attempts that failed, or one that failed for another reason than the last."""
    SNAPSHOT_SENT = "snapshot_sent"
    SNAPSHOT_NOT_SENT = "snapshot_not_sent"


class PeersListener(Protocol):
    """The node, as its links reach it. No call waits."""

    def peer_lost(self, peer: str) -> None:
        """Learn that a stream from or to a peer has ended, or was refused."""

    def snapshot_sent(self, peer: str, ok: bool) -> None:
        """Learn that a peer has installed a snapshot, or that it could not be sent."""


class Peers:
    """Links to the other nodes."""

    def __init__(
        self,
        identity: NodeIdentity,
        dialer: Dialer,
        snapshots: SnapshotSender,
        *,
        hears: Callable[[str], bool] = lambda _peer: False,
        on_event: Callable[[PeerEvent, str, str], None] = lambda _event, _peer, _text: None,
    ) -> None:
        # hears: whether a peer has an open stream to this node. on_event: told what happened, to whom, and why.
        self.introductions: dict[str, Introduction] = {}
        """What each peer last said of itself. Bound: members, and those who greeted."""
        self._identity = identity
        self._dialer = dialer
        self._snapshots = snapshots
        self._hears = hears
        self._on_event = on_event
        self._listener: PeersListener | None = None
        self._links: dict[str, PeerLink] = {}
        self._members: Mapping[str, str] = {}
        self._tasks: dict[PeerLink, asyncio.Task[None]] = {}
        """Of every link, also of those that are being drained."""
        self._transfers: dict[str, asyncio.Task[None]] = {}
        self._bytes_sent = self._messages_sent = 0
        """Of links that have ended."""
        self._said: dict[str, list[str]] = {}
        """Why each peer could not be reached, as far as it was logged: a reason for each address that was tried."""
        self._is_stopped = False

    def attach(self, listener: PeersListener) -> None:
        """Report losses and sent snapshots to the node from here on."""
        self._listener = listener

    # -- the port ------------------------------------------------------------------------------------------------------

    def send(self, peer: str, messages: Sequence[Message]) -> None:
        """Queue messages for a peer, in order; drop them when there is no room or no peer of that name."""
        link = self._links.get(peer)
        if link is not None:
            link.send(messages)

    def send_snapshot(self, peer: str, snapshot: InstallSnapshot) -> None:
        """Begin to stream the newest snapshot; ``snapshot_sent`` of the node is called in the end.

        A transfer to the same peer that is under way ends without that call.
        """
        if (before := self._transfers.pop(peer, None)) is not None:
            before.cancel()
        if not self._is_stopped:
            task = self._transfers[peer] = asyncio.get_running_loop().create_task(self._transfer(peer, snapshot))
            task.add_done_callback(_raise_defect)

    def peers_changed(self, configuration: Configuration) -> None:
        """Dial members that are new or have moved; in the next turn, end links to those that are no longer members.

        What is sent to them in this turn still goes: the news of their removal.
        """
        name = self._identity.name
        self._members = {peer: configuration.addresses.get(peer, "") for peer in configuration.members if peer != name}
        for peer, address in self._members.items():
            if address:
                self._dial(peer, address, in_return=False)
        asyncio.get_running_loop().call_soon(self._end_former_members)

    def _end_former_members(self) -> None:
        for peer, link in list(self._links.items()):
            if peer not in self._members and not link.in_return:
                self._end(peer)

    def send_digest(self, digest: StateDigest) -> None:
        """Send a digest of the state to everybody; a newer one takes the place of one that waits."""
        for link in self._links.values():
            link.send_digest(digest)

    # -- the inbound side ----------------------------------------------------------------------------------------------

    def greeted(self, introduction: Introduction) -> None:
        """Learn that a peer has opened a stream to this node."""
        peer = introduction.name
        self.introductions[peer] = introduction
        link = self._links.get(peer)
        if link is not None:
            link.said = introduction.peer_address
            link.hurry()
        elif introduction.peer_address and not introduction.in_return and len(self._links) < 2 * MEMBERS_MAX:
            self._dial(peer, introduction.peer_address, in_return=True)

    def unheard(self, peer: str) -> None:
        """Learn that a peer's stream to this node has ended, and no other took its place."""
        link = self._links.get(peer)
        if link is not None and link.in_return:
            self._end(peer)

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def links(self) -> Mapping[str, PeerLink]:
        """The links by the name of the peer."""
        return self._links

    @property
    def bytes_sent(self) -> int:
        """Bytes of messages and snapshots sent so far, to peers of now and of before."""
        return self._bytes_sent + sum(link.counts.bytes_sent for link in self._tasks) + self._snapshots.bytes_sent

    @property
    def messages_sent(self) -> int:
        """Messages of consensus sent so far, to peers of now and of before."""
        return self._messages_sent + sum(link.counts.messages_sent for link in self._tasks)

    def address_of(self, peer: str) -> str:
        """Return where a peer is dialed, or an empty text."""
        link = self._links.get(peer)
        return link.target if link is not None else self._members.get(peer, "")

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def introduce(
        self, address: str, request: raft_pb2.IntroduceRequest, timeout_seconds: float
    ) -> raft_pb2.IntroduceResponse:
        """Ask the node at ``host:port`` who it is. Raises grpc.aio.AioRpcError, OSError."""
        channel = await self._dialer.channel(address)
        try:
            proof = await self._dialer.proof(channel)
            call = raft_pb2_grpc.RaftServiceStub(channel).Introduce(
                request, timeout=timeout_seconds, metadata=proof.metadata
            )
            response: raft_pb2.IntroduceResponse = await call
            await proof.check(call)
            return response
        finally:
            await channel.close()

    async def join(self, address: str, request: raft_pb2.JoinRequest, timeout_seconds: float) -> raft_pb2.JoinResponse:
        """Ask the node at ``host:port`` to add a member. Raises grpc.aio.AioRpcError, OSError."""
        channel = await self._dialer.channel(address)
        try:
            proof = await self._dialer.proof(channel)
            call = raft_pb2_grpc.RaftServiceStub(channel).Join(
                request, timeout=timeout_seconds, metadata=proof.metadata
            )
            response: raft_pb2.JoinResponse = await call
            await proof.check(call)
            return response
        finally:
            await channel.close()

    async def open_forward(self, peer: str) -> ForwardCall:
        """Open a Forward stream to a peer, greeted, on a connection of its own. Raises LinkBroken."""
        address = self.address_of(peer)
        if not address:
            raise LinkBroken(f"nobody knows where {peer} is")
        try:
            channel = await self._dialer.channel(address)
        except OSError as error:
            raise LinkBroken(str(error)) from error
        try:
            async with asyncio.timeout(self._dialer.options.greeting_seconds):
                call = ForwardCall(channel, await self._dialer.proof(channel))
                await call.write(raft_pb2.ForwardRequest(greeting=self._identity.greeting(peer)))
                response = await call.read()
            if response is None:
                raise LinkBroken(call.problem)
            self.introductions[peer] = self._identity.accept(response.greeting, expected=peer)
        except (LinkBroken, GreetingRefused, grpc.aio.AioRpcError, OSError) as error:
            await channel.close()
            raise LinkBroken(
                f"{peer} takes no commands: {problem_of(error) or 'no greeting within the time'}"
            ) from error
        except asyncio.CancelledError:
            await channel.close()
            raise
        return call

    # -- inside --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End all links and transfers, after one last turn in which what waits is written."""
        self._is_stopped = True
        tasks = [*self._tasks.values(), *self._transfers.values()]
        for transfer in self._transfers.values():
            transfer.cancel()
        for peer in list(self._links):
            self._end(peer)
        if tasks:
            await asyncio.wait(tasks)
        self._snapshots.stop()

    def _dial(self, peer: str, address: str, *, in_return: bool) -> None:
        link = self._links.get(peer)
        if link is not None and address in (link.address, link.target):
            link.address, link.in_return = address, in_return
            return
        if self._is_stopped:
            return
        if link is not None:
            self._end(peer)
        link = self._links[peer] = PeerLink(
            peer,
            address,
            self._identity,
            self._dialer,
            in_return=in_return,
            on_lost=self._link_lost,
            on_failed=self._link_failed,
            on_greeted=self._link_opened,
        )
        if (introduction := self.introductions.get(peer)) is not None:
            link.said = introduction.peer_address
        task = self._tasks[link] = asyncio.get_running_loop().create_task(link.run(), name=f"peer-{peer}")
        task.add_done_callback(_raise_defect)
        task.add_done_callback(lambda _task, link=link: self._link_ended(link))  # type: ignore[misc]

    def _link_ended(self, link: PeerLink) -> None:
        if self._tasks.pop(link, None) is not None:
            self._bytes_sent += link.counts.bytes_sent
            self._messages_sent += link.counts.messages_sent

    def _end(self, peer: str) -> None:
        """Drain a link, and cancel it when that takes too long."""
        link = self._links.pop(peer)
        self._said.pop(peer, None)
        if (transfer := self._transfers.pop(peer, None)) is not None:
            transfer.cancel()
        if peer not in self._members:
            self.introductions.pop(peer, None)
        task = self._tasks.get(link)
        if task is None:
            return
        link.drain()
        if link.is_open:
            timer = asyncio.get_running_loop().call_later(DRAIN_SECONDS, task.cancel)
            task.add_done_callback(lambda _task: timer.cancel())
        else:
            task.cancel()

    def _link_opened(self, introduction: Introduction) -> None:
        self.introductions[introduction.name] = introduction
        self._said.pop(introduction.name, None)
        self._on_event(PeerEvent.CONNECTED, introduction.name, introduction.peer_address)

    def _link_lost(self, link: PeerLink, was_open: bool) -> None:
        peer = link.peer
        if self._links.get(peer) is not link:
            return  # it is being drained
        if (was_open or not self._hears(peer)) and self._listener is not None:
            self._listener.peer_lost(peer)

    def _link_failed(self, link: PeerLink, was_open: bool) -> None:
        peer, reason = link.peer, link.problem
        if self._links.get(peer) is not link:
            return
        if was_open:
            self._on_event(PeerEvent.LOST, peer, reason)
        elif reason not in (said := self._said.setdefault(peer, [])):
            said[:] = [*said[-REASONS_MAX + 1 :], reason]
            self._on_event(PeerEvent.UNREACHABLE, peer, reason)

    async def _transfer(self, peer: str, snapshot: InstallSnapshot) -> None:
        ok = False
        try:
            address = self.address_of(peer)
            if not address:
                raise TransferFailed(f"nobody knows where {peer} is")
            await self._snapshots.send(peer, address, snapshot)
            ok = True
            self._on_event(PeerEvent.SNAPSHOT_SENT, peer, "")
        except TransferFailed as error:
            self._on_event(PeerEvent.SNAPSHOT_NOT_SENT, peer, str(error))
            await asyncio.sleep(SNAPSHOT_PAUSE_SECONDS)
        if self._transfers.get(peer) is asyncio.current_task():
            del self._transfers[peer]
            if self._listener is not None:
                self._listener.snapshot_sent(peer, ok)


class ForwardCall:
    """The follower's side of one Forward stream; `read` and `write` may run in two tasks."""

    def __init__(self, channel: grpc.aio.Channel, proof: Proof) -> None:
        self.problem = ""
        """Why the stream ended."""
        self._proof = proof
        self._is_proven = False
        self._is_closed = False
        self._channel = channel
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(FORWARD)(metadata=proof.metadata)

    def on_ended(self, ended: Callable[[], None]) -> None:
        """Call ``ended`` once, in the event loop, as soon as the stream has ended, however it did."""
        self._call.add_done_callback(lambda _call: ended())

    async def write(self, request: raft_pb2.ForwardRequest) -> None:
        """Send a request; wait while the leader does not read. Raises LinkBroken."""
        try:
            await self._call.write(request.SerializeToString())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise LinkBroken(self._problem_of(error)) from error

    async def read(self) -> raft_pb2.ForwardResponse | None:
        """Return the next response; None once the stream has ended, and ``problem`` then says why.

        Raises SecretUnknown in place of the first one, if the leader has no proof.
        """
        try:
            raw: object = await self._call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            self._problem_of(error)
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_closed or (task is not None and task.cancelling()):
                raise
            return None  # `close` ended the stream, nobody this task
        if not isinstance(raw, bytes):
            self.problem = self.problem or "the leader ended the stream"
            return None
        if not self._is_proven:
            await self._proof.check(self._call)
            self._is_proven = True
        try:
            return raft_pb2.ForwardResponse.FromString(raw)
        except DecodeError:
            self.problem = "the answer is not a redan.raft.v1.ForwardResponse"
            return None

    async def close(self) -> None:
        """End the stream and its connection; a `read` that waits returns None."""
        self._is_closed = True
        await self._channel.close()

    def _problem_of(self, error: Exception) -> str:
        if isinstance(error, grpc.aio.AioRpcError):
            self.problem = problem_of(error)
        return self.problem or "the stream has ended"


def _raise_defect(task: asyncio.Task[Any]) -> None:
    """Let nobody miss that a task of this module ended by a defect."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a link to a peer has failed", "exception": error})
