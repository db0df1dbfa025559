"""What a node knows of the others, by the role that it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from kvservice.cluster.hearing import Hearing
from kvservice.cluster.members import Addresses, Members
from kvservice.cluster.view import GroupView
from kvservice.commands.ports import Sighting
from kvservice.starting import StartingNode
from replication.core.raft import Settings
from tests.harness.cluster import Cluster

SILENT = Sighting(False, 0)


def view_of(node: object, name: str, *streams: str) -> tuple[GroupView, Hearing]:
    """Return what a node shows that has streams from or to others."""
    hearing = Hearing(lambda peer: peer in streams)
    service = SimpleNamespace(node=node)
    return GroupView(cast("Any", service), Members(name, Addresses("")), hearing), hearing


def test_a_leader_goes_by_what_its_followers_acknowledge() -> None:
    cluster = Cluster()
    node = cluster.elect("n1").node
    view, _hearing = view_of(node, "n1")
    assert view.sighting("n2") == Sighting(True, node.last_index)
    cluster.isolate("n2")
    cluster.tick(2 * Settings().election_ticks_min + Settings().heartbeat_ticks)
    assert view.sighting("n2") == Sighting(False, node.last_index)
    assert view.sighting("n3") == Sighting(True, node.last_index)
    assert view.sighting("n9") == SILENT


def test_a_follower_hears_the_leader_within_an_election_timeout_and_others_by_their_streams() -> None:
    cluster = Cluster()
    leader = cluster.elect("n1").node
    cluster.tick(Settings().heartbeat_ticks)
    node = cluster["n2"].node
    view, hearing = view_of(node, "n2", "n3")
    assert view.sighting("n1") == Sighting(True, leader.commit_index)
    assert view.sighting("n3") == Sighting(True, 0), "there, and nothing is known of its state yet"
    hearing.told("n3", 7)
    assert view.sighting("n3") == Sighting(True, 7)
    node.raft.election_elapsed = node.raft.settings.election_ticks_min
    assert node.leader_id == "n1"
    assert view.sighting("n1") == Sighting(False, leader.commit_index)


def test_a_node_without_a_leader_goes_by_its_streams_alone() -> None:
    cluster = Cluster()
    view, _hearing = view_of(cluster["n1"].node, "n1", "n2")
    assert (view.sighting("n2"), view.sighting("n3")) == (Sighting(True, 0), SILENT)


def test_a_node_that_starts_knows_of_nobody() -> None:
    view, _hearing = view_of(StartingNode(), "n1", "n2")
    assert view.sighting("n2") == SILENT
