"""The claims of section 5 of the Raft paper ("In Search of an Understandable Consensus Algorithm"), one test each.

The shipped core is asked without pre-vote and CheckQuorum, which the paper's section 5 does not have.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from replication.core.messages import (
    AppendEntries,
    AppendReply,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Message,
    RequestVote,
    VoteReply,
)
from replication.core.raft import Raft, Role
from tests.harness.lone_raft import (
    PLAIN,
    STAMP_MS,
    acknowledge,
    appends,
    candidate,
    entries,
    established,
    leader,
    log_of,
    node,
    ticks_until_term_grows,
    turn,
)

ROUNDS = 300


# -- section 5.1: terms ------------------------------------------------------------------------------------------------


def test_a_follower_takes_over_a_later_term() -> None:
    """Section 5.1: a server whose current term is smaller than another's updates it to the larger value."""
    raft = node(term=1)
    raft.step("n2", AppendEntries(2, 0, 0, 0, [], 0))
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 2, "n2")


def test_a_candidate_that_sees_a_later_term_becomes_a_follower() -> None:
    """Section 5.1: a candidate that discovers that its term is out of date reverts to follower state at once."""
    raft = candidate(node())
    assert raft.role is Role.CANDIDATE
    raft.step("n2", AppendEntries(2, 0, 0, 0, [], 0))
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 2, "n2")


def test_a_leader_that_sees_a_later_term_becomes_a_follower() -> None:
    """Section 5.1: a leader that discovers that its term is out of date reverts to follower state at once."""
    raft = leader(node())
    raft.step("n2", AppendEntries(2, 0, 0, 0, [], 0))
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, 2, "n2")


def test_a_message_of_an_earlier_term_is_rejected() -> None:
    """Section 5.1: a request with a stale term number is rejected, and its sender told the later term."""
    raft = node(terms=[1], term=3)
    stale: list[Message] = [
        AppendEntries(2, 1, 1, 1, entries([2], first=2), 0),
        Heartbeat(2, 1, 0),
        RequestVote(2, 9, 2, False, False),
        VoteReply(2, True, False),
        AppendReply(2, True, 9, 0, 0, 0),
    ]
    for message in stale:
        raft.step("n2", message)
    answers = turn(raft)
    assert (raft.term, raft.leader, raft.vote, raft.log.last_index, raft.log.committed) == (3, None, "", 1, 0)
    assert {peer for peer, _ in answers} == {"n2"}
    assert all(message.term == 3 for _, message in answers)
    assert not any(getattr(message, "granted", False) or getattr(message, "success", False) for _, message in answers)


# -- section 5.2: leader election --------------------------------------------------------------------------------------


def test_a_server_starts_as_a_follower() -> None:
    """Section 5.2: when servers start up, they begin as followers, in the term that they have stored."""
    raft = node(term=4, vote="n2")
    assert (raft.role, raft.term, raft.vote, raft.leader) == (Role.FOLLOWER, 4, "n2", None)


def test_a_leader_sends_heartbeats_to_all_followers() -> None:
    """Section 5.2: leaders send periodic heartbeats to all followers in order to maintain their authority."""
    raft = established(node())
    for _ in range(PLAIN.heartbeat_ticks - 1):
        raft.tick()
    turn(raft)
    for _ in range(PLAIN.heartbeat_ticks):
        raft.tick()
    assert turn(raft) == [("n2", Heartbeat(1, 1, 0, 1)), ("n3", Heartbeat(1, 1, 0, 1))]


def test_a_follower_that_hears_nothing_begins_an_election() -> None:
    """Section 5.2: over an election timeout without communication a follower counts up its term, becomes a candidate,
    votes for itself, and asks all others for their vote in parallel."""
    raft = node(term=1)
    raft.step("n2", Heartbeat(1, 0, 0))
    turn(raft)
    assert PLAIN.election_ticks_min <= ticks_until_term_grows(raft) <= PLAIN.election_ticks_max
    assert (raft.role, raft.term, raft.vote) == (Role.CANDIDATE, 2, "n1")
    asked = RequestVote(2, 0, 0, False, False)
    assert turn(raft) == [("n2", asked), ("n3", asked)]


