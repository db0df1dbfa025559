"""Relays between the nodes of a cluster: links that can be cut, each way apart, without any privilege.

Each node is reached by its peers through a relay in this process, at the address that it advertises. The relay looks up
which node's process has the other end of a connection, so it knows both ends of every link. What is cut is not passed
on, nor is the end of a connection, until the link is healed; then all of it arrives, as after repeats by TCP.

Guarantees: leaving ``Relays`` ends all connections and threads; a node that stalls delays nobody else.
Leaves to the caller: nodes that run on this machine, and know each other by the addresses of the relays only.
Reference: proc(5), /proc/net/tcp and /proc/[pid]/fd.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, free_ports
from tests.harness.process import TIMEOUT_S

PART_BYTES: Final = 1 << 16
TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""gRPC dials IPv4 by sockets that are of IPv6."""
LOCAL, INODE = 1, 9
"""Columns of these tables."""


def has_socket(pid: int, port: int) -> bool:
    """Tell whether a process has a socket with this local port; False when the process has ended."""
    inodes = set()
    for table in filter(Path.exists, TABLES):
        for line in table.read_text().splitlines()[1:]:
            columns = line.split()
            if int(columns[LOCAL].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[INODE]}]")
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):
            if str(descriptor.readlink()) in inodes:
                return True
    return False


class Relays:
    """One relay for each node; use it as a context manager. ``pids``: of the nodes that run, by name."""

    def __init__(self, ports: Mapping[str, int], pids: Callable[[], Mapping[str, int]]) -> None:
        """Listen for the nodes, of which each has its peer port."""
        self._ports = ports
        self._pids = pids
        self._cuts: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._is_closed = False
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ports}

    def address(self, name: str) -> str:
        """Return where a node is reached by the others."""
        return f"127.0.0.1:{self._listeners[name].getsockname()[1]}"

    def __enter__(self) -> Relays:
        for name in self._ports:
            self._begin(self._listen, name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for one in (*self._listeners.values(), *self._sockets):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), f"{thread.name} hangs"
        for listener in self._listeners.values():
            listener.close()

    def cut(self, source: str, target: str) -> None:
        """Pass nothing on from one node to another."""
        with self._changed:
            self._cuts.add((source, target))

    def heal(self) -> None:
        """Pass everything on, also what was held back."""
        with self._changed:
            self._cuts.clear()
            self._changed.notify_all()

    def _begin(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name=f"relay {arguments[-1]}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, target: str) -> None:
        while True:
            try:
                near, (_, port) = self._listeners[target].accept()
            except OSError:
                return  # closed
            self._connect(near, port, target)

    def _connect(self, near: socket.socket, port: int, target: str) -> None:
        source = next((name for name, pid in self._pids().items() if has_socket(pid, port)), None)
        far: socket.socket | None = None
        if source is not None:
            with suppress(OSError):
                far = socket.create_connection(("127.0.0.1", self._ports[target]), TIMEOUT_S)
        with self._changed:
            if source is None or far is None or self._is_closed:
                for one in (near, far):
                    if one is not None:
                        one.close()
                return
            for one in (near, far):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.add(one)
        open_ways = [2]
        self._begin(self._carry, near, far, open_ways, (source, target))
        self._begin(self._carry, far, near, open_ways, (target, source))

    def _carry(self, source: socket.socket, target: socket.socket, open_ways: list[int], way: tuple[str, str]) -> None:
        """Pass on what comes one way until the connection ends."""
        received = b"all that comes"
        while received:
            try:
                received = source.recv(PART_BYTES)
            except OSError:
                received = b""
            with self._changed:
                self._changed.wait_for(lambda: way not in self._cuts or self._is_closed)
            with suppress(OSError):
                if received:
                    target.sendall(received)
                else:
                    target.shutdown(socket.SHUT_RDWR)
        with self._changed:
            open_ways[0] -= 1
            if not open_ways[0]:
                for one in (source, target):
                    self._sockets.discard(one)
                    one.close()


class RelayCluster(ClusterProcesses):
    """Nodes that reach each other through relays."""

    def __init__(self, folder: Path, count: int, *options: str) -> None:
        self.folder = folder
        self.options = options
        names = [f"n{number + 1}" for number in range(count)]
        ports = dict(zip(names, free_ports(count), strict=True))
        self.links = Relays(ports, lambda: {node.name: node.pid for node in self.running()})
        members = ",".join(f"{name}={self.links.address(name)}" for name in names)
        self.nodes = {}
        for name, port in ports.items():
            address = self.links.address(name)
            options = ("--initial-cluster", members, "--advertise-peer-addr", address, *self.options)
            self.nodes[name] = ClusterNode(name, folder / name, port, *options)
            self.nodes[name].peer_address = address

    def __enter__(self) -> RelayCluster:
        self.links.__enter__()
        try:
            super().__enter__()
        except BaseException:
            self.links.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.links.__exit__(kind, error, trace)
