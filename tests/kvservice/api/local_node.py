"""A node in this process with a gRPC server of its own: everything real but the disk.

Guarantees: commands take the whole path of production, through consensus core and driver. The log is durable at the
next turn of the event loop, unless ``log.is_held``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from time import time_ns
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from kvservice.api.server import ApiServer
from kvservice.cluster.members import Addresses, Members, first_configuration
from kvservice.commands.registry import TABLE
from kvservice.config import Config
from kvservice.config_values import HostPort
from kvservice.keyspace.machine import Machine
from kvservice.recovery import new_raft
from kvservice.service import Service
from kvservice.stats import Stats
from redan.cluster.v1 import cluster_pb2_grpc
from redan.kv.v1 import kv_pb2, kv_pb2_grpc
from replication.core.messages import Entry, HardState
from replication.node import Node
from replication.storage import LogEnd

CLUSTER_ID = "c0ffee"
WAIT_SECONDS = 60.0


class MemoryLog:
    """A log without a disk."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: list[int] = []
        self.is_held = False
        self.durable: Callable[[int], None] = lambda _token: None

    def append(self, _hard_state: HardState | None, _entries: list[Entry], _commit_index: int, token: int) -> None:
        """Report durable, at once or when released."""
        if self.is_held:
            self._held.append(token)
        else:
            self._loop.call_soon(self.durable, token)

    def entries(self, _from_index: int, _to_index: int) -> Iterator[Entry]:
        """Return nothing: there was no earlier run."""
        return iter(())

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        """Refuse: a node alone receives no snapshot."""
        raise NotImplementedError

    def bytes_from(self, _index: int) -> int:
        """Hold nothing."""
        return 0

    def purge(self, before_index: int) -> None:
        """Hold nothing."""

    def release(self) -> None:
        """Report durable what was held."""
        self.is_held = False
        held, self._held = self._held, []
        for token in held:
            self._loop.call_soon(self.durable, token)


class Readiness:
    """What health checks are told."""

    is_started = True

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def reasons_not_ready(self) -> list[str]:
        """Return what a test set."""
        return self.reasons


class LocalNode:
    """Service, consensus and gRPC server; with a channel and stubs to it."""

    def __init__(self, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        self.config = Config(grpc_addr=HostPort("127.0.0.1", 0), **settings)
        self.machine = Machine(TABLE, self.config.databases, random.Random)
        stats = Stats(self.config)
        self.service = Service(self.config, TABLE, self.machine, stats, loop.call_soon, loop.call_later)
        self.log = MemoryLog(loop)
        self.health = Readiness()
        members = Members(self.config.name, Addresses(""), CLUSTER_ID)
        members.configuration_changed(first_configuration(self.config), 0)
        self.api = ApiServer(self.service, self.health, members)

    async def start(self) -> None:
        """Elect this node and serve."""
        raft = new_raft(self.config.name, LogEnd(0, 0, HardState(0, "")), 0)
        node = Node(raft, self.log, self.service.runner, wall_clock_ms=lambda: time_ns() // 1_000_000)
        self.service.node = node
        self.log.durable = node.durable
        node.start()
        await until(lambda: node.is_leader and node.applied_index > 0)
        self.service.refusal = None
        await self.api.start()

    def channel(self, **options: int) -> grpc.aio.Channel:
        """Return a channel to the server; options have underscores for the dots of their names."""
        named = [(f"grpc.{name}", value) for name, value in options.items()]
        # Channels in one process share connections by default; a test wants its own.
        return grpc.aio.insecure_channel(str(self.api.address), options=[*named, ("grpc.use_local_subchannel_pool", 1)])


async def unary_bytes(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    """Call a method with bytes that need not be a message."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/redan.kv.v1.KVService/{method}")
    return await call(request)


class Client:
    """A channel and the stubs on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.kv = kv_pb2_grpc.KVServiceStub(channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(channel)

    async def execute(self, *args: bytes) -> kv_pb2.Value:
        """Run one command and return its value."""
        return (await self.kv.Execute(kv_pb2.ExecuteRequest(args=args))).value


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[LocalNode, Client]]:
    """Run a node and a client of it."""
    node = LocalNode(**settings)
    await node.start()
    try:
        async with node.channel() as channel:
            yield node, Client(channel)
    finally:
        await node.api.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, up to WAIT_SECONDS."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


class Failure:
    """A call that failed: its code, ErrorInfo and BadRequest."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        status: status_pb2.Status | None = rpc_status.from_call(error)
        self.info: Any = None
        self.fields: dict[str, str] = {}
        self.has_retry_delay = False
        for detail in status.details if status is not None else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                self.info = error_details_pb2.ErrorInfo()
                detail.Unpack(self.info)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                wrong = error_details_pb2.BadRequest()
                detail.Unpack(wrong)
                self.fields = {violation.field: violation.description for violation in wrong.field_violations}
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                self.has_retry_delay = True

    @property
    def reason(self) -> str:
        """The reason of ErrorInfo."""
        return str(self.info.reason)

    @property
    def outcome(self) -> str:
        """What may be concluded."""
        return str(self.info.metadata["outcome"])


async def failure_of(call: Awaitable[object]) -> Failure:
    """Return how a call failed; it must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return Failure(error)
    raise AssertionError(f"the call succeeded: {answer!r}")
