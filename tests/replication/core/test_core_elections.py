"""When a node asks for votes: elections in a hurry, for those who know that their leader is gone, and who gives way."""

from __future__ import annotations

import pytest

from replication.core.membership import Configuration
from replication.core.messages import Heartbeat, HeartbeatReply, RequestVote, VoteReply
from replication.core.raft import Raft, Role, Settings
from tests.harness.lone_raft import acknowledge, leader, node, turn


def asking(raft: Raft, ticks: int) -> list[int]:
    """Return after how many ticks each, as they pass, the node asks who would vote for it."""
    waits, waited = [], 0
    for _ in range(ticks):
        raft.tick()
        waited += 1
        if any(isinstance(message, RequestVote) and message.pre_vote for _, message in turn(raft)):
            waits.append(waited)
            waited = 0
    return waits


def test_a_lost_leader_is_replaced_soon_and_a_bounded_number_of_elections_is_hurried() -> None:
    raft = node(term=1, chance=lambda count: count - 1, settings=Settings())
    raft.step("n2", Heartbeat(1, 0, 0))
    raft.peer_unreachable("n3")
    assert raft.leader == "n2"
    raft.peer_unreachable("n2")
    assert asking(raft, 6 + 9 * 15 + 2 * 60) == [6] + [15] * 9 + [60, 60]


def test_a_leader_that_is_silent_is_replaced_as_one_that_is_lost() -> None:
    raft = node(term=1, chance=lambda count: count - 1, settings=Settings())
    raft.step("n2", Heartbeat(1, 0, 0))
    assert asking(raft, 60 + 10 * 15 + 60) == [60] + [15] * 10 + [60]
    raft.step("n2", Heartbeat(1, 0, 0))
    assert asking(raft, 60 + 15) == [60, 15]


def test_votes_have_their_time_until_all_have_answered_but_the_leader_that_is_gone() -> None:
    raft = node(term=1, settings=Settings(), size=5)
    raft.step("n2", Heartbeat(1, 0, 0))
    assert asking(raft, 40) == [40]
    raft.step("n3", VoteReply(2, True, True))
    raft.step("n4", VoteReply(2, True, True))
    assert (raft.role, raft.term, raft.election_timeout) == (Role.CANDIDATE, 2, 40)
    turn(raft)
    raft.step("n4", VoteReply(2, False, False))
    raft.step("n3", VoteReply(2, True, False))
    assert (raft.votes, raft.election_timeout) == ({"n1": True, "n4": False, "n3": True}, 40)
    raft.step("n5", VoteReply(2, False, False))
    assert (raft.role, raft.election_timeout) == (Role.CANDIDATE, 4)


def test_votes_of_a_joint_change_have_their_time_until_both_halves_have_answered() -> None:
    raft = node(term=1, settings=Settings())
    raft.step("n2", Heartbeat(1, 0, 0))
    raft.use_configuration(Configuration(("n1", "n4", "n5"), outgoing=("n1", "n2", "n3")))
    assert asking(raft, 40) == [40]
    for voter in ("n3", "n4"):
        raft.step(voter, VoteReply(2, True, True))
    turn(raft)
    raft.step("n3", VoteReply(2, False, False))
    assert (raft.role, raft.term, raft.election_timeout) == (Role.CANDIDATE, 2, 40)
    raft.step("n4", VoteReply(2, True, False))
    assert (raft.role, raft.election_timeout) == (Role.CANDIDATE, 4)


def test_who_is_refused_a_pre_vote_leaves_the_election_to_others_for_a_timeout() -> None:
    raft = node(term=1, settings=Settings())
    raft.step("n2", Heartbeat(1, 0, 0))
    assert (asking(raft, 40), raft.election_timeout) == ([40], 4)
    raft.step("n3", VoteReply(1, False, True))
    assert (raft.role, raft.election_timeout) == (Role.CANDIDATE, 40)
    raft.step("n2", VoteReply(1, False, True))
    assert (raft.role, raft.election_timeout) == (Role.FOLLOWER, 40)


