"""Commands about node and connection against a real node, through redis-py and through bare sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.harness.process import TIMEOUT_S, NodeProcess

READ_BYTES = 1 << 16


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("server-plane")
    with NodeProcess(folder, "--fsync", "os", "--enable-debug-command", "local") as process:
        yield process


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(node: NodeProcess, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    port = node.addresses["resp"][1]
    with redis.Redis(port=port, protocol=request.param, decode_responses=True, client_name="tester") as connected:
        yield connected


def said(node: NodeProcess, conversation: bytes) -> bytes:
    """Return all that the node answers to bytes whose last command is QUIT."""
    with node.connect() as peer:
        peer.sendall(conversation + b"QUIT\r\n")
        return read_all(peer)


def read_all(peer: socket.socket) -> bytes:
    answered = bytearray()
    while chunk := peer.recv(READ_BYTES):
        answered += chunk
    return bytes(answered)


def is_ended(peer: socket.socket) -> bool:
    """Tell whether the node has closed a connection, in either of the ways that shows."""
    try:
        return peer.recv(READ_BYTES) == b""
    except ConnectionResetError:
        return True


def wait_until_described(control: redis.Redis, peer: socket.socket, field: str, value: str) -> None:
    """Return as soon as CLIENT LIST says something of a connection; fail if it does not within the bound."""
    address = "{}:{}".format(*peer.getsockname())
    deadline = time.monotonic() + TIMEOUT_S
    while [line[field] for line in control.client_list() if line["addr"] == address] != [value]:
        assert time.monotonic() < deadline, f"the node does not say {field}={value}"
        time.sleep(0.01)


def is_unanswered(peer: socket.socket) -> bool:
    """Tell whether nothing has come for a peer."""
    peer.setblocking(False)
    try:
        return not peer.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        peer.settimeout(TIMEOUT_S)


def test_a_client_finds_itself_in_the_list(client: redis.Redis) -> None:
    own = client.client_id()
    [described] = [line for line in client.client_list() if line["id"] == str(own)]
    assert described["name"] == "tester"
    assert described["lib-name"] == "redis-py"
    assert described["laddr"].startswith("127.0.0.1:")
    assert client.client_info()["id"] == own


def test_info_parses_and_counts_what_was_sent(client: redis.Redis) -> None:
    client.config_resetstat()
    for number in range(5):
        client.set("counted", number)
        client.get("counted")
    told = client.info("all")
    assert told["redis_version"].startswith("7.2.")
    assert told["cmdstat_set"]["calls"] == told["cmdstat_get"]["calls"] == told["keyspace_hits"] == 5
    assert told["latency_percentiles_usec_set"]["p50"] > 0
    assert (told["role"], told["loading"], told["raft_role"]) == ("master", 0, "leader")
    assert told["raft_applied_index"] == told["raft_commit_index"] == told["raft_last_index"] > 5
    assert told["db0"]["keys"] >= 1
    assert told["total_net_input_bytes"] > 0


def test_commands_are_described_as_a_client_parses_them(client: redis.Redis) -> None:
    described = client.command()
    assert len(described) == client.command_count()
    assert described["mset"]["step_count"] == 2
    assert client.command_getkeys("mset", "a", "1", "b", "2") == ["a", "b"]


def test_settings_change_at_run_time(client: redis.Redis) -> None:
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    client.set("slow", "x" * 200)
    client.config_set("slowlog-log-slower-than", 10_000)
    commands = [entry["command"] for entry in client.slowlog_get()]
    assert f"SET slow {'x' * 128}... (72 more bytes)".encode() in [
        command.encode() if isinstance(command, str) else command for command in commands
    ]


def test_replies_keep_their_order_whatever_plane_a_command_is_of(node: NodeProcess) -> None:
    pipeline = (
        b"SET a 1\r\nCLIENT SETNAME x\r\nINCR a\r\nCONFIG GET hz\r\nGET a\r\nSELECT 7\r\nGET a\r\nSET a 9\r\nDBSIZE\r\n"
    )
    expected = b"+OK\r\n+OK\r\n:2\r\n*2\r\n$2\r\nhz\r\n$2\r\n10\r\n$1\r\n2\r\n+OK\r\n$-1\r\n+OK\r\n:1\r\n+OK\r\n"
    assert said(node, pipeline) == expected


def test_hello_switches_the_protocol_between_two_replies(node: NodeProcess) -> None:
    answered = said(node, b"GET missing\r\nHELLO 3\r\nGET missing\r\nHELLO 2\r\nGET missing\r\n")
    assert answered.startswith(b"$-1\r\n%7\r\n")
    assert b"\r\n_\r\n*14\r\n" in answered
    assert answered.endswith(b"$-1\r\n+OK\r\n")


def test_client_reply_leaves_out_what_it_says(node: NodeProcess) -> None:
    conversation = (
        b"CLIENT REPLY OFF\r\nSET r 1\r\nGET r\r\nCLIENT REPLY ON\r\nECHO on\r\n"
        b"CLIENT REPLY SKIP\r\nECHO skipped\r\nECHO seen\r\nCLIENT REPLY SKIP\r\nSET r 2\r\nGET r\r\n"
    )
    assert said(node, conversation) == b"+OK\r\n$2\r\non\r\n$4\r\nseen\r\n$1\r\n2\r\n+OK\r\n"


def test_a_paused_write_waits_and_a_read_does_not(node: NodeProcess) -> None:
    with node.client() as control, node.connect() as peer:
        control.set("paused", "before")
        control.client_pause(3_600_000, all=False)
        try:
            peer.sendall(b"GET paused\r\n")
            assert peer.recv(READ_BYTES) == b"$6\r\nbefore\r\n"
            peer.sendall(b"SET paused after\r\nGET paused\r\n")
            wait_until_described(control, peer, "flags", "b")
            assert control.get("paused") == b"before"
            assert is_unanswered(peer)
        finally:
            control.client_unpause()
        peer.sendall(b"QUIT\r\n")
        assert read_all(peer) == b"+OK\r\n$5\r\nafter\r\n+OK\r\n"


def test_a_pause_ends_by_itself(node: NodeProcess) -> None:
    with node.client() as control, node.connect() as peer:
        control.client_pause(50)
        peer.sendall(b"SET held 1\r\nQUIT\r\n")
        assert read_all(peer) == b"+OK\r\n+OK\r\n"


def test_unpause_lets_held_commands_go_at_once(node: NodeProcess) -> None:
    with node.client() as control, node.connect() as peer:
        control.client_pause(60_000)
        peer.sendall(b"SET held 1\r\nQUIT\r\n")
        control.client_unpause()
        assert read_all(peer) == b"+OK\r\n+OK\r\n"


def test_a_sleeping_node_still_answers_probes(node: NodeProcess) -> None:
    host, port = node.addresses["admin"]
    with node.client() as control, node.connect() as peer, node.connect() as other:
        peer.sendall(b"DEBUG SLEEP 3600\r\nPING\r\n")
        try:
            wait_until_described(control, peer, "cmd", "debug")
            other.sendall(b"GET a\r\n")
            wait_until_described(control, other, "flags", "b")
            with urllib.request.urlopen(f"http://{host}:{port}/livez", timeout=TIMEOUT_S) as answer:
                assert answer.status == 200
            assert is_unanswered(peer)
            assert is_unanswered(other)
        finally:
            control.client_unpause()


def test_a_sleep_ends_by_itself(node: NodeProcess) -> None:
    assert said(node, b"DEBUG SLEEP 0.05\r\nPING\r\n") == b"+OK\r\n+PONG\r\n+OK\r\n"


def test_a_connection_has_the_number_of_its_socket(node: NodeProcess) -> None:
    with node.client() as control, node.connect() as peer:
        peer.sendall(b"PING\r\n")
        assert peer.recv(READ_BYTES) == b"+PONG\r\n"
        address = "{}:{}".format(*peer.getsockname())
        [line] = [line for line in control.client_list() if line["addr"] == address]
        assert os.readlink(f"/proc/{node.pid}/fd/{line['fd']}").startswith("socket:")


def test_kill_closes_the_connection_that_is_named(node: NodeProcess) -> None:
    with node.client() as control, node.connect() as peer:
        peer.sendall(b"CLIENT ID\r\n")
        its_id = int(peer.recv(READ_BYTES)[1:-2])
        assert control.client_kill_filter(_id=str(its_id)) == 1
        assert is_ended(peer)
        assert str(its_id) not in [line["id"] for line in control.client_list()]


def test_killing_oneself_answers_first(node: NodeProcess) -> None:
    with node.connect() as peer:
        own = "{}:{}".format(*peer.getsockname())
        peer.sendall(f"CLIENT KILL {own}\r\nPING\r\n".encode())
        assert read_all(peer) == b"+OK\r\n"


def test_save_makes_a_snapshot_and_lastsave_moves(node: NodeProcess) -> None:
    with node.client() as client:
        before_s = int(time.time())
        client.set("saved", "yes")
        assert client.save()
        told = client.info("persistence")
        assert (told["rdb_bgsave_in_progress"], told["rdb_last_bgsave_status"]) == (0, "ok")
        assert told["rdb_changes_since_last_save"] == 0
        assert told["rdb_saves"] >= 1
        assert before_s <= client.lastsave().timestamp() <= time.time()


def test_a_password_set_at_run_time_holds_for_new_connections(node: NodeProcess) -> None:
    with node.client() as control:
        control.config_set("requirepass", "secret")
        try:
            with node.connect() as peer:
                peer.sendall(b"GET a\r\nAUTH wrong\r\nPING\r\nAUTH secret\r\nPING\r\nQUIT\r\n")
                assert read_all(peer) == (
                    b"-NOAUTH Authentication required.\r\n"
                    b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
                    b"-NOAUTH Authentication required.\r\n+OK\r\n+PONG\r\n+OK\r\n"
                )
        finally:
            control.config_set("requirepass", "")


def test_shutdown_ends_the_process_cleanly_and_keeps_the_data(tmp_path: Path) -> None:
    process = NodeProcess(tmp_path)
    with process as running, running.connect() as peer:
        peer.sendall(b"SET kept 1\r\nSHUTDOWN NOSAVE\r\n")
        assert read_all(peer) == b"+OK\r\n"
        assert running.wait() == 0
    with process as running, running.client() as client:
        assert client.get("kept") == b"1"


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--bigkeys"], "Biggest string found"),
        (["--memkeys"], "Biggest string found"),
        (["-3", "CLIENT", "INFO"], "resp=3"),
        (["--json", "CONFIG", "GET", "hz"], '{"hz":"10"}'),
        (["MEMORY", "DOCTOR"], "keyspace"),
    ],
)
def test_redis_cli_understands_the_answers(node: NodeProcess, options: list[str], shown: str) -> None:
    with node.client() as client:
        client.set("big", "x" * 1000)
    command = ["redis-cli", "-p", str(node.addresses["resp"][1]), *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert shown in ran.stdout
