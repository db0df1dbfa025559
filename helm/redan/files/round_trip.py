"""Sets and gets a key through both planes: over RESP what gRPC wrote, over gRPC what RESP wrote. `helm test` runs this.

Guarantees: its keys are new ones that expire after a minute. Exit code 0 only if both values came back; else one line
    says which step failed. Each step takes at most DEADLINE_SECONDS.
Leaves to the caller: a service that leads to nodes which are ready.
"""

import argparse
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import grpc

from redan.kv.v1 import kv_pb2

DEADLINE_SECONDS = 30.0
KEY_SECONDS = 60
POLL_SECONDS = 0.1
REPLY_BYTES_MAX = 4096


class RespCaller:
    """As much of RESP2 as a round trip needs."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), DEADLINE_SECONDS)
        self._replies = self._socket.makefile("rb")

    def call(self, *words: bytes) -> bytes:
        """Send a command, return its reply: a string, b"" for none. Raises ValueError for any other."""
        self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        line = self._replies.readline(REPLY_BYTES_MAX).rstrip(b"\r\n")
        if line[:1] == b"+":
            return line[1:]
        if line == b"$-1":
            return b""
        if line[:1] == b"$":
            return self._replies.read(int(line[1:]) + 2)[:-2]
        raise ValueError(f"{words[0].decode()} answers {line.decode(errors='replace') or 'nothing'}")


def await_value(read: Callable[[], bytes], wanted: bytes, what: str) -> None:
    """Read until it is what was written: with read_mode = stale a node may be a little behind. Raises ValueError."""
    deadline = monotonic() + DEADLINE_SECONDS
    while (got := read()) != wanted:
        if monotonic() > deadline:
            raise ValueError(f"{what}: {got!r} is read where {wanted!r} was written")
        sleep(POLL_SECONDS)


def round_trip(resp_address: str, grpc_address: str, password: str) -> None:
    """Go both ways. Raises ValueError, OSError, grpc.RpcError."""
    stem = f"redan-test-{secrets.token_hex(8)}".encode()
    caller = RespCaller(resp_address)
    if password:
        caller.call(b"AUTH", password.encode())
    metadata = (("authorization", f"Bearer {password}"),) if password else ()
    with grpc.insecure_channel(grpc_address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        read = channel.unary_unary(
            "/redan.kv.v1.KVService/Get",
            request_serializer=kv_pb2.GetRequest.SerializeToString,
            response_deserializer=kv_pb2.GetResponse.FromString,
        )
        write = channel.unary_unary(
            "/redan.kv.v1.KVService/Set",
            request_serializer=kv_pb2.SetRequest.SerializeToString,
            response_deserializer=kv_pb2.SetResponse.FromString,
        )
        caller.call(b"SET", stem + b"-resp", b"over RESP", b"EX", b"%d" % KEY_SECONDS)
        asked = kv_pb2.GetRequest(key=stem + b"-resp")
        await_value(
            lambda: bytes(read(asked, timeout=DEADLINE_SECONDS, metadata=metadata).value), b"over RESP", "over gRPC"
        )
        request = kv_pb2.SetRequest(key=stem + b"-grpc", value=b"over gRPC")
        request.ttl.seconds = KEY_SECONDS
        write(request, timeout=DEADLINE_SECONDS, metadata=metadata)
        await_value(lambda: caller.call(b"GET", stem + b"-grpc"), b"over gRPC", "over RESP")


def main() -> None:
    """Say whether it went both ways."""
    parser = argparse.ArgumentParser(description="Set and get a key over RESP and over gRPC.")
    parser.add_argument("--resp", required=True, metavar="HOST:PORT")
    parser.add_argument("--grpc", required=True, metavar="HOST:PORT")
    parser.add_argument("--password-file", type=Path)
    arguments = parser.parse_args()
    password = arguments.password_file.read_text(encoding="utf-8").rstrip("\r\n") if arguments.password_file else ""
    try:
        round_trip(arguments.resp, arguments.grpc, password)
    except grpc.RpcError as error:
        sys.exit(f"round trip: {arguments.grpc}: {error}")
    except (OSError, ValueError) as error:
        sys.exit(f"round trip: {arguments.resp}: {error}")
    print("round trip: set over RESP and read over gRPC, set over gRPC and read over RESP")


if __name__ == "__main__":
    main()
