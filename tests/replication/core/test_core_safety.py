"""What no order of messages and disk reports may bring about; one core, its peers and its disk played by the test."""

from __future__ import annotations

import pytest

from replication.core.log import RaftLog
from replication.core.membership import Configuration, encode
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Ready,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from replication.core.progress import ProgressState
from replication.core.raft import Raft, Role, Settings
from tests.harness.lone_raft import (
    PLAIN,
    STAMP_MS,
    acknowledge,
    appends,
    candidate,
    entries,
    established,
    leader,
    node,
    turn,
)

MEMBERS = Configuration(("n1", "n2", "n3"))


def ready(raft: Raft) -> Ready:
    """Return the work there is."""
    found = raft.ready()
    assert found is not None
    return found


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_a_follower_acknowledges_behind_the_disk_and_refuses_ahead_of_it() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 0, entries([1, 1]), 3))
    work = ready(raft)
    assert (work.messages, work.messages_after) == ([], [("n2", AppendReply(1, True, 2, 0, 0, 3))])
    raft.step("n2", AppendEntries(1, 5, 1, 0, [], 4))
    work = ready(raft)
    assert (work.messages, work.messages_after) == ([("n2", AppendReply(1, False, 5, 2, 1, 4))], [])


def test_appends_of_one_ready_are_acknowledged_once() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 0, entries([1, 1]), 1))
    raft.step("n2", AppendEntries(1, 2, 1, 0, entries([1], 3), 2))
    raft.step("n2", AppendEntries(1, 0, 0, 0, entries([1]), 1))
    assert ready(raft).messages_after == [("n2", AppendReply(1, True, 3, 0, 0, 2))]


def test_an_acknowledgement_is_not_lost_with_the_memory_of_the_leader() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 0, entries([1]), 1))
    raft.forget_leader()
    assert ready(raft).messages_after == [("n2", AppendReply(1, True, 1, 0, 0, 1))]


def test_nothing_is_acknowledged_to_the_leader_of_an_earlier_term() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 0, entries([1]), 1))
    raft.step("n3", RequestVote(2, 9, 1, False, False))
    assert ready(raft).messages_after == [("n3", VoteReply(2, True, False))]


def test_the_report_of_a_replaced_tail_counts_for_nothing_in_its_place() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 0, entries([1, 1, 1]), 0))
    raft.step("n3", RequestVote(2, 9, 1, False, False))
    ready(raft)
    raft.step("n3", AppendEntries(2, 1, 1, 0, entries([2, 2], 2), 0))
    ready(raft)
    raft.persisted(2, 3, STAMP_MS, 1)
    assert raft.log.durable == 0
    raft.persisted(2, 3, STAMP_MS, 2)
    assert raft.log.durable == 3


def test_a_report_that_names_no_entry_counts_only_while_no_tail_was_replaced() -> None:
    raft = node(terms=[1, 1], term=1)
    raft.step("n2", AppendEntries(2, 1, 1, 0, entries([2], 2), 0))
    ready(raft)
    raft.persisted(2, 2, STAMP_MS)
    assert raft.log.durable == 1
    raft.step("n3", AppendEntries(3, 2, 2, 0, entries([3], 3), 0))
    ready(raft)
    raft.persisted(3, 3, STAMP_MS)
    assert raft.log.durable == 3


def test_a_report_of_an_earlier_term_counts_for_nothing() -> None:
    raft = candidate(node(term=1))
    raft.step("n2", VoteReply(2, True, False))
    ready(raft)
    raft.persisted(1, 1, STAMP_MS, 2)
    assert raft.log.durable == 0


def test_votes_are_asked_for_behind_the_disk() -> None:
    """A node that forgot its term could ask again in it with a shorter log, and win by votes for the longer one."""
    raft = node(terms=[1])
    raft.campaign()
    work = ready(raft)
    assert work.messages == []
    assert [peer for peer, _ in work.messages_after] == ["n2", "n3"]


def test_a_pre_vote_waits_for_no_disk_and_changes_nothing() -> None:
    raft = node(terms=[1])
    raft.settings = Settings()
    raft.campaign()
    work = ready(raft)
    request = RequestVote(2, 1, 1, True, False)
    assert (work.hard_state, work.messages) == (None, [("n2", request), ("n3", request)])
    assert (raft.term, raft.role, raft.is_pre_vote) == (1, Role.CANDIDATE, True)
    raft.persisted(1, 1, STAMP_MS, 1)
    assert raft.role is Role.CANDIDATE


def test_pre_votes_of_a_majority_lead_to_the_vote_and_refusals_of_one_to_the_end() -> None:
    raft = node(terms=[1])
    raft.settings = Settings()
    raft.campaign()
    raft.step("n2", VoteReply(2, True, True))
    assert (raft.term, raft.is_pre_vote) == (2, False)
    raft.step("n3", VoteReply(2, True, True))
    assert raft.votes == {}
    raft.step("n2", VoteReply(2, False, False))
    raft.step("n3", VoteReply(2, False, False))
    assert (raft.role, raft.term) == (Role.FOLLOWER, 2)


