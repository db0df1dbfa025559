"""The stream to one peer: dialed, greeted, fed from a bounded queue, dialed again when it breaks.

States: dialing → open → waiting (20 ms, doubled up to 1 s, jittered) → dialing; closed from any of them.

Guarantees: `send` never waits. All that is sent in one turn of the event loop travels in one request, and what is sent
while a request is on its way, in the next. The queue is bounded in messages and bytes; what does not fit is dropped and
counted. A peer that cannot be reached at its address is tried in turn where it says of itself that it is (``said``).
A broken or refused stream is reported in the event loop's next turn, once for each time. While the stream is
not open the last few messages are kept, so that a vote asked for during the connect is not lost.
Leaves to the caller: repeating what is lost (the consensus core does), and running `run` in a task.

Measured here, two processes on two cores that others used as well: from kill -9 of the peer to the report of its loss
5 ms at the median of 20 (3 ms at best); to connect and greet 2 to 5 ms. Throughput: replication/wire.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import random
from time import monotonic
from typing import Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from redan.raft.v1 import raft_pb2
from replication.core.messages import Message
from replication.peer_channel import Dialer, PeerOptions, problem_of
from replication.peer_greeting import GreetingRefused, Introduction, NodeIdentity
from replication.peer_secret import Proof
from replication.wire import StateDigest, encode_request, size_bytes

EXCHANGE: Final = "/redan.raft.v1.RaftService/Exchange"
HELD_MESSAGES_MAX: Final = 16
"""Messages kept for a peer that cannot be reached: of a leader, the heartbeats of the last second or two."""
HELD_BYTES_MAX: Final = 1024 * 1024
STEADY_SECONDS: Final = 1.0
"""A stream that was open for so long starts the back-off anew; one that breaks at once does not."""

STATUS_SECONDS: Final = 0.5
"""The status of a stream follows its end at once, or never."""

WRITE_CUT_SHORT: Final = "Internal error from Core"
"""What gRPC's Python layer says of a write into a stream that is being refused; the refusal itself it has lost then."""

RawStream = grpc.aio.StreamStreamCall[bytes, bytes]


class LinkBroken(Exception):  # noqa: N818 -- it says what happened
    """The stream to the peer could not be opened, or ended."""


class LinkCounts(NamedTuple):
    """What a link has done; for metrics."""

    messages_sent: int
    bytes_sent: int
    requests_sent: int
    dropped: int
    connects: int
    losses: int


