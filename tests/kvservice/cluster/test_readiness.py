"""When clients should be sent to a node: its leader is known, and it is not far behind."""

from __future__ import annotations

from kvservice.cluster.readiness import LAG_ENTRIES_MAX, reasons_of
from replication.core.membership import Configuration
from replication.core.messages import AppendEntries, Heartbeat, InstallSnapshot
from replication.core.raft import Settings
from tests.harness.cluster import Cluster
from tests.replication.node_bench import THREE, Bench, entry

APART = Settings(inflight_messages_max=1)
"""A follower that acknowledges nothing is sent a single append."""


def follower(*, voters: int = 3) -> Bench:
    bench = Bench(voters=voters)
    bench.node.start()
    return bench


def append(commit_index: int, *, after: int = 0, count: int = 0, term: int = 1) -> AppendEntries:
    """Return what a leader sends that has committed so far."""
    entries = [entry(index, term) for index in range(after + 1, after + count + 1)]
    return AppendEntries(term, after, term if after else 0, commit_index, entries, 0, False)


def test_a_node_without_a_leader_is_not_ready() -> None:
    assert reasons_of(None) == ["no leader"]
    assert reasons_of(follower().node) == ["no leader"]


def test_a_leader_is_ready_alone_or_not() -> None:
    alone = Bench()
    alone.elect()
    assert alone.node.lag_entries == 0
    assert reasons_of(alone.node) == []
    cluster = Cluster()
    assert reasons_of(cluster.elect("n1").node) == []


def test_a_follower_is_ready_within_the_bound_and_not_one_entry_beyond() -> None:
    bench = follower()
    bench.hear(Heartbeat(1, 0, 0, LAG_ENTRIES_MAX))
    assert (bench.node.lag_entries, reasons_of(bench.node)) == (1000, [])
    bench.hear(Heartbeat(1, 0, 0, LAG_ENTRIES_MAX + 1))
    assert (bench.node.lag_entries, reasons_of(bench.node)) == (1001, ["catching up"])
    bench.hear(append(LAG_ENTRIES_MAX + 1, count=1))
    assert bench.node.applied_index == 1
    assert (bench.node.lag_entries, reasons_of(bench.node)) == (1000, [])


def test_an_append_tells_how_far_the_leader_is_as_well() -> None:
    bench = follower()
    bench.hear(append(LAG_ENTRIES_MAX + 1))
    assert reasons_of(bench.node) == ["catching up"]


def test_a_follower_that_its_leader_has_told_nothing_is_not_ready() -> None:
    bench = follower()
    bench.node.snapshot_received("n2", InstallSnapshot(1, 0, 0, THREE))
    assert (bench.node.leader_id, bench.node.lag_entries) == ("n2", None)
    assert reasons_of(bench.node) == ["catching up"]
    bench.hear(Heartbeat(1, 0, 0))
    assert reasons_of(bench.node) == []


def test_what_an_earlier_leader_said_is_no_measure() -> None:
    bench = follower()
    bench.hear(Heartbeat(1, 0, 0, LAG_ENTRIES_MAX + 1))
    bench.hear(Heartbeat(2, 0, 0, LAG_ENTRIES_MAX), sender="n3")
    assert reasons_of(bench.node) == []


def test_a_node_that_loses_its_leader_far_behind_says_only_that_it_has_none() -> None:
    bench = follower()
    bench.hear(Heartbeat(1, 0, 0, LAG_ENTRIES_MAX + 1))
    bench.node.peer_lost("n2")
    assert reasons_of(bench.node) == ["no leader"]


def test_a_node_in_quarantine_says_so_beside_every_other_reason() -> None:
    bench = follower()
    bench.node.raft.is_quarantined = True
    assert reasons_of(bench.node) == ["no leader", "quarantined"]
    bench.hear(Heartbeat(1, 0, 0, LAG_ENTRIES_MAX + 1))
    assert reasons_of(bench.node) == ["catching up", "quarantined"]
    bench.hear(Heartbeat(2, 0, 0), sender="n3")
    assert reasons_of(bench.node) == ["quarantined"]


def test_a_node_that_loads_a_snapshot_is_not_ready_though_it_is_near() -> None:
    bench = follower()
    bench.node.snapshot_received("n2", InstallSnapshot(1, 5000, 1, Configuration(("n1", "n2", "n3"))))
    bench.hear(Heartbeat(1, 0, 0, 5000))
    assert reasons_of(bench.node) == ["loading a snapshot"]
    bench.node.restored()
    assert reasons_of(bench.node) == []


# -- clusters ----------------------------------------------------------------------------------------------------------


def write_many(cluster: Cluster) -> None:
    """Have the leader commit more entries than a ready follower may lack."""
    written = [cluster.write(f"k{number}=1") for number in range(LAG_ENTRIES_MAX + 100)]
    cluster.until(lambda: all(waiter.outcome == "done" for waiter in written))


def test_a_follower_is_not_ready_while_its_disk_holds_it_back_and_ready_by_itself_afterwards() -> None:
    cluster = Cluster(settings=APART)
    cluster.elect("n1")
    cluster.tick(20)
    held = cluster["n3"]
    assert reasons_of(held.node) == []
    held.is_disk_stalled = True
    write_many(cluster)
    cluster.tick(50)
    assert reasons_of(held.node) == ["catching up"]
    assert [reasons_of(cluster[name].node) for name in ("n1", "n2")] == [[], []]
    held.is_disk_stalled = False
    cluster.until(lambda: not reasons_of(held.node))
    cluster.until(lambda: held.node.applied_index == cluster.leader.node.applied_index)


def test_a_follower_that_was_away_for_long_is_ready_again_without_another_write() -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster.kill("n3")
    write_many(cluster)
    member = cluster.restart("n3")
    assert reasons_of(member.node) == ["no leader"]
    cluster.until(lambda: not reasons_of(member.node))
    assert member.node.applied_index >= cluster.leader.node.commit_index - LAG_ENTRIES_MAX


def test_a_follower_that_needs_a_snapshot_is_ready_after_it_without_another_write() -> None:
    cluster = Cluster(kept_bytes=0)
    cluster.elect("n1")
    cluster.kill("n3")
    write_many(cluster)
    cluster["n1"].take_snapshot()
    member = cluster.restart("n3")
    member.machine.is_restore_held = True
    cluster.until(lambda: member.node.is_restoring)
    assert reasons_of(member.node) == ["loading a snapshot"]
    member.machine.finish_restore()
    cluster.until(lambda: not reasons_of(member.node))
    assert member.snapshots
