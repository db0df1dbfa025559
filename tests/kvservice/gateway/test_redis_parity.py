"""The same malformed bytes, sent to a real redis-server.

What Redis answers to the bytes must be what it answers to the commands that our parser found in them, encoded plainly,
followed by our protocol error. So no reply has to be predicted here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

from kvservice.gateway.limits import Limits
from kvservice.gateway.parser import Parser
from kvservice.gateway.resp import encode_commands
from tests.harness.hostile import FRAGMENTS, STREAMS, exchange
from tests.harness.oracle import REDIS_SERVER, Oracle

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed")
BULK_BYTES_MAX = 1 << 20
"""The least that Redis takes for proto-max-bulk-len."""


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle("--proto-max-bulk-len", str(BULK_BYTES_MAX)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Oracle]:
    with Oracle() as server:
        server.send([[b"CONFIG", b"SET", b"requirepass", b"secret"]])
        yield server


def asked(server: Oracle, stream: bytes) -> bytes:
    """Return Redis's answer to a stream, from an empty keyspace."""

    def connect() -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(Path(server.folder.name) / "redis.sock"))
        return peer

    server.send([[b"FLUSHALL"]])
    return exchange(connect, [stream])


def is_read_alike(stream: bytes) -> bool:
    """Whether Redis should read a stream as we do.

    Left out are the departures that the walker names, and HTTP behind commands whose replies Redis may forget.
    """
    lowered = stream.lower()
    return (
        b"\0" not in stream
        and b"\x16\x03" not in stream
        and b"*1048577\r" not in stream
        and b"*1000000000\r" not in stream
        and lowered.find(b"post") <= 0
        and lowered.find(b"host:") <= 0
    )


def check(server: Oracle, stream: bytes, *, authenticated: bool = True) -> None:
    parsed = Parser(Limits(BULK_BYTES_MAX)).feed(stream, authenticated)
    expected = asked(server, encode_commands(parsed.commands))
    if parsed.error:
        expected += b"-ERR " + parsed.error.encode("latin-1") + b"\r\n"
    assert asked(server, stream) == expected


BROKEN = [
    *(b"PING\r\n" + fragment + b"\r\nPING\r\n" for fragment in FRAGMENTS),
    *(b"*2\r\n$4\r\nECHO\r\n" + fragment + b"PING\r\n" for fragment in FRAGMENTS),
    *(
        b"ECHO " + line + b"\r\nPING\r\n"
        for line in (rb'"\x41\n\q\""', rb"'\'x\n'", b'a"b"', b'"a"b', b"'a", b"\va\vb\f", rb'"\x4"')
    ),
    b"POST / HTTP/1.1\r\nPING\r\n",
    b"host: somewhere\r\nPING\r\n",
    b"*1\r\n$1048576\r\n" + b"v" * 1_048_576 + b"\r\nPING\r\n",
    b"*1\r\n$1048577\r\nPING\r\n",
    b"x" * 65_535 + b"\r\nPING\r\n",
    b"*" + b"1" * 70_000,
    b"*1\r\n$" + b"1" * 70_000,
    b"x" * 70_000,
    b"PING\nPING\r\n\n \r\nPING\n",
]


@pytest.mark.parametrize(
    "stream", [stream for stream in BROKEN if is_read_alike(stream)], ids=lambda stream: repr(stream[:40])
)
def test_broken_streams_are_read_as_redis_reads_them(oracle: Oracle, stream: bytes) -> None:
    check(oracle, stream)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=STREAMS)
def test_random_streams_are_read_as_redis_reads_them(oracle: Oracle, stream: bytes) -> None:
    assume(is_read_alike(stream))
    check(oracle, stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"PING\r\n*11\r\n$4\r\nPING\r\n",
        b"*10\r\n" + b"$4\r\nPING\r\n" * 10 + b"PING\r\n",
        b"*2\r\n$3\r\nGET\r\n$16385\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n$16384\r\n" + b"k" * 16_384 + b"\r\nPING\r\n",
        b"AUTH secret\r\n*12\r\n$4\r\nMGET\r\n" + b"$1\r\nk\r\n" * 11,
        b"*11\r\n",
    ],
    ids=lambda stream: repr(stream[:40]),
)
def test_strangers_are_bounded_as_redis_bounds_them(guarded: Oracle, stream: bytes) -> None:
    check(guarded, stream, authenticated=False)
