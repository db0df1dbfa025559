"""A follower: takes the leader's entries, answers, and votes.

Answers to an append: a refusal goes at once, it depends on no disk. A success goes after everything handed out so far
is durable, one for all appends of a Ready. Answers to heartbeats go at once: they say that no other leader is followed.

Quarantine, cases of an append or heartbeat to a node whose disk lost what it had acknowledged:

A. the leader of this term does not know yet → answered with ``lost``, nothing else happens;
B. the leader knows → taken like any other; the commit index of the first such append is remembered;
C. own durable log, known to match, reaches that index → quarantine ends, the hard state says so.

A tail may be replaced while it is on its way to the disk. Its report that it is durable comes later, and must not be
taken for one of the new entries: reports name the entry they end with, and index and term make it unique.
Reference: Raft thesis, sections 3.5, 3.6.1 and 5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    RequestVote,
    VoteReply,
)
from replication.core.settings import Role
from replication.core.state import FORGOTTEN_TICKS, HURRIED_ELECTIONS_MAX

if TYPE_CHECKING:
    from replication.core.raft import Raft


def become_follower(raft: Raft, term: int, leader: str | None) -> None:
    """Follow ``leader`` in ``term``, or wait for one."""
    assert term >= raft.term
    is_later = term > raft.term
    if is_later:
        raft.enter_term(term, "")
    if raft.role is Role.LEADER:
        raft.lost_reads += raft.reads.drop()
        raft.progress = {}
        raft.lost_peers = {}
        raft.transferee = None
    raft.role = Role.FOLLOWER
    raft.is_pre_vote = False
    raft.votes = {}
    raft.leader = None
    if is_later:
        raft.wait_full_timeout()
    else:
        raft.restart_election_timer()
    if leader is not None:
        follow(raft, leader)


def follow(raft: Raft, leader: str) -> None:
    """Hear from the leader of this term."""
    raft.election_elapsed = 0
    raft.is_campaign_due = False
    if raft.leader != leader:
        assert raft.leader is None, "two leaders in one term"
        raft.leader = leader
        raft.is_removed = False
        raft.hurried_elections = 0
        raft.restart_election_timer()


def leader_lost(raft: Raft) -> None:
    """Look for another leader soon: the present one is known to be gone."""
    raft.leader = None
    raft.hurried_elections = HURRIED_ELECTIONS_MAX
    raft.election_elapsed = 0
    raft.election_timeout = 1 + raft.chance(FORGOTTEN_TICKS)


def hear_commit(raft: Raft, commit_index: int) -> None:
    """Remember what this term's leader has committed, to show how far behind this node is; commits nothing."""
    if raft.leader_committed is None or commit_index > raft.leader_committed:
        raft.leader_committed = commit_index


def append_entries(raft: Raft, sender: str, message: AppendEntries) -> None:
    """Take entries that follow one that matches; refuse with a hint where they do not."""
    follow(raft, sender)
    log = raft.log
    _, previous_index, previous_term, commit_index, entries, read_round, lost_seen = message
    hear_commit(raft, commit_index)
    if raft.is_quarantined and raft.lost_commit_index is None:
        if not lost_seen:
            refuse_as_lost(raft, sender, previous_index, read_round)
            return
        raft.lost_commit_index = commit_index
    if previous_index < log.committed:
        # An old message, or a leader that begins behind what is known to be the same.
        acknowledge(raft, sender, log.committed, read_round)
        return
    if log.term_of(previous_index) != previous_term:
        hint_index, hint_term = log.last_of_term_at_most(min(previous_index, log.last_index), previous_term)
        reply = AppendReply(raft.term, False, previous_index, hint_index, hint_term, read_round)
        raft.send(sender, reply)
        return
    last_index = previous_index + len(entries)
    if entries:
        if previous_index < log.last_index:
            entries = entries[log.first_conflict(entries) :]
            if entries and entries[0].index <= log.last_index:
                raft.is_tail_replaced = True
                log.truncate(entries[0].index - 1)
        for entry in entries:
            log.append(entry)
    log.commit(min(commit_index, last_index))
    acknowledge(raft, sender, last_index, read_round)


def heartbeat(raft: Raft, sender: str, message: Heartbeat) -> None:
    """Show that the leader is followed, and learn what is committed."""
    follow(raft, sender)
    # A leader that does not tell leaves 0: then its other index is all that is known.
    hear_commit(raft, max(message.commit_index, message.leader_commit))
    if raft.is_quarantined and raft.lost_commit_index is None:
        refuse_as_lost(raft, sender, 0, message.read_round)
        return
    # The leader tells no more than this node has acknowledged; a disk that lost it in silence must not stop the node.
    raft.log.commit(min(message.commit_index, raft.log.last_index))
    raft.send(sender, HeartbeatReply(raft.term, message.read_round))


