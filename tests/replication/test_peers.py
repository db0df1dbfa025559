"""Links between real servers over loopback: what arrives, what is refused, what a broken peer costs."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import grpc
import pytest

from redan.raft.v1 import raft_pb2
from replication.core.membership import Configuration
from replication.core.messages import AppendEntries, Entry, EntryKind, Heartbeat, Message, RequestVote
from replication.peer_link import EXCHANGE, HELD_MESSAGES_MAX, LinkBroken
from replication.peer_server import PeerServer
from replication.peer_servicer import ForwardStream, StreamEnded
from replication.peers import PeerEvent
from replication.wire import StateDigest
from tests.harness.peer_nodes import QUICK, PeerNode, Proxy, echo, until

HEARTBEAT = Heartbeat(3, 100, 7)


def append(size: int, index: int = 100) -> AppendEntries:
    return AppendEntries(3, index - 1, 3, 98, [Entry(3, index, EntryKind.COMMANDS, 1000, b"x" * size)], 7)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_messages_arrive_whole_and_in_order_with_the_start_of_their_sender(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1", incarnation=7) as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        sent: list[Message] = [append(100 * place, index=100 + place) for place in range(50)]
        for message in sent:
            n1.peers.send("n2", [message, HEARTBEAT])
        await until(lambda: len(n2.listener.received) == 100)
        assert n2.listener.received == [("n1", 7, message) for pair in sent for message in (pair, HEARTBEAT)]
        assert n1.peers.introductions["n2"].resp_address == "n2:6379"
        assert n2.peers.introductions["n1"].incarnation == 7


async def test_all_that_is_sent_in_one_turn_travels_together(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        for _ in range(40):
            n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: n2.listener.batches)
        assert n2.listener.batches == [40]
        assert n1.peers.links["n2"].counts.requests_sent == 1


async def test_what_is_sent_during_the_connect_is_not_lost(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        vote = RequestVote(4, 10, 3, True, False)
        n1.peers.send("n2", [vote])
        await until(lambda: n2.listener.received)
        assert n2.listener.received == [("n1", 1, vote)]


async def test_for_a_peer_that_cannot_be_reached_only_the_newest_messages_are_kept(tmp_path: Path) -> None:
    port = closed_port()
    async with PeerNode("n1", tmp_path / "1") as n1:
        n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": f"127.0.0.1:{port}"}))
        sent = [Heartbeat(3, number, 0) for number in range(1000)]
        for message in sent:
            n1.peers.send("n2", [message])
        n1.peers.send("nobody", [HEARTBEAT])
        assert n1.peers.links["n2"].counts.dropped == 1000 - HELD_MESSAGES_MAX
        assert n1.peers.unroutable == 1
        async with PeerNode("n2", tmp_path / "2", port=port) as n2:
            await until(lambda: len(n2.listener.received) >= HELD_MESSAGES_MAX)
            assert [message for _, _, message in n2.listener.received] == sent[-HELD_MESSAGES_MAX:]


async def test_a_digest_of_the_state_travels_beside_the_messages(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        n1.peers.send_digest(StateDigest(5, 1))
        n1.peers.send_digest(StateDigest(9, 2**64 - 1))
        await until(lambda: n2.listener.digests)
        assert n2.listener.digests == [("n1", StateDigest(9, 2**64 - 1))]
        assert n2.listener.received == []


async def test_a_large_queue_goes_out_in_requests_of_bounded_size(tmp_path: Path) -> None:
    options = QUICK._replace(request_bytes_max=256 * 1024)
    async with PeerNode("n1", tmp_path / "1", options=options) as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        n1.peers.send("n2", [append(100_000, index=100 + place) for place in range(20)] + [append(1_000_000)])
        await until(lambda: len(n2.listener.received) == 21)
        assert n2.listener.batches == [2] * 10 + [1]


async def test_an_entry_far_above_grpcs_own_limit_arrives(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        large = append(48 * 1024 * 1024)
        n1.peers.send("n2", [large])
        await until(lambda: n2.listener.received)
        assert n2.listener.received == [("n1", 1, large)]


# -- broken and slow peers ---------------------------------------------------------------------------------------------


async def test_a_stalled_peer_costs_the_others_nothing_and_no_more_than_its_bound(tmp_path: Path) -> None:
    options = QUICK._replace(queue_bytes_max=4 * 1024 * 1024, keepalive_seconds=60.0)
    async with (
        PeerNode("n1", tmp_path / "1", options=options) as n1,
        PeerNode("n2", tmp_path / "2") as n2,
        PeerNode("n3", tmp_path / "3") as n3,
        Proxy(n2.address) as proxy,
    ):
        n1.knows(n2, n3, at={"n2": proxy.address})
        await n1.has_opened(n2, n3)
        proxy.stall()
        slow = n1.peers.links["n2"]
        for index in range(200):
            message = append(200_000, index=index + 1)
            n1.peers.send("n2", [message])
            n1.peers.send("n3", [message])
            await until(lambda index=index: len(n3.listener.received) > index)  # type: ignore[misc]
        assert slow.counts.dropped > 100
        assert slow.queued_bytes <= options.queue_bytes_max
        assert n1.peers.links["n3"].counts.dropped == 0
        assert n1.listener.lost == [], "silence is no loss: elections have their timers"
        proxy.flow()
        await until(lambda: slow.queued_bytes == 0)
        n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: ("n1", 1, HEARTBEAT) in n2.listener.received)


async def test_a_connection_that_answers_no_ping_is_given_up_and_dialed_again(tmp_path: Path) -> None:
    options = QUICK._replace(keepalive_seconds=0.4)
    async with (
        PeerNode("n1", tmp_path / "1", options=options) as n1,
        PeerNode("n2", tmp_path / "2", options=options) as n2,
        Proxy(n2.address) as proxy,
    ):
        n1.knows(n2, at={"n2": proxy.address})
        await n1.has_opened(n2)
        proxy.stall()
        await until(lambda: n1.peers.links["n2"].counts.losses)
        assert "n2" in [peer for peer, _ in n1.listener.lost]
        proxy.flow()
        await n1.has_opened(n2)
        assert proxy.connections >= 2


async def test_a_reset_connection_is_a_loss_at_once_on_both_sides_and_opened_again(tmp_path: Path) -> None:
    async with (
        PeerNode("n1", tmp_path / "1") as n1,
        PeerNode("n2", tmp_path / "2") as n2,
        Proxy(n2.address) as proxy,
    ):
        n1.knows(n2, at={"n2": proxy.address})
        n2.knows(n1)
        await n1.has_opened(n2)
        await n2.has_opened(n1)
        cut_at = asyncio.get_running_loop().time()
        proxy.cut()
        await until(lambda: n1.listener.lost and n2.listener.lost)
        for node, other in ((n1, "n2"), (n2, "n1")):
            assert node.listener.lost[0][0] == other
            assert node.listener.lost[0][1] - cut_at < 0.5
        await n1.has_opened(n2)
        assert n1.peers.links["n2"].counts.losses == 1
        n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: n2.listener.received)


async def test_a_peer_that_refuses_is_lost_again_with_every_dial(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1:
        n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": f"127.0.0.1:{closed_port()}"}))
        await until(lambda: len(n1.listener.lost) >= 4)
        assert {peer for peer, _ in n1.listener.lost} == {"n2"}
        said = [(event, peer) for event, peer, _ in n1.listener.events]
        assert said == [(PeerEvent.UNREACHABLE, "n2")], "the log has it once"
        assert "UNAVAILABLE" in n1.peers.links["n2"].problem


async def test_a_refused_dial_is_no_loss_while_the_peer_is_heard(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n2.knows(n1)
        await n2.has_opened(n1)
        n1.knows(n2, at={"n2": f"127.0.0.1:{closed_port()}"})
        await until(lambda: (PeerEvent.UNREACHABLE, "n2") in [event[:2] for event in n1.listener.events])
        dials = n1.peers.links["n2"]
        await until(lambda: dials.problem)
        assert n1.listener.lost == []


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.harness.peer_nodes import PeerNode

async def main():
    async with PeerNode("n2", Path(sys.argv[1])) as node:
        print(node.address, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


ROOT = Path(__file__).resolve().parents[2]


async def test_the_loss_of_a_killed_process_is_known_within_milliseconds(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    loop = asyncio.get_running_loop()
    seconds = []
    async with PeerNode("n1", tmp_path / "1") as n1:
        for _ in range(3):
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                CHILD,
                str(tmp_path / "2"),
                cwd=ROOT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
            )
            assert child.stdout is not None
            try:
                address = (await child.stdout.readline()).decode().strip()
                n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": address}))
                await until(lambda: n1.peers.links["n2"].is_open)
                n1.listener.lost.clear()
                killed_at = loop.time()
            finally:
                child.kill()
            await until(lambda: n1.listener.lost)
            seconds.append(n1.listener.lost[0][1] - killed_at)
            await child.wait()
    # 3 ms when the machine is quiet; the bound leaves room for its other users, and none for a timer of gRPC.
    assert min(seconds) < 0.05, seconds


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


async def test_a_removed_peer_gets_what_was_sent_before_and_then_nothing(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        n1.peers.send("n2", [HEARTBEAT])
        n1.knows()
        n1.peers.send("n2", [HEARTBEAT])
        await until(lambda: not n2.servicer.hears("n1"))
        assert len(n2.listener.received) == 1
        assert n1.peers.unroutable == 1


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


async def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        with pytest.raises(OSError, match="cannot listen on"):
            await PeerServer(n1.address, n2.servicer, QUICK).start()
