"""Protected mode with callers of another machine, which is a network namespace; beside a real redis-server."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness.links import NamespaceLinks, has_namespaces, inside
from tests.harness.oracle import REDIS_SERVER, Oracle
from tests.harness.process import ROOT, TIMEOUT_S, NodeProcess

pytestmark = pytest.mark.skipif(not has_namespaces(), reason="another machine needs network namespaces, and root")
RESP_PORT, GRPC_PORT, REDIS_PORT = 6379, 7400, 6380
READ_BYTES = 1 << 16


@pytest.fixture(scope="module")
def links() -> Iterator[NamespaceLinks]:
    with NamespaceLinks(["server", "client"]) as made:
        yield made


@pytest.fixture(scope="module")
def node(links: NamespaceLinks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    addresses = ["--resp-addr", f"0.0.0.0:{RESP_PORT}", "--grpc-addr", f"0.0.0.0:{GRPC_PORT}"]
    with inside(links.namespace("server")):
        process = NodeProcess(tmp_path_factory.mktemp("protected"), "--fsync", "os", *addresses).start()
    try:
        yield process
    finally:
        process.kill()


def said(links: NamespaceLinks, namespace: str, host: str, port: int, *commands: str) -> bytes:
    """Return all that a server says to a connection from a namespace, until it closes or has answered all commands."""
    with inside(links.namespace(namespace)):
        peer = socket.create_connection((host, port), TIMEOUT_S)
    answered = b""
    with peer:
        for command in commands:
            peer.sendall(command.encode() + b"\r\n")
            answered += peer.recv(READ_BYTES)
        while not commands and (chunk := peer.recv(READ_BYTES)):
            answered += chunk
    return answered


def rejected(links: NamespaceLinks) -> int:
    """Return how many connections the node has refused."""
    told = said(links, "server", "127.0.0.1", RESP_PORT, "INFO stats")
    return int(told.partition(b"rejected_connections:")[2].split()[0])


def ctl(links: NamespaceLinks, namespace: str, host: str) -> subprocess.CompletedProcess[str]:
    """Ask for the status over gRPC, from a namespace."""
    asking = [sys.executable, "-m", "kvservice", "ctl", "status", "--endpoint", f"{host}:{GRPC_PORT}"]
    with inside(links.namespace(namespace)):
        return subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed")
def test_a_redis_client_of_another_machine_is_told_what_redis_tells_it(
    links: NamespaceLinks, node: NodeProcess
) -> None:
    with inside(links.namespace("server")):
        oracle = Oracle("--port", str(REDIS_PORT), "--bind", "0.0.0.0")
    with oracle:
        expected = said(links, "client", links.address("server"), REDIS_PORT)
    assert expected.startswith(b"-DENIED Redis is running in protected mode")
    before = rejected(links)
    assert said(links, "client", links.address("server"), RESP_PORT) == expected
    assert rejected(links) == before + 1
    assert node.is_running


def test_a_redis_client_of_this_machine_lets_others_in_and_shuts_them_out_again(
    links: NamespaceLinks, node: NodeProcess
) -> None:
    server = links.address("server")
    asked = said(links, "server", "127.0.0.1", RESP_PORT, "CONFIG GET protected-mode", "CONFIG SET protected-mode no")
    assert asked == b"*2\r\n$14\r\nprotected-mode\r\n$3\r\nyes\r\n+OK\r\n"
    assert said(links, "client", server, RESP_PORT, "PING", "CONFIG SET protected-mode maybe") == (
        b"+PONG\r\n-ERR CONFIG SET failed (possibly related to argument 'protected-mode') - argument must be 'yes' or "
        b"'no'\r\n"
    )
    assert ctl(links, "client", server).returncode == 0
    assert said(links, "client", server, RESP_PORT, "CONFIG SET protected-mode yes") == b"+OK\r\n"
    assert said(links, "client", server, RESP_PORT).startswith(b"-DENIED ")
    assert node.is_running


def test_a_grpc_client_of_another_machine_is_refused_with_the_ways_out(
    links: NamespaceLinks, node: NodeProcess
) -> None:
    refused = ctl(links, "client", links.address("server"))
    assert refused.returncode == 1
    assert "protected mode: no password is set" in refused.stderr
    assert "--requirepass-file" in refused.stderr
    assert ctl(links, "server", "127.0.0.1").returncode == 0
    assert node.is_running


def test_with_a_password_callers_of_another_machine_are_asked_for_it(links: NamespaceLinks, node: NodeProcess) -> None:
    assert said(links, "server", "127.0.0.1", RESP_PORT, "CONFIG SET requirepass secret") == b"+OK\r\n"
    try:
        asked = said(links, "client", links.address("server"), RESP_PORT, "PING", "AUTH wrong", "AUTH secret", "PING")
        assert asked == (
            b"-NOAUTH Authentication required.\r\n"
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n+PONG\r\n"
        )
        assert "Authentication required" in ctl(links, "client", links.address("server")).stderr
    finally:
        undo = said(links, "server", "127.0.0.1", RESP_PORT, "AUTH secret", 'CONFIG SET requirepass ""')
    assert undo == b"+OK\r\n+OK\r\n"
    assert node.is_running
