"""A node as a real process, on ports that the kernel chooses.

Guarantees: ``NodeProcess`` returns from ``start`` when the node is ready or raises with its log; leaving the context
leaves no process behind; every wait has a bound.
Leaves to the caller: the data directory, which outlives the process, so that a second one may start on it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.01
PLANES: Final = ("resp", "grpc", "peer", "admin")


class NodeProcess:
    """``redan serve`` in a child process; use it as a context manager or call ``start`` and ``stop``."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.data_dir = folder / "data"
        self.log_path = folder / "node.log"
        self._options = options
        self.environment: dict[str, str] = {}
        """Variables that the node gets beside those of the test."""
        self._process: subprocess.Popen[bytes] | None = None
        self.addresses: dict[str, tuple[str, int]] = {}

    @property
    def pid(self) -> int:
        """Process id of the running node."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> NodeProcess:
        """Start the node and wait until it is ready; raises RuntimeError with its log when it ends before."""
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self) -> None:
        """Start the node and wait for nothing; where it listens is not known yet."""
        self.addresses = {}
        addresses = [argument for plane in PLANES for argument in (f"--{plane}-addr", "127.0.0.1:0")]
        command = [sys.executable, "-m", "kvservice", "serve", "--data-dir", str(self.data_dir), "--log-format", "json"]
        with self.log_path.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *addresses, *self._options],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
            )

    def wait_until_ready(self) -> None:
        """Wait until the node says that it is ready; raises RuntimeError with its log when it ends before."""
        assert self._process is not None
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            is_over = self._process.poll() is not None
            self.read_addresses()
            if any(line.get("event") == "node_ready" for line in self.events()):
                return
            if is_over:
                raise RuntimeError(f"the node ended with {self._process.returncode}: {self.log_path.read_text()}")
            time.sleep(POLL_S)
        raise TimeoutError(f"the node is not ready: {self.log_path.read_text()}")

    def read_addresses(self) -> None:
        """Note where the node has said so far that it listens."""
        for line in self.events():
            if line.get("event") == "listening":
                host, _, port = str(line["address"]).rpartition(":")
                self.addresses[str(line["plane"])] = (host, int(port))

    def events(self) -> list[dict[str, object]]:
        """Return the log lines written so far; a line that is not complete yet, or no JSON, is left out."""
        lines = self.log_path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def connect(self, plane: str = "resp") -> socket.socket:
        """Return a connected socket with a timeout."""
        return socket.create_connection(self.addresses[plane], TIMEOUT_S)

    @property
    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Ask for an orderly stop (SIGTERM); return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(TIMEOUT_S)

    def pause(self) -> None:
        """Stop the process without ending it (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @staticmethod
    def redan(*arguments: str) -> tuple[int, str]:
        """Run a command of `redan`; return its exit code and what it printed."""
        ended = subprocess.run(
            [sys.executable, "-m", "kvservice", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
        return ended.returncode, ended.stdout.decode()

    def wait(self) -> int:
        """Wait until the node ends by itself; return the exit code."""
        assert self._process is not None
        return self._process.wait(TIMEOUT_S)

    def client(self) -> redis.Redis:
        """Return a client of the RESP plane that repeats nothing by itself."""
        return redis.Redis(port=self.addresses["resp"][1], socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        """Stop the process at once (SIGKILL); harmless if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT_S)

    def __enter__(self) -> NodeProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def readyz(node: NodeProcess) -> tuple[int, str]:
    """Return what the readiness probe is told."""
    host, port = node.addresses["admin"]
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
