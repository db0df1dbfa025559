"""A leader: counts what its peers hold, commits, confirms reads, and steps down when it should.

It begins with a no-op of its term: only entries of the own term are committed by counting, and earlier ones with them.
It counts itself by what its own disk has reported.

It steps down: when it hears of a later term; when for ``election_ticks_min`` no majority was heard of (CheckQuorum);
when the configuration that is applied does not count it any more. In the last two cases it hands over to the most
complete peer that it knows of, so that those who still hear this node, a deaf one for instance, need not wait for a
timer.

A peer whose disk lost what it had acknowledged (``AppendReply.lost``) may also have forgotten a promise to a later
leader. So this leader counts and sends it nothing until an entry that it appends then is committed without that peer:
whoever the promise was made to cannot be elected any more, because that entry is missing there. Then the peer is told
that its loss is known, and catches up from nothing.

Reference: Raft thesis, sections 3.5, 3.6.2, 3.10, 4.2.2, 6.2 and 6.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.core.follower import become_follower
from replication.core.membership import encode, leave_joint
from replication.core.messages import AppendReply, Entry, EntryKind, HeartbeatReply, TimeoutNow
from replication.core.progress import Progress, ProgressState
from replication.core.quorum import committed_index, is_granted
from replication.core.read_index import ReadRounds
from replication.core.sending import nudge, send_appends, send_commit_index, send_heartbeat, send_heartbeats
from replication.core.settings import Role

if TYPE_CHECKING:
    from replication.core.raft import Raft

PROBE = ProgressState.PROBE
REPLICATE = ProgressState.REPLICATE
SNAPSHOT = ProgressState.SNAPSHOT


def become_leader(raft: Raft) -> None:
    """Lead the term that was won, beginning with a no-op."""
    log = raft.log
    raft.role = Role.LEADER
    raft.leader = raft.name
    raft.votes = {}
    raft.hurried_elections = 0
    raft.election_elapsed = 0
    raft.heartbeat_elapsed = 0
    raft.transferee = None
    raft.reads = ReadRounds()
    raft.lost_peers = {}
    raft.progress = {}
    add_progress(raft, is_heard=False)
    # A membership change of an earlier leader may be among what is not applied: no other before it.
    raft.pending_configuration_index = log.last_index
    raft.term_start_index = log.last_index + 1
    append(raft, EntryKind.NOOP, b"")


def append(raft: Raft, kind: EntryKind, payload: bytes) -> int:
    """Append an entry of the leader's own, stamped with ``Raft.stamp_ms``; return its index."""
    entry = Entry(raft.term, raft.log.last_index + 1, kind, raft.stamp_ms, payload)
    raft.log.append(entry)
    return entry.index


def add_progress(raft: Raft, *, is_heard: bool) -> None:
    """Follow every member of the configuration, and nobody else; ``is_heard``: count new ones as heard of."""
    settings = raft.settings
    configuration = raft.configuration
    progress: dict[str, Progress] = {}
    for peer in raft.peers:
        known = raft.progress.get(peer)
        if known is None:
            known = Progress(raft.log.last_index + 1, settings.inflight_messages_max, settings.inflight_bytes_max)
            known.recent_active = is_heard
        known.is_learner = configuration.is_learner(peer)
        progress[peer] = known
    raft.progress = progress
    raft.lost_peers = {peer: index for peer, index in raft.lost_peers.items() if peer in progress}
    if raft.transferee is not None and not configuration.is_voter(raft.transferee):
        raft.transferee = None


# -- time --------------------------------------------------------------------------------------------------------------


def tick(raft: Raft) -> None:
    """Let 10 ms pass: heartbeats, what waited for company, the check for a majority, a transfer that takes too long."""
    raft.ticks += 1
    raft.election_elapsed += 1
    raft.heartbeat_elapsed += 1
    raft.reads.tick()
    if raft.election_elapsed >= raft.settings.election_ticks_min:
        raft.election_elapsed = 0
        raft.transferee = None
        if raft.settings.check_quorum and not has_active_majority(raft):
            step_down(raft)
            return
    maybe_leave_joint(raft)
    if raft.heartbeat_elapsed >= raft.settings.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        send_heartbeats(raft)
    else:
        send_commit_index(raft)
    send_appends(raft, 0)


def has_active_majority(raft: Raft) -> bool:
    """Tell whether a majority was heard of since the last call, and begin to listen anew."""
    active = {raft.name}
    for peer, progress in raft.progress.items():
        progress.was_active = progress.recent_active
        if progress.recent_active:
            active.add(peer)
            progress.recent_active = False
    return is_granted(raft.configuration.voters, active, raft.configuration.outgoing)


# -- answers of peers --------------------------------------------------------------------------------------------------


def append_reply(raft: Raft, sender: str, message: AppendReply) -> None:
    """Move the peer's progress by its answer, and commit what a majority holds."""
    progress = raft.progress.get(sender)
    if progress is None:
        return
    progress.recent_active = True
    if message.lost:
        peer_lost_entries(raft, sender, progress, message)
    elif sender in raft.lost_peers or message.index > raft.log.last_index:
        return
    elif message.success:
        acknowledged(raft, sender, progress, message)
    else:
        refused(raft, progress, message)


def acknowledged(raft: Raft, peer: str, progress: Progress, message: AppendReply) -> None:
    """Count what the peer holds."""
    _, _, index, _, _, read_round, _ = message
    is_news = progress.acknowledged(index)
    state = progress.state
    if state is PROBE:
        if is_news or index == progress.match:
            progress.become_replicate()
    elif state is SNAPSHOT and progress.match >= raft.log.base_index and is_news:
        progress.become_replicate()
    if is_news:
        progress.is_nudge_due = False
        if progress.lost_until and progress.match >= progress.lost_until:
            progress.lost_seen = False
            progress.lost_until = 0
        maybe_commit(raft)
        if raft.transferee == peer:
            maybe_hand_over(raft)
    answered_round(raft, progress, read_round)


