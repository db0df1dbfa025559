"""Killed anywhere, a node loses nothing that was acknowledged, and comes back to what the others have."""

from __future__ import annotations

import pytest

from replication.crash_points import CRASH_POINTS
from tests.harness.cluster import Cluster
from tests.harness.key_values import Waiter

OF_EVERY_WRITE = ("proposed", "persisting", "sending", "sent", "durable", "applying", "applied")
OF_A_FOLLOWER = ("persisting", "durable", "promising", "promised", "applying", "applied")
OF_AN_ELECTION = ("persisting", "voting", "durable", "promising", "promised")
OF_A_SNAPSHOT = ("persisting", "durable", "restoring", "restored")


def written(cluster: Cluster, count: int) -> list[tuple[str, Waiter]]:
    """Write different keys until ``count`` are written or the leader is killed; return all that were tried."""
    writes: list[tuple[str, Waiter]] = []
    for number in range(count):
        if not cluster["n1"].is_up:
            break
        writes.append((f"k{number}", cluster.write(f"k{number}=v", at=cluster["n1"])))
        cluster.settle()
    return writes


def assert_nothing_is_lost(cluster: Cluster, writes: list[tuple[str, Waiter]]) -> None:
    """Start whoever is down, and look for every write that was acknowledged, on every member."""
    cluster.tick(3)
    for name, member in cluster.members.items():
        if not member.is_up:
            cluster.restart(name)
    cluster.await_leader()
    cluster.tick(100)
    for key, write in writes:
        if write.outcome == "done":
            assert cluster.values(key) == ["v"] * len(cluster.members), key
    cluster.check()
    assert len({tuple(member.machine.applied) for member in cluster.members.values()}) == 1


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("point", OF_EVERY_WRITE)
def test_a_leader_killed_at_any_point_of_a_write(point: str, nth: int) -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster["n1"].kill_at(point, nth)
    writes = written(cluster, 8)
    assert cluster["n1"].killed_at == point
    assert_nothing_is_lost(cluster, writes)


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("point", ["proposed", "persisting", "durable", "applying", "applied"])
def test_a_node_alone_killed_at_any_point_of_a_write(point: str, nth: int) -> None:
    cluster = Cluster(1)
    cluster.settle()
    cluster["n1"].kill_at(point, nth)
    writes = written(cluster, 8)
    assert cluster["n1"].killed_at == point
    assert_nothing_is_lost(cluster, writes)


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("point", OF_A_FOLLOWER)
def test_a_follower_killed_at_any_point_of_a_write(point: str, nth: int) -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster["n2"].kill_at(point, nth)
    writes = written(cluster, 8)
    assert cluster["n2"].killed_at == point
    assert [write.outcome for _, write in writes] == ["done"] * 8, "two of three are a majority"
    assert_nothing_is_lost(cluster, writes)


@pytest.mark.parametrize("point", OF_AN_ELECTION)
@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_voter_killed_at_any_point_of_an_election_votes_for_nobody_else_in_its_term(name: str, point: str) -> None:
    cluster = Cluster()
    cluster[name].kill_at(point)
    cluster["n1"].node.raft.campaign()
    cluster.tick(10)
    assert cluster[name].killed_at == point
    cluster.restart(name)
    for _ in range(300):
        cluster.tick()
        leaders = [member for member in cluster.members.values() if member.node.is_leader]
        terms = [member.node.term for member in leaders]
        assert len(terms) == len(set(terms)), "one leader a term"
    assert leaders


@pytest.mark.parametrize("point", OF_A_SNAPSHOT)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_follower_killed_while_it_takes_a_snapshot(point: str, nth: int) -> None:
    cluster = Cluster(kept_bytes=0)
    cluster.elect("n1")
    cluster.kill("n3")
    for number in range(100):
        cluster.write(f"k={number}" + "x" * 2000)
        cluster.settle()
    cluster["n1"].take_snapshot()
    cluster.restart("n3")
    cluster["n3"].kill_at(point, nth)
    cluster.tick(60)
    if nth == 1:
        assert cluster["n3"].killed_at == point
    assert_nothing_is_lost(cluster, [])


def test_every_named_point_is_killed_at_here() -> None:
    assert {*OF_EVERY_WRITE, *OF_A_FOLLOWER, *OF_AN_ELECTION, *OF_A_SNAPSHOT} == CRASH_POINTS.keys()
