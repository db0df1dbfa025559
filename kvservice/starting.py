"""What INFO and /metrics see of a node that has not opened its log yet.

Guarantees: the figures of a node that knows nothing: no leader, position 0, still loading.
Leaves to the caller: putting the real node, log and snapshots in place of these once they exist (kvservice/server).
"""

from __future__ import annotations

from time import time

from kvservice.commands.ports import MemberView, PeerView, Sighting
from kvservice.config import Config
from replication.errors import Stopped


class StartingNode:
    """Consensus before it is there."""

    is_leader = False
    leader_id: str | None = None
    term = 0
    last_index = 0
    commit_index = 0
    applied_index = 0
    is_replayed = False
    is_restoring = False
    replay_remaining = 0
    proposals_pending = 0
    bytes_pending = 0
    reads_at_once = False
    may_read_ahead = False
    is_stopped = True

    def propose(self, _kind: int, _payload: bytes, _batch: object) -> int:
        """Refuse: nothing can be appended yet."""
        raise Stopped

    def read(self, _batch: object) -> None:
        """Refuse: nothing is known of the state yet."""
        raise Stopped


class StartingGroup:
    """A node that knows of no other."""

    cluster_id = ""
    role = "follower"
    is_quarantined = False
    is_removed = False
    durable_index = 0
    agreement = "unknown"
    checkpoint: tuple[int, int] | None = None
    requests_remembered = 0

    def __init__(self, config: Config) -> None:
        self._config = config

    def agreement_with(self, _name: str) -> str:
        """Return unknown: nobody is."""
        return "unknown"

    def members(self) -> list[MemberView]:
        """Return this node alone."""
        config = self._config
        return [MemberView(config.name, True, str(config.resp_addr), str(config.peer_addr))]

    def sighting(self, _name: str) -> Sighting:
        """Return nothing: nobody is known."""
        return Sighting(False, 0)

    def peers(self) -> list[PeerView]:
        """Return nothing: nobody is known."""
        return []


class StartingLog:
    """A log that is not open."""

    bytes_on_disk = base_bytes = 0

    def take_longest_sync_seconds(self) -> float:
        """Return 0: nothing was synced."""
        return 0.0


class StartingSnapshots:
    """No snapshots yet."""

    in_progress = False
    last_index = 0
    taken_index = 0
    last_bytes = 0
    current_seconds = -1.0
    keys_saved = 0
    last_ok = True
    last_seconds = -1.0
    slice_seconds_max = 0.0
    taken = 0
    changes_since_last = 0

    def __init__(self) -> None:
        self.last_saved_s = int(time())
