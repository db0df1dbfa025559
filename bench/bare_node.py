"""The least that three replicated nodes can cost in Python: a leader and two followers that only copy SETs.

Usage: python -m bench.bare_node follower FILE, which prints its port, or leader PORT GRPC_PORT FILE PEER PEER with the
ports of its followers. ``bench.alone`` starts them. As in Redan: hiredis, uvloop, a stream of grpc.aio to each
follower, a log in a file of zeros whose thread syncs each entry, an entry at a time, answers when a majority has it,
and Set and Pipeline of gRPC on as many servers as a node has. There are no terms, elections, other commands, limits or
statistics, clients are trusted, and the log overwrites itself: what is lost when a process ends stays lost.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, Protocol, cast

import grpc
import hiredis
import uvloop

from kvservice.api.server import SERVERS
from kvservice.gateway.resp import encode_commands
from redan.kv.v1 import kv_pb2

METHOD: Final = "/bench.Bare/Exchange"
LOG_BYTES: Final = 64 * 1024 * 1024
PIECE_BYTES: Final = 16 * 1024
MAJORITY: Final = 2
TURNS_MAX: Final = 16
CALLS_ENOUGH: Final = 64
MESSAGE_BYTES_MAX: Final = 1 << 30

Values = dict[bytes, bytes]
Commands = list[list[bytes]]
Stream = grpc.aio.StreamStreamCall[bytes, bytes]
Context = grpc.aio.ServicerContext[bytes, bytes]


class Asker(Protocol):
    """Who sent SETs."""

    def answer(self, count: int) -> None:
        """Learn that so many are acknowledged."""


class Log:
    """A file of zeros that entries are written into, durably, by a thread."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        path.write_bytes(bytes(LOG_BYTES))
        self._handle = os.open(path, os.O_WRONLY)
        os.fsync(self._handle)
        self._at = 0
        self._loop = loop
        self._queue: SimpleQueue[tuple[bytes, Callable[[], object]]] = SimpleQueue()
        Thread(target=self._run, daemon=True).start()

    def append(self, entry: bytes, done: Callable[[], object]) -> None:
        """Write an entry; ``done`` is called on the event loop when it is durable."""
        self._queue.put((entry, done))

    def _run(self) -> None:
        while True:
            entry, done = self._queue.get()
            if self._at + len(entry) > LOG_BYTES:
                self._at = 0
            os.pwritev(self._handle, [entry], self._at, os.RWF_DSYNC)
            self._at += len(entry)
            self._loop.call_soon_threadsafe(done)


def store(values: Values, entry: bytes) -> None:
    """Store what the SETs of an entry say."""
    reader = hiredis.Reader()
    for start in range(0, len(entry), PIECE_BYTES):
        reader.feed(entry, start, min(PIECE_BYTES, len(entry) - start))
        for _, key, value in iter(reader.gets, False):
            values[key] = value


async def follow(path: Path) -> None:
    """Take entries, sync and acknowledge them, then store what they say; until killed."""
    loop = asyncio.get_running_loop()
    log = Log(path, loop)
    values: Values = {}

    async def exchange(_requests: object, context: Context) -> None:
        while isinstance(entry := cast(object, await context.read()), bytes):
            durable = asyncio.Event()
            log.append(entry, durable.set)
            await durable.wait()
            await context.write(b"\x01")
            store(values, entry)

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Exchange": grpc.stream_stream_rpc_method_handler(exchange)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


