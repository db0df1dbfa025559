"""Clients that mean harm: streams of bytes that are nearly RESP, and sockets that misbehave.

Guarantees: every wait has a bound; ``exchange`` returns all that the server answered before it closed or was told that
no more would come.
Leaves to the caller: what is expected of the server.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hypothesis import strategies

from kvservice.gateway.resp import encode_commands

TIMEOUT_S: Final = 60.0
READ_BYTES: Final = 1 << 18

TLS_CLIENT_HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(range(64)) + b"\x00\x02\x13\x01\x01\x00"
HTTP_POST: Final = b"POST /post HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 18\r\n\r\nSET stolen secret\r\n"

FRAGMENTS: Final = (
    *(b"*%d\r\n" % count for count in (0, 1, 2, 3, -1, -5, 99_999, 100_000, 1_048_577, 1_000_000_000)),
    *(b"$%d\r\n" % length for length in (0, 3, 1024, 1025, -1, 2_147_483_648)),
    *(b"$3\r\nGET\r\n", b"$1\r\nk\r\n", b"$0\r\n\r\n", b"$2\r\n\r\n\r\n", b"$3\r\nabcXX", b"$8\r\n*1\r\n$4\r\nXY"),
    *(
        b"*03\r\n",
        b"$05\r\n",
        b"*+1\r\n",
        b"*\r\n",
        b"$\r\n",
        b"*1\n",
        b"*1\rX",
        b"*0\rX",
        b"*99999999999999999999\r\n",
    ),
    *(b"+OK\r\n", b"-ERR\r\n", b":1\r\n", b"(12\r\n", b",1.5\r\n", b"#t\r\n", b"_\r\n", b"=7\r\ntxt:abc\r\n"),
    *(b"~1\r\n", b"%1\r\n", b">1\r\n", b"|1\r\n", b"!3\r\nabc\r\n", b"*?\r\n", b".\r\n"),
    *(
        b"PING\r\n",
        b"set a b\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"*",
        b"$",
        b'"a b"',
        b"'x'",
        b'"',
        b"'",
        b"\\x41",
        b"\\'",
    ),
)
"""Pieces of RESP2, RESP3, inline commands and lies about sizes."""

TEXTS: Final = strategies.one_of(
    strategies.binary(max_size=40), strategies.text("abk0 \r\n*$+=(:~\"'\\", max_size=12).map(str.encode)
)
COMMANDS: Final = strategies.lists(strategies.lists(TEXTS, min_size=1, max_size=6), min_size=1, max_size=8)


@strategies.composite
def mutated(draw: strategies.DrawFn) -> bytes:
    """Draw the encoding of some commands with up to three places cut, overwritten or filled with a fragment."""
    stream = bytearray(encode_commands(draw(COMMANDS)))
    for _ in range(draw(strategies.integers(0, 3))):
        at = draw(strategies.integers(0, len(stream)))
        length = draw(strategies.integers(0, 4))
        stream[at : at + length] = draw(
            strategies.one_of(strategies.sampled_from(FRAGMENTS), strategies.binary(max_size=2))
        )
    return bytes(stream)


STREAMS: Final = strategies.one_of(
    strategies.lists(strategies.sampled_from(FRAGMENTS), min_size=1, max_size=14).map(b"".join),
    mutated(),
    strategies.binary(min_size=1, max_size=200),
)
"""Byte streams: fragments in any order, damaged commands, plain noise."""


def cut(stream: bytes, offsets: Iterable[int]) -> list[bytes]:
    """Return the pieces of a stream cut at offsets; offsets outside of it are ignored."""
    inside = sorted({offset for offset in offsets if 0 < offset < len(stream)})
    return [stream[start:end] for start, end in zip([0, *inside], [*inside, len(stream)], strict=True)]


def exchange(connect: Callable[[], socket.socket], pieces: Sequence[bytes]) -> bytes:
    """Send pieces, say that no more will come, and return all that is answered until the server closes."""
    answered = bytearray()
    with connect() as peer:
        peer.settimeout(TIMEOUT_S)
        try:
            for piece in pieces:
                peer.sendall(piece)
            peer.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass
        try:
            while chunk := peer.recv(READ_BYTES):
                answered += chunk
        except ConnectionResetError:
            pass
    return bytes(answered)


def answer_until_closed(connect: Callable[[], socket.socket], stream: bytes) -> bytes:
    """Send a stream and keep our side open; return what is answered, TimeoutError if the server does not close."""
    answered = bytearray()
    with connect() as peer:
        peer.settimeout(TIMEOUT_S)
        peer.sendall(stream)
        try:
            while chunk := peer.recv(READ_BYTES):
                answered += chunk
        except ConnectionResetError:
            pass
    return bytes(answered)
