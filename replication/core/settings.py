"""What a node of a group can be, and the numbers it goes by. A tick is 10 ms.

Reference: Raft thesis, chapter 3; sections 9.6 (pre-vote) and 6.2 (a leader steps down without its majority). RFC 896
(Nagle) for what waits for an acknowledgement.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Role(Enum):
    """Roles of a node in its term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    """Asks for votes; with ``Raft.is_pre_vote`` it only asks whether it would get them."""
    LEADER = "leader"


class Settings(NamedTuple):
    """Timers in ticks and bounds in bytes; the same on every node of a group."""

    heartbeat_ticks: int = 10
    """The leader shows itself every 100 ms, also when nothing is written."""
    election_ticks_min: int = 40
    """Four heartbeats: one that is late, or two that are lost, start no election."""
    election_ticks_max: int = 60
    """Half as much again, where the paper has twice the minimum (section 9.3): if those who have lost a leader wake
    together and split their votes, that costs them no second timeout (``candidate``, case D)."""
    append_bytes_max: int = 1 << 20
    """A message with more than one entry stays under this, so that it holds up what is behind it only briefly."""
    inflight_messages_max: int = 256
    inflight_bytes_max: int = 16 << 20
    """Sent to one peer and not acknowledged: a round trip of 10 ms at more than 1 GB/s."""
    coalesce_bytes: int = 64 << 10
    """While a peer owes an acknowledgement, fewer bytes than this wait for it, or for the next tick, and go together:
    a message costs both ends far more than an entry in it does. 0 sends everything at once."""
    uncommitted_bytes_max: int = 256 << 20
    """Proposed and not applied, so that a leader without its majority does not fill the memory."""
    memory_bytes_max: int = 32 << 20
    """Applied entries kept for peers that lag; what is older is read from disk."""
    pre_vote: bool = True
    check_quorum: bool = True
    """A leader that hears from no majority steps down, and a node that hears from a leader grants no votes."""
    read_lease: bool = False
    """The leader may serve reads on its clock alone (``Raft.has_lease``): so no node forgets a leader early."""