def test_two_leaders_in_one_term_stop_the_node() -> None:
    raft = node(term=1)
    raft.step("n2", Heartbeat(1, 0, 0))
    with pytest.raises(AssertionError, match="two leaders"):
        raft.step("n3", Heartbeat(1, 0, 0))


# -- terms and roles ---------------------------------------------------------------------------------------------------


def test_messages_that_are_late_for_the_role_are_dropped() -> None:
    raft = established(node())
    for message in (VoteReply(1, True, False), TimeoutNow(1), AppendEntries(1, 0, 0, 0, [], 0)):
        raft.step("n2", message)
    assert (raft.role, turn(raft)) == (Role.LEADER, [])


def test_answers_of_strangers_count_for_nothing() -> None:
    raft = established(node())
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    raft.step("n9", AppendReply(1, True, 2, 0, 0, 0))
    raft.step("n9", HeartbeatReply(1, 0))
    raft.peer_unreachable("n9")
    raft.snapshot_sent("n9", True)
    raft.fetched("n9", 1, [])
    assert raft.log.committed == 1
    assert "n9" not in raft.progress


def test_an_answer_that_claims_more_than_there_is_counts_for_nothing() -> None:
    raft = established(node())
    raft.step("n2", AppendReply(1, True, 99, 0, 0, 99))
    assert (raft.progress["n2"].match, raft.progress["n2"].read_round) == (1, 0)


def test_a_heartbeat_commits_no_more_than_is_there() -> None:
    raft = node(terms=[1, 1])
    raft.step("n2", Heartbeat(1, 9, 5))
    assert raft.log.committed == 2
    assert ready(raft).messages == [("n2", HeartbeatReply(1, 5))]


def test_a_heartbeat_tells_a_peer_no_more_than_it_holds() -> None:
    raft = leader(node())
    acknowledge(raft, turn(raft), ["n2"])
    raft.heartbeat_elapsed = raft.settings.heartbeat_ticks
    raft.tick()
    told = {peer: message.commit_index for peer, message in turn(raft) if isinstance(message, Heartbeat)}
    assert told == {"n2": 1, "n3": 0}


def test_what_is_committed_is_told_with_the_next_tick_where_no_append_follows() -> None:
    raft = leader(node())
    acknowledge(raft, turn(raft))
    assert turn(raft) == []
    raft.tick()
    assert turn(raft) == [("n2", Heartbeat(1, 1, 0, 1)), ("n3", Heartbeat(1, 1, 0, 1))]
    raft.tick()
    assert turn(raft) == []


# -- membership --------------------------------------------------------------------------------------------------------


def change(index: int, members: Configuration) -> Entry:
    """An entry that changes the members."""
    return Entry(1, index, EntryKind.CONFIGURATION, STAMP_MS, encode(members))


def test_a_node_that_knows_of_a_change_campaigns_only_once_it_is_applied() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 1, [change(1, MEMBERS), change(2, MEMBERS)], 0))
    raft.campaign()
    assert (raft.role, raft.term) == (Role.FOLLOWER, 1)
    raft.step("n2", TimeoutNow(1))
    assert raft.is_campaign_due
    turn(raft)
    raft.take_committed()
    assert (raft.role, raft.term, raft.is_transfer) == (Role.CANDIDATE, 2, True)


def test_a_leader_that_goes_on_takes_back_that_another_should_campaign() -> None:
    raft = node(term=1)
    raft.step("n2", AppendEntries(1, 0, 0, 1, [change(1, MEMBERS)], 0))
    raft.step("n2", TimeoutNow(1))
    raft.step("n2", Heartbeat(1, 1, 0))
    raft.take_committed()
    assert raft.role is Role.FOLLOWER


def test_a_refused_candidate_learns_which_change_was_committed() -> None:
    """It alone is left; the two that have gone have longer logs, and it needs no vote of theirs."""
    log = node(terms=[1]).log
    log.append(change(2, Configuration(("n1",))))
    log.take_unpersisted()
    log.became_durable(2)
    raft = Raft("n1", PLAIN, HardState(1, ""), MEMBERS, log, lambda _count: 0)
    candidate(raft)
    raft.step("n2", VoteReply(2, False, False, 3, 1))
    assert raft.log.committed == 0
    raft.step("n3", VoteReply(2, False, False, 2, 1))
    assert (raft.role, raft.log.committed) == (Role.FOLLOWER, 2)
    raft.take_committed()
    candidate(raft)
    assert raft.role is Role.LEADER


def test_a_transfer_ends_with_the_membership_of_whom_it_goes_to() -> None:
    raft = established(node())
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    raft.transfer("n3")
    raft.use_configuration(Configuration(("n1", "n2")))
    assert raft.transferee is None


def test_reads_are_confirmed_by_the_majority_of_the_members_that_are_left() -> None:
    raft = established(node())
    raft.read_index(5)
    turn(raft)
    raft.use_configuration(Configuration(("n1",)))
    assert [read.context for read in ready(raft).reads] == [5]


# -- what peers are sent -----------------------------------------------------------------------------------------------


