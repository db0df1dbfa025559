"""What a node tells the others of its state once a second, and what it makes of what they tell."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvservice.cluster.divergence import Agreement, Divergence
from kvservice.cluster.group import NO_DIGEST, Group
from kvservice.cluster.hearing import Hearing
from kvservice.commands.registry import TABLE
from kvservice.keyspace.machine import Machine
from replication.wire import StateDigest


class Node:
    """The parts of a node that have to do with digests."""

    def __init__(self) -> None:
        machine = Machine(TABLE, 1, random.Random)
        self.machine = machine
        self.digests = machine.digests
        self.divergence = Divergence(machine.digests)
        self.hearing = Hearing(lambda _peer: True)
        self.sent: list[StateDigest] = []
        self.parts: Any = SimpleNamespace(
            _members={"n1", "n2"},
            _index_told=0,
            _service=SimpleNamespace(machine=machine, divergence=self.divergence),
            _peers=SimpleNamespace(hearing=self.hearing, peers=SimpleNamespace(send_digest=self.sent.append)),
        )

    def tell(self) -> StateDigest:
        """Tell the others, and return what."""
        Group._exchange_digests(cast("Group", self.parts))
        return self.sent[-1]

    def hear(self, peer: str, digest: StateDigest) -> None:
        """Be told."""
        Group._digest_received(cast("Group", self.parts), peer, digest)


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_node_without_a_digest_tells_that_it_is_there(node: Node) -> None:
    assert node.tell() == NO_DIGEST
    node.digests.add(1, 1, 5000, b"")
    assert node.tell().covered_index == 1


def test_what_was_applied_last_is_told_once_nothing_comes_after_it(node: Node) -> None:
    for index in (1, 2):
        node.machine.begin_entry(index, 1, 5000, b"")
        node.machine.end_entry()
    assert [node.tell().covered_index for _ in range(3)] == [1, 2, 2]


def test_who_tells_is_heard_of_and_no_digest_is_compared_with_nothing(node: Node) -> None:
    node.hear("n2", StateDigest(9, 1))
    assert node.hearing.index_of("n2") == 9
    node.hear("n2", NO_DIGEST)
    assert node.hearing.index_of("n2") == 0
    assert node.divergence.agreement is Agreement.UNKNOWN
    node.hear("n9", StateDigest(9, 1))
    assert node.hearing.index_of("n9") == 0, "it is no member"
