"""RaftService: what this node answers to other nodes.

Guarantees: with a cluster secret, nothing of a call is looked at before its proof (UNAUTHENTICATED). Nothing but a
greeting is read before the greeting was accepted; who is refused learns why (FAILED_PRECONDITION with a text for an
operator). Of each sender one Exchange stream counts, the latest: a stream of a later start ends those of earlier ones,
and a stream of an earlier start is refused. Bytes that are no message end the stream with INVALID_ARGUMENT and reach
nobody. The end of a stream is reported as the loss of its sender, in the event loop's turn in which it is known.
Introduce and Challenge are answered from the first moment; the rest once `attach` was called, and UNAVAILABLE before.
Leaves to the caller: what Introduce, Join and Forward say, and stopping the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from persistence.errors import Damaged, DataDirIncompatible, StorageError
from redan.raft.v1 import raft_pb2
from replication.core.messages import Message as CoreMessage
from replication.peer_greeting import GreetingRefused, Introduction, NodeIdentity
from replication.peer_secret import PROOF_KEY, UNNAMED, ClusterSecret, Unproven, named_by, printable_name
from replication.snapshot_receiver import SnapshotReceiver, TransferRefused
from replication.wire import StateDigest, WireError, decode_request

GREETING_SECONDS: Final = 10.0
"""For the first request of a stream: a connection that says nothing holds one call of `PeerOptions.rpcs_max`."""
SENDERS_MAX: Final = 128
"""Senders whose latest start is remembered: twice the members that a cluster can have."""

RawContext = grpc.aio.ServicerContext[bytes, bytes]
_Proto = TypeVar("_Proto", bound=Message)


class RpcRefused(Exception):  # noqa: N818 -- it says what happened
    """What a handler raises to end its call with a status."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.code = code
        super().__init__(text)


class PeerListener(Protocol):
    """The node, as its peers reach it. No call waits."""

    def receive(self, sender: str, incarnation: int, messages: list[CoreMessage]) -> None:
        """Take messages of a peer, in order."""

    def peer_lost(self, peer: str) -> None:
        """Learn that a stream from or to a peer has ended, or was refused."""


class ForwardStream(Protocol):
    """The leader's side of one Forward stream."""

    peer: Introduction

    async def read(self) -> raft_pb2.ForwardRequest | None:
        """Return the next request; None once the follower has ended the stream or is gone."""

    async def write(self, response: raft_pb2.ForwardResponse) -> None:
        """Send a response; wait while the follower does not read. Raises StreamEnded."""


class StreamEnded(Exception):  # noqa: N818 -- it says what happened
    """The other side of a stream has gone."""


class Attached(NamedTuple):
    """What a node has once it belongs to a cluster."""

    listener: PeerListener
    snapshots: SnapshotReceiver
    forward: Callable[[ForwardStream], Awaitable[None]]
    """Serves one Forward stream until it ends; cancelled when the follower has gone."""
    on_digest: Callable[[str, StateDigest], None]


class _Inbound(NamedTuple):
    """The Exchange stream of a sender."""

    incarnation: int
    task: asyncio.Task[Any]


