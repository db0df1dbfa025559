"""Planted bugs in counting and electing: each is a context in which the shipped code has one defect of the literature.

Guarantees: outside of its context nothing is changed.
Leaves to the caller: running a simulation in it (tests/simulation/test_planted_bugs.py).
Reference: the Raft paper's figures 7 and 8; Jepsen's analyses of RedisRaft and etcd; etcd-io/raft's issues.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from replication.core import candidate, follower, leader, quorum
from replication.core.log import RaftLog
from replication.core.messages import (
    AppendReply,
    HardState,
    RequestVote,
    VoteReply,
)
from replication.core.raft import HANDLERS, Raft, Role

Planted = Iterator[None]


# -- acknowledging, committing -----------------------------------------------------------------------------------------


@contextmanager
def acknowledges_before_durable() -> Planted:
    """A follower acknowledges entries while they are on their way to its disk."""

    def send_acknowledgement(raft: Raft) -> None:
        assert raft.acknowledged_leader is not None
        reply = AppendReply(raft.term, True, raft.matched_index, 0, 0, raft.acknowledged_round)
        raft.send(raft.acknowledged_leader, reply)
        raft.acknowledged_leader = None

    with patch.object(follower, "send_acknowledgement", send_acknowledgement):
        yield


def _maybe_commit(raft: Raft, match: Mapping[str, int], voters: Iterable[str], least: int) -> None:
    index = quorum.committed_index(voters, match, raft.configuration.outgoing)
    if index > raft.log.committed and index >= least:
        raft.log.commit(index)
        if raft.lost_peers:
            leader.resume_lost_peers(raft)


def _match(raft: Raft) -> dict[str, int]:
    return {raft.name: raft.log.durable} | {peer: progress.match for peer, progress in raft.progress.items()}


@contextmanager
def leader_counts_what_its_disk_has_not() -> Planted:
    """The leader counts itself as soon as it has appended."""

    def maybe_commit(raft: Raft) -> None:
        match = _match(raft) | {raft.name: raft.log.last_index}
        _maybe_commit(raft, match, raft.configuration.voters, raft.term_start_index)

    with patch.object(leader, "maybe_commit", maybe_commit):
        yield


@contextmanager
def acknowledges_alone() -> Planted:
    """The leader commits what its own disk has."""

    def maybe_commit(raft: Raft) -> None:
        _maybe_commit(raft, {raft.name: raft.log.durable}, (raft.name,), raft.term_start_index)

    with patch.object(leader, "maybe_commit", maybe_commit):
        yield


@contextmanager
def commits_older_terms_by_counting() -> Planted:
    """Figure 8: an entry of an earlier term counts as committed because a majority has it."""

    def maybe_commit(raft: Raft) -> None:
        _maybe_commit(raft, _match(raft), raft.configuration.voters, 0)

    with patch.object(leader, "maybe_commit", maybe_commit):
        yield


@contextmanager
def counts_learners() -> Planted:
    """Learners count in the majority that commits."""

    def maybe_commit(raft: Raft) -> None:
        configuration = raft.configuration
        voters = (*configuration.voters, *configuration.learners)
        _maybe_commit(raft, _match(raft), voters, raft.term_start_index)

    with patch.object(leader, "maybe_commit", maybe_commit):
        yield


@contextmanager
def counts_a_removed_leader() -> Planted:
    """A leader that was removed goes on, and counts itself."""

    def maybe_commit(raft: Raft) -> None:
        voters = dict.fromkeys((*raft.configuration.voters, raft.name))
        _maybe_commit(raft, _match(raft), voters, raft.term_start_index)

    def configuration_applied(raft: Raft) -> None:
        leader.add_progress(raft, is_heard=True)
        maybe_commit(raft)

    with (
        patch.object(leader, "maybe_commit", maybe_commit),
        patch.object(leader, "configuration_applied", configuration_applied),
    ):
        yield


@contextmanager
def half_commits() -> Planted:
    """Half of the voters commit."""

    def index_of_majority(voters: Iterable[str], match: Mapping[str, int]) -> int:
        indexes = sorted([match.get(voter, 0) for voter in voters], reverse=True)
        return indexes[(len(indexes) - 1) // 2] if indexes else 0

    with patch.object(quorum, "_index_of_majority", index_of_majority):
        yield


@contextmanager
def half_elects() -> Planted:
    """Half of the voters elect."""

    def result_of_majority(voters: Collection[str], votes: Mapping[str, bool]) -> quorum.VoteResult:
        granted = sum(votes.get(voter, False) for voter in voters)
        refused = sum(not votes.get(voter, True) for voter in voters)
        if granted >= (len(voters) + 1) // 2:
            return quorum.VoteResult.WON
        return quorum.VoteResult.LOST if refused > len(voters) // 2 else quorum.VoteResult.PENDING

    with patch.object(quorum, "_result_of_majority", result_of_majority):
        yield


@contextmanager
def joint_counts_as_one_set() -> Planted:
    """While joint, only the new voters decide."""
    committed_index, vote_result = quorum.committed_index, quorum.vote_result

    def committed_of_new(voters: Iterable[str], match: Mapping[str, int], _outgoing: Iterable[str] = ()) -> int:
        return committed_index(voters, match)

    def vote_of_new(voters: Iterable[str], votes: Mapping[str, bool], _outgoing: Iterable[str] = ()) -> object:
        return vote_result(voters, votes)

    with (
        patch.object(leader, "committed_index", committed_of_new),
        patch.object(candidate, "vote_result", vote_of_new),
    ):
        yield


# -- electing ----------------------------------------------------------------------------------------------------------


def _request_vote(raft: Raft, sender: str, message: RequestVote, *, is_free: bool, after: bool) -> None:
    is_free = is_free or (message.pre_vote and message.term > raft.term)
    if not is_free or raft.is_quarantined or not raft.log.is_up_to_date(message.last_index, message.last_term):
        follower.refuse_vote(raft, sender, message)
    elif message.pre_vote:
        raft.send(sender, VoteReply(message.term, True, True))
    else:
        raft.vote = sender
        raft.wait_full_timeout()
        (raft.send_after if after else raft.send)(sender, VoteReply(raft.term, True, False))


@contextmanager
def _voting(request_vote: Any) -> Planted:
    with (
        patch.dict(HANDLERS[Role.FOLLOWER], {RequestVote: request_vote}),
        patch.dict(HANDLERS[Role.CANDIDATE], {RequestVote: request_vote}),
        patch.dict(HANDLERS[Role.LEADER], {RequestVote: request_vote}),
    ):
        yield


@contextmanager
def votes_twice() -> Planted:
    """A voter forgets whom it has voted for."""

    def request_vote(raft: Raft, sender: str, message: RequestVote) -> None:
        _request_vote(raft, sender, message, is_free=raft.leader is None, after=True)

    with _voting(request_vote):
        yield


@contextmanager
def votes_before_durable() -> Planted:
    """A vote is told while it is on its way to the disk."""

    def request_vote(raft: Raft, sender: str, message: RequestVote) -> None:
        is_free = raft.vote == sender or (not raft.vote and raft.leader is None)
        _request_vote(raft, sender, message, is_free=is_free, after=False)

    with _voting(request_vote):
        yield


@contextmanager
def asks_before_own_vote_is_durable() -> Planted:
    """A candidate asks for votes, and counts its own, while it is on its way to the disk."""

    def become_candidate(raft: Raft) -> None:
        raft.enter_term(raft.term + 1, raft.name)
        raft.role = Role.CANDIDATE
        raft.is_pre_vote = False
        raft.votes = {raft.name: True}
        raft.wait_full_timeout()
        request = RequestVote(raft.term, raft.log.last_index, raft.log.last_term, False, raft.is_transfer)
        for peer in candidate.voting_peers(raft):
            raft.send(peer, request)
        candidate.judge(raft)

    with patch.object(candidate, "become_candidate", become_candidate):
        yield


@contextmanager
def votes_for_shorter_logs() -> Planted:
    """Votes are given whatever the candidate's log holds."""
    with patch.object(RaftLog, "is_up_to_date", lambda _log, _index, _term: True):
        yield


@contextmanager
def pre_votes_count_as_votes() -> Planted:
    """A granted pre-vote that comes late counts as a vote."""

    def vote_reply(raft: Raft, sender: str, message: VoteReply) -> None:
        raft.votes.setdefault(sender, message.granted)
        candidate.judge(raft)

    with patch.dict(HANDLERS[Role.CANDIDATE], {VoteReply: vote_reply}):
        yield


@contextmanager
def ignores_quarantine() -> Planted:
    """A node whose disk lost what it had acknowledged votes and acknowledges as if it had it."""
    init = Raft.__init__

    def forgetful(raft: Raft, name: str, settings: Any, hard_state: HardState, *others: Any) -> None:
        init(raft, name, settings, hard_state._replace(quarantined=False), *others)

    with patch.object(Raft, "__init__", forgetful):
        yield