class PeerLink:
    """The way to one peer."""

    def __init__(
        self,
        peer: str,
        address: str,
        identity: NodeIdentity,
        dialer: Dialer,
        *,
        in_return: bool,
        on_lost: Callable[[PeerLink, bool], None],
        on_failed: Callable[[PeerLink, bool], None],
        on_greeted: Callable[[Introduction], None],
    ) -> None:
        # on_lost: told at once of every end of an open stream (True) and of every attempt that failed (False).
        # on_failed: told the same once ``problem`` says why.
        self.peer = peer
        self.address = address
        """Where the configuration, or whoever made this link, has it."""
        self.said = ""
        """Where the peer says that it is, if it ever did."""
        self.target = address
        """Where it was reached last, or is looked for now."""
        self.in_return = in_return
        """The peer is in no configuration, and dialed only because it speaks to this node."""
        self.is_open = False
        self.problem = ""
        """Why the last attempt failed or the last stream ended; empty while it is open."""
        self._identity = identity
        self._dialer = dialer
        self._options: PeerOptions = dialer.options
        self._on_lost = on_lost
        self._on_failed = on_failed
        self._on_greeted = on_greeted
        self._queue: deque[tuple[Message, int]] = deque()
        """Messages with their sizes, oldest first; empty whenever the writer waits."""
        self._queued_bytes = 0
        self._digest: StateDigest | None = None
        self._wake = asyncio.Event()
        """Set while there may be something to write, or the stream has ended."""
        self._hurry = asyncio.Event()
        self._is_draining = False
        self._messages_sent = self._bytes_sent = self._requests_sent = 0
        self._dropped = self._connects = self._losses = 0

    @property
    def counts(self) -> LinkCounts:
        """What it has done so far."""
        return LinkCounts(
            self._messages_sent, self._bytes_sent, self._requests_sent, self._dropped, self._connects, self._losses
        )

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued_bytes

    # -- in the hot path -----------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages; those that do not fit are dropped."""
        options, queue = self._options, self._queue
        for message in messages:
            size = size_bytes(message)
            if queue and (
                len(queue) >= options.queue_messages_max or self._queued_bytes + size > options.queue_bytes_max
            ):
                self._dropped += 1
                continue
            queue.append((message, size))
            self._queued_bytes += size
        if self.is_open:
            self._wake.set()
        else:
            self._keep_newest()

    def send_digest(self, digest: StateDigest) -> None:
        """Send a digest with the next request; a newer one takes the place of one that waits."""
        self._digest = digest
        if self.is_open:
            self._wake.set()

    def _keep_newest(self) -> None:
        queue = self._queue
        while len(queue) > HELD_MESSAGES_MAX or (len(queue) > 1 and self._queued_bytes > HELD_BYTES_MAX):
            self._queued_bytes -= queue.popleft()[1]
            self._dropped += 1

    def _next_request(self) -> bytes:
        """Take what fits into one request, at least one message; empty bytes if nothing waits."""
        queue = self._queue
        digest, self._digest = self._digest, None
        if not queue and digest is None:
            return b""
        if self._queued_bytes <= self._options.request_bytes_max:
            messages = [message for message, _ in queue]
            queue.clear()
            self._queued_bytes = 0
        else:
            messages, room = [], self._options.request_bytes_max
            while queue and (not messages or queue[0][1] <= room):
                message, size = queue.popleft()
                messages.append(message)
                room -= size
                self._queued_bytes -= size
        self._messages_sent += len(messages)
        return encode_request(messages, digest)

    async def _write_until_broken(self, call: RawStream) -> None:
        wake = self._wake
        while not call.done():
            await wake.wait()
            wake.clear()
            while not call.done() and (request := self._next_request()):
                self._bytes_sent += len(request)
                self._requests_sent += 1
                await call.write(request)
            if self._is_draining:
                # A closed connection would take with it what the peer has not read yet.
                await call.done_writing()
                await call.code()
                return

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the stream open until cancelled, or until all is sent after `drain`."""
        delay = self._options.retry_seconds_min
        while True:
            opened_at, connects = monotonic(), self._connects
            try:
                await self._attempt()
            except LinkBroken as error:
                self.problem = str(error)
                if self._connects == connects:
                    self.target = self.said if self.said and self.target == self.address else self.address
            if self._is_draining:
                return
            self._on_failed(self, self._connects > connects)
            if monotonic() - opened_at >= STEADY_SECONDS:
                delay = self._options.retry_seconds_min
            self._hurry.clear()
            try:
                async with asyncio.timeout(delay * (0.5 + random() / 2)):
                    await self._hurry.wait()
                delay = self._options.retry_seconds_min
            except TimeoutError:
                delay = min(2 * delay, self._options.retry_seconds_max)

    def hurry(self) -> None:
        """Dial at once if this waits to dial again: the peer has just shown that it is there."""
        self._hurry.set()

    def drain(self) -> None:
        """Let `run` end once what waits is sent, or could not be."""
        self._is_draining = True
        self._wake.set()
        self._hurry.set()

    async def _attempt(self) -> None:
        """Open the stream and write until it ends. Raise LinkBroken, with the reason, in every case but a drain."""
        channel: grpc.aio.Channel | None = None
        try:
            try:
                channel = await self._dialer.channel(self.target)
                async with asyncio.timeout(self._options.greeting_seconds):
                    proof = await self._dialer.proof(channel)
                    call: RawStream = channel.stream_stream(EXCHANGE)(metadata=proof.metadata)
                    introduction = await self._greet(call, proof)
            except (LinkBroken, grpc.aio.AioRpcError, OSError) as error:
                self._on_lost(self, False)
                raise LinkBroken(problem_of(error) or "no greeting within the time") from error
            self._opened(call, introduction)
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # `call` knows why
                await self._write_until_broken(call)
            if not self._is_draining:
                self._ended(call)
                raise LinkBroken(await _reason(call))
        finally:
            self.is_open = False
            if channel is not None:
                await channel.close()

    async def _greet(self, call: RawStream, proof: Proof) -> Introduction:
        """Say who this is, and return who answers. Raise LinkBroken, OSError."""
        request = raft_pb2.ExchangeRequest(greeting=self._identity.greeting(self.peer, in_return=self.in_return))
        try:
            await call.write(request.SerializeToString())
            raw: object = await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raw = None
        if not isinstance(raw, bytes):
            raise LinkBroken(await _reason(call))
        await proof.check(call)
        try:
            response = raft_pb2.ExchangeResponse.FromString(raw)
            return self._identity.accept(response.greeting, expected=self.peer)
        except (DecodeError, GreetingRefused) as error:
            raise LinkBroken(str(error) or "the answer is not a redan.raft.v1.ExchangeResponse") from error

    def _opened(self, call: RawStream, introduction: Introduction) -> None:
        self.is_open = True
        self.problem = ""
        self._connects += 1
        call.add_done_callback(self._ended)
        self._on_greeted(introduction)
        if self._queue:
            self._wake.set()

    def _ended(self, _call: object) -> None:
        """Learn, in the event loop, that the stream has ended: by a reset, by the end of the peer, or by ourselves."""
        if not self.is_open:
            return
        self.is_open = False
        self._losses += 1
        # What waits was meant for a conversation that is over; the core begins again with a probe.
        self._dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        self._wake.set()
        self._on_lost(self, True)


async def _reason(call: RawStream) -> str:
    """Return why a stream ended, for people."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            code, details = await call.code(), await call.details()
    except TimeoutError:
        return "the stream cannot be written any more"
    if details == WRITE_CUT_SHORT:
        return "the other side ended it before it had read what was sent"
    return f"{code.name}: {details}" if details else code.name
