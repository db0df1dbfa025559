"""Followers that are behind: the log from memory, from disk, or a snapshot, whichever it takes."""

from __future__ import annotations

from replication.core.raft import Settings
from tests.harness.cluster import Cluster, Member, led


def test_a_follower_behind_the_log_gets_a_snapshot_and_then_the_rest() -> None:
    cluster = led()
    cluster.kill("n3")
    for number in range(100):
        cluster.write(f"k{number}=" + "x" * 2000)
        cluster.settle()
    cluster["n1"].take_snapshot()
    cluster.write("after=1")
    member = cluster.restart("n3")
    cluster.tick(50)
    assert member.snapshots
    assert member.machine.values == cluster["n1"].machine.values
    cluster.kill("n3")
    assert cluster.restart("n3").machine.values.keys() >= {"k99"}
    cluster.tick(50)
    assert cluster.values("after") == ["1", "1", "1"]
    cluster.check()


def test_a_follower_a_little_behind_gets_the_log_that_was_kept_for_it() -> None:
    cluster = Cluster(kept_bytes=1 << 20)
    cluster.elect("n1")
    cluster["n3"].is_disk_stalled = True
    for number in range(100):
        cluster.write(f"k{number}=" + "x" * 2000)
        cluster.settle()
    cluster["n1"].take_snapshot()
    cluster["n3"].is_disk_stalled = False
    cluster.tick(50)
    assert cluster["n3"].snapshots == []
    assert cluster["n3"].machine.values == cluster["n1"].machine.values


def test_entries_that_left_the_memory_are_read_from_the_disk_for_a_follower() -> None:
    cluster = Cluster(settings=Settings(memory_bytes_max=1000))
    cluster.elect("n1")
    cluster.kill("n3")
    for number in range(200):
        cluster.write(f"k{number}=" + "x" * 1000)
        cluster.settle()
    assert cluster.leader.node.raft.log.memory_first > 100
    cluster.restart("n3")
    cluster.tick(50)
    assert cluster["n3"].snapshots == []
    assert cluster["n3"].machine.values == cluster["n1"].machine.values


def test_damage_in_old_entries_of_the_leader_turns_into_a_snapshot_for_the_follower() -> None:
    cluster = Cluster(settings=Settings(memory_bytes_max=1000))
    leader = cluster.elect("n1")
    cluster.kill("n3")
    for number in range(200):
        cluster.write(f"k{number}=" + "x" * 1000)
        cluster.settle()
    leader.disk.flip(min(leader.disk.files()), 30_000)
    cluster.restart("n3")
    cluster.tick(80)
    assert "damaged" in str(leader.damage[0])
    assert len(cluster["n3"].snapshots) == 1
    assert cluster["n3"].machine.values == leader.machine.values


def with_a_loading_follower() -> tuple[Cluster, Member]:
    """Return a cluster and its node n3, which loads a snapshot until ``finish_restore``."""
    cluster = led()
    cluster.kill("n3")
    for number in range(100):
        cluster.write(f"k{number}=" + "x" * 2000)
        cluster.settle()
    cluster["n1"].take_snapshot()
    member = cluster.restart("n3")
    member.machine.is_restore_held = True
    cluster.tick(50)
    return cluster, member


def test_a_follower_that_loads_a_snapshot_applies_nothing_meanwhile() -> None:
    cluster, member = with_a_loading_follower()
    assert member.node.is_restoring
    write = cluster.write("after=1")
    cluster.tick(50)
    assert write.outcome == "done"
    assert member.machine.values == {}
    member.machine.finish_restore()
    cluster.tick(5)
    assert member.machine.values == cluster["n1"].machine.values


def test_a_node_that_loads_a_snapshot_may_come_to_lead_and_applies_nothing_meanwhile_either() -> None:
    cluster, member = with_a_loading_follower()
    cluster["n1"].node.transfer("n3")
    cluster.until(lambda: member.node.is_leader)
    write = cluster.write("after=1", at=member)
    cluster.tick(50)
    assert (member.node.is_leader, member.node.is_restoring) == (True, True)
    assert (write.outcome, member.machine.values) == ("waiting", {})
    assert not member.node.may_read_ahead
    member.machine.finish_restore()
    cluster.tick(50)
    assert write.outcome == "done"
    assert cluster.values("after") == ["1", "1", "1"]