def install_snapshot(raft: Raft, sender: str, message: InstallSnapshot) -> None:
    """Begin anew behind a snapshot whose file is complete and durable, if it holds more than is committed here."""
    follow(raft, sender)
    log = raft.log
    if message.last_index > log.committed:
        if log.term_of(message.last_index) == message.last_term:
            log.commit(message.last_index)
        else:
            raft.is_tail_replaced = True
            log.restore(message.last_index, message.last_term)
            raft.use_configuration(message.configuration)
            raft.snapshot = message
    if raft.is_quarantined and raft.lost_commit_index is None:
        refuse_as_lost(raft, sender, 0, 0)
        return
    acknowledge(raft, sender, log.committed, 0)


def acknowledge(raft: Raft, leader: str, index: int, read_round: int) -> None:
    """Tell the leader, once it is durable, that the log matches its own up to ``index``."""
    raft.matched_index = max(raft.matched_index, index)
    raft.acknowledged_round = max(raft.acknowledged_round, read_round)
    raft.acknowledged_leader = leader
    maybe_end_quarantine(raft)


def send_acknowledgement(raft: Raft) -> None:
    """Answer all appends since the last Ready at once."""
    assert raft.acknowledged_leader is not None
    reply = AppendReply(raft.term, True, raft.matched_index, 0, 0, raft.acknowledged_round)
    raft.send_after(raft.acknowledged_leader, reply)
    raft.acknowledged_leader = None
    raft.acknowledged_round = 0


def refuse_as_lost(raft: Raft, leader: str, previous_index: int, read_round: int) -> None:
    """Tell the leader that what this node has acknowledged may be gone."""
    log = raft.log
    reply = AppendReply(raft.term, False, previous_index, log.last_index, log.last_term, read_round, lost=True)
    raft.send(leader, reply)


def request_vote(raft: Raft, sender: str, message: RequestVote) -> None:
    """Vote, in any role: once a term, for a log that is at least as complete (thesis, sections 3.4 and 3.6.1).

    A pre-vote promises nothing, so any number of them is granted, and at once; a vote is told once it is durable. Who
    asks with a shorter log cannot win: a node that would soon miss the leader too stands for election in its place.
    """
    is_free = raft.vote == sender or (not raft.vote and raft.leader is None)
    if message.pre_vote and message.term > raft.term:
        is_free = True
    is_up_to_date = raft.log.is_up_to_date(message.last_index, message.last_term)
    granted = is_free and is_up_to_date and not raft.is_quarantined
    if message.pre_vote:
        if granted:
            raft.send(sender, VoteReply(message.term, True, True))
        else:
            refuse_vote(raft, sender, message)
            if not is_up_to_date and is_leader_missed(raft):
                leader_lost(raft)
    elif granted:
        raft.vote = sender
        raft.wait_full_timeout()
        raft.send_after(sender, VoteReply(raft.term, True, False))
    else:
        refuse_vote(raft, sender, message)


def is_leader_missed(raft: Raft) -> bool:
    """Tell whether a leader was not heard of within the shortest election timeout by a node that may stand for it."""
    is_silent = raft.election_elapsed >= raft.settings.election_ticks_min
    may_stand = raft.configuration.is_voter(raft.name) and not raft.is_quarantined and not raft.is_removed
    return raft.role is Role.FOLLOWER and raft.leader is not None and is_silent and may_stand


def refuse_vote(raft: Raft, candidate: str, message: RequestVote) -> None:
    """Refuse a vote, and tell what is committed.

    A node that is a voter no more does not campaign, and yet may be the only one that knows it: whoever has to lead now
    would ask in vain for the votes of members that have left, with longer logs than its own.
    """
    committed = raft.log.committed
    raft.send(candidate, VoteReply(raft.term, False, message.pre_vote, committed, raft.log.term_of(committed) or 0))


def maybe_end_quarantine(raft: Raft) -> None:
    """Case C; does nothing outside of a quarantine, or as long as something is missing."""
    if not raft.is_quarantined or raft.lost_commit_index is None or raft.leader is None:
        return
    if min(raft.log.durable, raft.matched_index) >= raft.lost_commit_index:
        raft.is_quarantined = False
        raft.vote = raft.leader
