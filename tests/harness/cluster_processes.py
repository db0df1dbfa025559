"""A cluster of real processes on 127.0.0.1, and what a test does to it.

Guarantees: leaving the context leaves no process behind; every wait has a bound and says what it waited for.
Leaves to the caller: asserting.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc
import redis
from redis.exceptions import ClusterDownError

from kvservice.cli import run_command
from kvservice.cluster.client import ClusterClient
from redan.cluster.v1 import cluster_pb2
from tests.harness.process import POLL_S, TIMEOUT_S, NodeProcess

REDIS_ERRORS: Final = (redis.RedisError, OSError)
FREE_PORTS: Final = range(20_000, 32_000)
PORT_TRIES: Final = 200


class ClusterNode(NodeProcess):
    """A member: it has the same addresses after a restart."""

    def __init__(self, name: str, folder: Path, port: int, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.peer_address = f"127.0.0.1:{port}"
        super().__init__(folder, "--name", name, "--peer-addr", self.peer_address, *options)

    @property
    def grpc_endpoint(self) -> str:
        """Where its gRPC plane is."""
        host, port = self.addresses["grpc"]
        return f"{host}:{port}"

    def status(self) -> Any:
        """Return its StatusResponse; raises grpc.RpcError when it does not answer."""
        client = ClusterClient([self.grpc_endpoint])
        return client.ask(self.grpc_endpoint, "Status", cluster_pb2.StatusRequest(), TIMEOUT_S)

    def has_said(self, event: str, **fields: object) -> bool:
        """Tell whether a line of the log of its present run has this event and these fields."""
        return any(
            line["event"] == event and all(line.get(name) == value for name, value in fields.items())
            for line in self.events()
        )


class ClusterProcesses:
    """Nodes n1, n2, … that found a cluster together."""

    def __init__(self, folder: Path, count: int, *options: str) -> None:
        self.folder = folder
        self.options = options
        names = [f"n{number + 1}" for number in range(count)]
        ports = dict(zip(names, free_ports(count), strict=True))
        members = ",".join(f"{name}=127.0.0.1:{port}" for name, port in ports.items())
        self.nodes = {
            name: ClusterNode(name, folder / name, port, "--initial-cluster", members, *options)
            for name, port in ports.items()
        }

    def __enter__(self) -> ClusterProcesses:
        try:
            for node in self.nodes.values():
                node.launch()
            self.wait_until_ready()
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

    def __getitem__(self, name: str) -> ClusterNode:
        return self.nodes[name]

    def joining(self, name: str, *options: str) -> ClusterNode:
        """Return a node, not started, that will join this cluster."""
        targets = ",".join(node.peer_address for node in self.nodes.values())
        node = ClusterNode(name, self.folder / name, free_ports(1)[0], "--join", targets, *self.options, *options)
        self.nodes[name] = node
        return node

    def wait_until_ready(self) -> None:
        """Wait until every node has said so."""
        for node in self.running():
            node.wait_until_ready()

    def running(self) -> list[ClusterNode]:
        """Return the nodes whose processes live."""
        return [node for node in self.nodes.values() if node.is_running]

    def kill_all(self) -> None:
        """End every process."""
        for node in self.nodes.values():
            node.kill()

    def leader(self) -> ClusterNode:
        """Wait until a running node leads and every other one follows it; return it."""
        found: list[ClusterNode] = []

        def agrees() -> bool:
            states = [node.status() for node in self.running()]
            leaders = {state.leader for state in states}
            if len(leaders) != 1 or (name := leaders.pop()) not in {state.node for state in states}:
                return False
            found.append(self.nodes[name])
            return True

        self.until(agrees, "a leader that all follow")
        return found[-1]

    def followers(self) -> list[ClusterNode]:
        """Return the running nodes that do not lead."""
        leader = self.leader()
        return [node for node in self.running() if node is not leader]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; one that raises because a node does not answer is not met yet."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (*REDIS_ERRORS, grpc.RpcError):
                pass
            time.sleep(POLL_S)
        logs = "\n".join(f"{name}:\n{node.log_path.read_text()[-3000:]}" for name, node in self.nodes.items())
        raise TimeoutError(f"waited {TIMEOUT_S:.0f} s for {what}\n{logs}")

    def until_all_applied(self) -> None:
        """Wait until every running node has applied what the leader has."""
        leader = self.leader()
        goal = leader.status().last_index

        def has_all(node: ClusterNode) -> bool:
            state = node.status()
            return bool(state.applied_index >= goal and not state.quarantined)

        for node in self.running():
            self.until(lambda node=node: has_all(node), f"{node.name} to apply {goal}")  # type: ignore[misc]

    def ctl(self, *arguments: str, at: ClusterNode | None = None) -> Any:
        """Run ``redan ctl`` against a node; return what it prints. Raises RuntimeError with its complaint.

        It runs in this process: an interpreter of its own would cost each call half a second.
        """
        node = at or self.running()[0]
        said, complaint = StringIO(), StringIO()
        with redirect_stdout(said), redirect_stderr(complaint):
            code = run_command(["ctl", *arguments, "-o", "json", "--endpoint", node.grpc_endpoint])
        if code:
            raise RuntimeError(complaint.getvalue())
        return json.loads(said.getvalue())

    def lose_disk(self, node: ClusterNode) -> None:
        """Remove the data of a node that does not run."""
        assert not node.is_running
        shutil.rmtree(node.data_dir)


class Writer(threading.Thread):
    """Writes key after key through one node after the other, and notes what was acknowledged."""

    def __init__(self, cluster: ClusterProcesses, prefix: str = "w") -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self.gap_s = 0.0
        """The longest time between two acknowledgements, since the first."""
        self.errors: list[str] = []
        self._cluster = cluster
        self._prefix = prefix
        self._stopping = threading.Event()

    def run(self) -> None:
        """Write until told to stop."""
        clients: dict[int, redis.Redis] = {}
        last = 0.0
        number = 0
        while not self._stopping.is_set():
            number += 1
            nodes = [node for node in self._cluster.running() if "resp" in node.addresses]
            if not nodes:
                time.sleep(POLL_S)
                continue
            node = nodes[number % len(nodes)]
            try:
                client = clients.get(node.pid) or clients.setdefault(node.pid, node.client())
                client.set(f"{self._prefix}{number}", number)
            except REDIS_ERRORS as error:
                self.errors.append(str(error))
                continue
            now = time.monotonic()
            if last:
                self.gap_s = max(self.gap_s, now - last)
            last = now
            self.acknowledged.append(f"{self._prefix}{number}")

    def wait_for(self, count: int) -> None:
        """Wait until so many more writes are acknowledged."""
        goal = len(self.acknowledged) + count
        self._cluster.until(lambda: len(self.acknowledged) >= goal, f"{count} writes ({self.errors[-3:]})")

    def stop(self) -> list[str]:
        """End, and return the keys whose writes were acknowledged."""
        self._stopping.set()
        self.join(TIMEOUT_S)
        assert not self.is_alive()
        return self.acknowledged

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now.

    They lie below those that the kernel hands out, so that they are still free when a node comes back to its own.
    """
    sockets: list[socket.socket] = []
    try:
        for port in random.sample(FREE_PORTS, PORT_TRIES):
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
                continue
            sockets.append(one)
            if len(sockets) == count:
                return [int(one.getsockname()[1]) for one in sockets]
        raise RuntimeError(f"no {count} ports are free")
    finally:
        for one in sockets:
            one.close()


def store(client: redis.Redis, key: str, value: str | bytes) -> None:
    """Set a key, again while a leader has gone and nobody knows what became of it: with SET that harms nothing."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            client.set(key, value)
            return
        except redis.ResponseError as error:
            is_passing = isinstance(error, ClusterDownError) or str(error).startswith("UNKNOWN")
            if not is_passing or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def missing(node: ClusterNode, keys: list[str]) -> list[str]:
    """Return the keys that a node does not know, asked in parts."""
    client = node.client()
    found: list[str] = []
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        found += [key for key, value in zip(part, client.mget(part), strict=True) if value is None]
    return found
