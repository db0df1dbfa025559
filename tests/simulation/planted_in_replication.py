"""Planted bugs in replicating and reading: each is a context in which the shipped code has one known defect.

Guarantees: outside of its context nothing is changed.
Leaves to the caller: running a simulation in it (tests/simulation/test_planted_bugs.py).
Reference: the Raft paper's figures 7 and 8; Jepsen's analyses of RedisRaft and etcd; etcd-io/raft's issues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from replication import leased_node
from replication.applying import Applying
from replication.core import candidate, follower, leader, sending
from replication.core import raft as raft_module
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
from replication.leased_node import LeasedNode
from replication.node import Node

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
def reads_ahead_before_all_is_applied() -> Planted:
    """A leader runs the reads of a round on a state that lacks what is committed."""
    with patch.object(Applying, "may_read_ahead", property(lambda node: node.is_leader)):
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


# -- leases ------------------------------------------------------------------------------------------------------------


@contextmanager
def lease_longer_than_an_election() -> Planted:
    """A lease lasts twice the shortest election timeout."""
    with patch.object(leased_node, "LEASE_EIGHTHS", 16), patch.object(raft_module, "LEASE_EIGHTHS", 16):
        yield


@contextmanager
def lease_that_no_clock_ends() -> Planted:
    """A lease counts until the next tick finds that it is over; the process may have been stopped meanwhile."""

    def reads_at_once(node: LeasedNode) -> bool:
        return node._is_sole_leader or node._lease_end_ms > 0

    with patch.object(LeasedNode, "reads_at_once", property(reads_at_once, vars(LeasedNode)["reads_at_once"].fset)):
        yield


@contextmanager
def forgets_a_leader_that_has_a_lease() -> Planted:
    """A broken connection is reason enough to look for another leader, and to vote for one."""
    peer_unreachable = Raft.peer_unreachable

    def forget(raft: Raft, peer: str) -> None:
        settings = raft.settings
        raft.settings = settings._replace(read_lease=False)
        peer_unreachable(raft, peer)
        raft.settings = settings

    with patch.object(Raft, "peer_unreachable", forget):
        yield


@contextmanager
def lease_that_others_do_not_honour() -> Planted:
    """A leader takes for granted that all others wait for an election as long as itself."""
    with patch.object(LeasedNode, "_is_honoured_by", lambda *_arguments: True):
        yield


@contextmanager
def lease_outlives_a_hand_over() -> Planted:
    """Leadership is offered to another, who need not wait for the lease to end, and the lease goes on."""

    by_clock: Callable[[Raft], bool] = vars(Raft)["has_lease"].fget

    def has_lease(raft: Raft) -> bool:
        transferee, raft.transferee = raft.transferee, None
        try:
            return by_clock(raft)
        finally:
            raft.transferee = transferee

    with patch.object(LeasedNode, "transfer", Node.transfer), patch.object(Raft, "has_lease", property(has_lease)):
        yield
