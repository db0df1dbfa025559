"""How the stories of tests/scripts/raft tell of entries, messages and members.

A position in the log is ``index/term``: ``5/2`` is the fifth entry, written by the leader of term 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from replication.core.membership import Configuration, decode
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

SHOWN_BYTES_MAX = 16


def members(configuration: Configuration) -> str:
    """Tell who belongs to the group; of a joint configuration the new voters come first."""
    words = f"({' '.join(configuration.voters)})"
    if configuration.is_joint:
        words += f" and ({' '.join(configuration.outgoing)})"
    if configuration.learners:
        words += f" learners ({' '.join(configuration.learners)})"
    if configuration.learners_next:
        words += f" next learners ({' '.join(configuration.learners_next)})"
    if configuration.is_joint and not configuration.auto_leave:
        words += " until told to leave"
    return words


def entry(one: Entry) -> str:
    """Tell an entry."""
    position = f"{one.index}/{one.term}"
    if one.kind == EntryKind.NOOP:
        return f"{position} no-op"
    if one.kind == EntryKind.CONFIGURATION:
        return f"{position} members {members(decode(one.payload))}"
    if len(one.payload) > SHOWN_BYTES_MAX:
        return f"{position} {len(one.payload)} bytes"
    return f'{position} "{one.payload.decode()}"'


def entries(some: Sequence[Entry]) -> str:
    """Tell entries that follow each other; a long row by its ends."""
    if len(some) > 4:
        return f"{entry(some[0])} … {entry(some[-1])}"
    return ", ".join(entry(one) for one in some)


def message(one: Message) -> str:
    """Tell a message, with the term of its sender."""
    words = f"term {one.term}: {_content(one)}"
    read_round = getattr(one, "read_round", 0)
    return f"{words}, round {read_round}" if read_round else words


def kind(one: Message) -> str:
    """Name what ``deliver kind=`` selects by."""
    return {
        AppendEntries: "append",
        AppendReply: "append-reply",
        Heartbeat: "heartbeat",
        HeartbeatReply: "heartbeat-reply",
        RequestVote: "vote",
        VoteReply: "vote-reply",
        TimeoutNow: "campaign-now",
        InstallSnapshot: "snapshot",
    }[type(one)]


def _content(one: Message) -> str:
    match one:
        case AppendEntries():
            added = f" + {entries(one.entries)}" if one.entries else ""
            seen = ", loss is known" if one.lost_seen else ""
            return f"append after {one.previous_index}/{one.previous_term}{added}, commit {one.commit_index}{seen}"
        case AppendReply():
            if one.success:
                return f"holds up to {one.index}"
            if not one.lost and not one.index:
                return "is in a later term"  # nothing is refused that follows the beginning of the log
            hint = f"refuses {one.index}, try {one.hint_index}/{one.hint_term}"
            return f"{hint}, has lost entries" if one.lost else hint
        case Heartbeat():
            return f"heartbeat, commit {one.commit_index}"
        case HeartbeatReply():
            return "heartbeat heard"
        case RequestVote():
            asked = "would you vote?" if one.pre_vote else "vote for me"
            why = ", the leader wants it" if one.leadership_transfer else ""
            return f"{asked} last {one.last_index}/{one.last_term}{why}"
        case VoteReply():
            if one.granted:
                return "would vote" if one.pre_vote else "votes for it"
            refusal = "would not vote" if one.pre_vote else "does not vote for it"
            return f"{refusal}, {one.commit_index}/{one.commit_term} is committed" if one.commit_term else refusal
        case TimeoutNow():
            return "campaign now"
        case InstallSnapshot():
            return f"snapshot {one.last_index}/{one.last_term}, members {members(one.configuration)}"
