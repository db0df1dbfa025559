"""The two servers that are compared, as child processes on free ports, in directories that are removed afterwards.

Guarantees: ``start`` returns when PING is answered, with the seconds since the process was asked for. Leaving the
context leaves neither process nor directory. Neither server compacts its log or takes a snapshot of its own accord, so
that none falls into the run of one side only.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import sample
from time import monotonic, perf_counter, sleep
from types import TracebackType
from typing import Final, Literal, Self

from bench.report import ROOT, SCRATCH
from bench.resp_client import RespClient

Durability = Literal["always", "interval", "os"]
Side = Literal["redis", "redan"]
SIDES: Final[tuple[Side, Side]] = ("redis", "redan")

START_SECONDS_MAX: Final = 120.0
STOP_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.002
CLIENTS_MAX: Final = 10_100
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel gives to connections, so that a port stays free until its server has started."""
_ports = iter(sample(PORTS, len(PORTS)))


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that was not returned before."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"none of the ports {PORTS.start}..{PORTS.stop - 1} is free")


def allow_many_connections() -> int:
    """Raise the limit of open files as far as allowed, for this process and its children; return it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def written_bytes(pid: int) -> int:
    """Return how many bytes a process has handed to write calls so far.

    Bytes that it sent with them to sockets are included. ``write_bytes`` in the same file would be the disk's, but
    counts a large page of the cache again whenever a part of it is written.
    """
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


class Server:
    """A server to be measured: a directory that outlives restarts, and at most one process."""

    side: Side

    def __init__(self, durability: Durability, options: Sequence[str] = ()) -> None:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.side}-", dir=SCRATCH))
        self.durability = durability
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, keys: int | None = None) -> float:
        """Start and wait until PING is answered; return the seconds that took. Check the number of keys if given."""
        started = perf_counter()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_until_answering()
        seconds = perf_counter() - started
        if keys is not None:
            with self.client() as client:
                found = client.call(b"DBSIZE")
            if found != keys:
                raise RuntimeError(f"{self.side} came back with {found} keys of {keys}")
        return seconds

    def _wait_until_answering(self) -> None:
        assert self._process is not None
        deadline = monotonic() + START_SECONDS_MAX
        while monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with self.client() as client:
                    while monotonic() < deadline:
                        if client.call(b"PING") == b"PONG":
                            return
                        sleep(POLL_SECONDS)
            except OSError:
                sleep(POLL_SECONDS)
        tail = (self.folder / "log").read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"{self.side} did not start:\n{tail}")

    def client(self) -> RespClient:
        """Return a new connection."""
        return RespClient(self.port)

    def rss_bytes(self) -> int:
        """Return the memory of the process that is in RAM."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used so far."""
        return cpu_seconds(self.pid)

    def disk_bytes(self) -> int:
        """Return the size of all files in its directory, its text log left out."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file() and path.name != "log")

    def stop(self) -> None:
        """Stop it in order, saving what it saves then."""
        raise NotImplementedError

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS_MAX)
            raise

    def kill(self) -> None:
        """End it with kill -9, if it runs."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """End it and remove its directory."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class Redis(Server):
    """redis-server. Durability ``os`` has no append-only file at all, ``always`` syncs it before it answers."""

    side = "redis"

    def command(self) -> list[str]:
        """Return the command line."""
        aof = ["--appendonly", "no"]
        if self.durability != "os":
            policy = "always" if self.durability == "always" else "everysec"
            aof = ["--appendonly", "yes", "--appendfsync", policy, "--auto-aof-rewrite-percentage", "0"]
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        return ["redis-server", *fixed, "--maxclients", str(CLIENTS_MAX), *aof, *self._options]

    def stop(self) -> None:
        """Stop it in order; without an append-only file it writes an RDB file."""
        with self.client() as client:
            client.socket.sendall(b"SHUTDOWN SAVE\r\n" if self.durability == "os" else b"SHUTDOWN\r\n")
            assert self._process is not None
            self._process.wait(STOP_SECONDS_MAX)
        self._process = None


class Redan(Server):
    """A Redan node, a cluster of one voter."""

    side = "redan"

    def __init__(self, durability: Durability, options: Sequence[str] = ()) -> None:
        super().__init__(durability, options)
        self.grpc_port = free_port()
        self.admin_port = free_port()
        self.peer_port = free_port()

    def command(self) -> list[str]:
        """Return the command line."""
        ports = {"resp": self.port, "grpc": self.grpc_port, "peer": self.peer_port, "admin": self.admin_port}
        addresses = [word for plane, port in ports.items() for word in (f"--{plane}-addr", f"127.0.0.1:{port}")]
        fixed = ["--data-dir", str(self.folder / "data"), "--fsync", self.durability, "--maxclients", str(CLIENTS_MAX)]
        quiet = ["--snapshot-every-bytes", "0", "--snapshot-every-seconds", "0", "--log-format", "json"]
        return [sys.executable, "-m", "kvservice", "serve", *addresses, *fixed, *quiet, *self._options]

    def stop(self) -> None:
        """Stop it in order; it takes a snapshot and seals its log."""
        self._end(signal.SIGTERM)


def settled_save(server: Redan, client: RespClient) -> tuple[float, int]:
    """Take a snapshot and wait for it; return the seconds that took and the bytes of the file."""
    started = perf_counter()
    if (reply := client.call(b"SAVE")) != b"OK":
        raise RuntimeError(f"SAVE answered {reply!r}")
    seconds = perf_counter() - started
    newest = max((server.folder / "data" / "snapshots").glob("*.snap"))
    return seconds, newest.stat().st_size


def make_server(side: Side, durability: Durability) -> Server:
    """Return a server that is not started yet."""
    return Redis(durability) if side == "redis" else Redan(durability)


def in_turn(round_number: int) -> tuple[Side, ...]:
    """Return who goes first in a round: the other one each time, so that a drift of the machine meets both alike."""
    return SIDES if round_number % 2 == 0 else SIDES[::-1]