class Leader:
    """Makes one entry after the other of what clients send, and answers them when two of three have it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: Log, streams: list[Stream]) -> None:
        self._loop = loop
        self._log = log
        self._values: Values = {}
        self._open: list[tuple[Asker, Commands]] = []
        self._payload: list[bytes] = []
        self._flying: list[tuple[Asker, Commands]] | None = None
        self._is_scheduled = False
        self._turns = self._seen = 0
        self._held = [0] * (1 + len(streams))
        """How many entries the own log and each follower have."""
        self._finished = 0
        self._queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in streams]
        self._tasks = [
            loop.create_task(task)
            for number, stream in enumerate(streams)
            for task in (self._send(stream, self._queues[number]), self._hear(stream, number + 1))
        ]

    async def _send(self, stream: Stream, queue: asyncio.Queue[bytes]) -> None:
        while True:
            await stream.write(await queue.get())

    async def _hear(self, stream: Stream, number: int) -> None:
        while isinstance(await stream.read(), bytes):
            self._acknowledged(number)

    def _acknowledged(self, number: int) -> None:
        self._held[number] += 1
        if sorted(self._held)[-MAJORITY] > self._finished:
            self._finished += 1
            self._finish()

    def submit(self, client: Asker, commands: Commands, raw: bytes) -> None:
        """Put SETs of a client into the next entry."""
        self._open.append((client, commands))
        self._payload.append(raw)
        self._schedule()

    def _schedule(self) -> None:
        if self._open and self._flying is None and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        count = len(self._open)
        if self._seen < count < CALLS_ENOUGH and self._turns < TURNS_MAX:
            self._seen = count
            self._turns += 1
            self._loop.call_soon(self._end_of_turn)
            return
        self._is_scheduled = False
        self._seen = self._turns = 0
        entry = b"".join(self._payload)
        self._flying, self._open, self._payload = self._open, [], []
        for queue in self._queues:
            queue.put_nowait(entry)
        self._log.append(entry, lambda: self._acknowledged(0))

    def _finish(self) -> None:
        assert self._flying is not None
        values = self._values
        for client, commands in self._flying:
            for _, key, value in commands:
                values[key] = value
            client.answer(len(commands))
        self._flying = None
        self._schedule()


class Client(asyncio.Protocol):
    """A connection that sends whole SETs."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Submit what came; redis-benchmark asks for the configuration first."""
        self._reader.feed(data)
        commands: Commands = list(iter(self._reader.gets, False))
        if commands and commands[0][0] == b"SET":
            self._leader.submit(self, commands, data)
        else:
            self._transport.write(b"*0\r\n" * len(commands))

    def answer(self, count: int) -> None:
        """Say OK so many times."""
        self._transport.write(b"+OK\r\n" * count)


class Call:
    """SETs that came through gRPC."""

    def __init__(self, leader: Leader, commands: Commands) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leader.submit(self, commands, encode_commands(commands))

    def answer(self, _count: int) -> None:
        """End the wait."""
        if not self.answered.done():
            self.answered.set_result(None)


def handlers_of(leader: Leader) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """Return what serves Set and Pipeline."""
    stored = kv_pb2.SetResponse(applied=True).SerializeToString()

    async def set_one(raw: bytes, _context: Context) -> bytes:
        request = kv_pb2.SetRequest.FromString(raw)
        await Call(leader, [[b"SET", request.key, request.value]]).answered
        return stored

    async def pipeline(_requests: object, context: Context) -> None:
        while isinstance(raw := cast(object, await context.read()), bytes):
            request = kv_pb2.PipelineRequest.FromString(raw)
            commands: Commands = [message.args[:] for message in request.commands]
            await Call(leader, commands).answered
            values = [kv_pb2.Value(status="OK")] * len(commands)
            await context.write(kv_pb2.PipelineResponse(batch_id=request.batch_id, values=values).SerializeToString())

    return {
        "Set": grpc.unary_unary_rpc_method_handler(set_one),
        "Pipeline": grpc.stream_stream_rpc_method_handler(pipeline),
    }


async def lead(port: int, grpc_port: int, path: Path, peers: list[int]) -> None:
    """Serve clients until killed."""
    loop = asyncio.get_running_loop()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{peer}", options=options) for peer in peers]
    leader = Leader(loop, Log(path, loop), [channel.stream_stream(METHOD)() for channel in channels])
    server = await loop.create_server(lambda: Client(leader), "127.0.0.1", port, backlog=1024)
    servers = [grpc.aio.server(options=[("grpc.so_reuseport", 1)]) for _ in range(SERVERS)]
    for one in servers:
        generic = grpc.method_handlers_generic_handler("redan.kv.v1.KVService", handlers_of(leader))
        one.add_generic_rpc_handlers((generic,))
        one.add_insecure_port(f"127.0.0.1:{grpc_port}")
        await one.start()
    print("serving", flush=True)
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Be what the arguments say."""
    role, *rest = arguments
    if role == "follower":
        uvloop.run(follow(Path(rest[0])))
    else:
        uvloop.run(lead(int(rest[0]), int(rest[1]), Path(rest[2]), [int(peer) for peer in rest[3:]]))


if __name__ == "__main__":
    main(sys.argv[1:])
