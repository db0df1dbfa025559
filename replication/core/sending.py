"""What a leader sends: composed once for each Ready, so that a turn's proposals travel in one append.

A peer gets, by its progress: an append (from memory), a fetch (entries that are on disk only), or a snapshot (entries
that are gone). Appends carry the newest round of reads; heartbeats fill in where reads wait and no append goes. They go
to a majority and no further, because every peer that is asked costs the leader as much as a dozen reads.

The commit index travels with appends. Where none follow, the next tick tells it by a heartbeat: to tell it at once
would cost every write a second message to every peer.

Guarantees: nothing for a peer whose window is full, that waits for a snapshot, or whose loss of its disk is not yet
followed by a commit without it.
Reference: Raft thesis, sections 3.5, 5.3, 6.4 and 10.2.1 (appends go out before the leader's own disk is done).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.core.messages import AppendEntries, Entry, Fetch, Heartbeat, InstallSnapshot, ReadReady
from replication.core.progress import Progress, ProgressState
from replication.core.quorum import is_granted

if TYPE_CHECKING:
    from replication.core.raft import Raft

PROBE = ProgressState.PROBE
NO_ENTRIES: list[Entry] = []
"""Shared by appends without entries; nobody changes a list in a message."""


def compose(raft: Raft) -> None:
    """Send every peer what it may get now, and start the round that waiting reads join."""
    reads = raft.reads
    if reads.waiting and raft.log.committed >= raft.term_start_index:
        if raft.is_sole_voter:
            index = raft.log.committed
            raft.reads_ready += [ReadReady(context, index) for context in reads.waiting]
            reads.waiting = []
        else:
            reads.start(raft.log.committed)
    reached = send_appends(raft, raft.settings.coalesce_bytes)
    if reads.joined:
        ask_for_round(raft, reached)


def ask_for_round(raft: Raft, reached: set[str]) -> None:
    """Send heartbeats for reads that wait, unless the appends of this Ready have ``reached`` a majority."""
    reads = raft.reads
    configuration = raft.configuration
    if reads.joined[-1][0] <= reads.asked:
        return
    if reached and is_granted(configuration.voters, reached | {raft.name}, configuration.outgoing):
        reads.asked = reads.round
    elif reads.is_heartbeat_due:
        reads.asked = reads.dedicated = reads.round
        for peer in peers_to_ask(raft, reached):
            send_heartbeat(raft, peer, raft.progress[peer])


def peers_to_ask(raft: Raft, reached: set[str]) -> list[str]:
    """Return the voters that make a majority with those ``reached``: who answered last; all, if a round was lost."""
    configuration = raft.configuration
    progress = raft.progress
    voters = [peer for peer in progress if peer not in reached and configuration.is_voter(peer)]
    if raft.reads.is_repeated:
        return voters
    voters.sort(key=lambda peer: progress[peer].read_round, reverse=True)
    asked = reached | {raft.name}
    for count, peer in enumerate(voters):
        if is_granted(configuration.voters, asked, configuration.outgoing):
            return voters[:count]
        asked.add(peer)
    return voters


def send_heartbeats(raft: Raft) -> None:
    """Show every peer that this node leads; an answer after which nothing was acknowledged will be looked into."""
    reads = raft.reads
    if raft.settings.read_lease:
        reads.start_timed(raft.ticks)
    reads.asked = reads.dedicated = reads.round
    for peer, progress in raft.progress.items():
        progress.is_nudge_due = True
        send_heartbeat(raft, peer, progress)


def send_commit_index(raft: Raft) -> None:
    """Tell the commit index to peers that no append has told it."""
    committed = raft.log.committed
    for peer, progress in raft.progress.items():
        if progress.commit_sent < committed and progress.match > progress.commit_sent:
            send_heartbeat(raft, peer, progress)


def send_heartbeat(raft: Raft, peer: str, progress: Progress) -> None:
    """Send a heartbeat; its commit index never passes what the peer is known to hold.

    What is committed beyond that is told beside it: a peer that no append reaches knows how far behind it is.
    """
    committed = raft.log.committed
    commit_index = min(progress.match, committed)
    progress.commit_sent = max(progress.commit_sent, commit_index)
    raft.send(peer, Heartbeat(raft.term, commit_index, raft.reads.round, committed))


def send_appends(raft: Raft, coalesce_bytes: int) -> set[str]:
    """Send every peer the entries that its window admits; return who got an append.

    A peer that owes an acknowledgement is sent nothing as long as fewer bytes than ``coalesce_bytes`` wait for it.
    """
    reached: set[str] = set()
    log = raft.log
    last_index = log.last_index
    for peer, progress in raft.progress.items():
        if progress.is_awaited or (progress.next > last_index and progress.state is not PROBE):
            continue
        if progress.is_paused or progress.is_fetching or peer in raft.lost_peers:
            continue
        if progress.inflight_messages and log.is_small(progress.next, coalesce_bytes):
            continue
        if send_to(raft, peer, progress):
            reached.add(peer)
    return reached


def send_to(raft: Raft, peer: str, progress: Progress) -> bool:
    """Send appends until the window is full or the log ends; return whether there was one."""
    log = raft.log
    sent = False
    while True:
        first = progress.next
        previous_term = log.term_of(first - 1)
        if previous_term is None:
            send_snapshot(raft, peer, progress)
            return sent
        if first > log.last_index or progress.is_window_full:
            send_append(raft, peer, progress, previous_term, NO_ENTRIES, 0)
        elif first < log.memory_first:
            progress.is_fetching = True
            raft.fetches.append(Fetch(peer, first, log.memory_first - 1))
            return sent
        else:
            entries, size = log.sliced(first, raft.settings.append_bytes_max)
            send_append(raft, peer, progress, previous_term, entries, size)
        sent = True
        # Every append with entries fills the window or brings ``next`` closer to the end; a probe pauses at once.
        if progress.is_awaited or progress.next > log.last_index:
            return sent


def send_append(
    raft: Raft, peer: str, progress: Progress, previous_term: int, entries: list[Entry], entries_bytes: int
) -> None:
    """Send ``entries``, which begin with the one that the peer needs next, or none."""
    previous_index = progress.next - 1
    committed = raft.log.committed
    lost_seen = progress.lost_seen
    if lost_seen and not progress.lost_until:
        progress.lost_until = committed
    progress.commit_sent = committed
    raft.send(
        peer,
        AppendEntries(raft.term, previous_index, previous_term, committed, entries, raft.reads.round, lost_seen),
    )
    progress.sent(previous_index + len(entries), entries_bytes)


def nudge(raft: Raft, peer: str, progress: Progress) -> None:
    """Send an append without entries, whose answer tells what the peer lacks."""
    previous_term = raft.log.term_of(progress.next - 1)
    if previous_term is not None:
        send_append(raft, peer, progress, previous_term, NO_ENTRIES, 0)


def send_snapshot(raft: Raft, peer: str, progress: Progress) -> None:
    """Have the driver send its newest snapshot; not to a peer of which nothing is heard, it would not arrive."""
    if not progress.recent_active:
        return
    log = raft.log
    raft.send(peer, InstallSnapshot(raft.term, log.base_index, log.base_term, raft.configuration))
    progress.become_snapshot(log.base_index)


def fetched(raft: Raft, peer: str, from_index: int, entries: list[Entry]) -> None:
    """Send entries that were read from disk, if they are still what the peer needs and what this log holds."""
    progress = raft.progress.get(peer)
    if progress is None or not progress.is_fetching:
        return
    progress.is_fetching = False
    if progress.is_paused or progress.next != from_index:
        return
    if not entries:
        send_snapshot(raft, peer, progress)
        return
    log = raft.log
    previous_term = log.term_of(from_index - 1)
    if previous_term is not None and all(log.term_of(entry.index) == entry.term for entry in entries):
        send_append(raft, peer, progress, previous_term, entries, sum([len(entry.payload) for entry in entries]))
