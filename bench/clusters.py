"""Three nodes of etcd, or of Redan, as child processes on free ports, in directories that are removed afterwards.

Guarantees: ``start`` returns once a leader has acknowledged a write through every node. Leaving the context leaves
neither processes nor directories. Settings that matter for failover are each side's defaults.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import grpc
from google.protobuf.message import Message

from bench.report import ROOT, SCRATCH
from bench.resp_client import RespClient
from bench.servers import cpu_seconds, free_port
from redan.cluster.v1 import cluster_pb2

Answer = TypeVar("Answer", bound=Message)
ClusterSide = Literal["etcd", "redan"]
SIDES: Final[tuple[ClusterSide, ClusterSide]] = ("etcd", "redan")
NODES: Final = 3
FORM_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 20.0
CALL_SECONDS_MAX: Final = 2.0
REST_SECONDS: Final = 0.5
REST_SECONDS_MAX: Final = 30.0
REST_CPU_MAX: Final = 0.3
"""Nodes at rest together use less of one processor."""
POLL_SECONDS: Final = 0.02


class Cluster:
    """Some nodes of one kind; node numbers begin at 0."""

    side: ClusterSide

    def __init__(self, nodes: int = NODES) -> None:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.side}-", dir=SCRATCH))
        self.numbers = range(nodes)
        self.client_ports = [free_port() for _ in self.numbers]
        self.peer_ports = [free_port() for _ in self.numbers]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> list[str]:
        """Return the gRPC address of every node."""
        return [f"127.0.0.1:{port}" for port in self.client_ports]

    def command(self, number: int) -> list[str]:
        """Return the command line of a node."""
        raise NotImplementedError

    def leader(self) -> int | None:
        """Return the number of the node that leads, as most of those that answer see it; None if none does."""
        raise NotImplementedError

    def hand_over(self, source: int, target: int) -> None:
        """Make another node the leader, in order; returns when the cluster says that it is done."""
        raise NotImplementedError

    def write(self, number: int) -> None:
        """Write something through a node; raises if it is not acknowledged."""
        raise NotImplementedError

    def start_node(self, number: int) -> None:
        """Start a node; does not wait."""
        with (self.folder / f"log{number}").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                self.command(number), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start all nodes and wait until each takes writes."""
        for number in self.numbers:
            self.start_node(number)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until every node runs, takes writes and knows the leader; raises RuntimeError with the logs if not."""
        deadline = monotonic() + FORM_SECONDS_MAX
        missing = list(self.numbers)
        while missing and monotonic() < deadline:
            try:
                if self.leader() is not None:
                    self.write(missing[0])
                    missing.pop(0)
                    continue
            except (OSError, grpc.RpcError, ValueError, EOFError):
                pass
            sleep(POLL_SECONDS)
        if missing:
            tails = "\n".join((self.folder / f"log{n}").read_text(errors="replace")[-1500:] for n in self.numbers)
            raise RuntimeError(f"{self.side} did not become whole; node {missing[0]} takes no writes:\n{tails}")

    def rest(self) -> None:
        """Wait until the nodes have done what a load has left them: calls of clients that are gone, and entries."""
        deadline = monotonic() + REST_SECONDS_MAX
        used = self._cpu_seconds()
        while monotonic() < deadline:
            sleep(REST_SECONDS)
            before, used = used, self._cpu_seconds()
            if used - before < REST_CPU_MAX * REST_SECONDS:
                return
        raise RuntimeError(f"{self.side} did not come to rest within {REST_SECONDS_MAX:g} s")

    def _cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self._processes.values())

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a node."""
        self._processes[number].send_signal(what)

    def kill(self, number: int) -> None:
        """End a node with kill -9 and reap it."""
        process = self._processes[number]
        process.kill()
        process.wait(STOP_SECONDS_MAX)

    def remove(self) -> None:
        """End all nodes and remove their directories."""
        for number, process in self._processes.items():
            if process.poll() is None:
                self.kill(number)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class Etcd(Cluster):
    """etcd with its defaults: heartbeats of 100 ms, elections after 1,000 ms."""

    side = "etcd"

    def command(self, number: int) -> list[str]:
        """Return the command line of a node."""
        client, peer = (f"http://127.0.0.1:{ports[number]}" for ports in (self.client_ports, self.peer_ports))
        members = ",".join(f"n{n}=http://127.0.0.1:{self.peer_ports[n]}" for n in self.numbers)
        fixed = ["--name", f"n{number}", "--data-dir", str(self.folder / f"n{number}"), "--initial-cluster", members]
        addresses = ["--listen-client-urls", client, "--advertise-client-urls", client]
        addresses += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        return ["etcd", *fixed, *addresses, "--log-level", "error", "--logger", "zap"]

    def _call(self, number: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.client_ports[number]}/v3/{path}"
        request = urllib.request.Request(address, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=CALL_SECONDS_MAX) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def _status(self, number: int) -> tuple[str, str]:
        """Return the ids of a node and of its leader; the latter is empty or "0" while there is none."""
        found = self._call(number, "maintenance/status", {})
        return found["header"]["member_id"], found.get("leader", "0")

    def leader(self) -> int | None:
        """Return the number of the node that says that it leads."""
        for number in self.numbers:
            try:
                own, leader = self._status(number)
            except OSError:
                continue
            if own == leader:
                return number
        return None

    def hand_over(self, source: int, target: int) -> None:
        """Ask the leader to move leadership."""
        self._call(source, "maintenance/transfer-leadership", {"targetID": self._status(target)[0]})

    def write(self, number: int) -> None:
        """Put a key."""
        self._call(number, "kv/put", {"key": "cHJvYmU=", "value": "eA=="})


