"""Whether the states of other members are the same as ours: what comparing digests of checkpoints gave, for each peer.

Every node tells the others its newest checkpoint about once a second (kvservice/keyspace/digest). One that is ahead of
us waits here until our own state has come so far.

Guarantees: what was found stays until a later checkpoint of the same peer says otherwise, which happens when its state,
or ours, was replaced by a snapshot: the digest is a chain, so two nodes that differed once never agree by themselves.
Each change is logged. Nothing is repaired: which of two states is right cannot be told from them.
Leaves to the caller: sending, calling ``compare_again`` about once a second, and what an operator does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from enum import Enum
from typing import Final, NamedTuple

from kvservice.keyspace.digest import StateDigests
from kvservice.logs import Event, Log

AHEAD_MAX: Final = 16
"""Checkpoints of one peer that wait for us; of a node that lags further behind only newer ones are compared."""

log = Log("cluster")


class Agreement(Enum):
    """What comparing with a peer gave; the values are shown to people."""

    UNKNOWN = "unknown"
    EQUAL = "equal"
    DIVERGED = "diverged"


class PeerDigest(NamedTuple):
    """The newest comparison with one peer."""

    agreement: Agreement = Agreement.UNKNOWN
    index: int = 0  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    """Index of the entry whose states were compared; 0 before the first."""


class Divergence:
    """Comparisons of one node."""

    def __init__(self, digests: StateDigests) -> None:
        self._digests = digests
        self._peers: dict[str, PeerDigest] = {}
        self._ahead: dict[str, deque[tuple[int, int]]] = {}
        """(index, digest) that peers told and that we have not reached, oldest first."""

    def heard(self, peer: str, index: int, digest: int) -> None:
        """Take a checkpoint of a peer."""
        if not self._compare(peer, index, digest):
            ahead = self._ahead.setdefault(peer, deque(maxlen=AHEAD_MAX))
            if not ahead or index > ahead[-1][0]:
                ahead.append((index, digest))

    def compare_again(self) -> None:
        """Compare what had been ahead of us."""
        for peer, ahead in self._ahead.items():
            for _ in range(len(ahead)):
                if not self._compare(peer, *ahead[0]):
                    break
                ahead.popleft()

    def _compare(self, peer: str, index: int, digest: int) -> bool:
        """Compare a checkpoint; False if ours is still to come."""
        equal = self._digests.compare(index, digest)
        if equal is None:
            newest = self._digests.checkpoint()
            return newest is not None and index <= newest[0]
        before = self._peers.get(peer, PeerDigest())
        if index >= before.index:
            self._peers[peer] = PeerDigest(Agreement.EQUAL if equal else Agreement.DIVERGED, index)
            if not equal and before.agreement is not Agreement.DIVERGED:
                log.error(Event.STATE_DIVERGED, peer=peer, index=index)
            elif equal and before.agreement is Agreement.DIVERGED:
                log.info(Event.STATE_AGREES_AGAIN, peer=peer, index=index)
        return True

    def keep(self, members: Collection[str]) -> None:
        """Forget nodes that are no members any more."""
        for of_peer in (self._peers, self._ahead):
            for peer in [peer for peer in of_peer if peer not in members]:
                del of_peer[peer]

    def with_peer(self, peer: str) -> PeerDigest:
        """Return the newest comparison with a peer."""
        return self._peers.get(peer, PeerDigest())

    @property
    def agreement(self) -> Agreement:
        """What comparing gave for all peers together: diverged if any has."""
        found = {peer.agreement for peer in self._peers.values()}
        if Agreement.DIVERGED in found:
            return Agreement.DIVERGED
        return Agreement.EQUAL if Agreement.EQUAL in found else Agreement.UNKNOWN
