"""Forwarding over the streams between nodes: one task that carries requests, one that carries responses, on each side.

Guarantees: a side that does not read is not written to, and what waits for it stays as small as it was; the end of a
stream is told to the forwarder in the event loop's turn in which it is known. Tasks end with their stream.
Leaves to the caller: opening streams and accepting them (replication/peers, replication/peer_servicer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import grpc

from kvservice.forwarding.forwarded import CallDamaged, ForwardedStream
from kvservice.forwarding.forwarder import Forwarder
from kvservice.service import Service
from redan.raft.v1 import raft_pb2
from replication.peer_link import LinkBroken
from replication.peer_servicer import ForwardStream, RpcRefused, StreamEnded


class ForwardCall(Protocol):
    """The follower's side of one stream (``replication.peers.ForwardCall``)."""

    def on_ended(self, ended: Callable[[], None]) -> None:
        """Call ``ended`` once the stream has ended."""

    async def write(self, request: raft_pb2.ForwardRequest) -> None:
        """Send a request. Raises LinkBroken."""

    async def read(self) -> raft_pb2.ForwardResponse | None:
        """Return the next response; None once the stream has ended."""

    async def close(self) -> None:
        """End the stream."""


OpenForward = Callable[[str], Awaitable[ForwardCall]]


class StreamLink:
    """One stream to a leader, from being opened to its end."""

    def __init__(self, forwarder: Forwarder, open_forward: OpenForward, leader: str) -> None:
        self._forwarder = forwarder
        self._open_forward = open_forward
        self._leader = leader
        self._has_work = asyncio.Event()
        self._is_closed = False
        self._task = asyncio.get_running_loop().create_task(self._carry(), name=f"forward to {leader}")

    def wake(self) -> None:
        """Take requests soon, until there is none."""
        self._has_work.set()

    def close(self) -> None:
        """End the stream."""
        if not self._is_closed:
            self._is_closed = True
            self._task.cancel()

    def _ended(self) -> None:
        if not self._is_closed:
            self._forwarder.broken(self)

    async def _carry(self) -> None:
        try:
            call = await self._open_forward(self._leader)
        except LinkBroken:
            self._ended()
            return
        call.on_ended(self._ended)
        self._forwarder.opened(self)
        reader = asyncio.get_running_loop().create_task(self._read(call))
        try:
            while not self._is_closed:
                await self._has_work.wait()
                self._has_work.clear()
                while (request := self._forwarder.next_request(self)) is not None:
                    await call.write(request)
        except LinkBroken:
            self._ended()
        finally:
            reader.cancel()
            await call.close()

    async def _read(self, call: ForwardCall) -> None:
        try:
            while (response := await call.read()) is not None:
                self._forwarder.received(self, response)
        finally:
            # Also when a response cannot be handled: then what was sent must not wait for ever.
            self._ended()


def dial(forwarder: Forwarder, open_forward: OpenForward) -> None:
    """Let a forwarder open its links by ``replication.peers.Peers.open_forward``."""
    forwarder.dial = lambda leader: StreamLink(forwarder, open_forward, leader)


async def serve_forward(service: Service, stream: ForwardStream) -> None:
    """Serve one stream of another node until it ends. Raises RpcRefused."""
    has_work = asyncio.Event()
    forwarded = ForwardedStream(service, stream.peer.name, has_work.set)
    writer = asyncio.get_running_loop().create_task(_write(forwarded, stream, has_work))
    serving = asyncio.current_task()
    assert serving is not None

    def stop(_writer: asyncio.Task[None]) -> None:
        serving.cancel()

    writer.add_done_callback(stop)
    try:
        while (request := await stream.read()) is not None:
            forwarded.received(request)
    except CallDamaged as error:
        raise RpcRefused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    finally:
        forwarded.ended()
        writer.remove_done_callback(stop)
        writer.cancel()


async def _write(forwarded: ForwardedStream, stream: ForwardStream, has_work: asyncio.Event) -> None:
    with suppress(StreamEnded):
        while True:
            await has_work.wait()
            has_work.clear()
            while (response := forwarded.next_response()) is not None:
                await stream.write(response)
