"""What a read promises in each ``read_mode``, on nodes that are cut off while the others go on without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.cluster_processes import ClusterNode
from tests.harness.failovers import raft_of
from tests.harness.links import NamespaceCluster, has_namespaces
from tests.harness.oracle import Connection
from tests.harness.process import TIMEOUT_S

pytestmark = pytest.mark.skipif(not has_namespaces(), reason="needs root and ip(8) to make network namespaces")

OLD, NEW = b"$3\r\nold\r\n", b"$3\r\nnew\r\n"
NO_LEADER = b"-CLUSTERDOWN The cluster has no leader\r\n"
LOST = b"-UNKNOWN outcome: leadership moved while the write was in flight\r\n"
PATIENCE = ("--leader-wait-ms", "500")
SLOW_ELECTIONS = ("--election-timeout-ms", "1500")
"""So that a lease lasts long enough for a machine that is busy."""


def ask(node: ClusterNode, *args: bytes, seconds: float = TIMEOUT_S) -> bytes | None:
    """Return the raw reply of a node to one command; None if none has come after so long."""
    with node.connect() as peer:
        connection = Connection(peer)
        peer.settimeout(seconds)
        try:
            return connection.send([list(args)])[0]
        except TimeoutError:
            return None


@contextmanager
def all_with_old(folder: Path, *options: str) -> Iterator[tuple[NamespaceCluster, ClusterNode, ClusterNode]]:
    """Run three nodes that all have the old value applied; yield them, their leader and a follower."""
    with NamespaceCluster(folder, 3, *options) as cluster:
        nodes = list(cluster.nodes.values())
        cluster.until(lambda: len({raft_of(node).get("raft_leader", "") for node in nodes} - {""}) == 1, "a leader")
        leader = cluster[raft_of(nodes[0])["raft_leader"]]
        assert ask(leader, b"SET", b"k", b"old") == b"+OK\r\n"
        index = int(raft_of(leader)["raft_applied_index"])
        for node in nodes:
            cluster.until(lambda node=node: int(raft_of(node)["raft_applied_index"]) >= index, "all to apply it")  # type: ignore[misc]
        yield cluster, leader, next(node for node in nodes if node is not leader)


def cut_off(cluster: NamespaceCluster, node: ClusterNode) -> None:
    for other in cluster.nodes:
        if other != node.name:
            cluster.links.cut(node.name, other)
            cluster.links.cut(other, node.name)


def write_new(cluster: NamespaceCluster, *absent: ClusterNode) -> None:
    """Have the others acknowledge the new value."""
    there = [node for node in cluster.nodes.values() if node not in absent]
    cluster.until(lambda: ask(there[0], b"SET", b"k", b"new") == b"+OK\r\n", "the others to take a write")


@pytest.mark.parametrize(
    ("mode", "role"), [("linearizable", "leader"), ("linearizable", "follower"), ("lease", "leader")]
)
def test_a_node_that_is_cut_off_never_answers_what_has_been_overwritten(tmp_path: Path, mode: str, role: str) -> None:
    with all_with_old(tmp_path, "--read-mode", mode, *PATIENCE) as (cluster, leader, follower):
        node = leader if role == "leader" else follower
        cut_off(cluster, node)
        write_new(cluster, node)
        assert ask(node, b"GET", b"k") == NO_LEADER
        assert (
            raft_of(node)["raft_applied_index"]
            < raft_of(next(iter({*cluster.nodes.values()} - {node})))["raft_applied_index"]
        ), "it has the old value only"
        cluster.links.heal()
        answers: list[bytes | None] = []

        def has_new() -> bool:
            answers.append(ask(node, b"GET", b"k"))
            return answers[-1] == NEW

        cluster.until(has_new, "the new value")
        assert set(answers) <= {NEW, NO_LEADER}


def test_a_leader_that_is_cut_off_acknowledges_nothing(tmp_path: Path) -> None:
    with all_with_old(tmp_path, *PATIENCE, "--outcome-timeout-ms", "2000") as (cluster, leader, follower):
        cut_off(cluster, leader)
        assert ask(leader, b"SET", b"k", b"lost") == LOST
        write_new(cluster, leader)
        assert ask(leader, b"SET", b"k", b"lost") == NO_LEADER
        assert ask(follower, b"GET", b"k") == NEW
        cluster.links.heal()
        cluster.until(lambda: ask(leader, b"GET", b"k") == NEW, "the new value")


def test_a_stale_node_that_is_cut_off_answers_at_once_what_it_has(tmp_path: Path) -> None:
    with all_with_old(tmp_path, "--read-mode", "stale") as (cluster, _leader, follower):
        cut_off(cluster, follower)
        write_new(cluster, follower)
        cluster.until(lambda: raft_of(follower)["raft_leader"] == "", "the follower to know of no leader")
        assert ask(follower, b"GET", b"k") == OLD
        cluster.links.heal()
        cluster.until(lambda: ask(follower, b"GET", b"k") == NEW, "the new value")


def test_a_leader_with_a_lease_answers_alone_until_it_ends(tmp_path: Path) -> None:
    with all_with_old(tmp_path, "--read-mode", "lease", *PATIENCE, *SLOW_ELECTIONS) as (cluster, leader, _follower):
        others = [node for node in cluster.nodes.values() if node is not leader]
        with leader.connect() as peer:
            connection = Connection(peer)
            assert connection.send([[b"GET", b"k"]]) == [OLD]
            for node in others:
                node.pause()
            assert connection.send([[b"GET", b"k"]]) == [OLD]
        cluster.until(lambda: ask(leader, b"GET", b"k", seconds=0.3) != OLD, "the lease to end")
        for node in others:
            node.resume()
        cluster.until(lambda: ask(leader, b"GET", b"k") == OLD, "an answer with the others")
