"""Clusters of real processes: they form, lose nodes and disks, change their members, and keep what was acknowledged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from persistence.data_dir import DataDir
from persistence.disk import RealDisk
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, Writer, free_ports, missing

LARGE_BYTES = 8 << 20
"""Nine of them are more log than is kept for a node that is down."""


def test_three_nodes_form_a_cluster_and_each_serves(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        for number, node in enumerate(cluster.nodes.values()):
            assert node.client().set(f"k{number}", node.name)
            assert node.client().incr("count") == number + 1
        for node in cluster.nodes.values():
            assert node.client().mget("k0", "k1", "k2", "count") == [b"n1", b"n2", b"n3", b"3"]
        states = [node.status() for node in cluster.nodes.values()]
        assert len({state.cluster_id for state in states}) == 1
        assert [member.name for member in states[0].members] == ["n1", "n2", "n3"]
        assert all(member.resp_address and member.grpc_address for member in states[0].members)


def test_a_cluster_that_was_stopped_as_a_whole_comes_back_with_everything(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        cluster["n1"].client().set("kept", "yes")
        cluster.kill_all()
        for node in cluster.nodes.values():
            node.launch()
        cluster.wait_until_ready()
        assert cluster["n3"].client().get("kept") == b"yes"


def test_a_killed_leader_costs_no_acknowledged_write(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster, Writer(cluster) as writer:
        for _ in range(3):
            writer.wait_for(50)
            leader = cluster.leader()
            leader.kill()
            writer.wait_for(50)
            leader.start()
        keys = writer.stop()
        cluster.until_all_applied()
        for node in cluster.nodes.values():
            assert missing(node, keys) == []
        assert writer.gap_s < 5


def test_a_paused_leader_is_replaced_and_comes_back_as_a_follower(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        leader = cluster.leader()
        followers = cluster.followers()
        leader.pause()
        try:
            cluster.until(lambda: followers[0].client().set("while", "paused") is True, "a write without the leader")
        finally:
            leader.resume()
        assert cluster.leader() is not leader
        assert leader.client().get("while") == b"paused"


def test_a_leader_that_stops_in_order_hands_over_first(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        leader = cluster.leader()
        other = cluster.followers()[0]
        client = other.client()
        client.set("before", 1)
        assert leader.stop() == 0
        assert leader.has_said("leadership_handed_over")
        assert leader.has_said("log_sealed")
        assert client.get("before") == b"1"
        assert client.set("after", 1)


def test_a_node_whose_disk_is_gone_comes_back_quarantined_and_catches_up(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster, Writer(cluster) as writer:
        writer.wait_for(100)
        for node in (cluster.followers()[0], cluster.leader()):
            node.kill()
            cluster.lose_disk(node)
            writer.wait_for(50)
            node.start()
            assert node.has_said("quarantine_begun")
            cluster.until(lambda node=node: node.has_said("quarantine_ended"), "its end")  # type: ignore[misc]
        keys = writer.stop()
        cluster.until_all_applied()
        # Each of them alone with the node that was never touched has to be enough for a majority.
        for node in cluster.nodes.values():
            assert missing(node, keys) == []


def test_a_node_joins_gets_a_vote_and_another_is_removed(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        cluster["n1"].client().set("before", 1)
        joined = cluster.joining("n4")
        joined.start()
        roles = {row["name"]: row["voter"] for row in cluster.ctl("members")}
        assert roles == {"n1": True, "n2": True, "n3": True, "n4": False}
        assert joined.client().get("before") == b"1"
        roles = {row["name"]: row["voter"] for row in cluster.ctl("promote", "n4", at=joined)}
        assert roles["n4"]
        removed = cluster.leader()
        members = cluster.ctl("remove", removed.name, at=cluster.followers()[0])
        assert removed.name not in {row["name"] for row in members}
        cluster.until(lambda: "not a member" in removed.status().not_ready, "the removed node to know")
        removed.kill()
        cluster.leader()
        assert joined.client().set("after", 1)
        # Three voters are left, so one more may go.
        cluster.leader().kill()
        assert cluster.leader().client().get("after") == b"1"


def test_a_change_that_would_lose_the_majority_is_refused(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        down, up = cluster.followers()
        down.kill()
        cluster.until(lambda: not _peer(cluster, down.name).active, "the leader to miss a node")
        with pytest.raises(RuntimeError, match="1 of 2 voters would answer"):
            cluster.ctl("remove", up.name)
        assert down.name not in {row["name"] for row in cluster.ctl("remove", down.name)}


def _peer(cluster: ClusterProcesses, name: str) -> Any:
    return next(peer for peer in cluster.leader().status().peers if peer.name == name)


def test_a_damaged_log_is_moved_aside_and_repaired_from_the_others(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster, Writer(cluster) as writer:
        writer.wait_for(200)
        node = cluster.followers()[0]
        node.kill()
        _flip(node)
        node.start()
        assert node.has_said("damage_set_aside")
        cluster.until(lambda: node.has_said("quarantine_ended"), "its end")
        assert any((node.data_dir / "damaged").iterdir())
        keys = writer.stop()
        cluster.until_all_applied()
        assert missing(node, keys) == []


def _flip(node: ClusterNode) -> None:
    """Flip a bit in the middle of what the log of a stopped node holds."""
    (segment,) = sorted((node.data_dir / "wal").glob("*.wal"))
    content = bytearray(segment.read_bytes())
    end = len(content.rstrip(b"\0"))
    content[end // 2] ^= 1
    segment.write_bytes(content)


def test_a_follower_far_behind_gets_a_snapshot_and_goes_on(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        leader, behind = cluster.leader(), cluster.followers()[0]
        behind.kill()
        client = leader.client()
        for _ in range(9):
            assert client.set("large", os.urandom(LARGE_BYTES))
        for _ in range(2):
            client.incr("count")
            cluster.ctl("snapshot", at=leader)
        behind.start()
        cluster.until_all_applied()
        assert behind.has_said("snapshot_received")
        assert (behind.client().get("count"), behind.client().strlen("large")) == (b"2", LARGE_BYTES)
        assert not behind.has_said("quarantine_begun")


def test_one_node_grows_to_three(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 1) as cluster:
        cluster["n1"].client().set("early", 1)
        for name in ("n2", "n3"):
            cluster.joining(name).start()
            cluster.ctl("promote", name)
        cluster.until_all_applied()
        cluster["n1"].kill()
        assert cluster.leader().client().get("early") == b"1"


def test_the_survivor_of_a_lost_majority_becomes_a_cluster_of_one(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster, Writer(cluster) as writer:
        writer.wait_for(100)
        keys = list(writer.stop())
        cluster.until_all_applied()
        survivor = cluster["n2"]
        cluster.kill_all()
        assert survivor.redan("recover", str(survivor.data_dir), "--name", "n2")[0] == 2
        code, said = survivor.redan("recover", str(survivor.data_dir), "--name", "n2", "--yes")
        assert code == 0, said
        survivor.start()
        assert missing(survivor, keys) == []
        assert survivor.client().set("alone", 1)
        for name in ("n1", "n3"):
            cluster.lose_disk(cluster[name])
            del cluster.nodes[name]
        for name in ("n4", "n5"):
            cluster.joining(name).start()
            cluster.ctl("promote", name)
        survivor.kill()
        assert cluster.leader().client().get("alone") == b"1"


def test_a_node_that_was_not_heard_of_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        members = ",".join(f"{node.name}={node.peer_address}" for node in cluster.nodes.values())
        port = free_ports(1)[0]
        stranger = ClusterNode("n9", tmp_path / "n9", port, "--initial-cluster", f"{members},n9=127.0.0.1:{port}")
        stranger.launch()
        assert stranger.wait() == 2
        assert "start it with --join" in stranger.log_path.read_text()
        renamed = cluster.followers()[0]
        renamed.kill()
        other = ClusterNode("n8", renamed.data_dir.parent, port, "--initial-cluster", f"n8=127.0.0.1:{port}")
        other.launch()
        assert other.wait() == 2
        assert f"belongs to the node {renamed.name}" in other.log_path.read_text()


def test_a_peer_address_that_is_taken_ends_the_node_with_1(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 1) as cluster:
        port = int(cluster["n1"].peer_address.rpartition(":")[2])
        second = ClusterNode("n1", tmp_path / "second", port)
        second.launch()
        assert second.wait() == 1
        assert second.has_said("listen_failed")


def test_a_founder_that_starts_late_begins_like_the_others(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        late = cluster.followers()[0]
        late.kill()
        # What a crash leaves that comes before the charter is written, but after the others have seen the directory.
        with DataDir.open(late.data_dir, RealDisk(), identity=b"", make_salt=bytes) as directory:
            directory.write_charter(b"", log_created=False)
            shutil.rmtree(directory.wal)
            directory.wal.mkdir()
        assert cluster.leader().client().set("k", 1)
        late.start()
        assert not late.has_said("quarantine_begun")
        assert late.client().get("k") == b"1"
