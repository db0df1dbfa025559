"""Reads through the leader: which answer confirms which read, and when peers are asked (thesis, section 6.4)."""

from __future__ import annotations

import pytest

from replication.core.membership import Configuration
from replication.core.messages import AppendReply, EntryKind, Heartbeat, HeartbeatReply, ReadReady
from replication.core.raft import Raft
from replication.errors import NotLeading
from tests.harness.lone_raft import PLAIN, STAMP_MS, acknowledge, established, leader, node, turn


def reads_of(raft: Raft) -> list[ReadReady]:
    """Return the reads that may be served now."""
    ready = raft.ready()
    return [] if ready is None else ready.reads


def asked(raft: Raft) -> dict[str, int]:
    """Return the round of each heartbeat that goes out."""
    return {peer: message.read_round for peer, message in turn(raft) if isinstance(message, Heartbeat)}


def test_only_a_leader_is_asked() -> None:
    with pytest.raises(NotLeading):
        node().read_index(1)


def test_a_read_waits_for_a_commit_of_the_own_term() -> None:
    raft = leader(node())
    raft.read_index(1)
    sent = turn(raft)
    assert not any(isinstance(message, Heartbeat) for _, message in sent)
    acknowledge(raft, sent)
    assert asked(raft) == {"n2": 1}
    raft.step("n2", HeartbeatReply(1, 1))
    assert reads_of(raft) == [(1, 1)]


def test_an_answer_to_an_earlier_round_confirms_no_later_read() -> None:
    """An answer that was on its way through a long pause says nothing of what happened in between."""
    raft = established(node(size=5))
    raft.read_index(1)
    assert asked(raft) == {"n2": 1, "n3": 1}
    raft.step("n2", HeartbeatReply(1, 1))
    raft.read_index(2)
    turn(raft)
    raft.step("n3", HeartbeatReply(1, 1))
    assert reads_of(raft) == [(1, 1)]
    raft.step("n4", HeartbeatReply(1, 1))
    raft.step("n5", HeartbeatReply(1, 1))
    assert reads_of(raft) == []
    raft.step("n2", HeartbeatReply(1, 2))
    raft.step("n2", HeartbeatReply(1, 2))
    assert reads_of(raft) == []
    raft.step("n3", HeartbeatReply(1, 2))
    assert reads_of(raft) == [(2, 1)]


def test_one_round_of_heartbeats_is_under_way_at_a_time_and_the_next_takes_all_that_wait() -> None:
    raft = established(node())
    raft.read_index(1)
    assert asked(raft) == {"n2": 1}
    for context in (2, 3):
        raft.read_index(context)
        assert asked(raft) == {}
    raft.step("n2", HeartbeatReply(1, 1))
    ready = raft.ready()
    assert ready is not None
    assert ready.reads == [(1, 1)]
    assert [message.read_round for _, message in ready.messages if isinstance(message, Heartbeat)] == [3]
    raft.step("n3", HeartbeatReply(1, 3))
    assert reads_of(raft) == [(2, 1), (3, 1)]


def test_reads_ride_on_the_appends_of_their_turn() -> None:
    raft = established(node())
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    raft.read_index(1)
    assert asked(raft) == {}
    raft.step("n2", AppendReply(1, True, 2, 0, 0, 1))
    assert reads_of(raft) == [(1, 1)]


def test_appends_to_fewer_than_a_majority_are_filled_up_with_heartbeats() -> None:
    raft = established(node(size=5))
    for peer in ("n3", "n4", "n5"):
        raft.progress[peer].is_awaited = True
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    raft.read_index(1)
    assert asked(raft) == {"n3": 1}


def test_a_round_whose_messages_were_lost_is_asked_again_of_everybody() -> None:
    raft = established(node())
    raft.read_index(1)
    asked(raft)
    raft.tick()
    asked(raft)
    raft.tick()
    assert asked(raft) == {"n2": 1, "n3": 1}
    raft.step("n3", HeartbeatReply(1, 1))
    assert reads_of(raft) == [(1, 1)]
    raft.read_index(2)
    assert asked(raft) == {"n3": 2}


def test_who_answered_last_is_asked() -> None:
    raft = established(node(size=5))
    for peer, answered in (("n2", 1), ("n3", 3), ("n4", 2), ("n5", 3)):
        raft.progress[peer].read_round = answered
    raft.reads.round = 3
    raft.read_index(1)
    assert asked(raft) == {"n3": 4, "n5": 4}


def test_both_majorities_of_a_joint_configuration_are_asked() -> None:
    raft = established(node(size=5))
    raft.use_configuration(Configuration(("n1", "n2", "n3"), outgoing=("n1", "n4", "n5")))
    raft.read_index(1)
    assert asked(raft) == {"n2": 1, "n3": 1, "n4": 1}
    for peer in ("n2", "n3"):
        raft.step(peer, HeartbeatReply(1, 1))
    assert reads_of(raft) == []
    raft.step("n4", HeartbeatReply(1, 1))
    assert reads_of(raft) == [(1, 1)]


def test_learners_confirm_nothing() -> None:
    raft = established(node())
    raft.use_configuration(Configuration(("n1", "n2"), learners=("n3",)))
    raft.read_index(1)
    assert asked(raft) == {"n2": 1}
    raft.step("n3", HeartbeatReply(1, 1))
    assert reads_of(raft) == []
    raft.step("n2", HeartbeatReply(1, 1))
    assert reads_of(raft) == [(1, 1)]


def test_a_single_voter_confirms_its_reads_in_the_same_ready() -> None:
    raft = established(node(size=1))
    raft.read_index(7)
    assert reads_of(raft) == [(7, 1)]


def test_a_leader_that_steps_down_says_which_reads_are_lost() -> None:
    raft = established(node())
    raft.read_index(1)
    turn(raft)
    raft.read_index(2)
    raft.step("n2", Heartbeat(2, 0, 0))
    ready = raft.ready()
    assert ready is not None
    assert (ready.reads, ready.lost_reads) == ([], [1, 2])


def test_a_lease_begins_when_its_heartbeats_go_out_and_ends_before_another_can_be_elected() -> None:
    raft = established(node())
    raft.settings = PLAIN._replace(read_lease=True)
    held = [raft.has_lease]
    for _ in range(10):
        raft.tick()
    turn(raft)
    raft.tick()
    raft.step("n2", HeartbeatReply(1, 1))
    for _ in range(36):
        held.append(raft.has_lease)
        raft.tick()
    assert held == [False] + [True] * 34 + [False] * 2
    raft.forget_leader()
    assert raft.leader == "n1"


def test_there_is_no_lease_before_the_own_commit_nor_while_leadership_goes_to_another() -> None:
    raft = leader(node(size=1))
    held = [raft.has_lease]
    turn(raft)
    held.append(raft.has_lease)
    raft = established(node())
    raft.reads.lease_tick = 0
    held.append(raft.has_lease)
    raft.transfer("n2")
    held.append(raft.has_lease)
    assert held == [False, True, True, False]


def test_who_reads_on_a_lease_forgets_no_leader_early() -> None:
    raft = node(term=1)
    raft.settings = PLAIN._replace(read_lease=True)
    raft.step("n2", Heartbeat(1, 0, 0))
    raft.forget_leader()
    raft.peer_unreachable("n2")
    assert raft.leader == "n2"
