"""One node assembled: readiness, draining, and clocks that step, with a real log under it."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from kvservice import recovery
from kvservice.config import Config
from kvservice.keyspace.machine import Machine
from kvservice.server import Server, _crash_point, run
from persistence.disk import Disk
from persistence.snapshot import SnapshotMeta, list_snapshots
from replication.core.membership import Configuration
from replication.core.messages import InstallSnapshot
from replication.node import Node, no_crash
from tests.harness.local_server import LocalServer, until

HOUR_MS = 3_600_000


class WallClock:
    """The wall clock of everything that reads one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = 1_700_000_000_000
        for module in ("server", "runner", "housekeeping", "holds", "memory_limit"):
            monkeypatch.setattr(f"kvservice.{module}.time_ns", lambda: self.now_ms * 1_000_000)


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


async def said(node: LocalServer, *lines: str) -> list[bytes]:
    """Send commands over a connection of their own; return their replies, bulk strings without their length."""
    reader, writer = await node.connect()
    replies: list[bytes] = []
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        reply = await asyncio.wait_for(reader.readline(), 10)
        if reply.startswith(b"$") and reply != b"$-1\r\n":
            reply = await reader.readline()
        replies.append(reply.removesuffix(b"\r\n"))
    writer.close()
    await writer.wait_closed()
    return replies


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_expired_stays_expired_when_the_wall_clock_steps_back_over_a_restart(
    tmp_path: Path, wall_clock: WallClock, how: str
) -> None:
    node = LocalServer(tmp_path / "data")
    assert await said(node, "SET k v PX 500", "SET long v PX 7200000") == [b"+OK", b"+OK"]
    wall_clock.now_ms += 1000
    assert await said(node, "GET k") == [b"$-1"]
    # A copy of the directory of a living node is what kill -9 leaves.
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    assert await node.stopped() == 0
    wall_clock.now_ms -= HOUR_MS
    again = LocalServer(tmp_path / ("data" if how == "stop" else "killed"))
    assert await said(again, "GET k", "EXISTS k", "GET long") == [b"$-1", b":0", b"v"]
    stamp_ms = again.server.machine.clock.stamp_ms
    assert stamp_ms == 1_700_000_001_000
    # The log's time stands still until the wall clock has caught up, and deadlines with it.
    assert await said(again, "SET n v PX 500", "PTTL n") == [b"+OK", b":500"]
    wall_clock.now_ms += HOUR_MS + 400
    assert await said(again, "PTTL n") == [b":100"]
    wall_clock.now_ms += 200
    assert await said(again, "GET n") == [b"$-1"]
    assert await again.stopped() == 0


async def test_a_clock_that_steps_forward_expires_what_is_due_and_no_more(
    tmp_path: Path, wall_clock: WallClock
) -> None:
    node = LocalServer(tmp_path / "data")
    await said(node, "SET soon v EX 10", "SET late v EX 10000")
    wall_clock.now_ms += HOUR_MS
    assert await said(node, "GET soon", "GET late") == [b"$-1", b"v"]
    await until(lambda: node.server.machine.databases[0].key_count == 1)
    assert node.server.stats.expired_keys == 1
    assert await node.stopped() == 0


async def test_readiness_says_why_not(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    await until(lambda: hasattr(node.server, "planes") or node.server.is_started)
    seen = {tuple(node.server.reasons_not_ready())}
    _reader, writer = await node.connect()
    seen.add(tuple(node.server.reasons_not_ready()))
    node.server.service.shutdown()
    await until(lambda: "draining" in node.server.reasons_not_ready())
    assert await node.ended() == 0
    writer.close()
    assert ("loading",) in seen
    assert () in seen


async def test_a_snapshot_that_comes_during_the_replay_keeps_clients_out_until_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LocalServer(tmp_path / "other")
    await said(other, *["INCR n"] * 20)
    assert await other.stopped() == 0
    [snapshot] = list_snapshots(tmp_path / "other" / "snapshots", other.disk)
    node = LocalServer(tmp_path / "data", read_mode="stale")
    await said(node, "SET old v")
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    assert await node.stopped() == 0

    loaded = asyncio.Event()
    replay, load_file = recovery.replay, recovery.load_file

    async def replay_and_receive(driver: Node) -> None:
        shutil.copy(snapshot.path, tmp_path / "killed" / "snapshots")
        members = Configuration((again.config.name, "leader"))
        received = InstallSnapshot(driver.term + 1, snapshot.last_index, snapshot.last_term, members)
        driver.snapshot_received("leader", received)
        await replay(driver)

    async def load_late(path: Path, disk: Disk, machine: Machine) -> SnapshotMeta:
        await loaded.wait()
        return await load_file(path, disk, machine)

    monkeypatch.setattr(recovery, "replay", replay_and_receive)
    monkeypatch.setattr(recovery, "load_file", load_late)
    again = LocalServer(tmp_path / "killed", read_mode="stale")
    loading = b"-LOADING Redis is loading the dataset in memory"
    assert await said(again, "DBSIZE", "GET n", "GET old") == [loading] * 3
    assert "loading a snapshot" in again.server.reasons_not_ready()
    loaded.set()
    await until(lambda: not again.server.service.node.is_restoring)
    assert await said(again, "DBSIZE", "GET n", "GET old") == [b":1", b"20", b"$-1"]
    assert await again.stopped() == 0


async def test_writes_under_way_are_answered_before_the_connection_ends(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    reader, writer = await node.connect()
    writer.write(b"INCR n\r\n" * 100)
    await asyncio.wait_for(reader.readline(), 10)
    assert await node.stopped() == 0
    answered = [b":1\r\n", *(await reader.read()).splitlines(keepends=True)]
    counted = [line for line in answered if line.startswith(b":")]
    assert counted == [b":%d\r\n" % number for number in range(1, len(counted) + 1)]
    assert all(line.startswith(b"-") for line in answered[len(counted) :])
    writer.close()
    again = LocalServer(tmp_path / "data")
    assert await said(again, "GET n") == [b"%d" % len(counted)]
    assert await again.stopped() == 0


async def test_a_signal_stops_the_node(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    _reader, writer = await node.connect()
    signal.raise_signal(signal.SIGTERM)
    assert await node.ended() == 0
    writer.close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert run(Config(data_dir=tmp_path / "file" / "data", log_format="json")) == 3
    captured = capsys.readouterr()
    assert "data_directory_refused" in captured.out + captured.err


def test_a_crash_point_strikes_at_its_count_only(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr("kvservice.server.os.kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.delenv("REDAN_CRASH_POINT", raising=False)
    assert _crash_point() is no_crash
    monkeypatch.setenv("REDAN_CRASH_POINT", "durable:2")
    reached = _crash_point()
    for point in ("durable", "applying", "proposed"):
        reached(point)
    assert killed == []
    reached("durable")
    assert [number for _pid, number in killed] == [signal.SIGKILL]


def test_a_server_begins_not_started() -> None:
    server = Server(Config())
    assert server.reasons_not_ready() == ["loading"]