class PeerServicer:
    """The service of one node."""

    def __init__(
        self,
        identity: NodeIdentity,
        *,
        introduce: Callable[[raft_pb2.IntroduceRequest], raft_pb2.IntroduceResponse],
        join: Callable[[raft_pb2.JoinRequest], Awaitable[raft_pb2.JoinResponse]],
        on_greeted: Callable[[Introduction], None] = lambda _introduction: None,
        on_unheard: Callable[[str], None] = lambda _sender: None,
        on_defect: Callable[[BaseException], None] | None = None,
        on_refused: Callable[[str, str, str], None] = lambda _name, _address, _text: None,
        secret: ClusterSecret | None = None,
    ) -> None:
        # on_greeted: told of every Exchange stream that begins. on_unheard: told of every end of one that has no
        # successor. on_defect: told what the listener should not have raised; by default the event loop's exception
        # handler is. on_refused: told the name that a caller gave, where it called from, and why it is refused.
        self._identity = identity
        self._introduce = introduce
        self._join = join
        self._on_greeted = on_greeted
        self._on_unheard = on_unheard
        self._on_defect = on_defect or _report
        self._on_refused = on_refused
        self._secret = secret
        self.bytes_received = self.messages_received = 0
        """Bytes and number of the messages of peers so far; snapshots are counted by their receiver."""
        self._attached: Attached | None = None
        self._inbound: dict[str, _Inbound] = {}
        self._incarnations: dict[str, int] = {}
        """The latest start of each sender, the longest unheard first."""
        self._is_stopping = False

    def attach(self, attached: Attached) -> None:
        """Let peers speak to the node."""
        self._attached = attached

    @property
    def streams(self) -> int:
        """How many peers have an open stream of messages to this node."""
        return len(self._inbound)

    def hears(self, peer: str) -> bool:
        """Tell whether a peer has an open stream to this node."""
        return peer in self._inbound

    def stop(self) -> None:
        """End the streams of peers, and report no losses from here on."""
        self._is_stopping = True
        for inbound in self._inbound.values():
            inbound.task.cancel()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to serve this."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Exchange": grpc.stream_stream_rpc_method_handler(self._exchange),
            "TransferSnapshot": grpc.stream_stream_rpc_method_handler(self._transfer_snapshot),
            "Forward": grpc.stream_stream_rpc_method_handler(self._forward),
            "Introduce": grpc.unary_unary_rpc_method_handler(self._answer_introduce),
            "Join": grpc.unary_unary_rpc_method_handler(self._answer_join),
            "Challenge": grpc.unary_unary_rpc_method_handler(self._challenge),
        }
        service = raft_pb2.DESCRIPTOR.services_by_name["RaftService"]
        assert methods.keys() == set(service.methods_by_name), "every method of the service is answered"
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    # -- Exchange ------------------------------------------------------------------------------------------------------

    async def _exchange(self, _requests: object, context: RawContext) -> None:
        await self._require_proof(context)
        attached = await self._require_attached(context)
        raw = await _first_request(context)
        introduction = await self._accepted(context, _parsed(raft_pb2.ExchangeRequest, raw))
        sender, incarnation = introduction.name, introduction.incarnation
        latest = self._incarnations.get(sender, 0)
        if incarnation < latest:
            text = (
                f"{sender} started again since: this start has number {incarnation}, and {latest} was here before; "
                "if its clock was set back, let it start once more when it is right"
            )
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        task = asyncio.current_task()
        assert task is not None
        mine = _Inbound(incarnation, task)
        before = self._inbound.get(sender)
        self._inbound[sender] = mine
        self._remember(sender, incarnation)
        if before is not None:
            before.task.cancel()
        try:
            if before is not None and incarnation > before.incarnation:
                attached.listener.peer_lost(sender)
            self._on_greeted(introduction)
            greeting = raft_pb2.ExchangeResponse(greeting=self._identity.greeting(sender))
            await context.write(greeting.SerializeToString())
            await self._receive_until_end(context, attached, introduction)
        except asyncio.CancelledError:
            if self._inbound.get(sender) is not mine or self._is_stopping:
                # Ended by us: without a status the other side would wait for one.
                await context.abort(grpc.StatusCode.ABORTED, "a later stream took its place, or the node stops")
            raise
        finally:
            if self._inbound.get(sender) is mine:
                del self._inbound[sender]
                if not self._is_stopping:
                    self._guarded(attached.listener.peer_lost, sender)
                    self._on_unheard(sender)

    async def _receive_until_end(self, context: RawContext, attached: Attached, peer: Introduction) -> None:
        read, receive = context.read, attached.listener.receive
        sender, incarnation = peer.name, peer.incarnation
        while True:
            raw = await _next_request(read)
            if raw is None:
                return
            self.bytes_received += len(raw)
            try:
                messages, digest = decode_request(raw)
            except WireError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{sender} sent no message: {error}")
            if messages:
                self.messages_received += len(messages)
                self._guarded(receive, sender, incarnation, messages)
            if digest is not None:
                self._guarded(attached.on_digest, sender, digest)

    def _guarded(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except Exception as error:
            self._on_defect(error)
            raise

    def _remember(self, sender: str, incarnation: int) -> None:
        self._incarnations.pop(sender, None)
        self._incarnations[sender] = incarnation
        while len(self._incarnations) > SENDERS_MAX:
            del self._incarnations[next(iter(self._incarnations))]

    # -- TransferSnapshot and Forward ----------------------------------------------------------------------------------

    async def _transfer_snapshot(self, _requests: object, context: RawContext) -> None:
        await self._require_proof(context)
        attached = await self._require_attached(context)
        request = _parsed(raft_pb2.TransferSnapshotRequest, await _first_request(context))
        header = request.header if request is not None else raft_pb2.SnapshotHeader()
        await self._accepted(context, header)
        try:
            await attached.snapshots.receive(header, lambda: _next_request(context.read), context.write)
        except TransferRefused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (Damaged, DataDirIncompatible) as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        except StorageError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except asyncio.CancelledError:
            with suppress(grpc.aio.BaseError, RuntimeError):
                await context.abort(grpc.StatusCode.ABORTED, "a later transfer took its place, or the node stops")
            raise

    async def _forward(self, _requests: object, context: RawContext) -> None:
        await self._require_proof(context)
        attached = await self._require_attached(context)
        request = _parsed(raft_pb2.ForwardRequest, await _first_request(context))
        introduction = await self._accepted(context, request)
        greeting = raft_pb2.ForwardResponse(greeting=self._identity.greeting(introduction.name))
        await context.write(greeting.SerializeToString())
        try:
            await attached.forward(_ServedForward(introduction, context))
        except RpcRefused as error:
            await context.abort(error.code, str(error))

    # -- unary calls ---------------------------------------------------------------------------------------------------

    async def _answer_introduce(self, raw: bytes, context: RawContext) -> bytes:
        await self._require_proof(context)
        request = _parsed(raft_pb2.IntroduceRequest, raw)
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a redan.raft.v1.IntroduceRequest")
        return self._introduce(request).SerializeToString()

    async def _answer_join(self, raw: bytes, context: RawContext) -> bytes:
        await self._require_proof(context)
        request = _parsed(raft_pb2.JoinRequest, raw)
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a redan.raft.v1.JoinRequest")
        try:
            response = await self._join(request)
        except RpcRefused as error:
            await context.abort(error.code, str(error))
        return response.SerializeToString()

    async def _challenge(self, raw: bytes, context: RawContext) -> bytes:
        request = _parsed(raft_pb2.ChallengeRequest, raw)
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a redan.raft.v1.ChallengeRequest")
        try:
            if self._secret is None:
                raise Unproven("it has a cluster secret, and this node has none")
            return raft_pb2.ChallengeResponse(
                nonce=self._secret.challenge(request.name, request.nonce)
            ).SerializeToString()
        except Unproven as error:
            await self._refuse_unproven(context, printable_name(request.name), error)

    # -- what all calls begin with -------------------------------------------------------------------------------------

    async def _require_proof(self, context: RawContext) -> None:
        """End the call of a node that does not show that it knows the cluster secret; show it ours."""
        if self._secret is None:
            return
        metadata = context.invocation_metadata() or ()
        try:
            proof = self._secret.accept(metadata)
        except Unproven as error:
            await self._refuse_unproven(context, named_by(metadata), error)
        await context.send_initial_metadata(((PROOF_KEY, proof),))

    async def _refuse_unproven(self, context: RawContext, name: str, error: Unproven) -> NoReturn:
        self._on_refused(name, context.peer(), str(error))
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{self._identity.name} refuses {name}: {error}")

    # -- what all streams begin with -----------------------------------------------------------------------------------

    async def _require_attached(self, context: RawContext) -> Attached:
        if self._attached is None or self._is_stopping:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self._identity.name} starts or stops")
        return self._attached

    async def _accepted(self, context: RawContext, first: _Greeted | None) -> Introduction:
        """Return who speaks; end the call if it is nobody that this node talks to."""
        try:
            return self._identity.accept(first.greeting if first is not None else raft_pb2.Greeting())
        except GreetingRefused as error:
            name = printable_name(first.greeting.sender) if first is not None else UNNAMED
            self._on_refused(name, context.peer(), str(error))
            await _refuse(context, str(error))


