"""Members that have moved are found by what they say of themselves, and only where the old address is of no use."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kvservice.cluster.addresses import Movers, advertised, can_be_dialed
from kvservice.cluster.members import Addresses, Members
from kvservice.config_values import HostPort
from replication.core.membership import CHANGE_ADDRESS, Change, Configuration

if TYPE_CHECKING:
    from kvservice.cluster.peer_plane import PeerPlane

ADDRESSES = {"n1": "n1:7401", "n2": "n2:7401", "n3": "n3:7401"}


class Setting:
    """A leader of three, and what it hears."""

    def __init__(self) -> None:
        self.members = Members("n1", Addresses("n1:7401"), "c1")
        self.members.configuration_changed(Configuration(("n1", "n2", "n3"), addresses=ADDRESSES), 5)
        self.reached = {"n2": "n2:7401", "n3": "n3:7401"}
        self.changes: list[Change] = []
        plane = SimpleNamespace(reached=lambda: self.reached)
        self.movers = Movers(self.members, cast("PeerPlane", plane))
        self.node: Any = SimpleNamespace(is_leader=True, change=self._change)

    def _change(self, changes: list[Change], done: Callable[[Exception | None], None]) -> None:
        self.changes += changes
        done(None)

    def look(self) -> list[Change]:
        """Look once; return what was proposed."""
        self.changes = []
        self.movers.look(self.node)
        return self.changes


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_a_leader_that_has_moved_tells_the_others(setting: Setting) -> None:
    assert setting.look() == []
    setting.members.own = Addresses("elsewhere:7401")
    assert setting.look() == [Change(CHANGE_ADDRESS, "n1", "elsewhere:7401")]
    setting.members.own = Addresses("0.0.0.0:7401")
    assert setting.look() == []


def test_b_a_member_that_is_reached_elsewhere_has_moved(setting: Setting) -> None:
    setting.reached["n2"] = "elsewhere:7401"
    assert setting.look() == [Change(CHANGE_ADDRESS, "n2", "elsewhere:7401")]


def test_b_members_are_written_down_one_after_the_other(setting: Setting) -> None:
    setting.reached = {"n2": "elsewhere:7401", "n3": "there:7401"}
    assert [change.name for change in setting.look()] == ["n2"]
    setting.members.configuration_changed(
        Configuration(("n1", "n2", "n3"), addresses={**ADDRESSES, "n2": "elsewhere:7401"}), 6
    )
    assert [change.name for change in setting.look()] == ["n3"]


def test_c_a_member_that_is_reached_where_it_should_be_or_not_at_all_stays_there(setting: Setting) -> None:
    del setting.reached["n3"]
    assert setting.look() == []


def test_who_does_not_lead_or_is_alone_writes_nothing_down(setting: Setting) -> None:
    setting.reached["n2"] = "elsewhere:7401"
    setting.node.is_leader = False
    assert setting.look() == []
    setting.node.is_leader = True
    setting.members.configuration_changed(Configuration(("n1",), addresses={"n1": "n1:1"}), 6)
    assert setting.look() == []


@pytest.mark.parametrize(
    ("chosen", "bound", "peer", "says"),
    [
        (None, HostPort("10.0.0.1", 6379), "n1:7401", "10.0.0.1:6379"),
        (None, HostPort("0.0.0.0", 6379), "n1:7401", "n1:6379"),
        (None, HostPort("::", 6379), "[fd00::1]:7401", "[fd00::1]:6379"),
        (None, HostPort("0.0.0.0", 6379), "0.0.0.0:7401", "0.0.0.0:6379"),
        (HostPort("outside", 16379), HostPort("0.0.0.0", 6379), "n1:7401", "outside:16379"),
    ],
)
def test_a_plane_that_listens_everywhere_is_found_where_the_node_is(
    chosen: HostPort | None, bound: HostPort, peer: str, says: str
) -> None:
    assert str(advertised(chosen, bound, peer)) == says


def test_what_cannot_be_dialed() -> None:
    assert can_be_dialed("n1:7401")
    assert not any(map(can_be_dialed, ("", "0.0.0.0:7401", "[::]:7401", "n1:0", "n1")))