def test_a_candidate_that_is_not_elected_begins_another_election() -> None:
    """Section 5.2: a candidate that obtains no majority times out, counts up its term and asks again."""
    raft = candidate(node())
    ticks_until_term_grows(raft)
    assert (raft.role, raft.term, raft.vote) == (Role.CANDIDATE, 2, "n1")
    asked = RequestVote(2, 0, 0, False, False)
    assert turn(raft) == [("n2", asked), ("n3", asked)]


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        (1, {}, Role.LEADER),
        (3, {"n2": True, "n3": True}, Role.LEADER),
        (3, {"n2": True}, Role.LEADER),
        (5, {"n2": True, "n3": True, "n4": True, "n5": True}, Role.LEADER),
        (5, {"n2": True, "n3": True}, Role.LEADER),
        (5, {"n2": False, "n3": True, "n4": True}, Role.LEADER),
        (3, {"n2": False, "n3": False}, Role.FOLLOWER),
        (5, {"n2": False, "n3": False, "n4": False}, Role.FOLLOWER),
        (5, {"n2": True, "n3": False, "n4": False, "n5": False}, Role.FOLLOWER),
        (3, {}, Role.CANDIDATE),
        (3, {"n2": False}, Role.CANDIDATE),
        (5, {"n2": True}, Role.CANDIDATE),
        (5, {"n2": False, "n3": False}, Role.CANDIDATE),
    ],
)
def test_a_majority_of_votes_wins_an_election(size: int, votes: dict[str, bool], role: Role) -> None:
    """Section 5.2: a candidate wins with the votes of a majority in its term; it loses, or nobody is elected yet."""
    raft = candidate(node(size=size))
    for peer, granted in votes.items():
        raft.step(peer, VoteReply(1, granted, False))
    assert (raft.role, raft.term) == (role, 1)


@pytest.mark.parametrize(
    ("vote", "asking", "granted"),
    [
        ("", "n2", True),
        ("", "n3", True),
        ("n2", "n2", True),
        ("n3", "n3", True),
        ("n2", "n3", False),
        ("n3", "n2", False),
    ],
)
def test_a_server_votes_for_at_most_one_candidate_in_a_term(vote: str, asking: str, granted: bool) -> None:
    """Section 5.2: each server votes for at most one candidate in a given term, first come, first served."""
    raft = node(term=1, vote=vote)
    raft.step(asking, RequestVote(1, 0, 0, False, False))
    assert turn(raft) == [(asking, VoteReply(1, granted, False))]
    assert raft.vote == (asking if granted else vote)


@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_follows_the_leader_of_its_term_or_a_later_one(term: int) -> None:
    """Section 5.2: a candidate that hears from a leader whose term is at least its own recognizes it."""
    raft = candidate(node())
    raft.step("n3", AppendEntries(term, 0, 0, 0, [], 0))
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, term, "n3")


def test_followers_draw_their_election_timeouts_at_random() -> None:
    """Section 5.2: election timeouts are chosen randomly from a fixed interval, each value of it sooner or later."""
    chance = random.Random(5).randrange
    drawn = set()
    for _ in range(ROUNDS * 2):
        raft = node(term=1, chance=chance)
        raft.step("n2", Heartbeat(1, 0, 0))
        drawn.add(ticks_until_term_grows(raft))
    assert drawn == set(range(PLAIN.election_ticks_min, PLAIN.election_ticks_max + 1))


def test_candidates_draw_their_election_timeouts_at_random() -> None:
    """Section 5.2: each candidate restarts its randomized election timeout at the start of an election."""
    raft = candidate(node(chance=random.Random(6).randrange))
    drawn = {ticks_until_term_grows(raft) for _ in range(ROUNDS * 2)}
    assert drawn == set(range(PLAIN.election_ticks_min, PLAIN.election_ticks_max + 1))


def conflicts(group: Callable[[], list[Raft]]) -> float:
    """Return the share of rounds in which two nodes or more begin an election first, in the same tick."""
    count = 0
    for _ in range(ROUNDS):
        first, second, *_ = sorted(ticks_until_term_grows(raft) for raft in group())
        count += first == second
    return count / ROUNDS


def test_followers_rarely_time_out_together() -> None:
    """Section 5.2: randomized timeouts make it so that in most cases only a single follower times out."""
    chance = random.Random(7).randrange

    def group() -> list[Raft]:
        followers = [node(f"n{number}", size=5, term=1, chance=chance) for number in range(1, 6)]
        for raft in followers:
            raft.step("n9", Heartbeat(1, 0, 0))
        return followers

    assert conflicts(group) < 0.15


def test_candidates_rarely_time_out_together() -> None:
    """Section 5.2: randomized timeouts make another split vote unlikely in the new election."""
    chance = random.Random(8).randrange

    def group() -> list[Raft]:
        return [candidate(node(f"n{number}", size=5, chance=chance)) for number in range(1, 6)]

    assert conflicts(group) < 0.15


