"""The leader's side of forwarding: which calls it runs, and how it answers them."""

from __future__ import annotations

import pytest

from kvservice.forwarding import forwarded as forwarded_module
from kvservice.forwarding.reply_codec import decode_replies
from redan.raft.v1 import raft_pb2
from replication.errors import Stopped
from tests.kvservice.fake_node import resp, texts
from tests.kvservice.forwarding.fake_cluster import (
    cluster_led_by_n1,
    link_from,
)

# -- the leader's side -------------------------------------------------------------------------------------------------


def test_a_database_that_the_leader_does_not_have_is_an_error_of_the_call() -> None:
    cluster = cluster_led_by_n1(databases=16)
    link = link_from(cluster, "n2")
    calls = [raft_pb2.ForwardCall(call_id=7, session_id=1, db=16, commands=resp("GET k", "GET j"))]
    link.stream.received(raft_pb2.ForwardRequest(term=1, calls=calls))
    response = link.stream.next_response()
    assert response is not None
    [answer] = response.replies
    assert answer.call_id == 7
    assert texts(decode_replies(answer.replies)) == ["ERR DB index is out of range"] * 2


def test_a_reply_that_no_message_can_carry_is_an_error_and_the_others_of_its_call_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarded_module, "RESPONSE_BYTES_MAX", 1000)
    monkeypatch.setattr(forwarded_module, "REPLY_BYTES_MAX", 3000)
    cluster = cluster_led_by_n1()
    n2 = cluster.benches["n2"]
    peer = n2.peer()
    n2.send(peer, f"SET k {'v' * 1900}")
    n2.send(peer, "GET k", "MGET k k", "GET none", "GET k", "STRLEN k")
    cluster.settle()
    replies = texts(peer.taken())
    assert isinstance(replies[2], str)
    assert "too long to be passed on" in replies[2]
    assert replies[:2] + replies[3:] == ["OK", b"v" * 1900, None, b"v" * 1900, 1900]


def test_commands_about_the_node_are_not_run_for_another_one() -> None:
    """No node sends any; if one of another version did, they would act on the wrong connection."""
    cluster = cluster_led_by_n1()
    link = link_from(cluster, "n2")
    commands = resp("CONFIG SET maxmemory 1", "STRLEN k", "CLIENT NOSUCH", "SHUTDOWN")
    call = raft_pb2.ForwardCall(call_id=1, session_id=1, commands=commands)
    link.stream.received(raft_pb2.ForwardRequest(term=1, calls=[call]))
    cluster.turn()
    cluster.end_rounds()
    response = link.stream.next_response()
    assert response is not None
    replies = texts(decode_replies(response.replies[0].replies))
    assert replies[0] == "ERR 'config|set' is a matter of the node that is asked"
    assert replies[1] == 0
    assert all(isinstance(reply, str) and reply.startswith("ERR") for reply in replies[2:])
    assert cluster.benches["n1"].service.config.maxmemory == 0


def test_callers_that_left_are_forgotten() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    for _ in range(20):
        peer = n2.peer()
        n2.send(peer, "SET k 1")
        n2.send(peer, "GET k")
    link = link_from(cluster, "n2")
    link.carry()
    assert link.stream.callers == 20
    cluster.settle()
    assert link.stream.callers == 0
    n2.send(n2.peer(), "SET k 2")
    link.carry()
    cluster.turn()
    link.stream.ended()
    cluster.commit()
    assert link.stream.callers == 0
    assert link.stream.next_response() is None
    assert n1.machine.databases[0].get(b"k") == 2


def test_a_read_that_a_leader_cannot_begin_is_sent_to_the_next_one() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    peer = n1.peer()
    cluster.elect("n3")
    n1.node.is_leader, n1.node.leader_id, n1.node.term = False, "n3", 2
    n1.send(peer, "GET k")
    n1.turn()
    assert n1.service.is_away
    cluster.settle()
    assert peer.taken() == [None]


def test_what_a_stopped_node_had_taken_is_refused() -> None:
    cluster = cluster_led_by_n1()
    n1 = cluster.benches["n1"]
    writer, reader, late = n1.peer(), n1.peer(), n1.peer()
    n1.send(writer, "SET k 1")
    n1.send(reader, "GET k")
    n1.turn()
    n1.refuse(Stopped())
    n1.node.is_stopped = True
    n1.send(late, "GET k")
    n1.turn()
    assert texts(writer.taken()) == ["CLUSTERDOWN The node is shutting down"]
    assert texts(late.taken()) == ["CLUSTERDOWN The node is shutting down"]
    assert reader.taken() == []


def test_what_a_stopped_leader_had_not_taken_of_other_nodes_is_tried_at_the_next_one() -> None:
    cluster = cluster_led_by_n1()
    n1, n2 = cluster.benches["n1"], cluster.benches["n2"]
    n1.node.is_stopped = True
    peer = n2.peer()
    n2.send(peer, "SET k 1", "GET k")
    n2.turn()
    link = link_from(cluster, "n2")
    link.carry()
    n1.turn()
    link.carry()
    assert peer.taken() == []
    cluster.elect("n3")
    cluster.tell_all()
    cluster.settle()
    assert texts(peer.taken()) == ["OK", b"1"]
