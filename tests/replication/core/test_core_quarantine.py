"""Quarantine: what a node may do whose disk lost what it had acknowledged, and what its leader counts it for."""

from __future__ import annotations

from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Ready,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from replication.core.raft import Raft, Role
from tests.harness.lone_raft import (
    PLAIN,
    STAMP_MS,
    acknowledge,
    appends,
    entries,
    established,
    node,
    turn,
)

MEMBERS = Configuration(("n1", "n2", "n3"))


def ready(raft: Raft) -> Ready:
    """Return the work there is."""
    found = raft.ready()
    assert found is not None
    return found


def quarantined() -> Raft:
    """A member whose disk is gone."""
    return Raft("n1", PLAIN, HardState(0, "", True), MEMBERS, RaftLog(0, 0, 0), lambda _count: 0)


def test_a_node_in_quarantine_neither_votes_nor_campaigns() -> None:
    raft = quarantined()
    raft.campaign()
    raft.step("n2", RequestVote(1, 9, 1, True, False))
    raft.step("n2", RequestVote(1, 9, 1, False, False))
    raft.step("n2", TimeoutNow(1))
    assert raft.role is Role.FOLLOWER
    assert [message for _, message in turn(raft)] == [VoteReply(0, False, True), VoteReply(1, False, False)]


def test_quarantine_ends_when_the_log_is_durable_up_to_what_was_committed_when_the_loss_was_known() -> None:
    raft = quarantined()
    lost = AppendReply(3, False, 7, 0, 0, 1, lost=True)
    raft.step("n2", AppendEntries(3, 7, 2, 7, [], 1))
    raft.step("n2", Heartbeat(3, 0, 2))
    raft.step("n2", InstallSnapshot(2, 5, 1, MEMBERS))
    assert turn(raft)[:2] == [("n2", lost), ("n2", AppendReply(3, False, 0, 0, 0, 2, lost=True))]

    raft.step("n2", AppendEntries(3, 7, 2, 2, [], 3, lost_seen=True))
    assert turn(raft) == [("n2", AppendReply(3, False, 7, 0, 0, 3))]
    raft.step("n2", Heartbeat(3, 0, 4))
    raft.step("n2", AppendEntries(3, 0, 0, 2, entries([1]), 4, lost_seen=True))
    assert turn(raft) == [("n2", HeartbeatReply(3, 4)), ("n2", AppendReply(3, True, 1, 0, 0, 4))]
    raft.step("n2", AppendEntries(3, 1, 1, 9, entries([3], 2), 4, lost_seen=False))
    ready(raft)
    assert raft.is_quarantined
    raft.persisted(3, 2, STAMP_MS, 3)
    assert ready(raft).hard_state == HardState(3, "n2", False)


def test_every_leader_has_to_know_of_the_loss_anew() -> None:
    raft = quarantined()
    raft.step("n2", AppendEntries(3, 0, 0, 5, [], 0, lost_seen=True))
    remembered = [raft.lost_commit_index]
    raft.step("n3", AppendEntries(4, 0, 0, 0, [], 0))
    remembered.append(raft.lost_commit_index)
    assert remembered == [5, None]
    assert turn(raft) == [("n3", AppendReply(4, False, 0, 0, 0, 0, lost=True))]


def test_a_snapshot_alone_ends_no_quarantine() -> None:
    raft = quarantined()
    raft.step("n2", InstallSnapshot(3, 5, 2, MEMBERS))
    work = ready(raft)
    assert work.snapshot == InstallSnapshot(3, 5, 2, MEMBERS)
    assert work.messages == [("n2", AppendReply(3, False, 0, 5, 2, 0, lost=True))]
    assert (raft.is_quarantined, work.messages_after) == (True, [])


def test_a_peer_that_lost_its_disk_counts_for_nothing_until_an_entry_is_committed_without_it() -> None:
    raft = established(node(size=5))
    raft.step("n2", AppendReply(1, False, 1, 0, 0, 0, lost=True))
    assert (raft.progress["n2"].match, raft.lost_peers) == (0, {"n2": 2})
    sent = turn(raft)
    assert "n2" not in appends(sent)
    raft.step("n2", AppendReply(1, True, 2, 0, 0, 0))
    raft.step("n2", AppendReply(1, False, 1, 0, 0, 0, lost=True))
    acknowledge(raft, sent, ["n3"])
    assert (raft.log.committed, raft.log.last_index) == (1, 2)
    acknowledge(raft, sent, ["n4"])
    assert raft.log.committed == 2

    first = appends(turn(raft))["n2"]
    assert (first.previous_index, first.commit_index, first.lost_seen) == (2, 2, True)
    raft.step("n2", AppendReply(1, False, 2, 0, 0, 0))
    again = appends(turn(raft))["n2"]
    assert (again.previous_index, len(again.entries), again.lost_seen) == (0, 2, True)
    raft.step("n2", AppendReply(1, True, 2, 0, 0, 0))
    assert (raft.progress["n2"].match, raft.progress["n2"].lost_seen) == (2, False)


def test_a_late_word_of_a_loss_asks_for_no_second_entry_without_the_peer() -> None:
    raft = established(node(size=5))
    late = AppendReply(1, False, 0, 0, 0, raft.reads.round, lost=True)
    raft.step("n2", AppendReply(1, False, 1, 0, 0, raft.reads.round, lost=True))
    acknowledge(raft, turn(raft), ["n3", "n4"])
    told = appends(turn(raft))["n2"]
    raft.step("n2", late)
    assert (raft.lost_peers, raft.log.last_index) == ({}, 2)

    raft.step("n2", AppendReply(1, False, 2, 0, 0, told.read_round, lost=True))
    assert (raft.lost_peers, raft.log.last_index) == ({"n2": 3}, 3)


def test_a_peer_that_loses_its_disk_again_while_it_catches_up_is_counted_from_nothing_again() -> None:
    raft = established(node(size=5))
    raft.step("n2", AppendReply(1, False, 1, 0, 0, 0, lost=True))
    acknowledge(raft, turn(raft), ["n3", "n4"])
    turn(raft)
    raft.step("n2", AppendReply(1, False, 2, 1, 1, 0))
    turn(raft)
    raft.progress["n2"].acknowledged(1)
    raft.step("n2", AppendReply(1, False, 1, 0, 0, 0))
    assert (raft.progress["n2"].match, raft.progress["n2"].next) == (0, 1)
