"""What a follower knows of how far its leader is: told by every message of it, and committed by none."""

from __future__ import annotations

from replication.core.messages import AppendEntries, Heartbeat, HeartbeatReply, Message, RequestVote
from tests.harness.lone_raft import acknowledge, leader, node, turn


def test_a_heartbeat_tells_every_peer_how_far_the_leader_is() -> None:
    raft = leader(node())
    acknowledge(raft, turn(raft), ["n2"])
    raft.heartbeat_elapsed = raft.settings.heartbeat_ticks
    raft.tick()
    told = {peer: message.leader_commit for peer, message in turn(raft) if isinstance(message, Heartbeat)}
    assert told == {"n2": 1, "n3": 1}


def test_how_far_the_leader_is_commits_nothing() -> None:
    raft = node(terms=[1, 1])
    raft.step("n2", Heartbeat(1, 0, 5, 9))
    assert (raft.leader_committed, raft.log.committed) == (9, 0)
    assert turn(raft) == [("n2", HeartbeatReply(1, 5))]


def test_a_follower_remembers_the_most_that_this_terms_leader_has_committed() -> None:
    raft = node()
    known = [raft.leader_committed]
    messages: list[Message] = [
        Heartbeat(1, 0, 0, 7),
        AppendEntries(1, 0, 0, 5, [], 0),
        AppendEntries(1, 0, 0, 8, [], 0),
    ]
    for message in messages:
        raft.step("n2", message)
        known.append(raft.leader_committed)
    assert known == [None, 7, 7, 8]


def test_a_leader_that_tells_only_what_is_held_here_is_taken_at_that() -> None:
    raft = node(terms=[1, 1])
    raft.step("n2", Heartbeat(1, 2, 0))
    assert raft.leader_committed == 2


def test_a_new_term_forgets_what_the_last_leader_had_committed() -> None:
    raft = node()
    raft.step("n2", Heartbeat(1, 0, 0, 7))
    raft.step("n3", RequestVote(2, 0, 0, False, False))
    assert raft.leader_committed is None
    raft.step("n3", Heartbeat(2, 0, 0, 3))
    assert raft.leader_committed == 3


def test_a_node_whose_disk_lost_entries_learns_how_far_the_leader_is_before_anything_else() -> None:
    raft = node()
    raft.is_quarantined = True
    raft.step("n2", Heartbeat(1, 0, 0, 7))
    assert (raft.leader_committed, raft.is_quarantined) == (7, True)
