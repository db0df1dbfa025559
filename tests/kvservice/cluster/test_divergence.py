"""Peers whose state differs are found, however far ahead or behind they are."""

from __future__ import annotations

import random

import pytest

from kvservice.cluster.divergence import AHEAD_MAX, Agreement, Divergence, PeerDigest
from kvservice.commands.registry import TABLE
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.machine import Machine

START_MS = 1_700_000_000_000


class Replica:
    """A machine and what it knows of its peers."""

    def __init__(self) -> None:
        self.machine = Machine(TABLE, 1, random.Random)
        self.divergence = Divergence(self.machine.digests)

    def apply(self, index: int, line: str = "INCR k") -> None:
        """Apply one entry, a second after the one before."""
        payload = encode_commands([line.encode().split()])
        self.machine.begin_entry(index, 1, START_MS + 1000 * index, payload)
        self.machine.replay(payload)
        self.machine.end_entry()

    def tell(self, other: Replica) -> None:
        """Tell another node the newest checkpoint."""
        newest = self.machine.digests.checkpoint()
        assert newest is not None
        other.divergence.heard("peer", *newest)

    @property
    def found(self) -> PeerDigest:
        """What comparing with the peer gave."""
        return self.divergence.with_peer("peer")


@pytest.fixture
def ours() -> Replica:
    return Replica()


@pytest.fixture
def theirs() -> Replica:
    return Replica()


def test_nodes_with_one_state_agree(ours: Replica, theirs: Replica) -> None:
    assert (ours.found, ours.divergence.agreement) == (PeerDigest(), Agreement.UNKNOWN)
    for index in range(1, 5):
        ours.apply(index)
        theirs.apply(index)
        theirs.tell(ours)
        assert ours.found == PeerDigest(Agreement.EQUAL, index)
    assert ours.divergence.agreement is Agreement.EQUAL


@pytest.mark.parametrize("lag", [0, 3, 200])
def test_a_peer_that_lags_is_compared_at_its_own_index(ours: Replica, theirs: Replica, lag: int) -> None:
    for index in range(1, 300):
        ours.apply(index)
        if index <= 299 - lag:
            theirs.apply(index, "INCR k" if index < 50 else "DECR k")
    theirs.tell(ours)
    assert ours.found == PeerDigest(Agreement.DIVERGED, 299 - lag)


def test_a_peer_that_is_ahead_is_compared_when_we_have_come_so_far(ours: Replica, theirs: Replica) -> None:
    for index in range(1, 7):
        theirs.apply(index, "INCR k" if index != 4 else "DECR k")
        theirs.tell(ours)
    for index in range(1, 7):
        ours.apply(index)
        ours.divergence.compare_again()
        assert ours.found == PeerDigest(Agreement.EQUAL if index < 4 else Agreement.DIVERGED, index)


def test_what_waits_of_one_peer_is_bounded(ours: Replica, theirs: Replica) -> None:
    for index in range(1, 10 * AHEAD_MAX):
        theirs.apply(index)
        theirs.tell(ours)
        theirs.tell(ours)
    [waiting] = ours.divergence._ahead.values()
    assert len(waiting) == AHEAD_MAX
    for index in range(1, 10 * AHEAD_MAX):
        ours.apply(index)
        ours.divergence.compare_again()
    assert ours.found == PeerDigest(Agreement.EQUAL, 10 * AHEAD_MAX - 1)
    assert not waiting


def test_who_has_diverged_stays_so_until_it_takes_over_a_sound_state(ours: Replica, theirs: Replica) -> None:
    ours.apply(1)
    theirs.apply(1, "INCR other")
    theirs.tell(ours)
    for index in range(2, 5):
        ours.apply(index)
        theirs.apply(index)
        theirs.tell(ours)
        assert ours.found == PeerDigest(Agreement.DIVERGED, index)
    fresh = Machine(TABLE, 1, random.Random)
    walk, loader = ours.machine.begin_walk(), fresh.loader()
    while (chunk := walk.next_slice(100)) is not None:
        loader.load(chunk)
    fresh.stand_at(4, 1, START_MS + 4000, loader.chain)
    theirs.machine.replace_by(fresh)
    ours.apply(5)
    theirs.apply(5)
    theirs.tell(ours)
    assert ours.found == PeerDigest(Agreement.EQUAL, 5)


def test_an_older_checkpoint_that_comes_late_changes_nothing(ours: Replica, theirs: Replica) -> None:
    ours.apply(1)
    theirs.apply(1, "INCR other")
    late = theirs.machine.digests.checkpoint()
    assert late is not None
    theirs.machine.digests.stand_at(START_MS + 1000, ours.machine.digests.state())
    ours.apply(2)
    theirs.apply(2)
    theirs.tell(ours)
    found = ours.found
    ours.divergence.heard("peer", *late)
    assert ours.found == found


def test_one_diverged_peer_among_others_shows(ours: Replica, theirs: Replica) -> None:
    ours.apply(1)
    theirs.apply(1, "DECR k")
    theirs.tell(ours)
    newest = ours.machine.digests.checkpoint()
    assert newest is not None
    ours.divergence.heard("other", *newest)
    found = [ours.divergence.agreement]
    ours.divergence.keep({"other"})
    assert [*found, ours.divergence.agreement] == [Agreement.DIVERGED, Agreement.EQUAL]
    assert ours.found == PeerDigest()
