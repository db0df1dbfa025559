"""Members that come, vote, lead and go."""

from __future__ import annotations

import pytest

from replication.core.membership import ADD_LEARNER, PROMOTE, REMOVE, Change
from replication.errors import NotLeading, Stopped
from tests.harness.cluster import Cluster, led


def test_a_node_joins_as_a_learner_and_is_promoted() -> None:
    cluster = led()
    cluster.write("a=1")
    cluster.add("n4")
    assert cluster.change(Change(ADD_LEARNER, "n4", "host:1")) == []
    cluster.tick(30)
    assert cluster["n4"].machine.values == {"a": "1"}
    outcome = cluster.change(Change(PROMOTE, "n4"))
    cluster.tick(30)
    assert outcome == [None]
    assert all(member.node.configuration.voters == ("n1", "n2", "n3", "n4") for member in cluster.members.values())


def test_a_change_of_several_voters_is_done_when_it_is_joint_no_more() -> None:
    cluster = led()
    cluster.add("n4")
    cluster.change(Change(ADD_LEARNER, "n4", "host:1"))
    cluster.tick(30)
    outcome = cluster.change(Change(PROMOTE, "n4"), Change(REMOVE, "n3"))
    cluster.tick(30)
    assert outcome == [None]
    assert cluster.leader.node.configuration.voters == ("n1", "n2", "n4")
    assert not cluster.leader.node.configuration.is_joint


def test_a_change_that_the_members_do_not_admit_is_refused() -> None:
    cluster = led()
    [error] = cluster.change(Change(PROMOTE, "n9"))
    assert isinstance(error, ValueError)
    outcome: list[Exception | None] = []
    cluster["n2"].node.change([Change(REMOVE, "n3")], outcome.append)
    assert isinstance(outcome[0], NotLeading)
    cluster["n2"].node.stop()
    cluster["n2"].node.change([Change(REMOVE, "n3")], outcome.append)
    assert isinstance(outcome[1], Stopped)


def test_a_change_that_is_lost_with_its_leader_says_so() -> None:
    cluster = led()
    cluster.isolate("n1")
    outcome = cluster.change(Change(REMOVE, "n3"))
    cluster.until(lambda: cluster.leader.name != "n1")
    cluster.heal()
    cluster.tick(100)
    assert [type(error).__name__ for error in outcome] == ["NotApplied"]
    assert cluster.leader.node.configuration.voters == ("n1", "n2", "n3")


def test_one_node_becomes_three_and_one_again() -> None:
    cluster = Cluster(1)
    cluster.settle()
    at_once = [cluster.leader.node.reads_at_once]
    for name in ("n2", "n3"):
        cluster.add(name)
        cluster.change(Change(ADD_LEARNER, name, "host:1"))
        cluster.tick(30)
        cluster.change(Change(PROMOTE, name))
        cluster.tick(30)
    at_once.append(cluster.leader.node.reads_at_once)
    cluster.write("a=1")
    cluster.tick(5)
    assert cluster.values("a") == ["1", "1", "1"]
    for name in ("n3", "n2"):
        cluster.change(Change(REMOVE, name))
        cluster.tick(30)
    at_once.append(cluster.leader.node.reads_at_once)
    assert at_once == [True, False, True]
    cluster.write("a=2")
    cluster.settle()
    assert cluster["n1"].machine.values["a"] == "2"


def test_a_node_that_a_removal_left_alone_starts_again_alone() -> None:
    cluster = Cluster(2)
    cluster.elect("n1")
    outcome = cluster.change(Change(REMOVE, "n2"))
    cluster.tick(2)
    assert outcome == [None]
    cluster.kill("n2")
    cluster.cut_power("n1")
    cluster.restart("n1")
    cluster.await_leader()
    write = cluster.write("a=1")
    cluster.settle()
    assert write.outcome == "done"


def test_a_leader_hands_over_without_an_election_timeout() -> None:
    cluster = led()
    cluster.write("a=1")
    cluster.settle()
    cluster.leader.node.transfer("n2")
    cluster.tick(2)
    assert cluster.leader.name == "n2"
    with pytest.raises(ValueError, match="n9"):
        cluster.leader.node.transfer("n9")
    write = cluster.write("b=2")
    cluster.tick(2)
    assert write.outcome == "done"
