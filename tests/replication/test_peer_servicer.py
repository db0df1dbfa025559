"""RaftService from outside: who may speak, what is no message, and the calls beside the exchange."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from redan.raft.v1 import raft_pb2
from replication import peer_servicer
from replication.core.membership import Configuration
from replication.core.messages import Heartbeat
from replication.peer_link import EXCHANGE, LinkBroken
from replication.peer_server import PeerServer
from replication.peer_servicer import ForwardStream, StreamEnded
from replication.peers import FORWARD
from tests.harness.peer_nodes import QUICK, PeerNode, Proxy, closed_port, echo, until

HEARTBEAT = Heartbeat(3, 100, 7)

# -- greetings ---------------------------------------------------------------------------------------------------------


async def test_a_node_of_another_cluster_is_refused_by_name(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2", cluster_id="c2") as n2:
        n1.knows(n2)
        await until(lambda: n1.peers.links["n2"].problem)
        assert n1.peers.links["n2"].problem == "FAILED_PRECONDITION: n1 belongs to cluster c1, and n2 to c2"
        assert n2.listener.received == []
        assert n2.listener.lost == []


async def test_an_address_that_belongs_to_another_node_is_refused_by_name(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n3", tmp_path / "3") as n3:
        n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": n3.address}))
        await until(lambda: n1.peers.links["n2"].problem)
        assert n1.peers.links["n2"].problem == "FAILED_PRECONDITION: n1 looks for a node named n2, this is n3"


async def test_a_node_that_is_in_no_cluster_yet_is_unavailable_and_reached_later(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2", attached=False) as n2:
        n1.knows(n2)
        await until(lambda: n1.peers.links["n2"].problem)
        assert n1.peers.links["n2"].problem == "UNAVAILABLE: n2 starts or stops"
        n2.attach()
        await n1.has_opened(n2)


async def test_a_later_start_ends_the_streams_of_earlier_ones_and_an_earlier_is_refused(tmp_path: Path) -> None:
    async with (
        PeerNode("n2", tmp_path / "2") as n2,
        PeerNode("n1", tmp_path / "a", incarnation=5) as old,
        PeerNode("n1", tmp_path / "b", incarnation=6) as new,
    ):
        old.knows(n2)
        await old.has_opened(n2)
        new.knows(n2)
        await new.has_opened(n2)
        await until(lambda: not old.peers.links["n2"].is_open)
        assert [peer for peer, _ in n2.listener.lost] == ["n1"], "the earlier start has ended"
        await until(lambda: "this start has number 5, and 6 was here" in old.peers.links["n2"].problem)
        new.peers.send("n2", [HEARTBEAT])
        old.peers.send("n2", [HEARTBEAT])
        await until(lambda: n2.listener.received)
        assert n2.listener.received == [("n1", 6, HEARTBEAT)]
        assert new.peers.links["n2"].is_open


async def test_a_second_stream_of_the_same_start_takes_the_place_of_the_first_without_a_loss(tmp_path: Path) -> None:
    async with (
        PeerNode("n2", tmp_path / "2") as n2,
        PeerNode("n1", tmp_path / "a", incarnation=5) as first,
        PeerNode("n1", tmp_path / "b", incarnation=5) as second,
    ):
        first.knows(n2)
        await first.has_opened(n2)
        second.knows(n2)
        await second.has_opened(n2)
        await until(lambda: first.listener.lost)
        assert n2.servicer.hears("n1")
        assert n2.listener.lost == []
        await first.peers.stop()


async def test_who_greets_and_is_unknown_is_dialed_as_long_as_it_is_heard(tmp_path: Path) -> None:
    async with PeerNode("n2", tmp_path / "2") as joining:
        async with PeerNode("n1", tmp_path / "1") as leader:
            leader.knows(joining)
            await leader.has_opened(joining)
            await joining.has_opened(leader)
            joining.peers.send("n1", [HEARTBEAT])
            await until(lambda: leader.listener.received)
        await until(lambda: "n1" not in joining.peers.links)


async def test_nodes_that_know_each_other_only_by_greeting_do_not_keep_each_other(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n2.has_opened(n1)
        assert n2.peers.links["n1"].in_return
        n1.knows()
        await until(lambda: not n1.peers.links and not n2.peers.links)
        await until(lambda: not n1.servicer.hears("n2") and not n2.servicer.hears("n1"))


async def test_a_removed_peer_gets_what_is_sent_in_that_turn_and_then_nothing(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        n1.peers.send("n2", [HEARTBEAT])
        n1.knows()
        n1.peers.send("n2", [HEARTBEAT])
        await asyncio.sleep(0)
        n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: not n2.servicer.hears("n1"))
        assert len(n2.listener.received) == 2


# -- hostile bytes -----------------------------------------------------------------------------------------------------


def hello(receiver: str = "n2", sender: str = "n9") -> bytes:
    greeting = raft_pb2.Greeting(cluster_id="c1", sender=sender, receiver=receiver, feature_level=1, incarnation=1)
    return raft_pb2.ExchangeRequest(greeting=greeting).SerializeToString()


async def spoken_to(node: PeerNode, *requests: bytes) -> tuple[grpc.StatusCode, str]:
    """Say something on an Exchange stream; return how it ended."""
    async with grpc.aio.insecure_channel(node.address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(EXCHANGE)()
        try:
            for request in requests:
                await call.write(request)
            while isinstance(await call.read(), bytes):
                pass
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        return await call.code(), await call.details()


@pytest.mark.parametrize(
    ("requests", "code", "says"),
    [
        ([b"\xff\xff\xff"], grpc.StatusCode.FAILED_PRECONDITION, "has to be a greeting"),
        ([b""], grpc.StatusCode.FAILED_PRECONDITION, "has to be a greeting"),
        ([b"GET / HTTP/1.1\r\n\r\n"], grpc.StatusCode.FAILED_PRECONDITION, "has to be a greeting"),
        ([hello(sender="n2")], grpc.StatusCode.FAILED_PRECONDITION, "names have to differ"),
        ([hello(), b"\xff\xff\xff"], grpc.StatusCode.INVALID_ARGUMENT, "n9 sent no message"),
        ([hello(), hello()], grpc.StatusCode.INVALID_ARGUMENT, "only in the first request"),
        ([hello(), b"\x22\xff\xff\xff\xff\x7fabc"], grpc.StatusCode.INVALID_ARGUMENT, "behind the request"),
    ],
)
async def test_bytes_that_are_no_message_end_their_stream_with_a_reason_and_reach_nobody(
    tmp_path: Path, requests: list[bytes], code: grpc.StatusCode, says: str
) -> None:
    async with PeerNode("n2", tmp_path / "2") as n2, PeerNode("n1", tmp_path / "1") as n1:
        n1.knows(n2)
        await n1.has_opened(n2)
        got, details = await spoken_to(n2, *requests)
        assert (got, says in details) == (code, True), details
        n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: n2.listener.received)
        assert [sender for sender, _, _ in n2.listener.received] == ["n1"]


async def test_what_the_node_should_not_have_raised_is_reported(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        n2.listener.raises = AssertionError("the core is broken")
        n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: n2.defects)
        assert str(n2.defects[0]) == "the core is broken"


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_a_node_introduces_itself_also_before_it_is_in_a_cluster(tmp_path: Path) -> None:
    async with (
        PeerNode("n1", tmp_path / "1") as n1,
        PeerNode("n2", tmp_path / "2", cluster_id="", attached=False) as n2,
    ):
        response = await n1.peers.introduce(n2.address, raft_pb2.IntroduceRequest(name="n1"), 5)
        assert (response.name, response.cluster_id, response.leader) == ("n2", "", "n1")


async def test_a_join_is_answered_or_refused_with_its_reason(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        response = await n1.peers.join(n2.address, raft_pb2.JoinRequest(name="n1"), 5)
        assert (response.accepted, response.leader) == (True, "n2")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await n1.peers.join(n2.address, raft_pb2.JoinRequest(), 5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "who joins has a name"


async def test_forwarded_calls_are_answered_on_their_stream(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        stream = await n1.peers.open_forward("n2")
        for call_id in range(3):
            call = raft_pb2.ForwardCall(call_id=call_id, commands=b"%d" % call_id)
            await stream.write(raft_pb2.ForwardRequest(term=4, calls=[call]))
        responses = [await stream.read() for _ in range(3)]
        assert [response.replies[0].replies for response in responses if response] == [b"0", b"1", b"2"]
        reading = asyncio.ensure_future(stream.read())
        await stream.close()
        assert await reading is None


async def test_the_end_of_a_forward_stream_is_known_at_once_on_both_sides(tmp_path: Path) -> None:
    ended: list[str] = []

    async def serve(stream: ForwardStream) -> None:
        try:
            await echo(stream)
        finally:
            ended.append(stream.peer.name)

    async with (
        PeerNode("n1", tmp_path / "1") as n1,
        PeerNode("n2", tmp_path / "2", forward=serve) as n2,
        Proxy(n2.address) as proxy,
    ):
        n1.knows(n2, at={"n2": proxy.address})
        stream = await n1.peers.open_forward("n2")
        stream.on_ended(lambda: ended.append("n2"))
        await stream.write(raft_pb2.ForwardRequest(term=1))
        assert await stream.read() is not None
        proxy.cut()
        await until(lambda: sorted(ended) == ["n1", "n2"])
        assert await stream.read() is None
        assert "UNAVAILABLE" in stream.problem
        with pytest.raises(LinkBroken):
            await stream.write(raft_pb2.ForwardRequest(term=1))
        await stream.close()


async def test_a_forward_stream_that_its_follower_closes_ends_for_the_leader(tmp_path: Path) -> None:
    ended: list[str] = []

    async def serve(stream: ForwardStream) -> None:
        try:
            while True:
                await stream.write(raft_pb2.ForwardResponse(term=1))
        except (StreamEnded, asyncio.CancelledError):
            ended.append(stream.peer.name)

    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2", forward=serve) as n2:
        n1.knows(n2)
        stream = await n1.peers.open_forward("n2")
        assert await stream.read() is not None
        await stream.close()
        await until(lambda: ended == ["n1"])


async def test_a_forward_stream_to_a_node_that_is_not_there_says_so(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1:
        with pytest.raises(LinkBroken, match="nobody knows where n2 is"):
            await n1.peers.open_forward("n2")
        n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": f"127.0.0.1:{closed_port()}"}))
        with pytest.raises(LinkBroken, match="n2 takes no commands"):
            await n1.peers.open_forward("n2")


async def test_a_peer_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    options = QUICK._replace(greeting_seconds=0.1)
    async with (
        PeerNode("n1", tmp_path / "1", options=options) as n1,
        PeerNode("n2", tmp_path / "2") as n2,
        Proxy(n2.address) as proxy,
    ):
        proxy.stall()
        n1.knows(n2, at={"n2": proxy.address})
        await until(lambda: n1.peers.links["n2"].problem)
        assert n1.peers.links["n2"].problem == "no greeting within the time"
        with pytest.raises(LinkBroken, match="n2 takes no commands: no greeting within the time"):
            await n1.peers.open_forward("n2")
        opening = asyncio.ensure_future(n1.peers.open_forward("n2"))
        await until(lambda: proxy.connections >= 3)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        proxy.flow()
        await n1.has_opened(n2)


async def test_a_caller_that_greets_late_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_servicer, "GREETING_SECONDS", 0.05)
    async with PeerNode("n2", tmp_path / "2") as n2, grpc.aio.insecure_channel(n2.address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(EXCHANGE)()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", ["Introduce", "Join"])
async def test_a_question_that_is_no_message_is_refused(tmp_path: Path, method: str) -> None:
    async with PeerNode("n2", tmp_path / "2") as n2, grpc.aio.insecure_channel(n2.address) as channel:
        path = f"/redan.raft.v1.RaftService/{method}"
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(b"\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_forwarded_request_that_is_no_message_ends_its_stream(tmp_path: Path) -> None:
    async with PeerNode("n2", tmp_path / "2") as n2, grpc.aio.insecure_channel(n2.address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(FORWARD)()
        greeting = raft_pb2.Greeting(cluster_id="c1", sender="n9", receiver="n2", incarnation=1)
        await call.write(raft_pb2.ForwardRequest(greeting=greeting).SerializeToString())
        await call.read()
        await call.write(b"\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_only_so_many_senders_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_servicer, "SENDERS_MAX", 3)
    async with PeerNode("n2", tmp_path / "2") as n2:
        for number in range(6):
            code, _ = await spoken_to(n2, hello(sender=f"m{number}"), b"\xff")
            assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(n2.servicer._incarnations) == ["m3", "m4", "m5"]


async def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        with pytest.raises(OSError, match="cannot listen on"):
            await PeerServer(n1.address, n2.servicer, QUICK).start()
