"""What a restart brings back: databases, encodings, deadlines, under every fsync mode and while snapshots are taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from persistence.disk import RealDisk
from persistence.log_reading import read_log
from persistence.segment import list_segments
from persistence.snapshot_files import list_snapshots
from replication.storage import decode_record
from tests.harness.process import TIMEOUT_S, NodeProcess

LAST_MOMENT_MS = 10


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a bound."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def restart(node: NodeProcess, how: str) -> None:
    """Stop a node in one of two ways and start it again."""
    if how == "stop":
        assert node.stop() == 0
    else:
        node.kill()
    node.start()


def database(node: NodeProcess, index: int) -> redis.Redis:
    return redis.Redis(port=node.addresses["resp"][1], db=index, socket_timeout=TIMEOUT_S)


def snapshots(node: NodeProcess) -> list[int]:
    return [file.last_index for file in list_snapshots(node.data_dir / "snapshots", RealDisk())]


@pytest.mark.parametrize("fsync", ["always", "interval", "os"])
def test_every_fsync_mode_survives_the_end_of_the_process(tmp_path: Path, fsync: str) -> None:
    with NodeProcess(tmp_path, "--fsync", fsync, "--fsync-interval-ms", "50") as node:
        with node.client() as client:
            for number in range(100):
                client.incrby("sum", number)
        restart(node, "kill")
        with node.client() as client:
            assert client.get("sum") == b"4950"
            assert client.incr("sum") == 4951


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_databases_encodings_and_deadlines_come_back_as_they_were(tmp_path: Path, how: str) -> None:
    """By snapshot after a clean stop, by the log after a kill: both must give the same."""
    with NodeProcess(tmp_path) as node:
        for index in range(16):
            with database(node, index) as client:
                client.set("here", index)
        with database(node, 0) as client:
            client.set("moved", "by move")
            assert client.move("moved", 9)
            client.swapdb(4, 5)
            client.set("int", -9223372036854775808)
            client.set("embstr", "e" * 44)
            client.set("raw", "r" * 45)
            client.append("appended", "a")
            client.append("appended", "b")
            client.setbit("bits", 100_000, 1)
            client.setrange("range", 3, "abc")
            client.bitfield("field").set("u8", 0, 200).execute()
            client.set("binary", bytes(range(256)))
            client.set("", "empty key")
            client.set("empty", "")
            client.set("later", "v", ex=1000)
            client.set("at", "v", pxat=4_000_000_000_123)
            client.set("kept", "v", ex=1000)
            client.persist("kept")
            client.set("gone", "v")
            client.delete("gone")
            before = described(client)
        restart(node, how)
        with database(node, 0) as client:
            after = described(client)
            assert after == before
            assert {name: encoding for name, (_value, encoding, _deadline) in after.items()} == {
                b"here": "int", b"int": "int", b"embstr": "embstr", b"raw": "raw", b"appended": "raw", b"bits": "raw",
                b"range": "raw", b"field": "raw", b"binary": "raw", b"": "embstr", b"empty": "embstr",
                b"later": "embstr", b"at": "embstr", b"kept": "embstr",
            }  # fmt: skip
            assert after[b"at"][2] == 4_000_000_000_123
            assert after[b"kept"][2] == -1
            assert 0 < client.pttl("later") <= 1_000_000
        for index in range(16):
            with database(node, index) as client:
                assert client.get("here") == b"%d" % {4: 5, 5: 4}.get(index, index)
        with database(node, 9) as client:
            assert client.get("moved") == b"by move"


def described(client: redis.Redis) -> dict[bytes, tuple[object, str, int]]:
    """Return value, encoding and deadline of every key."""
    return {
        key: (client.get(key), client.object("encoding", key).decode(), client.pexpiretime(key))
        for key in client.scan_iter(count=1000)
    }


def test_an_expired_key_stays_expired_and_another_keeps_its_time(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.set("short", "v", px=50)
            client.set("long", "v", px=600_000)
            deadline_ms = client.pexpiretime("long")
            until(lambda: client.get("short") is None)
        for how in ("kill", "stop"):
            restart(node, how)
            with node.client() as client:
                assert client.get("short") is None
                assert client.exists("short", "long") == 1
                assert client.pexpiretime("long") == deadline_ms


def test_a_deadline_that_passes_while_the_node_is_down_is_kept(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.set("k", "v", px=300)
            client.set("other", "v")
        node.kill()
        time.sleep(0.3 + LAST_MOMENT_MS / 1000)  # the time of the outage is what the test is about
        node.start()
        with node.client() as client:
            assert client.mget("k", "other") == [None, b"v"]
            until(lambda: client.dbsize() == 1)


def test_stamps_of_the_log_never_decrease_over_restarts(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--snapshot-every-seconds", "0") as node:
        for how in ("kill", "stop"):
            with node.client() as client:
                client.set("k", how)
            restart(node, how)
        node.kill()
        entries = [decode_record(record) for _file, _offset, record in read_log(node.data_dir / "wal", RealDisk())]
    stamps = [entry.stamp_ms for entry in entries if entry.kind in ("commands", "noop")]
    assert stamps == sorted(stamps)
    assert len(stamps) >= 5
    terms = [entry.term for entry in entries if entry.kind != "commit"]
    assert terms == sorted(terms)
    assert max(terms) == 3, "each start is a term of its own"


class Writer(threading.Thread):
    """Counts up one key until its connection breaks."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(daemon=True)
        self._client = node.client()
        self._payload = "v" * 20_000
        self.acknowledged = 0

    def run(self) -> None:
        with self._client as client:
            while True:
                pipeline = client.pipeline(transaction=False)
                pipeline.set(f"big{self.acknowledged % 50}", self._payload)
                pipeline.incr("count")
                try:
                    self.acknowledged = pipeline.execute()[1]
                except redis.ConnectionError:
                    return


@pytest.mark.parametrize(
    "options",
    [("--snapshot-every-bytes", "2mb", "--snapshot-every-seconds", "0"), ("--snapshot-every-seconds", "1")],
    ids=["by-bytes", "by-time"],
)
def test_snapshots_under_writes_keep_two_and_purge_the_log(tmp_path: Path, options: tuple[str, ...]) -> None:
    with NodeProcess(tmp_path, "--wal-segment-bytes", "256kb", *options) as node:
        writer = Writer(node)
        writer.start()
        with node.client() as client:
            until(lambda: len(taken(node)) >= 3)
        node.kill()
        writer.join(TIMEOUT_S)
        assert not writer.is_alive()
        kept = snapshots(node)
        assert len(kept) == 2
        first_index = list_segments(node.data_dir / "wal", RealDisk())[0][0].first_index
        assert 1 < first_index <= min(kept) + 1
        node.start()
        [loaded] = [event for event in node.events() if event["event"] == "snapshot_loaded"]
        assert loaded["index"] == max(kept)
        with node.client() as client:
            found = int(client.get("count") or 0)
            assert writer.acknowledged <= found <= writer.acknowledged + 1
            assert client.dbsize() == 51
        assert node.stop() == 0
        assert len(snapshots(node)) == 2


def taken(node: NodeProcess) -> list[dict[str, object]]:
    return [event for event in node.events() if event.get("event") == "snapshot_finished"]


def test_flushed_databases_stay_empty_and_what_came_later_is_there(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.mset({f"k{number}": number for number in range(2000)})
            client.save()
            client.flushall()
            client.set("later", 1)
        restart(node, "kill")
        with node.client() as client:
            assert client.keys("*") == [b"later"]
