"""Real nodes that are damaged, have diverged, were removed or have moved: what they say, and how they come back."""

from __future__ import annotations

import asyncio
import random
import urllib.request
from pathlib import Path

import pytest
import redis

from kvservice import recovery
from kvservice.commands.registry import TABLE
from kvservice.keyspace.machine import Machine
from persistence.disk import RealDisk
from persistence.errors import DiskFailed
from persistence.snapshot import SnapshotFile, SnapshotMeta, SnapshotWriter, list_snapshots
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, Writer, free_ports
from tests.harness.process import PLANES, NodeProcess, readyz

SLICE_KEYS = 100


def flip(path: Path) -> None:
    """Flip a bit in the middle of what a file holds."""
    content = bytearray(path.read_bytes())
    content[len(content.rstrip(b"\0")) // 2] ^= 1
    path.write_bytes(content)


def snapshots_of(node: NodeProcess) -> list[SnapshotFile]:
    return list_snapshots(node.data_dir / "snapshots", RealDisk())


def set_aside(node: NodeProcess) -> list[str]:
    """Return what the node has moved away, without the number that each name begins with."""
    return sorted(path.name.partition("-")[2] for path in (node.data_dir / "damaged").iterdir())


def metric(node: NodeProcess, name: str, peer: str) -> float:
    """Return one sample of /metrics."""
    host, port = node.addresses["admin"]
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f'{name}{{peer="{peer}"}}'))


