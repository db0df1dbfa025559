"""A node that was removed finds out, says so, and belongs again when a leader speaks to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvservice.cluster.divergence import Agreement
from kvservice.cluster.errors import Removed
from kvservice.cluster.hearing import Hearing
from kvservice.cluster.members import Addresses, Members
from kvservice.cluster.removal import ASK_TICKS, Removal
from kvservice.cluster.view import GroupView
from kvservice.errors import Loading
from replication.core.membership import Configuration

if TYPE_CHECKING:
    from kvservice.service import Service


class Setting:
    """A removal, and stand-ins for the node and its service."""

    def __init__(self) -> None:
        self.service: Any = SimpleNamespace(refusal=None)
        self.members = Members("n1", Addresses("n1:7401"), "c1")
        self.members.configuration_changed(Configuration(("n1", "n2", "n3")), 5)
        self.node: Any = SimpleNamespace(leader_id=None, raft=SimpleNamespace(is_removed=False))
        self.asked = 0
        self.removal = Removal(cast("Service", self.service), self.members, self._ask)

    def _ask(self) -> None:
        self.asked += 1

    def tick(self, count: int) -> None:
        for _ in range(count):
            self.removal.tick(self.node)


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_the_others_are_asked_only_while_there_is_no_leader(setting: Setting) -> None:
    setting.tick(ASK_TICKS - 1)
    setting.node.leader_id = "n2"
    setting.tick(ASK_TICKS)
    setting.node.leader_id = None
    setting.tick(ASK_TICKS - 1)
    assert setting.asked == 0
    setting.tick(1 + ASK_TICKS)
    assert setting.asked == 2


def test_a_removed_node_refuses_stands_for_nothing_and_asks_no_more(setting: Setting) -> None:
    setting.removal.answered(setting.node, is_removed=True)
    setting.removal.answered(setting.node, is_removed=True)
    assert setting.removal.is_removed
    assert isinstance(setting.service.refusal, Removed)
    assert setting.removal.refusal is setting.service.refusal
    setting.service.divergence = SimpleNamespace(agreement=Agreement.EQUAL)
    assert GroupView(setting.service, setting.members, Hearing(lambda _peer: False)).agreement == "unknown"
    assert setting.node.raft.is_removed
    setting.tick(2 * ASK_TICKS)
    assert setting.asked == 0


def test_the_word_of_others_counts_for_nothing_once_a_leader_has_spoken(setting: Setting) -> None:
    setting.node.leader_id = "n2"
    setting.removal.answered(setting.node, is_removed=True)
    setting.node.leader_id = None
    setting.removal.answered(setting.node, is_removed=False)
    assert not setting.removal.is_removed
    assert setting.service.refusal is None


def test_it_belongs_again_once_a_leader_speaks_and_it_is_a_member(setting: Setting) -> None:
    setting.members.configuration_changed(Configuration(("n2", "n3")), 6)
    setting.removal.answered(setting.node, is_removed=True)
    setting.node.leader_id = "n2"
    setting.tick(1)
    assert isinstance(setting.service.refusal, Removed), "it has yet to catch up with its coming back"
    setting.members.configuration_changed(Configuration(("n2", "n3"), learners=("n1",)), 9)
    setting.tick(1)
    assert not setting.removal.is_removed
    assert setting.service.refusal is None


def test_a_refusal_for_another_reason_stays(setting: Setting) -> None:
    loading = setting.service.refusal = Loading()
    setting.removal.answered(setting.node, is_removed=True)
    assert setting.service.refusal is loading
    setting.node.leader_id = "n2"
    setting.tick(1)
    assert setting.service.refusal is loading
