"""Links between the nodes of a cluster that can be cut, each way apart: a network namespace for each node (root only).

A bridge in one more namespace joins them. What is cut vanishes as on a broken wire: the kernel of the sender goes on
repeating packets that nobody gets, which is what TCP does in a real partition; so a cut one way ends, a little later,
what TCP has to acknowledge the other way. Nothing outside of these namespaces reaches the nodes. tests/harness/relays
cuts links without root.

Guarantees: `heal` undoes all cuts; leaving the cluster leaves no namespace behind.
Leaves to the caller: to reach a node only by ``connect`` (RESP): in a namespace the other planes are out of reach.
Reference: ip-netns(8), setns(2); a permanent neighbour with an address that nobody has swallows packets one way.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses

CLONE_NEWNET: Final = 0x40000000
NAMESPACES: Final = Path("/run/netns")
PEER_PORT: Final = 7401
NOBODY: Final = "02:00:00:00:00:fe"
_libc = ctypes.CDLL(None, use_errno=True)


class Links(Protocol):
    """The links of a cluster."""

    def cut(self, source: str, target: str) -> None:
        """Let nothing go from one node to another any more; the other way is a link of its own."""

    def heal(self) -> None:
        """Undo all cuts."""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Let this thread make sockets and processes in a namespace."""
    with Path("/proc/thread-self/ns/net").open("rb") as own, (NAMESPACES / namespace).open("rb") as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def has_namespaces() -> bool:
    """Tell whether this process may make network namespaces and links between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with NamespaceLinks(["probe"]):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class NamespaceLinks:
    """A network of namespaces around one bridge; use it as a context manager."""

    _made = 0

    def __init__(self, names: Sequence[str]) -> None:
        NamespaceLinks._made += 1
        self._prefix = f"redan-{os.getpid()}-{NamespaceLinks._made}"
        self._switch = f"{self._prefix}-switch"
        self._addresses = {name: f"10.77.0.{number + 1}" for number, name in enumerate(names)}
        self._cuts: set[tuple[str, str]] = set()

    def namespace(self, name: str) -> str:
        """Return the namespace of a node."""
        return f"{self._prefix}-{name}"

    def address(self, name: str) -> str:
        """Return where a node reaches another one."""
        return self._addresses[name]

    def __enter__(self) -> NamespaceLinks:
        try:
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "br0", "up")
            for number, (name, address) in enumerate(self._addresses.items()):
                own, port = self.namespace(name), f"p{number}"
                _ip("netns", "add", own)
                _ip("-n", own, "link", "add", "v0", "type", "veth", "peer", "name", port, "netns", self._switch)
                _ip("-n", self._switch, "link", "set", port, "master", "br0", "up")
                _ip("-n", own, "address", "add", f"{address}/24", "dev", "v0")
                _ip("-n", own, "link", "set", "v0", "up")
                _ip("-n", own, "link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove all namespaces of this network, and with them its links."""
        for namespace in [*map(self.namespace, self._addresses), self._switch]:
            if (NAMESPACES / namespace).exists():
                _ip("netns", "delete", namespace)

    def cut(self, source: str, target: str) -> None:
        """Send what one node has for another to an address that nobody has."""
        self._cuts.add((source, target))
        where = [self._addresses[target], "dev", "v0"]
        _ip("-n", self.namespace(source), "neigh", "replace", *where, "lladdr", NOBODY, "nud", "permanent")

    def heal(self) -> None:
        """Let the kernels look for each other again."""
        for source, target in self._cuts:
            _ip("-n", self.namespace(source), "neigh", "delete", self._addresses[target], "dev", "v0")
        self._cuts.clear()


class NamespaceNode(ClusterNode):
    """A node in a namespace of its own. Clients reach it on its loopback address, by ``connect`` alone."""

    def __init__(self, name: str, folder: Path, links: NamespaceLinks, *options: str) -> None:
        self._namespace = links.namespace(name)
        address = f"{links.address(name)}:{PEER_PORT}"
        super().__init__(name, folder, PEER_PORT, *options, "--peer-addr", address)
        self.peer_address = address

    def launch(self) -> None:
        """Start the node in its namespace and wait for nothing."""
        with inside(self._namespace):
            super().launch()

    def connect(self, plane: str = "resp") -> socket.socket:
        """Return a connected socket with a timeout, made in the namespace of the node."""
        with inside(self._namespace):
            return super().connect(plane)


class NamespaceCluster(ClusterProcesses):
    """Nodes in namespaces, and the links between them."""

    def __init__(self, folder: Path, count: int, *options: str) -> None:
        self.folder = folder
        self.options = options
        names = [f"n{number + 1}" for number in range(count)]
        self.links = NamespaceLinks(names)
        members = ",".join(f"{name}={self.links.address(name)}:{PEER_PORT}" for name in names)
        self.nodes = {
            name: NamespaceNode(name, folder / name, self.links, "--initial-cluster", members, *options)
            for name in names
        }

    def __enter__(self) -> NamespaceCluster:
        self.links.__enter__()
        try:
            super().__enter__()
        except BaseException:
            self.links.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.links.remove()
