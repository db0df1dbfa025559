"""What goes into the consensus core and what comes out of it.

Guarantees: immutable values; no behaviour. ``term`` comes first in every message and is the sender's term; in a
pre-vote (request, and reply that grants) it is the term in which the sender of the request would campaign.
Leaves to the caller: who sent a message (it is an argument beside the message), and never to change a list in one.
Reference: Raft thesis, figure 3.1, sections 3.10 (TimeoutNow), 5.3 (InstallSnapshot), 6.4 (read rounds) and 9.6
(pre-vote); the Ready batch of the etcd raft library.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from replication.core.membership import Configuration


class EntryKind(IntEnum):
    """What an entry's payload is."""

    NOOP = 0
    """Empty: proposed at the start of a term, and to move time."""
    COMMANDS = 1
    """RESP arrays of commands; SELECT sets the database of those that follow, 0 at the start of an entry."""
    CONFIGURATION = 2
    """A membership change: the whole new configuration, encoded. It takes effect when the entry is applied."""


class Entry(NamedTuple):
    """One record of the replicated log."""

    term: int
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    kind: int
    stamp_ms: int
    payload: bytes


class HardState(NamedTuple):
    """What must be durable before any message that depends on it: the term, and for whom this node voted in it."""

    term: int
    vote: str
    quarantined: bool = False
    """The disk has lost entries that this node acknowledged: no vote and no campaign until the log is whole again."""


# -- messages between peers --------------------------------------------------------------------------------------------


class AppendEntries(NamedTuple):
    """Leader → follower: ``entries`` follow the entry (``previous_index``, ``previous_term``); may be empty."""

    term: int
    previous_index: int
    previous_term: int
    commit_index: int
    entries: list[Entry]
    read_round: int
    lost_seen: bool = False
    """The leader knows that the receiver's disk had lost entries, and counts it from nothing."""


class AppendReply(NamedTuple):
    """Follower → leader. On success ``index`` is the last index that is durable and known to match the leader's log.

    On a refusal ``index`` is the ``previous_index`` refused, and (``hint_index``, ``hint_term``) the follower's last
    entry that may match: the leader skips whole terms with it.
    """

    term: int
    success: bool
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    hint_index: int
    hint_term: int
    read_round: int
    lost: bool = False
    """The sender is quarantined: what it acknowledged before may be gone."""


class Heartbeat(NamedTuple):
    """Leader → follower, on a timer and to confirm reads; ``commit_index`` never passes what the receiver holds."""

    term: int
    commit_index: int
    read_round: int
    leader_commit: int = 0
    """What the leader has committed, whatever the receiver holds; 0 from a leader that does not tell. It only shows how
    far behind the receiver is: its log may hold other entries there, so nothing is ever committed by it."""


class HeartbeatReply(NamedTuple):
    """Follower → leader, at once: it says that the leader is still followed, nothing of the disk."""

    term: int
    read_round: int


class RequestVote(NamedTuple):
    """Candidate → voter."""

    term: int
    last_index: int
    last_term: int
    pre_vote: bool
    leadership_transfer: bool
    """The present leader asked for this election: a live leader is no reason to refuse."""


class VoteReply(NamedTuple):
    """Voter → candidate."""

    term: int
    granted: bool
    pre_vote: bool
    commit_index: int = 0
    commit_term: int = 0
    """With a refusal: the last entry that the voter knows to be committed. If the candidate has the same entry, then it
    is committed there as well; a membership change among it may be what the candidate lacks to count its majority."""


class TimeoutNow(NamedTuple):
    """Leader → the follower that is to lead next, which campaigns at once."""

    term: int


class InstallSnapshot(NamedTuple):
    """Leader → a follower whose next entry is gone from the log.

    On the leader's side it asks the driver to stream its newest snapshot to the peer. On the receiver's side the driver
    steps it in once the file is complete and durable, with what that file holds.
    """

    term: int
    last_index: int
    last_term: int
    configuration: Configuration


Message: TypeAlias = (
    AppendEntries | AppendReply | Heartbeat | HeartbeatReply | RequestVote | VoteReply | TimeoutNow | InstallSnapshot
)


# -- work for the driver -----------------------------------------------------------------------------------------------


class Fetch(NamedTuple):
    """Entries that ``peer`` needs and that memory no longer holds.

    The driver reads ``from_index`` to ``to_index``, both included (or a first part of them), and calls ``fetched``.
    """

    peer: str
    from_index: int
    to_index: int


class ReadReady(NamedTuple):
    """A read that may be served as soon as the entry ``index`` is applied."""

    context: int
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here


class Ready(NamedTuple):
    """Work for the driver, in this order.

    1. ``snapshot``: restore it, before the entries;
    2. make ``hard_state`` and ``entries`` durable, and send ``messages`` meanwhile;
    3. once everything of this and of every earlier Ready is durable, send ``messages_after`` and call ``persisted``.

    ``fetches``, ``reads`` and ``lost_reads`` wait for nothing.
    """

    hard_state: HardState | None
    entries: list[Entry]
    messages: list[tuple[str, Message]]
    messages_after: list[tuple[str, Message]]
    fetches: list[Fetch]
    snapshot: InstallSnapshot | None
    reads: list[ReadReady]
    lost_reads: list[int]
    """Contexts of reads that are not served: this node leads no more."""