def has_bound(node: NodeProcess) -> bool:
    """Tell whether a node that was launched listens on all planes."""
    node.read_addresses()
    return set(PLANES) <= node.addresses.keys()


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_damaged_log_of_a_node_that_knows_no_other_ends_it_with_file_and_offset(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        for number in range(100):
            node.client().set(f"k{number}", number)
        node.kill()
        (segment,) = (node.data_dir / "wal").glob("*.wal")
        flip(segment)
        for _ in range(2):
            node.launch()
            assert node.wait() == 3
            (refused,) = [line for line in node.events() if line["event"] == "data_directory_refused"]
            assert f"{segment} is damaged at offset" in str(refused["error"])
        assert not (node.data_dir / "damaged").exists()


def test_a_damaged_snapshot_is_moved_aside_where_an_older_one_and_the_log_stand_in(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        for number in range(2):
            node.client().set(f"k{number}", number)
            assert node.client().save()
        node.kill()
        newest = snapshots_of(node)[0]
        flip(newest.path)
        node.start()
        assert set_aside(node) == [newest.path.name]
        assert node.client().mget("k0", "k1") == [b"0", b"1"]


def test_a_node_that_joins_gets_a_new_snapshot_where_the_leaders_is_damaged(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 1, "--wal-segment-bytes", "64kb") as cluster:
        leader = cluster["n1"]
        for number in range(60):
            leader.client().mset({f"k{number}-{part}": "x" * 1000 for part in range(20)})
        for _ in range(2):
            leader.client().incr("count")
            cluster.ctl("snapshot")
        damaged = snapshots_of(leader)[0]
        flip(damaged.path)
        joined = cluster.joining("n2").start()
        assert set_aside(leader) == [damaged.path.name]
        assert joined.client().dbsize() == 1201
        assert leader.has_said("snapshot_not_sent", peer="n2")


# -- divergence --------------------------------------------------------------------------------------------------------


def falsify(node: NodeProcess, key: bytes, value: bytes) -> None:
    """Give a stopped node's newest snapshot another value of a key, as a defect would: all checksums are right."""
    disk = RealDisk()
    newest, *_ = snapshots_of(node)
    machine = Machine(TABLE, 16, random.Random)
    meta = asyncio.run(recovery.load_file(newest.path, disk, machine))
    machine.databases[0].set(key, value)
    walk = machine.begin_walk()
    failures: list[DiskFailed] = []
    again = SnapshotMeta(meta.last_index, meta.last_term, meta.stamp_ms, meta.configuration)
    writer = SnapshotWriter(newest.path.parent, disk, again, lambda _path: None, failures.append, threaded=False)
    while (chunk := walk.next_slice(SLICE_KEYS)) is not None:
        assert writer.put(chunk)
    writer.finish(walk.items, walk.digest.to_bytes(8, "big"))
    writer.run()
    assert failures == []


def test_one_write_that_answers_something_else_on_one_node_shows_though_none_comes_after_it(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        cluster["n1"].client().set("key", "1")
        wrong = cluster.followers()[0]
        assert wrong.stop() == 0
        falsify(wrong, b"key", b"5")
        wrong.start()
        leader = cluster.leader()
        # The first entry of a second is compared anyway, what comes after it when nothing more comes.
        client = leader.client()
        assert [client.incr("other"), client.incr("key")] == [1, 2]
        cluster.until(lambda: metric(leader, "redan_state_divergence", wrong.name) == 1, "the metric to show it")


def test_a_state_that_has_diverged_is_shown_and_a_new_copy_heals_it(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster, Writer(cluster, "count") as writer:
        cluster["n1"].client().set("key", "right")
        writer.wait_for(20)
        wrong = cluster.followers()[0]
        assert wrong.stop() == 0
        falsify(wrong, b"key", b"wrong")
        wrong.start()
        leader = cluster.leader()
        cluster.until(lambda: metric(leader, "redan_state_divergence", wrong.name) == 1, "the metric to show it")
        with pytest.raises(RuntimeError, match=f"{wrong.name} has diverged from the leader: see docs/operations.md"):
            cluster.ctl("status", at=leader)
        assert leader.has_said("state_diverged", peer=wrong.name)
        cluster.until(lambda: wrong.has_said("state_diverged", peer=leader.name), "the wrong one to say so too")
        # What the operators' guide says: stop it, move its directory away, start it.
        wrong.stop()
        wrong.data_dir.rename(tmp_path / "kept")
        wrong.start()
        cluster.until(lambda: metric(leader, "redan_state_divergence", wrong.name) == 0, "the metric to show it")
        assert writer.stop()
        cluster.until(lambda: cluster.ctl("status", at=leader)["problems"] == [], "all to be well")


# -- membership --------------------------------------------------------------------------------------------------------


def test_a_removed_node_says_so_refuses_and_is_no_member_after_a_restart_either(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        cluster["n1"].client().set("k", "v")
        removed, stays = cluster.followers()
        cluster.ctl("remove", removed.name, at=removed)
        cluster.until(lambda: readyz(removed)[1].count("not a member") == 1, "the removed node to hear of it")
        assert readyz(removed)[0] == 503
        for _ in range(2):
            cluster.until(lambda: removed.has_said("removed_from_cluster"), "the removed node to say so")
            with pytest.raises(redis.exceptions.ClusterDownError):
                removed.client().get("k")
            assert removed.client().role()[0] == b"slave"
            assert removed.client().info("replication")["role"] == "slave"
            assert {node.status().term for node in cluster.running()} == {1}, "it campaigned"
            removed.kill()
            removed.launch()
            cluster.until(lambda: has_bound(removed), "the removed node to start")
        cluster.ctl("add", removed.name, removed.peer_address, at=stays)
        cluster.until(lambda: removed.client().get("k") == b"v", "the node to be a member again")


def test_a_node_that_comes_back_at_another_address_is_found(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 1) as cluster:
        joined = cluster.joining("n2").start()
        cluster.ctl("promote", "n2")
        joined.stop()
        moved = ClusterNode("n2", tmp_path / "n2", free_ports(1)[0])
        cluster.nodes["n2"] = moved
        moved.start()
        found = [cluster["n1"].peer_address, moved.peer_address]
        cluster.until(
            lambda: [row["peer_address"] for row in cluster.ctl("members", at=moved)] == found, "the address to change"
        )
        assert cluster["n1"].client().set("k", "v")


def test_a_founder_that_moves_says_the_address_that_its_flags_have(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        before, *others = cluster.followers()
        before.stop()
        port = free_ports(1)[0]
        members = {node.name: node.peer_address for node in cluster.nodes.values()}
        members[before.name] = f"127.0.0.1:{port}"
        flag = ",".join(f"{name}={address}" for name, address in members.items())
        moved = ClusterNode(before.name, tmp_path / before.name, port, "--initial-cluster", flag)
        cluster.nodes[before.name] = moved
        moved.start()
        cluster.until(
            lambda: {row["name"]: row["peer_address"] for row in cluster.ctl("members", at=others[0])} == members,
            "the address to change",
        )
        assert moved.client().set("k", "v")