class RedanCluster(Cluster):
    """Redan with its defaults: heartbeats of 100 ms, elections after 400 to 600 ms."""

    side = "redan"

    def __init__(self, nodes: int = NODES, options: Sequence[str] = ()) -> None:
        super().__init__(nodes)
        self.resp_ports = [free_port() for _ in self.numbers]
        self._admin_ports = [free_port() for _ in self.numbers]
        self._options = options

    def command(self, number: int) -> list[str]:
        """Return the command line of a node."""
        planes = {
            "resp": self.resp_ports, "grpc": self.client_ports, "peer": self.peer_ports, "admin": self._admin_ports,
        }  # fmt: skip
        addresses = [
            word for plane, ports in planes.items() for word in (f"--{plane}-addr", f"127.0.0.1:{ports[number]}")
        ]
        members = ",".join(f"n{n}=127.0.0.1:{self.peer_ports[n]}" for n in self.numbers)
        fixed = ["--name", f"n{number}", "--data-dir", str(self.folder / f"n{number}"), "--initial-cluster", members]
        return [sys.executable, "-m", "kvservice", "serve", *fixed, *addresses, "--log-format", "json", *self._options]

    def _call(self, number: int, method: str, request: Message, answer: type[Answer]) -> Answer:
        """Call the cluster service of a node; raises grpc.RpcError."""
        with grpc.insecure_channel(self.endpoints[number]) as channel:
            call: Callable[..., Answer] = channel.unary_unary(
                f"/redan.cluster.v1.ClusterService/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            return call(request, timeout=CALL_SECONDS_MAX)

    def leader(self) -> int | None:
        """Return the number of the node that says that it leads."""
        for number in self.numbers:
            try:
                status = self._call(number, "Status", cluster_pb2.StatusRequest(), cluster_pb2.StatusResponse)
            except grpc.RpcError:
                continue
            if status.role == cluster_pb2.ROLE_LEADER:
                return number
        return None

    def hand_over(self, source: int, target: int) -> None:
        """Ask the leader to transfer leadership."""
        request = cluster_pb2.TransferLeadershipRequest(name=f"n{target}")
        self._call(source, "TransferLeadership", request, cluster_pb2.TransferLeadershipResponse)

    def write(self, number: int) -> None:
        """Set a key."""
        with RespClient(self.resp_ports[number]) as client:
            reply = client.call(b"SET", b"probe", b"x")
        if reply != b"OK":
            raise ValueError(f"SET answered {reply!r}")


def make_cluster(side: ClusterSide) -> Cluster:
    """Return a cluster that is not started yet."""
    return Etcd() if side == "etcd" else RedanCluster()
