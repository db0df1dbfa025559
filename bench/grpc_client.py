"""A gRPC client under measurement: calls for a given time and prints how many it got answered, and what it cost itself.

Usage: python -m bench.grpc_client PORT KIND SECONDS, where KIND is unary-get, unary-set, or pipeline-get-N,
pipeline-set-N with N commands a batch.
Guarantees: what is counted was answered without an error within the time.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from itertools import count
from time import monotonic, process_time
from typing import Final

import grpc
import uvloop

from bench.load import KEYS
from bench.resp_client import key_of, value_of
from redan.kv.v1 import kv_pb2, kv_pb2_grpc

CALLS_IN_FLIGHT: Final = 50
BATCHES_IN_FLIGHT: Final = 8


class Rate:
    """Counts operations until time is up."""

    def __init__(self, seconds: float) -> None:
        self.started = monotonic()
        self.end = self.started + seconds
        self.answered = 0
        self.last = self.started

    @property
    def is_over(self) -> bool:
        """Whether no further operation shall start. On a busy machine one is awaited beyond the time."""
        return monotonic() >= self.end and self.answered > 0

    def add(self, operations: int) -> None:
        """Count operations that were answered just now."""
        self.answered += operations
        self.last = monotonic()


async def unary(stub: kv_pb2_grpc.KVServiceStub, kind: str, rate: Rate) -> None:
    """Keep CALLS_IN_FLIGHT unary calls going."""
    numbers = count()

    async def caller() -> None:
        while not rate.is_over:
            number = next(numbers) * 7919 % KEYS
            if kind == "unary-get":
                await stub.Get(kv_pb2.GetRequest(key=key_of(number)))
            else:
                await stub.Set(kv_pb2.SetRequest(key=key_of(number), value=value_of(number)))
            rate.add(1)

    await asyncio.gather(*(caller() for _ in range(CALLS_IN_FLIGHT)))


def batch_of(kind: str, commands: int, batch_id: int) -> kv_pb2.PipelineRequest:
    """Return a batch of SETs or GETs of different keys."""
    numbers = [(batch_id * commands + offset) * 7919 % KEYS for offset in range(commands)]
    if kind == "get":
        lists = [[b"GET", key_of(number)] for number in numbers]
    else:
        lists = [[b"SET", key_of(number), value_of(number)] for number in numbers]
    return kv_pb2.PipelineRequest(batch_id=batch_id, commands=[kv_pb2.Command(args=args) for args in lists])


async def pipeline(stub: kv_pb2_grpc.KVServiceStub, kind: str, commands: int, rate: Rate) -> None:
    """Keep BATCHES_IN_FLIGHT batches going on one stream. The batches are made before: making them is no part of it."""
    room = asyncio.Semaphore(BATCHES_IN_FLIGHT)
    batches = [batch_of(kind, commands, batch_id) for batch_id in range(32)]

    async def requests() -> AsyncIterator[kv_pb2.PipelineRequest]:
        for number in count():
            await room.acquire()
            if rate.is_over:
                return
            yield batches[number % len(batches)]

    async for response in stub.Pipeline(requests()):
        if any(value.HasField("error") for value in response.values):
            raise RuntimeError(str(response.values[0].error))
        room.release()
        rate.add(len(response.values))


async def measure(port: int, kind: str, seconds: float) -> dict[str, float]:
    """Run one kind of load."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = kv_pb2_grpc.KVServiceStub(channel)
        await stub.Get(kv_pb2.GetRequest(key=key_of(0)))
        used = process_time()
        rate = Rate(seconds)
        if kind.startswith("unary"):
            await unary(stub, kind, rate)
        else:
            _, command, commands = kind.split("-")
            await pipeline(stub, command, int(commands), rate)
        used = process_time() - used
    return {
        "operations": rate.answered,
        "rate": rate.answered / (rate.last - rate.started),
        "client_cpu_us": used / rate.answered * 1e6,
    }


def main(arguments: list[str]) -> None:
    """Measure and print."""
    found = uvloop.run(measure(int(arguments[0]), arguments[1], float(arguments[2])))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
