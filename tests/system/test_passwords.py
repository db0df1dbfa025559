"""A password against a real node: wrong and missing on every plane, beside a real redis-server, and in no log."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from redan.cluster.v1 import cluster_pb2
from redan.kv.v1 import kv_pb2
from tests.harness.oracle import REDIS_SERVER, Oracle
from tests.harness.process import ROOT, TIMEOUT_S, NodeProcess

PASSWORD = "correct horse battery"
WRONG = "correct horse stable"
READ_BYTES = 1 << 16


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("passwords")
    (folder / "password").write_text(PASSWORD + "\n")
    with NodeProcess(folder, "--requirepass-file", str(folder / "password")) as process:
        yield process


def said(peer: socket.socket, conversation: bytes) -> bytes:
    """Return all that a server answers until it closes the connection."""
    with peer:
        peer.settimeout(TIMEOUT_S)
        peer.sendall(conversation)
        answered = b""
        while chunk := peer.recv(READ_BYTES):
            answered += chunk
        return answered


def spoken(*commands: str) -> bytes:
    """Return commands, their words apart by blanks, as clients send them; @ is the right password, ! a wrong one."""
    meant = {"@": PASSWORD, "!": WRONG}
    parts = []
    for command in (*commands, "QUIT"):
        words = [meant.get(word, word).encode() for word in command.split()]
        parts.append(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    return b"".join(parts)


@pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed")
@pytest.mark.parametrize(
    "commands",
    [
        ("GET k", "SET k v", "PING", "INFO", "NOSUCH", "GET", "CLUSTER INFO"),
        ("AUTH !", "GET k", "AUTH default !", "AUTH nobody @", "AUTH", "AUTH a b c", "GET k"),
        ("AUTH @", "ECHO in"),
        ("AUTH default @", "ECHO in", "AUTH !", "ECHO still-in"),
        ("HELLO 3", "HELLO 3 AUTH default !", "HELLO 2 AUTH nobody @", "HELLO 3 AUTH default", "GET k"),
        ("HELLO 4 AUTH default @", "GET k"),
        ("AUTH @", "RESET", "GET k"),
    ],
    ids=lambda commands: commands[0],
)
def test_redis_clients_are_answered_as_by_redis(node: NodeProcess, commands: tuple[str, ...]) -> None:
    with Oracle() as oracle:
        oracle.send([[b"CONFIG", b"SET", b"requirepass", PASSWORD.encode()]])
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(Path(oracle.folder.name) / "redis.sock"))
        expected = said(peer, spoken(*commands))
    # Redis 7.2 names the version of the protocol where 7.0 does not.
    expected = expected.replace(b"otherwise the HELLO AUTH <user>", b"otherwise the HELLO <proto> AUTH <user>")
    assert said(node.connect(), spoken(*commands)) == expected
    assert expected.count(b"-") >= 1 or b"in" in expected


@pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed")
def test_without_a_password_auth_says_so_as_redis_does(tmp_path: Path) -> None:
    commands = ("AUTH !", "AUTH default !", "AUTH nobody !", "ECHO in")
    with Oracle() as oracle, NodeProcess(tmp_path, "--fsync", "os") as open_node:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(Path(oracle.folder.name) / "redis.sock"))
        assert said(open_node.connect(), spoken(*commands)) == said(peer, spoken(*commands))


def calls() -> Iterator[tuple[str, Message]]:
    """Yield the path of every call of the two services, and a request of it."""
    for module, service in ((kv_pb2, "KVService"), (cluster_pb2, "ClusterService")):
        described = module.DESCRIPTOR.services_by_name[service]
        for method in described.methods:
            request: Message = getattr(module, method.input_type.name)()
            yield f"/{described.full_name}/{method.name}", request


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ((), "Authentication required."),
        ((("authorization", f"Bearer {WRONG}"),), "invalid username-password pair or user is disabled."),
        ((("authorization", f"Basic {PASSWORD}"),), "invalid username-password pair or user is disabled."),
        ((("authorization", PASSWORD),), "invalid username-password pair or user is disabled."),
        ((("authorization", "Bearer "),), "invalid username-password pair or user is disabled."),
    ],
    ids=["missing", "wrong", "another scheme", "no scheme", "empty"],
)
def test_no_call_of_a_grpc_client_goes_without_the_password(
    node: NodeProcess, metadata: tuple[tuple[str, str], ...], text: str
) -> None:
    host, port = node.addresses["grpc"]
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        paths = []
        for path, request in calls():
            # Every kind of call can be made as a stream of one request.
            method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            call = method(iter([request.SerializeToString()]), metadata=metadata, timeout=TIMEOUT_S)
            with pytest.raises(grpc.RpcError) as refused:
                next(call)
            failure: grpc.Call = refused.value  # type: ignore[assignment]
            assert (path, failure.code(), failure.details()) == (path, grpc.StatusCode.UNAUTHENTICATED, text)
            paths.append(path)
    assert len(paths) >= 15


def test_the_right_token_lets_a_grpc_client_in(node: NodeProcess) -> None:
    host, port = node.addresses["grpc"]
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/redan.kv.v1.KVService/Get")
        request = kv_pb2.GetRequest(key=b"absent").SerializeToString()
        for scheme in ("Bearer", "bearer", "BEARER"):
            call(request, metadata=(("authorization", f"{scheme} {PASSWORD}"),), timeout=TIMEOUT_S)


def test_health_and_reflection_are_open(node: NodeProcess) -> None:
    host, port = node.addresses["grpc"]
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "readiness", "leader", "redan.kv.v1.KVService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=TIMEOUT_S)
        assert "redan.kv.v1.KVService" in {found.name for found in answer.list_services_response.service}


def test_probes_and_metrics_need_no_password_and_say_nothing_of_keys_or_secrets(node: NodeProcess) -> None:
    written = said(node.connect(), spoken("AUTH @", "SET a-key-nobody-should-see a-value-nobody-should-see"))
    assert written == b"+OK\r\n" * 3
    host, port = node.addresses["admin"]
    told = ""
    for path in ("/", "/livez", "/readyz", "/startupz", "/metrics"):
        told += urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=TIMEOUT_S).read().decode()
    assert "redan_build_info" in told
    assert "nobody-should-see" not in told
    assert PASSWORD not in told


def test_redan_ctl_is_asked_for_the_password_and_takes_a_file(node: NodeProcess, tmp_path: Path) -> None:
    host, port = node.addresses["grpc"]

    def ctl(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kvservice", "ctl", "members", "--endpoint", f"{host}:{port}", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    missing = ctl()
    assert (missing.returncode, "Authentication required." in missing.stderr) == (1, True), missing.stderr
    (tmp_path / "wrong").write_text(WRONG)
    wrong = ctl("--password-file", str(tmp_path / "wrong"))
    assert (wrong.returncode, "invalid username-password pair" in wrong.stderr) == (1, True), wrong.stderr
    (tmp_path / "right").write_text(PASSWORD + "\n")
    assert ctl("--password-file", str(tmp_path / "right")).returncode == 0


def test_refusals_are_logged_with_where_they_came_from_and_without_what_was_given(node: NodeProcess) -> None:
    said(node.connect(), spoken("AUTH !"))
    host, port = node.addresses["grpc"]
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/redan.kv.v1.KVService/Get")
        with pytest.raises(grpc.RpcError):
            call(b"", metadata=(("authorization", f"Bearer {WRONG}"),), timeout=TIMEOUT_S)
    failed = [line for line in node.events() if line["event"] == "authentication_failed"]
    assert len(failed) >= 2
    assert all(str(line["address"]).startswith("127.0.0.1:") for line in failed)
    log = node.log_path.read_text()
    assert PASSWORD not in log
    assert WRONG not in log
