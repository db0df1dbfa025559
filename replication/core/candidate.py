"""A candidate, and the timer that makes one.

An election: pre-vote (would a majority vote for me? changes nothing) → vote (next term, own vote durable first) →
leader.

A node that knows its leader to be gone, by its silence or a reset connection, is in a hurry, a bounded number of times.
Who waits how long for what, so that a failed election costs no second timeout, and none is disturbed that may succeed
(without pre-votes, C and D are left):

A. a pre-vote that is not answered is repeated after a few random ticks: the others may have heard the leader a tick
   later than this node, and not have missed it yet;
B. after one that is refused comes the full timeout: another node stands for election, or will, with a longer log. That
   one does not wait for its own timer (``follower.request_vote``); or the one that refuses is in quarantine;
C. votes have the full timeout, as they wait for disks, also at those who gave them, and who hear of a later term;
D. if one is refused and all have answered but the leader that is gone, the votes are split: then as A. Two followers
   that miss the leader in the same tick ask for pre-votes at once, would vote for each other, and vote for themselves.

Who may campaign: a voter that is not in quarantine, does not know that it was removed, and has applied every membership
change that it knows to be committed: otherwise it might count a majority of members that are no more.
Reference: Raft thesis, sections 3.4, 3.10 (transfer) and 9.6 (pre-vote).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.core.follower import become_follower
from replication.core.leader import become_leader
from replication.core.messages import AppendEntries, Heartbeat, InstallSnapshot, RequestVote, TimeoutNow, VoteReply
from replication.core.quorum import VoteResult, vote_result
from replication.core.settings import Role
from replication.core.state import HURRIED_ELECTIONS_MAX

if TYPE_CHECKING:
    from replication.core.raft import Raft


def tick(raft: Raft) -> None:
    """Let 10 ms pass without a leader being heard of."""
    raft.election_elapsed += 1
    if raft.election_elapsed < raft.election_timeout:
        return
    if raft.leader is not None:
        raft.hurried_elections = HURRIED_ELECTIONS_MAX
    elif raft.hurried_elections:
        raft.hurried_elections -= 1
    raft.leader = None
    if may_campaign(raft):
        campaign(raft)
    else:
        become_follower(raft, raft.term, None)


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
    raft.wait_full_timeout()  # C
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
    """End the election if it is decided; else set by the answers how long the rest of them is waited for."""
    configuration = raft.configuration
    result = vote_result(configuration.voters, raft.votes, configuration.outgoing)
    is_pre_vote = raft.is_pre_vote
    if result is VoteResult.LOST:
        become_follower(raft, raft.term, None)
        if is_pre_vote:
            raft.wait_full_timeout()  # B
    elif result is VoteResult.WON:
        if is_pre_vote:
            become_candidate(raft)
        else:
            become_leader(raft)
    elif False in raft.votes.values():
        if is_pre_vote:
            raft.wait_full_timeout()  # B
        elif raft.hurried_elections and have_all_answered(raft):
            raft.restart_election_timer()  # D


def have_all_answered(raft: Raft) -> bool:
    """Tell whether no vote is open but one, that of the leader that is gone; in a joint change, of each half."""
    configuration = raft.configuration
    return all(
        sum([voter not in raft.votes for voter in voters]) <= 1
        for voters in (configuration.voters, configuration.outgoing)
    )


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