def fetching() -> Raft:
    """Return a leader that has asked the driver for the entries n2 lacks, which are on disk only."""
    raft = node(terms=[1, 1, 2])
    raft.settings = PLAIN._replace(memory_bytes_max=1)
    raft.use_configuration(MEMBERS)
    raft.log.commit(3)
    raft.log.take_committed()
    leader(raft)
    turn(raft)
    raft.step("n2", AppendReply(3, False, 3, 0, 0, 0))
    assert ready(raft).fetches == [("n2", 1, 3)]
    return raft


def test_entries_from_disk_are_sent_only_if_they_are_still_those_of_the_log() -> None:
    raft = fetching()
    raft.fetched("n2", 1, entries([1, 1, 1]))
    assert appends(turn(raft)) == {}
    raft.fetched("n2", 2, entries([1], 2))
    assert len(ready(raft).fetches) == 1
    raft.fetched("n2", 1, entries([1, 1]))
    assert [entry.index for entry in appends(turn(raft))["n2"].entries] == [1, 2]


def test_what_the_disk_has_no_more_is_sent_as_a_snapshot() -> None:
    raft = fetching()
    raft.fetched("n2", 1, [])
    assert [(peer, type(message)) for peer, message in turn(raft)] == [("n2", InstallSnapshot)]


def test_a_lost_append_is_found_by_the_next_heartbeats_answer() -> None:
    raft = established(node())
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    assert sorted(appends(turn(raft))) == ["n2", "n3"]
    raft.step("n2", HeartbeatReply(1, 0))
    assert turn(raft) == []
    raft.heartbeat_elapsed = raft.settings.heartbeat_ticks
    raft.tick()
    turn(raft)
    raft.step("n2", HeartbeatReply(1, 0))
    assert turn(raft) == [("n2", AppendEntries(1, 2, 1, 1, [], 0))]
    raft.step("n2", HeartbeatReply(1, 0))
    assert turn(raft) == []
    raft.step("n2", AppendReply(1, False, 2, 1, 1, 0))
    assert [entry.index for entry in appends(turn(raft))["n2"].entries] == [2]


def test_a_late_acknowledgement_does_not_end_a_probe() -> None:
    raft = established(node())
    raft.peer_unreachable("n2")
    assert raft.progress["n2"].match == 1
    states: list[ProgressState] = []
    for index in (0, 1):
        raft.step("n2", AppendReply(1, True, index, 0, 0, 0))
        states.append(raft.progress["n2"].state)
    assert states == [ProgressState.PROBE, ProgressState.REPLICATE]


def test_a_peer_that_reaches_the_base_by_itself_needs_no_snapshot() -> None:
    raft = established(node(terms=[1, 1, 1]))
    progress = raft.progress["n2"]
    progress.become_snapshot(4)
    raft.step("n2", AppendReply(2, True, 4, 0, 0, 0))
    assert progress.state is ProgressState.SNAPSHOT
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    raft.step("n2", AppendReply(2, True, 5, 0, 0, 0))
    assert (progress.state, progress.next) == (ProgressState.REPLICATE, 6)


def test_a_hint_behind_the_end_of_the_leaders_log_is_no_place_to_go_on() -> None:
    raft = leader(node(terms=[1, 1]))
    turn(raft)
    raft.step("n2", AppendReply(2, False, 2, 9, 1, 0))
    assert appends(turn(raft))["n2"].previous_index == 1


@pytest.mark.parametrize("known", [(), (2,)])
def test_changes_that_are_replayed_take_effect(known: tuple[int, ...]) -> None:
    log = RaftLog(2, 1, 0, committed=2, runs=[(1, 1)], configuration_indexes=known)
    raft = Raft("n1", PLAIN, HardState(1, ""), MEMBERS, log, lambda _count: 0)
    raft.replayed(entries([1])[0])
    raft.replayed(change(2, Configuration(("n1",))))
    assert (raft.is_sole_voter, log.configuration_indexes, log.applied) == (True, [], 2)


def test_a_node_that_was_removed_behind_its_back_stands_for_no_election_until_a_leader_speaks_to_it() -> None:
    raft = node(terms=[1])
    raft.is_removed = True
    raft.campaign()
    for _ in range(2 * raft.election_timeout):
        raft.tick()
    assert (raft.role, raft.ready()) == (Role.FOLLOWER, None)
    raft.step("n2", Heartbeat(1, 0, 0))
    assert not raft.is_removed


# -- handing over ------------------------------------------------------------------------------------------------------


def test_a_successor_whose_last_append_was_lost_is_asked_what_it_lacks_at_once() -> None:
    raft = established(node())
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"lost")
    turn(raft)
    raft.transfer("n2")
    last = raft.log.last_index
    assert appends(turn(raft))["n2"] == AppendEntries(raft.term, last, raft.term, last - 1, [], 0)
    raft.step("n2", AppendReply(raft.term, False, last, last - 1, raft.term, 0))
    again = appends(turn(raft))["n2"].entries
    assert [entry.payload for entry in again] == [b"lost"]
    raft.step("n2", AppendReply(raft.term, True, last, 0, 0, 0))
    assert ("n2", TimeoutNow(raft.term)) in turn(raft)
