"""Leaders that are deposed, hand over, fall silent or say no: nothing is lost, repeated or told wrongly."""

from __future__ import annotations

import pytest

from kvservice.commands.reply import OK, ErrorReply
from kvservice.errors import LeadershipLost, NoLeader
from replication.errors import OutcomeUnknown
from tests.kvservice.forwarding.fake_cluster import (
    cluster_led_by_n1,
    error_of,
    handing_over,
    link_from,
)

# -- refusals of the leader --------------------------------------------------------------------------------------------


def test_a_leader_of_another_term_runs_nothing_and_all_is_sent_again_in_order() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "SET k 1")
    n2.send(peer, "INCR k")
    link = link_from(cluster, "n2")
    link.send()
    cluster.elect("n1")
    link.carry()
    assert peer.taken() == []
    assert cluster.benches["n1"].node.log == []
    assert n2.service.forwarder.calls_returned == 2
    cluster.tell_all()
    cluster.settle()
    assert peer.taken() == [OK, 2]


def test_a_leader_that_stepped_down_in_its_term_runs_nothing_and_passes_nothing_on() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    reader, writer = n2.peer(), n2.peer()
    n2.send(reader, "GET j")
    n2.send(writer, "SET k 1")
    link = link_from(cluster, "n2")
    link.send()
    n1.lead(None, 1)
    link.carry()
    n1.turn()
    assert n1.node.log == []
    assert n1.service.forwarder.calls_pending == 0
    assert n2.service.forwarder.calls_returned == 2
    cluster.elect("n3")
    cluster.tell_all()
    cluster.settle()
    assert (reader.taken(), writer.taken()) == ([None], [OK])


def test_what_follows_a_refusal_on_the_same_stream_is_refused_too() -> None:
    """Else a later write of a caller would run before an earlier one, which its node sends again."""
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    peer = n2.peer()
    link = link_from(cluster, "n2")
    n2.send(peer, "APPEND k a")
    link.send()
    n2.send(peer, "APPEND k b")
    link.send()
    assert len(link.requests) == 2
    n1.service.drain()
    link.arrive()
    n1.service.refusal = None
    link.arrive()
    n1.turn()
    assert n1.node.log == []
    cluster.settle()
    assert peer.taken() == [1, 2]


def test_a_hand_over_that_is_under_way_delays_and_refuses_nothing() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    from_before, local, remote = n1.peer(), n1.peer(), n2.peer()
    n1.send(from_before, "APPEND k a")
    cluster.turn()
    n1.node.refuses = handing_over()
    n1.send(from_before, "APPEND k b")
    n1.send(local, "INCR n")
    n2.send(remote, "INCR m")
    link_from(cluster, "n2").carry()
    cluster.turn()
    for _ in range(3):
        cluster.pass_time()
        cluster.turn()
    assert (from_before.taken(), local.taken(), remote.taken()) == ([], [], [])
    cluster.elect("n3")
    cluster.tell_all()
    n1.node.refuses = None
    cluster.settle()
    assert (from_before.taken(), local.taken(), remote.taken()) == ([1, 2], [1], [1])


def test_a_hand_over_that_failed_lets_the_old_leader_go_on() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    peer = n1.peer()
    n1.node.refuses = handing_over()
    n1.send(peer, "APPEND k a")
    n1.send(peer, "GET k")
    cluster.turn()
    assert peer.taken() == []
    n1.node.refuses = None
    cluster.settle()
    assert peer.taken() == [1, b"a"]
    assert not n1.service.is_away


def test_a_leader_that_goes_silent_is_asked_no_more_and_its_last_writes_end_as_unknown() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    writer, reader = n2.peer(), n2.peer()
    n2.send(writer, "SET k 1")
    n2.send(reader, "GET k")
    link_from(cluster, "n2").send()
    cluster.elect("n3", surviving=0)
    cluster.tell("n2")
    new = cluster.links[-1]
    new.open()
    cluster.turn()
    new.carry()
    cluster.turn()
    cluster.end_rounds()
    new.carry()
    n2.turn()
    assert reader.taken() == [None], "reads do not wait for the old leader"
    assert writer.taken() == []
    n2.send(writer, "GET k")
    cluster.pass_time(0.4)
    n2.turn()
    assert error_of(writer) is LeadershipLost
    cluster.settle()
    assert writer.taken() == [None]


def test_while_nobody_leads_the_last_leader_may_take_its_time() -> None:
    cluster = cluster_led_by_n1(outcome_timeout_ms=3000)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    old = link_from(cluster, "n2")
    old.carry()
    n2.lead(None, 1)
    cluster.pass_time(2.9)
    n2.lead("n1", 1)
    cluster.turn()
    cluster.pass_time()
    assert not old.is_closed, "it leads again, in the same term"
    cluster.commit()
    old.carry()
    n2.turn()
    assert peer.taken() == [1]


def test_a_write_does_not_wait_for_ever_while_nobody_leads() -> None:
    cluster = cluster_led_by_n1(outcome_timeout_ms=3000)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    link_from(cluster, "n2").carry()
    n2.lead(None, 1)
    cluster.pass_time(3.0)
    n2.turn()
    assert error_of(peer) is LeadershipLost


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_what_was_sent_beside_a_write_that_is_given_up_waits_no_second_time(name: str) -> None:
    cluster = cluster_led_by_n1()
    bench = cluster.benches[name]
    peer = bench.peer()
    bench.send(peer, "INCR k", "GET j")
    if name == "n1":
        bench.turn()
        bench.lead(None, 2)
        bench.refuse(OutcomeUnknown(1, 1, "the time is over"))
    else:
        link_from(cluster, "n2").carry()
        bench.lead(None, 1)
        cluster.pass_time(2.0)
    cluster.pass_time(0.1)
    bench.turn()
    assert [type(reply.cause) for reply in peer.taken() if isinstance(reply, ErrorReply)] == [LeadershipLost, NoLeader]


def test_a_write_whose_outcome_is_unknown_leaves_its_caller_in_doubt_also_where_the_rest_runs_here() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k", "GET j")
    link_from(cluster, "n2").carry()
    cluster.elect("n2", surviving=0)
    cluster.pass_time(0.4)
    cluster.settle()
    [lost, read] = peer.taken()
    assert isinstance(lost, ErrorReply)
    assert (type(lost.cause), read, peer.is_in_doubt) == (LeadershipLost, None, True)


def test_a_write_that_the_leader_refused_ends_no_doubt() -> None:
    cluster = cluster_led_by_n1(key_bytes_max=512, value_bytes_max=1024)
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    link = link_from(cluster, "n2")
    link.carry()
    link.cut()
    doubts: list[bool] = []
    for line in ("GET k", "SETRANGE x 2000 aaa", "SET k 1"):
        cluster.settle()
        n2.send(peer, line)
        cluster.settle()
        doubts.append(peer.is_in_doubt)
    assert doubts == [True, True, False]


def test_an_old_leader_may_still_tell_what_became_of_a_write() -> None:
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, "INCR k")
    old = link_from(cluster, "n2")
    old.carry()
    cluster.turn()
    cluster.elect("n3", surviving=1)
    cluster.tell("n2")
    assert not old.is_closed
    cluster.tell("n1")
    cluster.learn("n1")
    old.carry()
    n2.turn()
    assert peer.taken() == [1]
    assert old.is_closed, "it has said all that there was to say"