class _Greeted(Protocol):
    """A first request."""

    @property
    def greeting(self) -> raft_pb2.Greeting:
        """Who speaks."""


class _ServedForward:
    """A Forward stream behind its greeting."""

    def __init__(self, peer: Introduction, context: RawContext) -> None:
        self.peer = peer
        self._context = context

    async def read(self) -> raft_pb2.ForwardRequest | None:
        """Return the next request; None once the follower has ended the stream or is gone."""
        raw = await _next_request(self._context.read)
        if raw is None:
            return None
        request = _parsed(raft_pb2.ForwardRequest, raw)
        if request is None:
            raise RpcRefused(grpc.StatusCode.INVALID_ARGUMENT, "not a redan.raft.v1.ForwardRequest")
        return request

    async def write(self, response: raft_pb2.ForwardResponse) -> None:
        """Send a response; wait while the follower does not read. Raises StreamEnded."""
        try:
            await self._context.write(response.SerializeToString())
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise StreamEnded(str(error)) from error


async def _first_request(context: RawContext) -> bytes:
    """Return the first request; empty bytes if none came, which no greeting is."""
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            return await _next_request(context.read) or b""
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no greeting within {GREETING_SECONDS:.0f} s")


async def _next_request(read: Callable[[], Awaitable[object]]) -> bytes | None:
    """Return the next request of a stream; None at its end, whoever ended it."""
    try:
        raw = await read()
    except grpc.aio.BaseError:
        return None
    return raw if isinstance(raw, bytes) else None


def _parsed(kind: type[_Proto], raw: bytes) -> _Proto | None:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


async def _refuse(context: RawContext, text: str) -> NoReturn:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)


def _report(error: BaseException) -> None:
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "a message of a peer could not be handled", "exception": error})