# -- section 5.3: log replication --------------------------------------------------------------------------------------


def test_a_leader_appends_a_command_and_sends_it_to_all_others() -> None:
    """Section 5.3: the leader appends the command to its log, stores it, and issues AppendEntries in parallel, with
    the index and term of the entry that immediately precedes."""
    raft = established(node())
    entry = raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    assert (entry.index, entry.term, raft.log.last_index, raft.log.committed) == (2, 1, 2, 1)
    ready = raft.ready()
    assert ready is not None
    assert ready.entries == [entry]
    sent = AppendEntries(1, 1, 1, 1, [entry], 0)
    assert ready.messages == [("n2", sent), ("n3", sent)]


def test_a_leader_applies_what_is_safely_replicated_and_tells_the_others() -> None:
    """Section 5.3: the leader applies a safely replicated entry, and includes the highest index that it knows to be
    committed in later messages, so that the others find out."""
    raft = established(node())
    entry = raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    acknowledge(raft, turn(raft))
    assert raft.log.committed == 2
    assert raft.take_committed() == [entry]
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"y")
    assert {peer: message.commit_index for peer, message in appends(turn(raft)).items()} == {"n2": 2, "n3": 2}


@pytest.mark.parametrize(
    ("size", "acceptors", "is_committed"),
    [
        (1, [], True),
        (3, [], False),
        (3, ["n2"], True),
        (3, ["n2", "n3"], True),
        (5, [], False),
        (5, ["n2"], False),
        (5, ["n2", "n3"], True),
        (5, ["n2", "n3", "n4"], True),
        (5, ["n2", "n3", "n4", "n5"], True),
    ],
)
def test_an_entry_is_committed_once_a_majority_has_it(size: int, acceptors: list[str], is_committed: bool) -> None:
    """Section 5.3: an entry is committed once the leader that created it has replicated it on a majority."""
    raft = established(node(size=size))
    entry = raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    acknowledge(raft, turn(raft), acceptors)
    assert (raft.log.committed >= entry.index) is is_committed


@pytest.mark.parametrize("terms", [[], [2], [1, 2], [1]])
def test_committing_an_entry_commits_all_before_it(terms: list[int]) -> None:
    """Section 5.3: a commit also commits all preceding entries, including those of earlier leaders, and they are
    applied in log order."""
    raft = leader(node(terms=terms, term=2))
    raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    acknowledge(raft, turn(raft))
    applied = raft.take_committed()
    assert [entry.term for entry in applied] == [*terms, 3, 3]
    assert [entry.index for entry in applied] == list(range(1, len(terms) + 3))
    assert applied[-1].payload == b"x"


@pytest.mark.parametrize(
    ("own", "previous", "sent", "commit_index", "applied"),
    [
        ([], 0, [1], 1, [1]),
        ([], 0, [1, 1], 2, [1, 1]),
        ([], 0, [1, 1], 1, [1]),
        ([], 0, [1, 1], 0, []),
        ([], 0, [1], 5, [1]),
        ([1, 1, 1], 1, [], 3, [1]),
        ([1, 1, 1], 1, [2], 3, [1, 2]),
        ([1, 1, 1], 1, [1], 3, [1, 1]),
    ],
)
def test_a_follower_applies_what_it_learns_to_be_committed(
    own: list[int], previous: int, sent: list[int], commit_index: int, applied: list[int]
) -> None:
    """Section 5.3: a follower that learns that an entry is committed applies it, in log order; never more than what it
    is known to have in common with the leader (figure 2: the smaller of the leader's commit index and the last new
    entry)."""
    raft = node(terms=own, term=2)
    raft.step("n2", AppendEntries(2, previous, int(previous > 0), commit_index, entries(sent, previous + 1), 0))
    assert raft.log.committed == len(applied)
    assert [(entry.index, entry.term) for entry in raft.take_committed()] == list(enumerate(applied, 1))


@pytest.mark.parametrize(
    ("previous_index", "previous_term", "hint"),
    [(0, 0, None), (1, 1, None), (2, 2, None), (2, 1, (1, 1)), (3, 3, (2, 2)), (3, 1, (1, 1))],
)
def test_a_follower_refuses_entries_that_do_not_follow_its_own(
    previous_index: int, previous_term: int, hint: tuple[int, int] | None
) -> None:
    """Section 5.3: without an entry of the same index and term as the one that precedes, new entries are refused."""
    raft = node(terms=[1, 2], term=2, committed=1)
    raft.step("n2", AppendEntries(2, previous_index, previous_term, 0, [], 0))
    (answer,) = turn(raft)
    if hint is None:
        assert answer == ("n2", AppendReply(2, True, max(previous_index, 1), 0, 0, 0))
    else:
        assert answer == ("n2", AppendReply(2, False, previous_index, *hint, 0))
    assert [entry.term for entry in log_of(raft)] == [1, 2]


