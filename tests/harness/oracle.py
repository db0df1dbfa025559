"""The oracle: a real redis-server to compare with.

Guarantees: ``send`` writes all commands at once and returns one raw RESP2 reply for each, or raises within the timeout.
Leaves to the caller: FLUSHALL between conversations.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tests.harness.resp2 import IncompleteError, bulk_of, encode_command, end_of_reply

REDIS_SERVER = shutil.which("redis-server")
TIMEOUT_S = 20.0
READ_BYTES = 1 << 18


class Conversation(Protocol):
    """Whoever answers commands: a redis-server, a Redan server, or our handlers in this process."""

    def send(self, commands: list[list[bytes]]) -> list[bytes]:
        """Run commands in order; return one raw RESP2 reply for each."""


class Connection:
    """A blocking RESP2 connection."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self.socket.settimeout(TIMEOUT_S)
        self._received = bytearray()

    def send(self, commands: list[list[bytes]]) -> list[bytes]:
        """Run commands in order; return one raw RESP2 reply for each."""
        self.socket.sendall(b"".join(map(encode_command, commands)))
        return [self.receive() for _ in commands]

    def receive(self) -> bytes:
        """Return the next raw RESP2 reply."""
        while True:
            try:
                end = end_of_reply(self._received, 0)
            except IncompleteError:
                chunk = self.socket.recv(READ_BYTES)
                if not chunk:
                    raise ConnectionResetError("closed within a reply") from None
                self._received += chunk
                continue
            reply = bytes(self._received[:end])
            del self._received[:end]
            return reply


class Oracle:
    """A redis-server of our own on a Unix socket, without persistence. Use it as a context manager."""

    def __init__(self, *options: str) -> None:
        assert REDIS_SERVER is not None, "redis-server is not installed"
        self.folder = tempfile.TemporaryDirectory(prefix="oracle-")
        path = Path(self.folder.name) / "redis.sock"
        command = [REDIS_SERVER, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*command, "--dir", self.folder.name, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self.connection = Connection(self._connected(path))
            fields = bulk_of(self.send([[b"INFO", b"server"]])[0]).decode().split("\r\n")
            version = next(field.partition(":")[2] for field in fields if field.startswith("redis_version:"))
            self.version = tuple(map(int, version.split(".")))
        except BaseException:
            self.close()
            raise

    def _connected(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "redis-server stopped"
            peer = socket.socket(socket.AF_UNIX)
            try:
                peer.connect(str(path))
            except OSError:
                peer.close()
                time.sleep(0.01)
                continue
            return peer
        raise TimeoutError("redis-server does not listen")

    def send(self, commands: list[list[bytes]]) -> list[bytes]:
        """Run commands in order; return one raw RESP2 reply for each."""
        return self.connection.send(commands)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        if hasattr(self, "connection"):
            self.connection.socket.close()
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.folder.cleanup()

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