def test_who_learns_of_a_later_term_leaves_the_election_to_others_for_a_timeout() -> None:
    raft = node(term=1, settings=Settings())
    raft.step("n2", Heartbeat(1, 0, 0))
    raft.peer_unreachable("n2")
    assert (asking(raft, 1), raft.election_timeout) == ([1], 4)
    raft.step("n3", VoteReply(3, False, True))
    assert (raft.role, raft.term, raft.election_timeout) == (Role.FOLLOWER, 3, 40)


def test_who_has_voted_gives_the_candidate_its_time() -> None:
    raft = node(term=1, settings=Settings())
    raft.step("n2", Heartbeat(1, 0, 0))
    raft.peer_unreachable("n2")
    raft.step("n3", RequestVote(2, 0, 0, False, False))
    assert (raft.vote, raft.election_timeout) == ("n3", 40)


@pytest.mark.parametrize(
    ("silent_ticks", "log", "is_missed"),
    [(40, [1], True), (39, [1], False), (40, [], False)],
    ids=["longer log", "heard of the leader", "same log"],
)
def test_who_has_a_longer_log_than_the_node_that_asks_stands_for_election(
    silent_ticks: int, log: list[int], is_missed: bool
) -> None:
    raft = node(terms=log, term=1, chance=lambda count: count - 1, settings=Settings(check_quorum=False))
    raft.step("n2", Heartbeat(1, 0, 0))
    for _ in range(silent_ticks):
        raft.tick()
    raft.step("n3", RequestVote(2, 0, 0, True, False))
    assert (raft.leader, raft.election_timeout - raft.election_elapsed) == (
        (None, 6) if is_missed else ("n2", 60 - silent_ticks)
    )


def test_a_hurry_is_never_longer_than_a_timeout() -> None:
    raft = node(term=1, chance=lambda count: count - 1, settings=Settings(election_ticks_min=5, election_ticks_max=7))
    raft.step("n2", Heartbeat(1, 0, 0))
    assert asking(raft, 17) == [7, 5, 5]


@pytest.mark.parametrize("members", [Configuration(("n2", "n3"), learners=("n1",)), Configuration(("n2", "n3"))])
def test_who_may_not_stand_waits_on_whatever_its_log_is(members: Configuration) -> None:
    raft = node(terms=[1], term=1, settings=Settings(check_quorum=False), chance=lambda count: count - 1)
    raft.use_configuration(members)
    raft.step("n2", Heartbeat(1, 0, 0))
    for _ in range(40):
        raft.tick()
    raft.step("n3", RequestVote(2, 0, 0, True, False))
    assert (raft.leader, raft.hurried_elections) == ("n2", 0)


def test_a_leader_that_is_heard_of_again_ends_the_hurry() -> None:
    raft = node(term=1)
    raft.step("n2", Heartbeat(1, 0, 0))
    raft.peer_unreachable("n2")
    raft.step("n2", Heartbeat(1, 0, 0))
    assert (raft.leader, raft.hurried_elections, raft.election_timeout) == ("n2", 0, 40)


def test_a_learner_waits_for_a_leader_and_does_not_campaign() -> None:
    raft = node(term=1)
    raft.use_configuration(Configuration(("n2", "n3"), learners=("n1",)))
    assert raft.is_learner
    raft.step("n2", Heartbeat(1, 0, 0))
    for _ in range(80):
        raft.tick()
    raft.campaign()
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 1, None)


def test_a_peer_that_answers_is_heard_of_also_just_after_the_leader_has_looked_for_a_majority() -> None:
    raft = leader(node(settings=Settings(pre_vote=False)))
    acknowledge(raft, turn(raft))
    found: list[tuple[bool, bool]] = []
    for answering in (["n2", "n3"], ["n3"]):
        for peer in answering:
            raft.step(peer, HeartbeatReply(raft.term, 0))
        for _ in range(raft.settings.election_ticks_min):
            raft.tick()
        found += [(raft.progress[peer].recent_active, raft.progress[peer].is_heard) for peer in ("n2", "n3")]
    assert found == [(False, True), (False, True), (False, False), (False, True)]