def refused(raft: Raft, progress: Progress, message: AppendReply) -> None:
    """Move back to where the logs may agree, skipping whole terms (thesis, section 3.5)."""
    answered_round(raft, progress, message.read_round)
    if progress.lost_seen and message.index <= progress.match:
        progress.lost(message.hint_index)
        return
    hint_index = message.hint_index
    if hint_index <= raft.log.last_index:
        hint_index, _ = raft.log.last_of_term_at_most(hint_index, message.hint_term)
    if progress.refused(message.index, hint_index) and progress.state is REPLICATE:
        progress.become_probe()


def heartbeat_reply(raft: Raft, sender: str, message: HeartbeatReply) -> None:
    """Learn that the peer is there and follows; let one more append through."""
    progress = raft.progress.get(sender)
    if progress is None:
        return
    progress.recent_active = True
    progress.resume()
    if progress.is_nudge_due and progress.match < raft.log.last_index and progress.state is REPLICATE:
        progress.is_nudge_due = False
        nudge(raft, sender, progress)
    answered_round(raft, progress, message.read_round)


def answered_round(raft: Raft, progress: Progress, read_round: int) -> None:
    """Confirm the reads that a majority has answered for."""
    if read_round <= progress.read_round or read_round > raft.reads.round:
        return
    progress.read_round = read_round
    if raft.reads.is_asking:
        confirm_reads(raft)


def confirm_reads(raft: Raft) -> None:
    """Release the reads whose round a majority has answered."""
    rounds = {peer: progress.read_round for peer, progress in raft.progress.items()}
    rounds[raft.name] = raft.reads.round
    answered = committed_index(raft.configuration.voters, rounds, raft.configuration.outgoing)
    raft.reads_ready += raft.reads.confirm(answered)


def peer_lost_entries(raft: Raft, peer: str, progress: Progress, message: AppendReply) -> None:
    """Count the peer from nothing, and send it nothing until an entry appended now is committed without it.

    A late word of a loss that this leader has dealt with is an answer to what was sent before the peer was told.
    """
    if peer in raft.lost_peers or message.read_round < progress.lost_round:
        return
    progress.lost(message.hint_index)
    raft.lost_peers[peer] = append(raft, EntryKind.NOOP, b"")


# -- commitment --------------------------------------------------------------------------------------------------------


def maybe_commit(raft: Raft) -> None:
    """Commit what a majority holds; does nothing before an entry of this term is among it (thesis, 3.6.2)."""
    log = raft.log
    if raft.is_sole_voter:
        index = log.durable
    else:
        match = {peer: progress.match for peer, progress in raft.progress.items()}
        match[raft.name] = log.durable
        index = committed_index(raft.configuration.voters, match, raft.configuration.outgoing)
    if index > log.committed and index >= raft.term_start_index:
        log.commit(index)
        if raft.lost_peers:
            resume_lost_peers(raft)


def resume_lost_peers(raft: Raft) -> None:
    """Begin to send to peers without which an entry was committed since they told of their loss.

    The first append goes behind the end: it is refused, but it tells the peer that its loss is known before anything
    else is sent, a snapshot for instance.
    """
    for peer, noop_index in list(raft.lost_peers.items()):
        if noop_index <= raft.log.committed:
            del raft.lost_peers[peer]
            progress = raft.progress[peer]
            progress.next = raft.log.last_index + 1
            raft.reads.round += 1
            progress.lost_round = raft.reads.round


# -- handing over ------------------------------------------------------------------------------------------------------


def maybe_hand_over(raft: Raft) -> None:
    """Have the peer campaign to which leadership goes, once it holds the whole log."""
    assert raft.transferee is not None
    if raft.progress[raft.transferee].match == raft.log.last_index:
        raft.send(raft.transferee, TimeoutNow(raft.term))


def step_down(raft: Raft) -> None:
    """Lead no more, and have the most complete peer campaign, in case that it hears what this node says."""
    voters = [peer for peer in raft.progress if raft.configuration.is_voter(peer)]
    successor = max(voters, key=lambda peer: raft.progress[peer].match)
    raft.send(successor, TimeoutNow(raft.term))
    become_follower(raft, raft.term, None)


def maybe_leave_joint(raft: Raft) -> None:
    """Propose to leave a joint configuration that leaves by itself, once it is applied."""
    configuration = raft.configuration
    if not configuration.outgoing or not configuration.auto_leave or raft.transferee is not None:
        return
    if raft.log.applied >= raft.pending_configuration_index:
        payload = encode(leave_joint(configuration))
        raft.pending_configuration_index = append(raft, EntryKind.CONFIGURATION, payload)


def configuration_applied(raft: Raft) -> None:
    """Go on in a new configuration: follow its members, count by it, step down if it does not count this node.

    Who is a member no more is told with a last heartbeat that this is committed, as far as it has the entry.
    """
    for peer, progress in raft.progress.items():
        if peer not in raft.peers:
            send_heartbeat(raft, peer, progress)
    add_progress(raft, is_heard=True)
    if raft.configuration.is_voter(raft.name):
        maybe_commit(raft)
        confirm_reads(raft)
        return
    for peer, progress in raft.progress.items():
        send_heartbeat(raft, peer, progress)
    step_down(raft)
