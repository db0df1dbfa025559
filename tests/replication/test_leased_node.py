"""Reads on the leader's clock: as long as nobody else can lead, and not a moment longer."""

from __future__ import annotations

import pytest

from replication.core.raft import Settings
from replication.leased_node import LeasedNode
from tests.harness.cluster import Cluster

LEASED = Settings(read_lease=True)
LEASE_MS = 341
"""7/8 of 39 ticks: the first of the 40 after which a follower votes may come at once."""


def led() -> Cluster:
    """Return three members in lease mode whose leader n1 has a lease."""
    cluster = Cluster(settings=Settings(read_lease=True))
    cluster.elect("n1")
    cluster.tick(20)
    assert has_lease(cluster)
    return cluster


def has_lease(cluster: Cluster, name: str = "n1") -> bool:
    return cluster[name].node.reads_at_once


def test_a_leader_has_no_lease_before_a_majority_has_answered_a_round() -> None:
    cluster = Cluster(settings=Settings(read_lease=True))
    cluster.elect("n1")
    assert not has_lease(cluster)
    cluster.until(lambda: has_lease(cluster))
    assert [has_lease(cluster, name) for name in ("n2", "n3")] == [False, False]


def test_the_lease_goes_on_while_a_majority_answers() -> None:
    cluster = led()
    cluster.isolate("n3")
    for _ in range(300):
        cluster.tick()
        assert has_lease(cluster)


def test_the_lease_is_over_before_anybody_else_can_lead() -> None:
    for seed in range(20):
        cluster = Cluster(seed=seed, settings=Settings(read_lease=True))
        old = cluster.await_leader().name
        cluster.tick(20 + seed)
        assert has_lease(cluster, old)
        cluster.isolate(old)
        lease_ms = 0
        for _ in range(300):
            cluster.tick()
            if any(cluster[name].node.is_leader for name in cluster.members if name != old):
                break
            lease_ms += 10 * has_lease(cluster, old)
        assert 200 < lease_ms <= LEASE_MS
        assert not has_lease(cluster, old)
        assert cluster.leader.name != old


@pytest.mark.parametrize("timeout_ms", [50, 80, 400])
def test_a_lease_lasts_seven_eighths_of_the_least_time_before_a_vote_at_every_election_timeout(timeout_ms: int) -> None:
    ticks = timeout_ms // 10
    settings = Settings(heartbeat_ticks=2, election_ticks_min=ticks, election_ticks_max=2 * ticks, read_lease=True)
    cluster = Cluster(settings=settings)
    cluster.elect("n1")
    longest_ms = 0
    for _ in range(20):
        cluster.tick()
        asked_ms = cluster.now_ms
        while has_lease(cluster):
            cluster.now_ms += 1
        longest_ms = max(longest_ms, cluster.now_ms - asked_ms)
        cluster.now_ms = asked_ms
    assert longest_ms == (timeout_ms - 10) * 7 // 8


def test_a_process_that_was_paused_has_no_lease_when_it_goes_on() -> None:
    cluster = led()
    cluster.now_ms += LEASE_MS
    assert not has_lease(cluster)


def test_a_cut_connection_deposes_no_leader_that_others_hear() -> None:
    cluster = led()
    for name in ("n2", "n3"):
        cluster[name].node.peer_lost("n1")
    cluster.tick(100)
    assert cluster.leader.name == "n1"
    assert has_lease(cluster)


def test_there_is_no_lease_in_a_term_in_which_leadership_was_offered() -> None:
    cluster = led()
    cluster["n2"].is_disk_stalled = True
    cluster.write("a=1")
    cluster.settle()
    cluster["n1"].node.transfer("n2")
    assert not has_lease(cluster)
    cluster.tick(100)
    assert cluster.leader.name == "n1", "n2 could not take over"
    assert not has_lease(cluster)


def test_a_new_leader_gets_a_lease_of_its_own() -> None:
    cluster = led()
    cluster["n1"].node.transfer("n2")
    cluster.tick(30)
    assert [has_lease(cluster, name) for name in ("n1", "n2", "n3")] == [False, True, False]


