"""What a node is at the moment, for those who show it or decide by it: read-only, nothing is done here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.core.messages import HardState
from replication.core.raft import Raft, Role

if TYPE_CHECKING:
    from replication.core.membership import Configuration
    from replication.core.messages import InstallSnapshot
    from replication.replay import Replay
    from replication.waiters import Proposals


class NodeStatus:
    """The part of ``Node`` that only tells."""

    raft: Raft
    _proposals: Proposals
    _replay: Replay
    _restoring: InstallSnapshot | None

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.raft.role is Role.LEADER

    @property
    def leader_id(self) -> str | None:
        """Name of the leader, or None during an election."""
        return self.raft.leader

    @property
    def hears_leader(self) -> bool:
        """Whether the leader was heard of within the shortest election timeout; a leader hears itself."""
        raft = self.raft
        return raft.leader is not None and raft.election_elapsed < raft.settings.election_ticks_min

    @property
    def term(self) -> int:
        """Current term."""
        return self.raft.term

    @property
    def configuration(self) -> Configuration:
        """The members, as of the last entry applied."""
        return self.raft.configuration

    @property
    def last_index(self) -> int:
        """Index of the last entry of the log."""
        return self.raft.log.last_index

    @property
    def commit_index(self) -> int:
        """Index of the last committed entry."""
        return self.raft.log.committed

    @property
    def applied_index(self) -> int:
        """Index of the last entry applied; while entries are being applied, of the last of them."""
        return self.raft.log.applied

    @property
    def lag_entries(self) -> int | None:
        """Entries that the leader has committed and this node not applied; None before this term's leader told."""
        if self.is_leader:
            return 0
        told = self.raft.leader_committed
        return None if told is None else max(0, told - self.applied_index)

    @property
    def hard_state(self) -> HardState:
        """Term, vote and quarantine."""
        return HardState(self.raft.term, self.raft.vote, self.raft.is_quarantined)

    @property
    def is_restoring(self) -> bool:
        """Whether the machine is loading a received snapshot: until then its state is older than applied_index."""
        return self._restoring is not None

    @property
    def is_replayed(self) -> bool:
        """Whether the entries of earlier runs are applied, as far as they were known to be committed at the start."""
        return self._replay.remaining == 0

    @property
    def replay_remaining(self) -> int:
        """Entries of earlier runs still to apply before ``is_replayed``."""
        return self._replay.remaining

    @property
    def proposals_pending(self) -> int:
        """Batches proposed here whose fate is not known."""
        return len(self._proposals)
