"""Whether other members are there, as a node knows it by itself: by its streams from and to them, and by what they say.

A leader hears from all and all hear from it, several times in an election timeout; replication/core keeps count of
that. Those that follow have nothing to say to each other but the digest of their state, which each tells all others
once a second (kvservice/cluster/group), with index 0 as long as it has none. So a follower that died is missed at once,
when its streams end, and one that is silent (stopped, or cut off without a word) after SILENT_SECONDS.

Guarantees: a member that lives, reaches this node and is reached is heard of, but for the second before its streams are
open. The index of a member is one that it had reached when it last told.
Leaves to the caller: telling it of streams that begin and of digests, and asking it of members only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic
from typing import Final, NamedTuple

SILENT_SECONDS: Final = 3.0
"""Three digests that did not come; without a word of TCP either a stream ends after 10 s (PeerOptions)."""


class _Told(NamedTuple):
    """What a member said last."""

    covered_index: int
    at_s: float


class Hearing:
    """The other members, as one node hears them."""

    def __init__(self, has_stream: Callable[[str], bool], now_s: Callable[[], float] = monotonic) -> None:
        # has_stream: whether a stream from or to a member is open.
        self._has_stream = has_stream
        self._now_s = now_s
        self._told: dict[str, _Told] = {}
        """Bound: members."""

    def greeted(self, peer: str) -> None:
        """Learn that a stream of a peer has begun: it may have started again, with less than it had."""
        self._told.pop(peer, None)

    def told(self, peer: str, covered_index: int) -> None:
        """Learn that a member has told its digest of the state after an entry; 0: it has none yet."""
        self._told[peer] = _Told(covered_index, self._now_s())

    def keep(self, members: Collection[str]) -> None:
        """Forget nodes that are no members any more."""
        for peer in [peer for peer in self._told if peer not in members]:
            del self._told[peer]

    def hears(self, peer: str) -> bool:
        """Tell whether a member is there; before it told anything, a stream from or to it is enough."""
        told = self._told.get(peer)
        is_silent = told is not None and self._now_s() - told.at_s >= SILENT_SECONDS
        return not is_silent and self._has_stream(peer)

    def index_of(self, peer: str) -> int:
        """Return the index of an entry that a member has applied, and likely some after it; 0 if it told of none."""
        told = self._told.get(peer)
        return 0 if told is None else told.covered_index
