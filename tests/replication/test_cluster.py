"""Nodes together: what a cluster promises, each in a few lines."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from replication.errors import NotLeading, Stopped
from replication.node import OUTCOME_TIMEOUT_MS, TICK_MS
from tests.harness.cluster import Cluster, led


def test_a_write_is_answered_and_applied_by_all() -> None:
    cluster = led()
    write = cluster.write("a=1")
    cluster.tick(2)
    assert write.outcome == "done"
    assert cluster.values("a") == ["1", "1", "1"]


def test_a_write_is_not_answered_before_a_majority_has_it() -> None:
    cluster = led()
    cluster["n2"].is_disk_stalled = cluster["n3"].is_disk_stalled = True
    write = cluster.write("a=1")
    cluster.settle()
    assert write.outcome == "waiting"
    cluster["n3"].is_disk_stalled = False
    cluster.settle()
    assert write.outcome == "done"


def test_a_write_is_answered_while_the_leaders_own_disk_is_slow() -> None:
    cluster = led()
    cluster["n1"].is_disk_stalled = True
    write = cluster.write("a=1")
    cluster.settle()
    assert write.outcome == "done"


def test_the_slowest_of_three_holds_up_nobody_and_catches_up() -> None:
    cluster = led()
    cluster["n3"].is_disk_stalled = True
    writes = [cluster.write(f"a={number}") for number in range(50)]
    cluster.settle()
    assert {write.outcome for write in writes} == {"done"}
    cluster["n3"].is_disk_stalled = False
    cluster.tick(20)
    assert cluster.values("a") == ["49", "49", "49"]


def test_a_killed_leader_is_replaced_at_once_and_nothing_acknowledged_is_lost() -> None:
    cluster = led()
    cluster.write("a=1")
    cluster.settle()
    cluster.kill("n1")
    before_ms = cluster.now_ms
    cluster.await_leader()
    assert cluster.now_ms - before_ms < 400, "nobody waits for the election timer after a reset"
    cluster.tick(2)
    assert cluster.values("a") == ["1", "1"]


def test_a_silent_leader_is_replaced_within_the_longest_election_timeout_and_a_retry() -> None:
    cluster = led()
    cluster.isolate("n1")
    before_ms = cluster.now_ms
    cluster.until(lambda: cluster.leader.name != "n1")
    assert cluster.now_ms - before_ms <= 800


def test_a_killed_leader_comes_back_as_a_follower_with_everything() -> None:
    cluster = led()
    cluster.write("a=1")
    cluster.settle()
    cluster.kill("n1")
    cluster.await_leader()
    cluster.write("b=2")
    cluster.restart("n1")
    cluster.tick(30)
    assert cluster.values("a") + cluster.values("b") == ["1", "1", "1", "2", "2", "2"]
    assert cluster.leader.name != "n1"
    cluster.check()


def test_a_cluster_that_was_switched_off_comes_back_with_everything() -> None:
    cluster = led()
    for number in range(20):
        cluster.write(f"k{number}={number}")
    cluster.settle()
    for name in cluster.members:
        cluster.cut_power(name)
    for name in cluster.members:
        cluster.restart(name)
    cluster.await_leader()
    cluster.tick(20)
    assert cluster.values("k19") == ["19", "19", "19"]
    cluster.check()


def test_a_restarted_member_applies_what_it_knows_to_be_committed_without_a_leader() -> None:
    cluster = led()
    cluster.write("a=1")
    cluster.tick(2)
    cluster.write("b=2")
    cluster.tick(2)
    cluster.isolate("n2")
    cluster.kill("n2")
    member = cluster.restart("n2")
    assert member.machine.values.get("a") == "1"
    assert member.node.leader_id is None
    assert member.node.is_replayed


def test_what_was_stored_and_not_known_to_be_committed_waits_for_a_leader() -> None:
    cluster = led()
    write = cluster.write("a=1")
    cluster.settle()
    assert write.outcome == "done"
    for name in cluster.members:
        cluster.kill(name)
    for name in ("n2", "n3"):
        assert cluster.restart(name).machine.values == {}
    cluster.await_leader()
    cluster.tick(10)
    assert cluster.values("a") == ["1", "1"]


# -- proposals whose leader is gone ------------------------------------------------------------------------------------


def test_a_write_that_only_the_old_leader_had_is_certainly_not_applied() -> None:
    cluster = led()
    cluster.isolate("n1")
    write = cluster.write("a=lost", at=cluster["n1"])
    cluster.until(lambda: cluster.leader.name != "n1")
    cluster.heal()
    cluster.until(lambda: write.outcome != "waiting")
    assert write.outcome == "NotApplied"
    assert cluster.values("a") == [None, None, None]
    assert cluster["n1"].node.bytes_pending == 0


def test_a_write_that_the_next_leader_has_is_answered_by_the_one_that_proposed_it() -> None:
    cluster = led()
    cluster["n1"].is_disk_stalled = True
    write = cluster.write("a=kept")
    cluster["n2"].is_disk_stalled = cluster["n3"].is_disk_stalled = True
    cluster.settle()
    cluster.isolate("n1")
    cluster["n2"].is_disk_stalled = cluster["n3"].is_disk_stalled = cluster["n1"].is_disk_stalled = False
    cluster.until(lambda: cluster.leader.name != "n1")
    assert write.outcome == "waiting"
    cluster.heal()
    cluster.until(lambda: write.outcome != "waiting")
    assert write.outcome == "done"
    assert cluster.values("a") == ["kept"] * 3


def test_a_write_whose_fate_nobody_tells_is_unknown_after_a_while() -> None:
    cluster = led()
    cluster.isolate("n1")
    write = cluster.write("a=?", at=cluster["n1"])
    cluster.until(lambda: not cluster["n1"].node.is_leader)
    cluster.tick(OUTCOME_TIMEOUT_MS // TICK_MS - 1)
    assert write.outcome == "waiting"
    cluster.tick(2)
    assert write.outcome == "OutcomeUnknown"
    cluster.heal()
    cluster.tick(100)
    cluster.check()


def test_a_write_that_a_snapshot_goes_over_is_unknown() -> None:
    cluster = led()
    cluster.isolate("n1")
    write = cluster.write("a=?", at=cluster["n1"])
    cluster.until(lambda: cluster.leader.name != "n1")
    leader = cluster.await_leader()
    for number in range(60):
        cluster.write(f"k={number}" + "x" * 2000)
    cluster.settle()
    leader.take_snapshot()
    cluster.heal()
    cluster.until(lambda: write.outcome != "waiting")
    assert write.outcome == "OutcomeUnknown"
    cluster.check()


def test_nobody_but_the_leader_takes_a_write_or_a_read() -> None:
    cluster = led()
    with pytest.raises(NotLeading) as refused:
        cluster.write("a=1", at=cluster["n2"])
    assert refused.value.leader == "n1"
    with pytest.raises(NotLeading):
        cluster.read("a", at=cluster["n2"])
    cluster["n2"].node.stop()
    with pytest.raises(Stopped):
        cluster.read("a", at=cluster["n2"])


# -- reads -------------------------------------------------------------------------------------------------------------


def test_a_read_sees_every_write_that_was_answered_before_it() -> None:
    cluster = led()
    for number in range(30):
        cluster.write(f"a={number}")
        cluster.settle()
        read = cluster.read("a")
        cluster.settle()
        assert read.value == str(number)


def test_a_read_waits_for_a_majority_that_still_follows() -> None:
    cluster = led()
    cluster.isolate("n1")
    read = cluster.read("a", at=cluster["n1"])
    cluster.settle()
    assert read.outcome == "waiting"
    cluster.until(lambda: read.outcome != "waiting")
    assert read.outcome == "NotLeading"


def test_a_leader_that_was_replaced_in_silence_answers_no_read_from_its_old_state() -> None:
    cluster = led()
    cluster.write("a=old")
    cluster.settle()
    cluster.isolate("n1")
    cluster.until(lambda: cluster.leader.name != "n1")
    cluster.await_leader()
    cluster.write("a=new")
    cluster.settle()
    if cluster["n1"].node.is_leader:
        stale = cluster.read("a", at=cluster["n1"])
        cluster.heal()
        cluster.tick(100)
        assert stale.outcome == "NotLeading"
    fresh = cluster.read("a")
    cluster.settle()
    assert fresh.value == "new"


def test_a_new_leader_answers_reads_only_after_an_entry_of_its_term() -> None:
    cluster = led()
    write = cluster.write("a=1")
    cluster.settle()
    assert write.outcome == "done"
    cluster.kill("n1")
    cluster.until(lambda: any(member.is_up and member.node.is_leader for member in cluster.members.values()))
    read = cluster.read("a")
    cluster.until(lambda: read.outcome != "waiting")
    assert read.value == "1"


def test_reads_are_answered_in_the_order_they_came() -> None:
    cluster = led()
    reads = [cluster.read("a") for _ in range(10)]
    cluster.write("a=1")
    reads += [cluster.read("a") for _ in range(10)]
    cluster.settle()
    values = [read.value for read in reads]
    assert [read.outcome for read in reads] == ["done"] * 20
    assert values == sorted(values, key=lambda value: value is not None)


def test_only_a_voter_without_others_may_read_at_once() -> None:
    cluster = led()
    assert not cluster.leader.node.reads_at_once
    alone = Cluster(1)
    alone.settle()
    assert alone["n1"].node.reads_at_once
    read = alone.read("a")
    assert read.outcome == "done"


def test_reads_may_run_ahead_of_their_round_only_where_all_that_was_acknowledged_is_applied() -> None:
    cluster = led()
    assert [member.node.may_read_ahead for member in (cluster.leader, *cluster.followers)] == [True, False, False]
    write = cluster.write("a=1")
    assert cluster.leader.node.may_read_ahead, "what is not committed was acknowledged to nobody"
    cluster.settle()
    assert write.outcome == "done"
    old, new = cluster.leader, cluster.followers[0]
    at_once: list[bool] = []

    def told(leader: str | None, is_leader: bool, term: int) -> None:
        at_once.append(new.node.may_read_ahead)

    with patch.object(new.machine, "on_leadership", told):
        old.node.transfer(new.name)
        cluster.until(lambda: new.node.is_leader)
    assert not any(at_once), "before its no-op is committed it does not know what else is"
    cluster.settle()
    assert (new.node.may_read_ahead, old.node.may_read_ahead) == (True, False)


def test_messages_of_an_earlier_life_are_dropped() -> None:
    cluster = led()
    cluster["n2"].node.receive("n1", 7, [])
    term = cluster["n2"].node.term
    late = cluster["n1"].node.raft
    assert late.term == term
    cluster["n2"].node.receive("n1", 6, [])
    cluster.kill("n1")
    cluster.restart("n1")
    cluster.tick(100)
    assert cluster["n2"].node.leader_id is not None


def test_any_order_of_crashes_keeps_what_was_acknowledged() -> None:
    for seed in range(12):
        cluster = Cluster(seed=seed)
        acknowledged: dict[str, str] = {}
        for number in range(25):
            cluster.await_leader()
            key, value = f"k{cluster.chance.randrange(5)}", str(number)
            write = cluster.write(f"{key}={value}")
            if cluster.chance.random() < 0.7:
                cluster.settle()
            if write.outcome == "done":
                acknowledged[key] = value
            name = cluster.chance.choice(["n1", "n2", "n3"])
            if cluster.chance.random() < 0.3 and write.outcome == "done":
                (cluster.cut_power if cluster.chance.random() < 0.5 else cluster.kill)(name)
                if cluster.chance.random() < 0.5:
                    cluster.tick(cluster.chance.randrange(30))
                cluster.restart(name)
            elif write.outcome != "done":
                cluster.until(lambda write=write: write.outcome != "waiting")  # type: ignore[misc]
                if write.outcome == "done":
                    acknowledged[key] = value
        cluster.await_leader()
        cluster.tick(50)
        for key, value in acknowledged.items():
            assert cluster.values(key) == [value] * 3, seed
        cluster.check()
