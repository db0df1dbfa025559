"""Planted bugs in replicating and reading: each is a context in which the shipped code has one known defect.

Guarantees: outside of its context nothing is changed.
Leaves to the caller: running a simulation in it (tests/simulation/test_planted_bugs.py).
Reference: the Raft paper's figures 7 and 8; Jepsen's analyses of RedisRaft and etcd; etcd-io/raft's issues.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from replication.core import candidate, follower, leader, sending
from replication.core.log import RaftLog
from replication.core.messages import (
    AppendEntries,
    Entry,
    Heartbeat,
    ReadReady,
)
from replication.core.progress import Progress
from replication.core.raft import HANDLERS, Raft, Role
from replication.core.state import RaftState

Planted = Iterator[None]


# -- replicating -------------------------------------------------------------------------------------------------------


def _append(raft: Raft, sender: str, message: AppendEntries, conflict: int, *, is_matched: bool) -> None:
    """Take entries from ``conflict`` on, without or with a look at the one before them."""
    follower.follow(raft, sender)
    log = raft.log
    if (raft.is_quarantined and raft.lost_commit_index is None) or message.previous_index < log.committed:
        follower.append_entries(raft, sender, message)
        return
    differs = log.term_of(message.previous_index) != message.previous_term
    if (differs and is_matched) or message.previous_index > log.last_index:
        follower.append_entries(raft, sender, message)
        return
    entries = message.entries[conflict:]
    if entries:
        if entries[0].index <= log.last_index:
            raft.is_tail_replaced = True
            log.truncate(entries[0].index - 1)
        for entry in entries:
            log.append(entry)
    last_index = message.previous_index + len(message.entries)
    log.commit(min(message.commit_index, last_index))
    follower.acknowledge(raft, sender, last_index, message.read_round)


@contextmanager
def does_not_match_logs() -> Planted:
    """Entries are taken whatever stands before them."""

    def append_entries(raft: Raft, sender: str, message: AppendEntries) -> None:
        _append(raft, sender, message, raft.log.first_conflict(message.entries), is_matched=False)

    with patch.dict(HANDLERS[Role.FOLLOWER], {AppendEntries: append_entries}):
        yield


@contextmanager
def truncates_on_any_append() -> Planted:
    """A late append takes away what came after it."""

    def append_entries(raft: Raft, sender: str, message: AppendEntries) -> None:
        _append(raft, sender, message, 0, is_matched=True)

    with patch.dict(HANDLERS[Role.FOLLOWER], {AppendEntries: append_entries}):
        yield


@contextmanager
def keeps_a_stale_tail() -> Planted:
    """Entries that the leader has otherwise stay, and are acknowledged."""

    def first_conflict(log: RaftLog, entries: list[Entry]) -> int:
        return next((at for at, entry in enumerate(entries) if entry.index > log.last_index), len(entries))

    with patch.object(RaftLog, "first_conflict", first_conflict):
        yield


@contextmanager
def commits_what_the_leader_did_not_send() -> Planted:
    """A follower commits up to the leader's index whatever is known of its own tail."""
    append_entries = follower.append_entries

    def commit_all(raft: Raft, sender: str, message: AppendEntries) -> None:
        append_entries(raft, sender, message)
        if raft.leader == sender and not raft.is_quarantined:
            raft.log.commit(min(message.commit_index, raft.log.last_index))

    with patch.dict(HANDLERS[Role.FOLLOWER], {AppendEntries: commit_all}):
        yield


@contextmanager
def heartbeats_commit_what_is_not_matched() -> Planted:
    """A heartbeat tells the leader's commit index to a peer that may hold other entries there."""

    def send_heartbeat(raft: Raft, peer: str, _progress: Progress) -> None:
        raft.send(peer, Heartbeat(raft.term, raft.log.committed, raft.reads.round))

    with (
        patch.object(sending, "send_heartbeat", send_heartbeat),
        patch.object(leader, "send_heartbeat", send_heartbeat),
    ):
        yield


@contextmanager
def remembers_the_match_of_another_term() -> Planted:
    """What matched an earlier leader's log is acknowledged to the next one."""
    enter_term = RaftState.enter_term

    def keep_match(raft: RaftState, term: int, vote: str) -> None:
        matched_index = raft.matched_index
        enter_term(raft, term, vote)
        raft.matched_index = matched_index

    with patch.object(RaftState, "enter_term", keep_match):
        yield


# -- reading -----------------------------------------------------------------------------------------------------------


@contextmanager
def reads_without_a_round() -> Planted:
    """The leader answers reads without asking whether it still leads."""
    compose = sending.compose

    def compose_at_once(raft: Raft) -> None:
        if raft.log.committed >= raft.term_start_index:
            raft.reads_ready += [ReadReady(context, raft.log.committed) for context in raft.reads.waiting]
            raft.reads.waiting = []
        compose(raft)

    with patch.object(sending, "compose", compose_at_once):
        yield


@contextmanager
def reads_by_answers_to_an_earlier_round() -> Planted:
    """Any answer to a heartbeat confirms the newest round of reads."""
    answered_round = leader.answered_round

    def answered_newest(raft: Raft, progress: Progress, _read_round: int) -> None:
        answered_round(raft, progress, raft.reads.round)

    with patch.object(leader, "answered_round", answered_newest):
        yield


@contextmanager
def reads_before_the_no_op_is_committed() -> Planted:
    """A new leader serves reads before it knows what is committed."""
    compose = sending.compose

    def compose_early(raft: Raft) -> None:
        start, raft.term_start_index = raft.term_start_index, 0
        compose(raft)
        raft.term_start_index = start

    with patch.object(sending, "compose", compose_early):
        yield


@contextmanager
def begins_without_a_no_op() -> Planted:
    """A new leader appends nothing of its own, and reads do not wait for it."""
    become_leader = leader.become_leader

    def become(raft: Raft) -> None:
        with patch.object(leader, "append", lambda *_arguments: 0):
            become_leader(raft)

    with reads_before_the_no_op_is_committed(), patch.object(candidate, "become_leader", become):
        yield
