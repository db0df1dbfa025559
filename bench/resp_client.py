"""A blocking Redis client for measuring: fills a keyspace, asks a question.

Guarantees: every wait ends after TIMEOUT_SECONDS. Leaves to the caller: commands whose reply is an array.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import hiredis

TIMEOUT_SECONDS: Final = 60.0
READ_BYTES: Final = 1 << 18
FILL_BATCH: Final = 1000
VALUE_BYTES: Final = 64
MASK: Final = (1 << 256) - 1


def encode(*args: bytes) -> bytes:
    """Return a command as RESP."""
    return b"*%d\r\n" % len(args) + b"".join([b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args])


def key_of(number: int) -> bytes:
    """Return the key that redis-benchmark -r makes of a number: 16 bytes."""
    return b"key:%012d" % number


def value_of(number: int, size: int = VALUE_BYTES) -> bytes:
    """Return a value of ``size`` bytes, at most 64: hexadecimal digits without a pattern, which pack to about half."""
    mixed = number * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251F86C6A11D0C18E95 & MASK
    return (b"%064x" % (mixed ^ mixed >> 101))[:size]


class RespClient:
    """One connection; use it as a context manager."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def call(self, *args: bytes) -> Any:
        """Run a command; an error comes back as an exception object and is not raised."""
        self.socket.sendall(encode(*args))
        return self.reply()

    def reply(self) -> Any:
        """Return the next reply."""
        while (reply := self._reader.gets()) is False:
            received = self.socket.recv(READ_BYTES)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(received)
        return reply

    def fill(self, keys: int, value_bytes: int = VALUE_BYTES, *, first: int = 0) -> None:
        """Store ``keys`` keys, numbered from ``first``, in pipelined batches."""
        self.run_many(
            keys, lambda number: encode(b"SET", key_of(first + number), value_of(first + number, value_bytes))
        )

    def run_many(self, count: int, command: Callable[[int], bytes], batch: int = FILL_BATCH) -> None:
        """Run commands 0..count-1, given as RESP, in batches; raise RuntimeError at the first error."""
        for start in range(0, count, batch):
            numbers = range(start, min(count, start + batch))
            self.socket.sendall(b"".join(map(command, numbers)))
            for _ in numbers:
                reply = self.reply()
                if isinstance(reply, hiredis.ReplyError):
                    raise RuntimeError(str(reply))

    def info(self, section: bytes) -> dict[str, str]:
        """Return the fields of a section of INFO."""
        text = self.call(b"INFO", section).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> RespClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
