"""A candidate, and the timer that makes one.

An election: pre-vote (would a majority vote for me? changes nothing) → vote (next term, own vote durable first) →
leader. A node that knows that its leader is gone, because the connection was reset, does not wait for the timer; if its
election fails, for instance because votes were split, it tries again after a few random ticks, a bounded number of
times.

Who may campaign: a voter that is not in quarantine, does not know that it was removed, and has applied every membership
change that it knows to be committed: otherwise it might count a majority of members that are no more.
Reference: Raft thesis, sections 3.4, 3.10 (transfer) and 9.6 (pre-vote).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replication.core.follower import become_follower
from replication.core.leader import become_leader
from replication.core.messages import AppendEntries, Heartbeat, InstallSnapshot, RequestVote, TimeoutNow, VoteReply
from replication.core.quorum import VoteResult, vote_result
from replication.core.settings import Role

if TYPE_CHECKING:
    from replication.core.raft import Raft

HURRIED_ELECTIONS_MAX: Final = 10
"""Elections a node starts early after its leader was lost; then its majority is lost too, and the timer will do."""
FORGOTTEN_TICKS: Final = 6
"""The first pre-vote comes 1 to this many ticks after the leader was lost: 10 to 60 ms."""


def tick(raft: Raft) -> None:
    """Let 10 ms pass without a leader being heard of."""
    raft.election_elapsed += 1
    if raft.election_elapsed < raft.election_timeout:
        return
    if raft.hurried_elections:
        raft.hurried_elections -= 1
    raft.leader = None
    if may_campaign(raft):
        campaign(raft)
    else:
        become_follower(raft, raft.term, None)


def leader_lost(raft: Raft) -> None:
    """Look for another leader soon: the present one is known to be gone."""
    raft.leader = None
    raft.hurried_elections = HURRIED_ELECTIONS_MAX
    raft.election_elapsed = 0
    raft.election_timeout = 1 + raft.chance(FORGOTTEN_TICKS)


def may_campaign(raft: Raft) -> bool:
    """Tell whether this node may ask for votes."""
    return (
        raft.role is not Role.LEADER
        and raft.configuration.is_voter(raft.name)
        and not raft.is_quarantined
        and not raft.is_removed
        and raft.snapshot is None
        and not raft.log.has_unapplied_configuration
    )


def campaign(raft: Raft, is_transfer: bool = False) -> None:
    """Ask for votes; without a pre-vote if the leader has asked for it."""
    assert may_campaign(raft)
    raft.leader = None
    raft.is_transfer = is_transfer
    if raft.settings.pre_vote and not is_transfer:
        become_pre_candidate(raft)
    else:
        become_candidate(raft)


def become_pre_candidate(raft: Raft) -> None:
    """Ask who would vote for this node in the next term."""
    raft.role = Role.CANDIDATE
    raft.is_pre_vote = True
    raft.votes = {raft.name: True}
    raft.restart_election_timer()
    request = RequestVote(raft.term + 1, raft.log.last_index, raft.log.last_term, True, False)
    for peer in voting_peers(raft):
        raft.send(peer, request)
    judge(raft)


def become_candidate(raft: Raft) -> None:
    """Ask for votes in the next term.

    The requests wait for the disk like the own vote: a node that forgot the term could ask again in it with a shorter
    log, and be elected by votes that the longer log was given.
    """
    raft.enter_term(raft.term + 1, raft.name)
    raft.role = Role.CANDIDATE
    raft.is_pre_vote = False
    raft.votes = {}
    raft.restart_election_timer()
    log = raft.log
    request = RequestVote(raft.term, log.last_index, log.last_term, False, raft.is_transfer)
    for peer in voting_peers(raft):
        raft.send_after(peer, request)


def voting_peers(raft: Raft) -> list[str]:
    """Return whom to ask for a vote."""
    return [peer for peer in raft.peers if raft.configuration.is_voter(peer)]


def became_durable(raft: Raft) -> None:
    """Count the own vote: it is durable now."""
    if not raft.is_pre_vote:
        raft.votes[raft.name] = True
        judge(raft)


def vote_reply(raft: Raft, sender: str, message: VoteReply) -> None:
    """Count a vote, the first answer of a voter stands; learn from a refusal what is committed."""
    log = raft.log
    if message.commit_term and log.term_of(message.commit_index) == message.commit_term:
        log.commit(message.commit_index)
        if log.has_unapplied_configuration:
            become_follower(raft, raft.term, None)
            return
    if message.pre_vote is raft.is_pre_vote:
        raft.votes.setdefault(sender, message.granted)
        judge(raft)


def judge(raft: Raft) -> None:
    """End the election if it is decided."""
    configuration = raft.configuration
    result = vote_result(configuration.voters, raft.votes, configuration.outgoing)
    if result is VoteResult.LOST:
        become_follower(raft, raft.term, None)
    elif result is VoteResult.WON:
        if raft.is_pre_vote:
            become_candidate(raft)
        else:
            become_leader(raft)


def yield_to_leader(raft: Raft, sender: str, message: AppendEntries | Heartbeat | InstallSnapshot) -> None:
    """Follow the leader that this term has already."""
    become_follower(raft, raft.term, sender)
    raft.step(sender, message)


def timeout_now(raft: Raft, sender: str, message: TimeoutNow) -> None:
    """Campaign because the leader asks for it; if a membership change has to be applied first, then after that."""
    if may_campaign(raft):
        campaign(raft, is_transfer=True)
    else:
        raft.is_campaign_due = raft.log.has_unapplied_configuration
