"""Starting and stopping: exit codes, seals, locks, progress, and what the offline commands say of what is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from persistence.disk import RealDisk
from persistence.log_reading import verify_log
from persistence.snapshot_files import list_snapshots
from tests.harness.process import ROOT, TIMEOUT_S, NodeProcess, readyz

COMMANDS = 300_000
PIPELINE = 5_000
REFUSED_BY_STOP = b"-CLUSTERDOWN The node is shutting down\r\n"


def redan(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "kvservice", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def last_segment_state(node: NodeProcess) -> str:
    return verify_log(node.data_dir / "wal", RealDisk())[-1].state


def events(node: NodeProcess, name: str) -> list[dict[str, object]]:
    return [event for event in node.events() if event.get("event") == name]


def wait_until_blocked(control: redis.Redis, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while control.info("clients")["blocked_clients"] != count:
        assert time.monotonic() < deadline, f"{count} callers do not wait within {TIMEOUT_S} s"
        time.sleep(0.01)


def wait_for_event(node: NodeProcess, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not events(node, name):
        assert time.monotonic() < deadline, f"no {name} within {TIMEOUT_S} s"
        time.sleep(0.01)


def test_sigterm_finishes_saves_seals_and_the_next_start_loads_the_snapshot(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path)
    try:
        node.start()
        with node.client() as client:
            for number in range(50):
                client.set(f"k{number}", number)
        assert node.stop() == 0
        assert last_segment_state(node) == "sealed"
        [snapshot] = list_snapshots(node.data_dir / "snapshots", RealDisk())
        [stopped] = events(node, "node_stopped")
        assert stopped["exit_code"] == 0
        node.start()
        [loaded] = events(node, "snapshot_loaded")
        assert (loaded["index"], loaded["keys"]) == (snapshot.last_index, 50)
        assert events(node, "replay_started") == []
        with node.client() as client:
            assert client.mget([f"k{number}" for number in range(50)]) == [b"%d" % number for number in range(50)]
    finally:
        node.kill()


def test_sigterm_answers_what_was_sent_before(tmp_path: Path) -> None:
    """Either an acknowledgement that holds, or a refusal that promises nothing was done; then the end of the stream."""
    with NodeProcess(tmp_path) as node:
        with node.connect() as peer, peer.makefile("rb") as replies:
            peer.sendall(b"".join(b"INCR n%d\r\n" % number for number in range(2000)))
            assert replies.readline() == b":1\r\n"
            os.kill(node.pid, signal.SIGTERM)
            answered = [b":1\r\n", *replies.readlines()]
        assert node.wait() == 0
        acknowledged = answered.count(b":1\r\n")
        refused = [line for line in answered if line.startswith(b"-")]
        assert acknowledged + len(refused) == len(answered)
        node.start()
        with node.client() as client:
            assert client.dbsize() == acknowledged


def test_a_stop_serves_on_until_load_balancers_have_looked_elsewhere(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--shutdown-delay-seconds", "300") as node:
        os.kill(node.pid, signal.SIGTERM)
        wait_for_event(node, "drain_started")
        status, said = readyz(node)
        assert (status, "draining" in said) == (503, True)
        with node.client() as client:
            assert client.set("k", "v")
        node.kill()


def test_a_stop_ends_after_its_delay(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--shutdown-delay-seconds", "1") as node:
        asked_s = time.monotonic()
        os.kill(node.pid, signal.SIGTERM)
        assert node.wait() == 0
        assert time.monotonic() - asked_s >= 1


def test_a_stop_answers_who_sleeps_who_waits_and_whom_a_pause_holds(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--fsync", "os", "--enable-debug-command", "local") as node:
        with node.connect() as sleeper, node.connect() as paused, node.client() as control:
            sleeper.sendall(b"DEBUG SLEEP 3600\r\nPING\r\n")
            wait_until_blocked(control, 1)
            paused.sendall(b"SET held 1\r\n")
            wait_until_blocked(control, 2)
            os.kill(node.pid, signal.SIGTERM)
            with paused.makefile("rb") as replies:
                assert replies.read() == REFUSED_BY_STOP
            with sleeper.makefile("rb") as replies:
                assert replies.readline() == REFUSED_BY_STOP
        assert node.wait() == 0


def test_a_reply_that_is_read_after_the_stop_has_begun_is_whole(tmp_path: Path) -> None:
    length = 8_000_000
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.set("long", b"v" * length)
        with node.connect() as peer, peer.makefile("rb") as replies:
            peer.sendall(b"GET long\r\n")
            assert replies.readline() == b"$%d\r\n" % length
            os.kill(node.pid, signal.SIGTERM)
            wait_for_event(node, "log_sealed")
            assert len(replies.read()) == length + 2
        assert node.wait() == 0


def test_a_client_that_never_reads_does_not_hold_a_stop_up_for_ever(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--shutdown-timeout-seconds", "1") as node:
        with node.client() as client:
            client.set("long", b"v" * 8_000_000)
        with node.connect() as peer:
            peer.sendall(b"GET long\r\n" * 4)
            assert peer.recv(1) == b"$"
            os.kill(node.pid, signal.SIGTERM)
            assert node.wait() == 0


def test_a_second_node_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        second = redan("serve", "--data-dir", str(node.data_dir), "--resp-addr", "127.0.0.1:0", "--log-format", "json")
        assert second.returncode == 3
        assert f"is in use by process {node.pid}; stop it first, or choose another --data-dir" in (
            second.stdout + second.stderr
        )
        with node.client() as client:
            assert client.ping() is True


def test_a_port_that_is_taken_is_named_and_nothing_is_left_locked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = redan("serve", "--data-dir", str(tmp_path / "data"), "--resp-addr", f"127.0.0.1:{port}")
        assert refused.returncode == 1
        assert str(port) in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr
    with NodeProcess(tmp_path) as node, node.client() as client:
        assert client.ping() is True


@pytest.mark.parametrize("plane", ["grpc", "admin"])
def test_a_taken_port_of_another_plane_is_a_failure_too(tmp_path: Path, plane: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        others = [other for other in ("resp", "grpc", "admin") if other != plane]
        free = [flag for other in others for flag in (f"--{other}-addr", "127.0.0.1:0")]
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = redan("serve", "--data-dir", str(tmp_path / "data"), f"--{plane}-addr", address, *free)
    assert refused.returncode == 1
    assert address in refused.stdout + refused.stderr


def test_verify_and_log_read_what_a_kill_left(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.set("greeting", "hello\r\n")
            client.execute_command("SELECT", 3)
            client.set(b"\xff", 1)
            index = client.info("raft")["raft_last_index"]
        node.kill()
        directory = str(node.data_dir)
        found = redan("verify", directory)
        assert found.returncode == 0, found.stdout + found.stderr
        assert "open" in found.stdout
        assert f"entries 1 to {index}" in found.stdout
        shown = redan("log", directory)
        assert shown.returncode == 0
        assert '[0] SET "greeting" "hello\\r\\n"' in shown.stdout
        assert '[3] SET "\\xff" "1"' in shown.stdout
        from_last = redan("log", directory, "--from", str(index), "--json")
        [line] = [json.loads(line) for line in from_last.stdout.splitlines()]
        assert (line["index"], line["db"], line["command"]) == (index, 3, ["SET", "\\xff", "1"])
        node.start()
        with node.client() as client:
            assert client.get("greeting") == b"hello\r\n"


def test_verify_runs_beside_a_node_that_serves(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node, node.client() as client:
        client.set("k", "v")
        assert redan("verify", str(node.data_dir)).returncode == 0
        assert '"k" "v"' in redan("log", str(node.data_dir)).stdout


def test_a_big_replay_shows_its_progress_and_answers_loading_meanwhile(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, "--fsync", "os", "--snapshot-every-seconds", "0")
    try:
        node.start()
        with node.connect() as peer, peer.makefile("rb") as replies:
            for start in range(0, COMMANDS, PIPELINE):
                numbers = range(start, start + PIPELINE)
                peer.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$7\r\nk%06d\r\n$1\r\nv\r\n" % number for number in numbers))
                assert replies.read(5 * PIPELINE) == b"+OK\r\n" * PIPELINE
        node.kill()
        # With fsync = os a killed process loses nothing either: the page cache is the kernel's.
        told = loading_replies(node)
        assert told, "no client was answered while the node loaded"
        assert all(reply.startswith(b"-LOADING ") for reply in told)
        [started] = events(node, "replay_started")
        [finished] = events(node, "replay_finished")
        assert started["entries"] == finished["entries"]
        if float(str(finished["seconds"])) > 1.1:
            progress = [int(str(event["entries_done"])) for event in events(node, "replay_progress")]
            assert progress == sorted(progress)
            assert progress
        with node.client() as client:
            assert client.dbsize() == COMMANDS
            assert client.get(f"k{COMMANDS - 1:06d}") == b"v"
    finally:
        node.kill()


def loading_replies(node: NodeProcess) -> list[bytes]:
    """Start a node and ask it for a key until it is ready; return what it answered before."""
    told: list[bytes] = []
    starter = threading.Thread(target=node.start)
    node.log_path.write_bytes(b"")
    starter.start()
    deadline = time.monotonic() + TIMEOUT_S
    while starter.is_alive() and time.monotonic() < deadline:
        listening = [str(event["address"]) for event in events(node, "listening") if event["plane"] == "resp"]
        if not listening:
            time.sleep(0.005)
            continue
        port = int(listening[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as peer:
            peer.sendall(b"GET k000000\r\n")
            reply = peer.recv(100)
        if not reply.startswith(b"-"):
            break
        told.append(reply)
    starter.join(TIMEOUT_S)
    return told


def test_the_shutdown_command_seals_the_log_as_a_signal_does(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.set("k", "v")
            # redis-py takes the end of the connection for what SHUTDOWN answers.
            client.shutdown()
        assert node.wait() == 0
        assert last_segment_state(node) == "sealed"
