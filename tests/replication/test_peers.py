"""Links between real servers over loopback: what arrives, what is refused, what a broken peer costs."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

import grpc

from replication.core.membership import Configuration
from replication.core.messages import AppendEntries, Entry, EntryKind, Heartbeat, Message, RequestVote
from replication.peer_link import HELD_MESSAGES_MAX, WRITE_CUT_SHORT, _reason
from replication.peers import PeerEvent
from replication.wire import StateDigest
from tests.harness.peer_nodes import QUICK, WAIT_SECONDS, PeerNode, Proxy, closed_port, until

HEARTBEAT = Heartbeat(3, 100, 7)


def append(size: int, index: int = 100) -> AppendEntries:
    return AppendEntries(3, index - 1, 3, 98, [Entry(3, index, EntryKind.COMMANDS, 1000, b"x" * size)], 7)


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


async def test_messages_stay_counted_when_the_link_that_took_them_is_gone(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n1.knows(n2)
        await n1.has_opened(n2)
        n1.peers.send("n2", [HEARTBEAT, HEARTBEAT, HEARTBEAT])
        await until(lambda: n2.listener.received)
        assert (n1.peers.messages_sent, n2.servicer.messages_received) == (3, 3)
        [task] = [task for task in asyncio.all_tasks() if task.get_name() == "peer-n2"]
        n1.peers.peers_changed(Configuration(("n1",)))
        await until(task.done)
        assert not n1.peers.links
        assert n1.peers.messages_sent == 3


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
        assert "nobody" not in n1.peers.links
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


async def test_the_loss_of_a_killed_process_is_known_from_its_connection_and_waits_for_no_ping(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    # A ping would tell later than the test waits.
    options = QUICK._replace(keepalive_seconds=10 * WAIT_SECONDS)
    async with PeerNode("n1", tmp_path / "1", options=options) as n1:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(tmp_path / "2"), cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        try:
            address = (await child.stdout.readline()).decode().strip()
            n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": address}))
            await until(lambda: n1.peers.links["n2"].is_open)
            n1.listener.lost.clear()
        finally:
            child.kill()
        await until(lambda: n1.listener.lost)
        # It dials again after 10 ms, and may have been refused meanwhile.
        assert {peer for peer, _ in n1.listener.lost} == {"n2"}
        await child.wait()


async def test_a_peer_that_has_moved_is_reached_where_it_says_and_later_where_the_configuration_has_it(
    tmp_path: Path,
) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        old = f"127.0.0.1:{closed_port()}"
        n1.knows(n2, at={"n2": old})
        await until(lambda: n1.peers.links["n2"].problem)
        n2.knows(n1)
        await n1.has_opened(n2)
        assert (n1.peers.links["n2"].address, n1.peers.address_of("n2")) == (old, n2.address)
        n1.knows(n2)
        assert n1.peers.links["n2"].counts.connects == 1
        assert n1.peers.links["n2"].address == n2.address
        # One line for each of two addresses at most, however often they are tried.
        assert len([event for event in n1.listener.events if event[0] is PeerEvent.UNREACHABLE]) <= 2


async def test_a_peer_that_names_a_wrong_address_is_reached_where_the_configuration_has_it(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        n2.identity.peer_address = f"127.0.0.1:{closed_port()}"
        async with Proxy(n2.address) as proxy:
            n2.knows(n1)
            await until(lambda: "n2" in n1.peers.introductions)
            n1.knows(n2, at={"n2": proxy.address})
            await n1.has_opened(n2)
            proxy.cut()
            await until(lambda: n1.peers.links["n2"].counts.connects == 2)
            assert n1.peers.address_of("n2") == proxy.address


async def test_a_refusal_that_cut_a_write_short_is_told_in_words() -> None:
    class Refused:
        async def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.INTERNAL

        async def details(self) -> str:
            return WRITE_CUT_SHORT

    assert await _reason(cast(Any, Refused())) == "the other side ended it before it had read what was sent"


class NameServer(asyncio.DatagramProtocol):
    """Answers every question for an address with the one that it is told."""

    def __init__(self) -> None:
        self.address = "127.0.0.2"
        self.questions = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, packet: bytes, peer: tuple[str, int]) -> None:
        question = packet[12:]
        kind = question[question.index(b"\0") + 2]
        answers = b""
        if kind == 1:  # A; of AAAA there are none
            self.questions += 1
            answers = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04" + socket.inet_aton(self.address)
        asked = question[: question.index(b"\0") + 5]
        counts = b"\0\x01" + (b"\0\x01" if answers else b"\0\0") + b"\0\0\0\0"
        self._transport.sendto(packet[:2] + b"\x81\x80" + counts + asked + answers, peer)


async def test_the_name_of_a_peer_is_resolved_again_for_every_dial(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    server_port = transport.get_extra_info("sockname")[1]
    async with PeerNode("n1", tmp_path / "1") as n1:
        async with PeerNode("n2", tmp_path / "2", host="127.0.0.2") as n2:
            port = int(n2.address.rpartition(":")[2])
            # Asked for with a lifetime of an hour: the dial after it asks again.
            at = f"dns://127.0.0.1:{server_port}/n2.redan.test:{port}"
            n1.peers.peers_changed(Configuration(("n1", "n2"), addresses={"n2": at}))
            await n1.has_opened(n2)
        names.address = "127.0.0.3"
        async with PeerNode("n2", tmp_path / "2", host="127.0.0.3", port=port, incarnation=2) as moved:
            await n1.has_opened(moved)
            n1.peers.send("n2", [HEARTBEAT])
            await until(lambda: moved.listener.received)
        assert names.questions >= 2
    transport.close()
