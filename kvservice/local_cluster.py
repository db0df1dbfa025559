"""A cluster on this machine: ``redan serve`` processes, on addresses that are chosen for them.

Guarantees: every process that was started has ended when ``stop`` returns: asked first, killed after STOP_SECONDS.
Nothing is restarted. Ports are the same again for a directory that is kept: the members know each other by them.
Leaves to the caller: printing, and signals (kvservice/cli_dev).
Layout of the directory: cluster.json (ports by node), NAME/data, NAME/node.log.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

HOST: Final = "127.0.0.1"
PLANES: Final = ("resp", "grpc", "peer", "admin")
FIRST_PORTS: Final = {"resp": 7001, "grpc": 7101, "peer": 7201, "admin": 7301}
"""Of the first node, if they and those behind them are free: easy to remember."""
NODES: Final = 3
STOP_SECONDS: Final = 20.0
PROBE_SECONDS: Final = 1.0
LOG_TAIL_BYTES: Final = 4096


class NoCluster(Exception):  # noqa: N818 - it says what happened
    """The directory cannot be used, or not now; the text is for people."""


class PortsTaken(NoCluster):
    """Ports that a kept directory needs are in use."""


class LocalNode:
    """One process."""

    def __init__(self, name: str, directory: Path, ports: Mapping[str, int]) -> None:
        self.name = name
        self.directory = directory
        self.ports = ports
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """Where its log goes."""
        return self.directory / "node.log"

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def start(self, arguments: Sequence[str]) -> None:
        """Start the process, in a session of its own: Ctrl-C in the terminal is not for it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "kvservice", "serve", "--name", self.name]
        command += ["--data-dir", str(self.directory / "data")]
        for plane in PLANES:
            command += [f"--{plane}-addr", f"{HOST}:{self.ports[plane]}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def exit_code(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def is_ready(self) -> bool:
        """Ask its probe."""
        connection = http.client.HTTPConnection(HOST, self.ports["admin"], timeout=PROBE_SECONDS)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def last_lines(self) -> list[str]:
        """Return the end of its log."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()[-5:]

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until it has ended; kill it at a moment of ``monotonic``."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LocalCluster:
    """Several nodes that know each other."""

    def __init__(self, directory: Path, count: int | None) -> None:
        # count: how many nodes; None for those that the directory holds, or NODES. Raises NoCluster.
        self.directory = directory
        self.nodes = [
            LocalNode(name, directory / name, ports) for name, ports in _ports_of_all(directory, count).items()
        ]

    def start(self, arguments: Sequence[str]) -> None:
        """Start all; ``arguments`` are further flags of ``redan serve``."""
        members = ",".join(f"{node.name}={HOST}:{node.ports['peer']}" for node in self.nodes)
        for node in self.nodes:
            node.start(["--initial-cluster", members, *arguments])

    def stop(self) -> None:
        """Ask all to stop at once, and wait."""
        # A node that stops hands its leadership over; all at once there is nobody to take it, and nothing to wait for.
        for node in self.nodes:
            node.ask_to_stop()
        deadline = monotonic() + STOP_SECONDS
        for node in self.nodes:
            node.wait(deadline)


def _ports_of_all(directory: Path, count: int | None) -> dict[str, dict[str, int]]:
    """Return the ports of each node, by plane; those of a kept directory, or free ones, which are then kept."""
    kept = directory / "cluster.json"
    if kept.exists():
        ports = _kept_ports(kept)
        if count not in (None, len(ports)):
            raise NoCluster(f"{directory} holds a cluster of {len(ports)}, and --nodes says {count}")
        taken = [f"{name} {plane} {HOST}:{port}" for name, port, plane in _flat(ports) if not _is_free(port)]
        if taken:
            raise PortsTaken(f"{directory} holds a cluster whose addresses are in use: {', '.join(taken)}")
        return ports
    count = count or NODES
    ports = {
        f"n{number}": {p: first + number - 1 for p, first in FIRST_PORTS.items()} for number in range(1, count + 1)
    }
    if not all(_is_free(port) for _, port, _ in _flat(ports)):
        free = iter(_free_ports(count * len(PLANES)))
        ports = {name: {plane: next(free) for plane in PLANES} for name in ports}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(ports, indent=2) + "\n")
    except OSError as error:
        raise NoCluster(f"{directory} cannot be used: {error.strerror}") from error
    return ports


def _kept_ports(kept: Path) -> dict[str, dict[str, int]]:
    """Read what ``_ports_of_all`` wrote. Raises NoCluster."""
    try:
        ports: dict[str, dict[str, int]] = json.loads(kept.read_text())
        return {name: {plane: int(planes[plane]) for plane in PLANES} for name, planes in ports.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCluster(f"{kept} cannot be read: {error!r}; name another --dir") from error


class _Port(NamedTuple):
    name: str
    port: int
    plane: str


def _flat(ports: Mapping[str, Mapping[str, int]]) -> list[_Port]:
    return [_Port(name, port, plane) for name, planes in ports.items() for plane, port in planes.items()]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody uses; all are held until all are known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
