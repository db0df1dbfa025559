"""Whether clients should be sent to a node, by what its consensus knows: for the readiness probe.

Guarantees: a node that knows no leader, or is more than LAG_ENTRIES_MAX entries behind it, says so; one that the leader
has not told yet how far it is counts as behind. Each reason ends by itself once its cause has ended.
Leaves to the caller: whether the node is a member, drains, or has lost its disk.
"""

from __future__ import annotations

from typing import Final

from replication.node_status import NodeStatus

LAG_ENTRIES_MAX: Final = 1000
"""Far more than a follower that keeps up is behind: what travels within one heartbeat, some 40 entries at 400 a second,
about the most seen of three nodes on two cores. One that was away for three seconds of that is behind."""


def reasons_of(node: NodeStatus | None) -> list[str]:
    """Return why clients should not be sent to a node whose log is read; empty when they should."""
    if node is None:
        return ["no leader"]
    reasons = []
    if node.leader_id is None:
        # What an earlier leader said is no measure, and nobody is there to catch up with.
        reasons.append("no leader")
    else:
        lag = node.lag_entries
        if lag is None or lag > LAG_ENTRIES_MAX:
            reasons.append("catching up")
    if node.raft.is_quarantined:
        reasons.append("quarantined")
    if node.is_restoring:
        reasons.append("loading a snapshot")
    return reasons
