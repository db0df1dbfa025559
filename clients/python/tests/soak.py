"""Writes through the client for some time and prints what was acknowledged, for tests that break nodes meanwhile.

Usage: soak.py [--bare] HOST:PORT,HOST:PORT,… SECONDS [PREFIX]. The password is in REDAN_PASSWORD, if there is one. With
--bare it uses the generated stub alone, and repeats by itself.

On standard output, one line each, written before the next write begins:

    set KEY          the key PREFIX:N was stored with the value N
    incr KEY VALUE   the counter PREFIX:counter was incremented by one, and the answer was VALUE
    pipe KEY VALUE   the counter PREFIX:piped was incremented by one within a pipeline, and the answer was VALUE
    failed TEXT      a write failed for good; the program goes on
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Protocol

import grpc

from redan_client import Client, RedanError, Settings
from redan_client.stubs import kv_pb2, kv_pb2_grpc

PIPED = 5
PASSWORD = os.environ.get("REDAN_PASSWORD")


class Writer(Protocol):
    """What is tried out."""

    def set(self, key: str, value: int) -> None:
        """Store a number."""

    def increment(self, key: str) -> int:
        """Add one, and return the sum."""

    def piped(self, key: str) -> list[int]:
        """Add one some times in a pipeline, and return the sums."""


class Thin:
    """The client."""

    def __init__(self, addresses: str) -> None:
        settings = Settings(timeout=100.0, attempt_timeout=2.0)
        self._client = Client(addresses, password=PASSWORD, settings=settings)

    def set(self, key: str, value: int) -> None:
        self._client.set(key, value)

    def increment(self, key: str) -> int:
        return self._client.increment(key)

    def piped(self, key: str) -> list[int]:
        pipeline = self._client.pipeline()
        for _ in range(PIPED):
            pipeline.increment(key)
        return pipeline.execute()


class Bare:
    """The stubs, one of a node; a write goes to the next node until one takes it, with the same request id."""

    def __init__(self, addresses: str) -> None:
        self._stubs = [kv_pb2_grpc.KVServiceStub(grpc.insecure_channel(one)) for one in addresses.split(",")]
        self._metadata = [("authorization", f"Bearer {PASSWORD}")] if PASSWORD else []

    def _repeat(self, call: Callable[[Any, str, dict[str, Any]], Any]) -> Any:
        request_id, ends = uuid.uuid4().hex, monotonic() + 100
        while True:
            try:
                return call(self._stubs[0], request_id, {"timeout": 2.0, "metadata": self._metadata})
            except (grpc.RpcError, RuntimeError):
                if monotonic() > ends:
                    raise
            self._stubs.append(self._stubs.pop(0))
            sleep(0.02)

    def set(self, key: str, value: int) -> None:
        request = kv_pb2.SetRequest(key=key.encode(), value=str(value).encode())

        def call(stub: Any, request_id: str, how: dict[str, Any]) -> None:
            request.request_id = request_id
            stub.Set(request, **how)

        self._repeat(call)

    def increment(self, key: str) -> int:
        def call(stub: Any, request_id: str, how: dict[str, Any]) -> int:
            return int(stub.Increment(kv_pb2.IncrementRequest(key=key.encode(), request_id=request_id), **how).value)

        value: int = self._repeat(call)
        return value

    def piped(self, key: str) -> list[int]:
        def call(stub: Any, request_id: str, how: dict[str, Any]) -> list[int]:
            commands = [
                kv_pb2.Command(args=[b"INCR", key.encode()], request_id=f"{request_id}-{number}")
                for number in range(PIPED)
            ]
            (response,) = stub.Pipeline(iter([kv_pb2.PipelineRequest(commands=commands)]), **how)
            if any(value.HasField("error") for value in response.values):
                raise RuntimeError("a command of the pipeline failed")
            return [value.integer for value in response.values]

        values: list[int] = self._repeat(call)
        return values


def main() -> None:
    """Write until the time is over."""
    given = [word for word in sys.argv[1:] if word != "--bare"]
    writer: Writer = Bare(given[0]) if "--bare" in sys.argv else Thin(given[0])
    prefix = given[2] if len(given) > 2 else "python"
    ends, number = monotonic() + float(given[1]), 0
    while monotonic() < ends:
        number += 1
        try:
            writer.set(f"{prefix}:{number}", number)
            print("set", f"{prefix}:{number}", flush=True)
            print("incr", f"{prefix}:counter", writer.increment(f"{prefix}:counter"), flush=True)
            for value in writer.piped(f"{prefix}:piped"):
                print("pipe", f"{prefix}:piped", value, flush=True)
        except (RedanError, grpc.RpcError, RuntimeError) as error:
            print("failed", str(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
