"""Ticks that a node may sleep through, because they would only count: most of them, and most of what a run would cost.

A follower waits for its election timer, a leader with nothing to send for its next heartbeat. Whatever arrives before
that finds the timers as if every tick had been called. What is not done is reading the wall clock at each tick.

Guarantees: `idle_ticks` is a lower bound; the tick after so many is a real one.
Leaves to the caller: asking anew after everything that happens in the node.
"""

from __future__ import annotations

from typing import Final

from replication.core.raft import Raft, Role
from replication.node import Node

LEADER: Final = Role.LEADER


def idle_ticks(node: Node) -> int:
    """Return how many ticks from now on would change nothing but counters; hot."""
    if node._proposals.are_displaced:
        return 0
    raft = node.raft
    if raft.role is not LEADER:
        ticks = raft.election_timeout - raft.election_elapsed - 1
        return max(0, ticks)
    if not _is_quiet(raft):
        return 0
    settings = raft.settings
    heartbeat = settings.heartbeat_ticks - raft.heartbeat_elapsed
    return max(0, min(heartbeat, settings.election_ticks_min - raft.election_elapsed) - 1)


def _is_quiet(raft: Raft) -> bool:
    """Tell whether a leader has nothing to tell or to send at its next tick, unless a heartbeat is due."""
    reads, log = raft.reads, raft.log
    if raft.transferee is not None or raft.configuration.outgoing or reads.joined or reads.waiting:
        return False
    committed, last_index = log.committed, log.last_index
    for progress in raft.progress.values():
        if progress.commit_sent < committed and progress.match > progress.commit_sent:
            return False
        if progress.next <= last_index and not progress.is_paused:
            return False
    return True


def sleep(node: Node, ticks: int) -> None:
    """Count idle ticks."""
    raft = node.raft
    node._ticks += ticks
    raft.election_elapsed += ticks
    if raft.role is LEADER:
        raft.heartbeat_elapsed += ticks
        raft.ticks += ticks
        raft.reads.tick()