@pytest.mark.parametrize(
    ("previous", "sent", "kept", "stored"),
    [
        ((2, 2), [3], [1, 2, 3], [3]),
        ((1, 1), [3, 4], [1, 3, 4], [3, 4]),
        ((0, 0), [1], [1, 2], []),
        ((0, 0), [3], [3], [3]),
        ((0, 0), [1, 2, 2], [1, 2, 2], [2]),
    ],
)
def test_a_follower_replaces_what_conflicts_and_appends_what_is_new(
    previous: tuple[int, int], sent: list[int], kept: list[int], stored: list[int]
) -> None:
    """Section 5.3: a follower deletes a conflicting entry and all that follow it, appends what is not in its log, and
    stores it; what follows without a conflict stays."""
    raft = node(terms=[1, 2], term=4)
    raft.step("n2", AppendEntries(4, *previous, 0, entries(sent, first=previous[0] + 1), 0))
    assert [entry.term for entry in log_of(raft)] == kept
    ready = raft.ready()
    assert ready is not None
    assert [entry.term for entry in ready.entries] == stored


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("case", FIGURE_7)
def test_a_leader_brings_the_logs_of_its_followers_in_line_with_its_own(case: str) -> None:
    """Section 5.3, figure 7: the leader finds the latest position where the logs agree and sends all that follows."""
    ahead = node("n1", terms=[1, 1, 1, 4, 4, 5, 5, 6, 6, 6], term=7)
    behind = node("n2", terms=FIGURE_7[case], term=7)
    candidate(ahead)
    ahead.step("n3", VoteReply(8, True, False))
    probes = 0
    for _ in range(20):
        sent = [message for peer, message in turn(ahead) if peer == "n2"]
        probes += len(sent)
        for message in sent:
            behind.step("n1", message)
        for peer, answer in turn(behind):
            assert peer == "n1"
            ahead.step("n2", answer)
    assert log_of(behind) == log_of(ahead)
    assert [entry.term for entry in log_of(ahead)] == [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]
    assert ahead.log.committed == 11
    assert probes <= 3, "a term is skipped with one answer"


# -- section 5.4: safety -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("terms", "term"), [([1], 2), ([1, 2], 3)])
def test_a_vote_request_tells_about_the_log_of_the_candidate(terms: list[int], term: int) -> None:
    """Section 5.4.1: the RequestVote RPC includes the index and term of the candidate's last entry."""
    raft = node()
    raft.step("n2", AppendEntries(term - 1, 0, 0, 0, entries(terms), 0))
    turn(raft)
    ticks_until_term_grows(raft)
    asked = RequestVote(term, len(terms), terms[-1], False, False)
    assert turn(raft) == [("n2", asked), ("n3", asked)]


@pytest.mark.parametrize(
    ("terms", "last_index", "last_term", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 2, 1, True),
        ([1, 1], 1, 1, False),
        ([1], 1, 2, True),
        ([1], 2, 2, True),
        ([1, 1], 1, 2, True),
        ([2], 1, 1, False),
        ([2], 2, 1, False),
        ([1, 2], 1, 1, False),
    ],
)
def test_a_voter_denies_its_vote_to_a_log_that_is_less_complete(
    terms: list[int], last_index: int, last_term: int, granted: bool
) -> None:
    """Section 5.4.1: the later last term is more up to date; with the same last term, the longer log is."""
    raft = node(terms=terms)
    raft.step("n2", RequestVote(3, last_index, last_term, False, False))
    assert turn(raft) == [("n2", VoteReply(3, granted, False))]


@pytest.mark.parametrize(("index", "committed"), [(1, 0), (2, 0), (3, 3)])
def test_only_entries_of_the_leaders_term_are_committed_by_counting(index: int, committed: int) -> None:
    """Section 5.4.2, figure 8: an entry of an earlier term is not committed by counting replicas, however many."""
    raft = leader(node(terms=[1, 2], term=2))
    assert raft.term == 3
    turn(raft)
    for peer in ("n2", "n3"):
        raft.step(peer, AppendReply(3, True, index, 0, 0, 0))
        raft.step(peer, HeartbeatReply(3, 0))
    assert raft.log.committed == committed
