"""What a read promises in each ``read_mode``, on nodes that are cut off while the others go on without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.cluster_processes import ClusterNode
from tests.harness.failovers import raft_of
from tests.harness.links import NamespaceCluster, has_namespaces
from tests.harness.oracle import Connection
from tests.harness.process import TIMEOUT_S
from tests.harness.resp2 import encode_command

pytestmark = pytest.mark.skipif(not has_namespaces(), reason="needs root and ip(8) to make network namespaces")

TRIES = 5
OK, OLD, NEW = b"+OK\r\n", b"$3\r\nold\r\n", b"$3\r\nnew\r\n"
NO_LEADER = b"-CLUSTERDOWN The cluster has no leader\r\n"
LOST = b"-UNKNOWN outcome: leadership moved while the write was in flight\r\n"
PATIENCE = ("--leader-wait-ms", "500", "--outcome-timeout-ms", "2000")
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


@pytest.fixture(scope="module")
def linearizable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamespaceCluster]:
    with NamespaceCluster(tmp_path_factory.mktemp("nodes"), 3, *PATIENCE) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def leased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamespaceCluster]:
    folder = tmp_path_factory.mktemp("nodes")
    with NamespaceCluster(folder, 3, "--read-mode", "lease", *PATIENCE, *SLOW_ELECTIONS) as cluster:
        yield cluster


@pytest.fixture
def stale(tmp_path: Path) -> Iterator[NamespaceCluster]:
    with NamespaceCluster(tmp_path, 3, "--read-mode", "stale") as cluster:
        yield cluster


def all_with_old(cluster: NamespaceCluster) -> tuple[ClusterNode, ClusterNode]:
    """Have every node apply the old value; return the leader and a follower."""
    nodes = list(cluster.nodes.values())
    leaders: list[str] = []

    def agree() -> bool:
        leaders[:] = {raft_of(node).get("raft_leader", "") for node in nodes}
        return len(leaders) == 1 and leaders[0] != ""

    cluster.until(agree, "a leader that all follow")
    leader = cluster[leaders[0]]
    cluster.until(lambda: ask(leader, b"SET", b"k", b"old") == OK, "a write")
    index = int(raft_of(leader)["raft_applied_index"])
    for node in nodes:
        cluster.until(lambda node=node: int(raft_of(node)["raft_applied_index"]) >= index, "all to apply it")  # type: ignore[misc]
    return leader, next(node for node in nodes if node is not leader)


def cut_off(cluster: NamespaceCluster, node: ClusterNode) -> None:
    for other in cluster.nodes:
        if other != node.name:
            cluster.links.cut(node.name, other)
            cluster.links.cut(other, node.name)


def write_new(cluster: NamespaceCluster, absent: ClusterNode) -> None:
    """Have the others acknowledge the new value."""
    other = next(node for node in cluster.nodes.values() if node is not absent)
    cluster.until(lambda: ask(other, b"SET", b"k", b"new") == OK, "the others to take a write")


def mend(cluster: NamespaceCluster, node: ClusterNode) -> None:
    """Heal the links; until it has the new value, a node answers that it has no leader, and nothing else."""
    cluster.links.heal()
    answers: list[bytes | None] = []

    def has_new() -> bool:
        answers.append(ask(node, b"GET", b"k"))
        return answers[-1] == NEW

    cluster.until(has_new, "the new value")
    assert set(answers) <= {NEW, NO_LEADER}


def test_a_follower_that_is_cut_off_never_answers_what_has_been_overwritten(linearizable: NamespaceCluster) -> None:
    leader, follower = all_with_old(linearizable)
    cut_off(linearizable, follower)
    write_new(linearizable, follower)
    assert ask(follower, b"GET", b"k") == NO_LEADER
    applied = [int(raft_of(node)["raft_applied_index"]) for node in (follower, leader)]
    assert applied[0] < applied[1], "it has the old value only"
    mend(linearizable, follower)


def test_a_leader_that_is_cut_off_acknowledges_nothing(linearizable: NamespaceCluster) -> None:
    leader, follower = all_with_old(linearizable)
    cut_off(linearizable, leader)
    assert ask(leader, b"SET", b"k", b"lost") == LOST
    write_new(linearizable, leader)
    assert ask(leader, b"SET", b"k", b"lost") == NO_LEADER
    assert ask(leader, b"GET", b"k") == NO_LEADER
    assert ask(follower, b"GET", b"k") == NEW
    mend(linearizable, leader)


def test_a_leader_with_a_lease_answers_alone_until_it_ends(leased: NamespaceCluster) -> None:
    def answers_alone() -> bool:
        """Tell whether a leader answers while the others are stopped, and see that it does not for long."""
        leader, _follower = all_with_old(leased)
        others = [node for node in leased.nodes.values() if node is not leader]
        try:
            with leader.connect() as peer:
                connection = Connection(peer)
                assert connection.send([[b"GET", b"k"]]) == [OLD]
                for node in others:
                    node.pause()
                peer.settimeout(0.5)
                with suppress(TimeoutError):
                    return connection.send([[b"GET", b"k"]]) == [OLD]
            return False
        finally:
            leased.until(lambda: ask(leader, b"GET", b"k", seconds=0.3) != OLD, "the lease to end")
            for node in others:
                node.resume()

    # On a busy machine the lease may have ended before it is asked.
    assert any(answers_alone() for _ in range(TRIES))
    leader, _follower = all_with_old(leased)
    assert ask(leader, b"GET", b"k") == OLD


def test_a_leader_with_a_lease_that_is_cut_off_never_answers_what_has_been_overwritten(
    leased: NamespaceCluster,
) -> None:
    leader, _follower = all_with_old(leased)
    cut_off(leased, leader)
    write_new(leased, leader)
    assert ask(leader, b"GET", b"k") == NO_LEADER
    mend(leased, leader)


@pytest.mark.parametrize("mode", ["linearizable", "leased"])
def test_a_leader_that_slept_answers_nothing_old_when_it_wakes(request: pytest.FixtureRequest, mode: str) -> None:
    cluster: NamespaceCluster = request.getfixturevalue(mode)
    leader, _follower = all_with_old(cluster)
    with leader.connect() as peer:
        connection = Connection(peer)
        assert connection.send([[b"GET", b"k"]]) == [OLD]
        leader.pause()
        try:
            # The first thing that it finds when it wakes.
            peer.sendall(encode_command([b"GET", b"k"]))
            write_new(cluster, leader)
        finally:
            leader.resume()
        assert connection.receive() == NEW


def test_a_stale_node_that_is_cut_off_answers_at_once_what_it_has(stale: NamespaceCluster) -> None:
    _leader, follower = all_with_old(stale)
    cut_off(stale, follower)
    write_new(stale, follower)
    stale.until(lambda: raft_of(follower)["raft_leader"] == "", "the follower to know of no leader")
    assert ask(follower, b"GET", b"k") == OLD
    stale.links.heal()
    stale.until(lambda: ask(follower, b"GET", b"k") == NEW, "the new value")