def test_a_stopped_node_has_no_lease() -> None:
    cluster = led()
    cluster["n1"].node.stop()
    assert not has_lease(cluster)


def test_a_node_that_has_just_started_elects_nobody_while_a_lease_may_be_left() -> None:
    cluster = led()
    cluster.kill("n2")
    cluster.restart("n2")
    cluster.isolate("n1")
    cluster["n3"].node.raft.leader = None
    cluster["n3"].node.raft.campaign()
    led_meanwhile = []
    for _ in range(LEASE_MS // 10 + 1):
        cluster.tick()
        if has_lease(cluster):
            led_meanwhile.append([name for name in ("n2", "n3") if cluster[name].node.is_leader])
    assert len(led_meanwhile) > 20
    assert not any(led_meanwhile)
    cluster.until(lambda: cluster.leader.name == "n3" or cluster.leader.name == "n2")


def test_there_is_no_lease_before_every_voter_has_promised_to_honour_it() -> None:
    cluster = Cluster(settings=Settings(read_lease=True))
    cluster.isolate("n3")
    cluster.elect("n1")
    cluster.tick(100)
    assert not has_lease(cluster), "a majority answers, and nothing is known of n3"
    cluster.heal()
    cluster.until(lambda: has_lease(cluster))


@pytest.mark.parametrize(
    ("settings", "is_honoured"),
    [
        (LEASED, True),
        (LEASED._replace(read_lease=False), False),
        (LEASED._replace(election_ticks_min=39), False),
        (LEASED._replace(election_ticks_min=45), True),
    ],
    ids=["the same", "no leases", "shorter", "longer"],
)
def test_a_lease_goes_on_if_a_voter_comes_back_that_honours_it(settings: Settings, is_honoured: bool) -> None:
    cluster = led()
    cluster.kill("n3")
    cluster.tick(100)
    assert has_lease(cluster), "whoever is down elects nobody"
    cluster["n3"].settings = settings
    cluster.restart("n3")
    cluster.tick(30)
    assert cluster.leader.name == "n1"
    assert has_lease(cluster) is is_honoured
    read = cluster.read("a")
    cluster.tick()
    assert read.is_done, "by a round"
    cluster.kill("n3")
    cluster["n3"].settings = LEASED
    cluster.restart("n3")
    cluster.tick(30)
    assert has_lease(cluster)


def test_a_voter_without_leases_may_elect_another_at_once_so_there_is_no_lease_beside_it() -> None:
    for seed in range(20):
        cluster = Cluster(seed=seed, settings=LEASED)
        for name in ("n2", "n3"):
            cluster.kill(name)
            cluster[name].settings = LEASED._replace(read_lease=False)
            cluster.restart(name)
        cluster.elect("n1")
        cluster.tick(20 + seed)
        cluster.isolate("n1")
        for name in ("n2", "n3"):
            cluster[name].node.peer_lost("n1")
        led_by: set[str] = set()
        for _ in range(LEASE_MS // 10):
            cluster.tick()
            assert not has_lease(cluster)
            led_by |= {name for name in ("n2", "n3") if cluster[name].node.is_leader}
        assert led_by, "within what would be the lease"


def test_what_is_not_honoured_is_news_once() -> None:
    node = led()["n1"].node
    assert isinstance(node, LeasedNode)
    promises_ms = (0, 0, 390, 390, 400, 500, 0)
    assert [node.promised("n2", promised_ms) for promised_ms in promises_ms] == [
        True, False, True, False, False, False, True,
    ]  # fmt: skip
    assert not node.reads_at_once


def test_who_has_no_vote_needs_to_promise_nothing() -> None:
    cluster = led()
    node = cluster["n1"].node
    assert isinstance(node, LeasedNode)
    assert node.promised("n9", 0)
    cluster.tick()
    assert has_lease(cluster)


def test_a_single_voter_needs_none() -> None:
    cluster = Cluster(1, settings=Settings(read_lease=True))
    cluster.settle()
    cluster.now_ms += 100_000
    assert has_lease(cluster)
