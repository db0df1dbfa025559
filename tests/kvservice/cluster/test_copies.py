"""Waiting for copies on a node that leads and on one that asks the leader."""

from __future__ import annotations

from typing import cast

import pytest

from kvservice.commands.ports import GroupPort, MemberView, PeerView
from kvservice.commands.reply import OK
from kvservice.errors import OutcomeUnknownError
from replication.errors import OutcomeUnknown
from tests.harness.server_plane import FakeGroup
from tests.kvservice.fake_node import Bench, Peer
from tests.kvservice.forwarding.fake_cluster import FakeCluster, cluster_led_by_n1, error_of, link_from

APPLIED = 7


def view_of(bench: Bench, *matches: int) -> FakeGroup:
    """Let a node see two other members, and of a leader how far they are."""
    group = FakeGroup()
    group.all_members = [MemberView(name, True, "h:1", "h:2") for name in ("n1", "n2", "n3")]
    group.all_peers = [
        PeerView(f"n{number}", match, 0, "replicate", True, "equal") for number, match in enumerate(matches, 2)
    ]
    bench.service.group = cast("GroupPort", group)
    bench.node.applied_index = APPLIED
    return group


def three_nodes(*matches: int) -> tuple[FakeCluster, FakeGroup]:
    """Return a cluster that n1 leads, and what n1 knows of the others."""
    cluster = cluster_led_by_n1()
    for name in ("n2", "n3"):
        view_of(cluster.benches[name])
    return cluster, view_of(cluster.benches["n1"], *matches)


def asked(cluster: FakeCluster, name: str, line: str) -> Peer:
    """Return a caller that waits."""
    peer = cluster.benches[name].peer()
    cluster.benches[name].send(peer, line)
    cluster.settle()
    return peer


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_what_a_majority_has_is_known_at_once(name: str) -> None:
    cluster, _ = three_nodes(APPLIED - 1, APPLIED - 1)
    peer = cluster.benches[name].peer()
    cluster.benches[name].send(peer, "WAIT 1 0")
    assert peer.taken() == [1]


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_more_is_waited_for_until_they_have_it(name: str) -> None:
    cluster, group = three_nodes(APPLIED, APPLIED - 1)
    peer = asked(cluster, name, "WAIT 2 0")
    service = cluster.benches[name].service
    assert (peer.taken(), service.blocked_clients, service.timed_clients) == ([], 1, 0)
    group.all_peers = [peer_view._replace(match_index=APPLIED) for peer_view in group.all_peers]
    cluster.settle()
    assert peer.taken() == [2]


@pytest.mark.parametrize("name", ["n1", "n2"])
@pytest.mark.parametrize(("line", "reply"), [("WAIT 5 900", 2), ("WAITAOF 1 5 900", [1, 2])])
def test_when_the_time_is_over_all_that_the_leader_knows_is_told(name: str, line: str, reply: object) -> None:
    cluster, _ = three_nodes(APPLIED, APPLIED)
    peer = asked(cluster, name, line)
    cluster.pass_time(0.45)
    cluster.settle()
    service = cluster.benches[name].service
    assert (peer.taken(), service.timed_clients) == ([], 1)
    cluster.pass_time(0.45)
    assert (peer.taken(), service.timed_clients) == ([reply], 0)


@pytest.mark.parametrize("name", ["n1", "n2"])
@pytest.mark.parametrize(("line", "none", "enough"), [("WAIT 2 0", 0, 2), ("WAITAOF 1 2 0", [0, 0], [1, 2])])
def test_no_copy_of_a_write_of_unknown_outcome_is_certain(name: str, line: str, none: object, enough: object) -> None:
    cluster, _ = three_nodes(APPLIED, APPLIED)
    bench = cluster.benches[name]
    peer = bench.peer()
    bench.send(peer, "INCR k")
    if name == "n1":
        bench.turn()
        bench.refuse(OutcomeUnknown(1, 1, "the time is over"))
    else:
        link = link_from(cluster, name)
        link.carry()
        link.cut()
    cluster.settle()
    assert issubclass(error_of(peer), OutcomeUnknownError)
    for sent in (line, "GET j", line):
        bench.send(peer, sent)
        cluster.settle()
    assert peer.taken() == [none, None, none], "a read makes nothing certain"
    for sent in ("SET j 1", line):
        bench.send(peer, sent)
        cluster.settle()
    assert peer.taken() == [OK, enough]


def test_a_member_that_nobody_can_tell_about_is_not_counted() -> None:
    cluster, _ = three_nodes(APPLIED, APPLIED)
    for bench in cluster.benches.values():
        bench.lead(None, 2)
    peer = asked(cluster, "n2", "WAIT 2 150")
    cluster.pass_time(0.15)
    assert peer.taken() == [1]


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_the_leaders_own_disk_is_waited_for_where_it_is_asked_for(name: str) -> None:
    cluster, group = three_nodes(APPLIED, APPLIED)
    group.durable_index = APPLIED - 1
    peer = asked(cluster, name, "WAITAOF 1 2 0")
    assert peer.taken() == []
    group.durable_index = APPLIED
    cluster.settle()
    assert peer.taken() == [[1, 2]]


def test_a_question_that_waited_for_a_leader_is_answered_here_by_who_becomes_it() -> None:
    cluster, _ = three_nodes(APPLIED, APPLIED)
    n2 = cluster.benches["n2"]
    n2.lead(None, 1)
    peer = asked(cluster, "n2", "WAIT 2 0")
    assert peer.taken() == []
    view_of(n2, APPLIED, APPLIED)
    cluster.elect("n2")
    cluster.tell_all()
    cluster.settle()
    assert peer.taken() == [2]


def test_who_led_for_a_moment_tells_what_is_certain() -> None:
    cluster, _ = three_nodes(APPLIED, APPLIED)
    n2 = cluster.benches["n2"]
    n2.lead(None, 1)
    peer = asked(cluster, "n2", "WAIT 5 900")
    cluster.elect("n2")
    cluster.tell_all()
    cluster.settle()
    n2.lead(None, 3)
    cluster.pass_time(0.9)
    assert peer.taken() == [1]


def test_nobody_is_asked_for_a_caller_that_has_gone() -> None:
    cluster, _ = three_nodes(APPLIED, APPLIED - 1)
    peer = asked(cluster, "n2", "WAIT 2 0")
    forwarder = cluster.benches["n2"].service.forwarder
    sent = forwarder.calls_sent
    cluster.pass_time(1.0)
    cluster.settle()
    assert forwarder.calls_sent == sent + 1, "the next piece"
    peer.close()
    for _ in range(3):
        cluster.pass_time(1.0)
        cluster.settle()
    assert forwarder.calls_sent == sent + 1
    assert forwarder.calls_pending == 0
