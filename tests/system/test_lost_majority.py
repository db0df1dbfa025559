"""A majority whose logs are damaged at once: nothing wrong is answered, and an operator gets everything back."""

from __future__ import annotations

from pathlib import Path

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, Writer, missing
from tests.harness.failovers import flip_newest_segment


def test_two_damaged_logs_of_three_serve_nothing_and_the_whole_one_recovers_all(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        with Writer(cluster) as writer:
            writer.wait_for(200)
            keys = writer.stop()
        cluster.until_all_applied()
        cluster.kill_all()
        *damaged, whole = cluster.nodes.values()
        for node in damaged:
            flip_newest_segment(node)
        for node in cluster.nodes.values():
            node.launch()
        for node in damaged:
            cluster.until(lambda node=node: _waits_for_others(node), f"{node.name} to wait for others")  # type: ignore[misc]
            assert node.has_said("damage_set_aside")
        # Two of three remember nothing of what they acknowledged: no vote of theirs may make a leader.
        cluster.until(lambda: _waits_for_a_leader(whole), "the whole one to read its log")
        assert {node.status().last_index for node in damaged} == {0}
        cluster.kill_all()
        code, said = whole.redan("recover", str(whole.data_dir), "--name", whole.name, "--yes")
        assert code == 0, said
        whole.start()
        assert missing(whole, keys) == []


def _waits_for_a_leader(node: ClusterNode) -> bool:
    node.read_addresses()
    return "grpc" in node.addresses and list(node.status().not_ready) == ["no leader"]


def _waits_for_others(node: ClusterNode) -> bool:
    node.read_addresses()
    return "grpc" in node.addresses and {"no leader", "quarantined"} <= set(node.status().not_ready)
