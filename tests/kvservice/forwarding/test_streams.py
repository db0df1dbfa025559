"""Forwarding over real streams between nodes: calls arrive, answers come back, and every end is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kvservice.commands.reply import OK, ErrorReply, Reply
from kvservice.errors import LeadershipLost
from kvservice.forwarding import forwarded as forwarded_module
from kvservice.forwarding.streams import dial, serve_forward
from redan.raft.v1 import raft_pb2
from replication.peer_link import LinkBroken
from tests.harness.peer_nodes import PeerNode, until
from tests.kvservice.fake_node import Bench, Peer, texts


class Pair:
    """A leader n1 and a follower n2, on real streams, whose loops and consensus a test drives."""

    def __init__(self, n1: PeerNode, n2: PeerNode, leader: Bench, follower: Bench) -> None:
        self.n1, self.n2 = n1, n2
        self.leader, self.follower = leader, follower
        self.is_committing = True

    def step(self) -> None:
        """Let everything go on that does not need the streams."""
        for bench in (self.leader, self.follower):
            bench.turn()
            bench.fire_timers()
        if self.is_committing:
            self.leader.commit()
            self.leader.end_round()

    async def until(self, condition: Callable[[], object]) -> None:
        """Go on until a condition holds."""

        def met() -> object:
            self.step()
            return condition()

        await until(met)

    async def ask(self, peer: Peer, *lines: str, count: int = 0) -> list[Reply]:
        """Ask the follower, and return its replies."""
        self.follower.send(peer, *lines)
        await self.until(lambda: len(peer.replies) >= (count or len(lines)))
        return peer.taken()


@asynccontextmanager
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    leader, follower = Bench(), Bench()
    leader.node.reads_at_once = False
    async with (
        PeerNode("n1", tmp_path / "1", forward=lambda stream: serve_forward(leader.service, stream)) as n1,
        PeerNode("n2", tmp_path / "2") as n2,
    ):
        n1.knows(n2)
        n2.knows(n1)
        dial(follower.service.forwarder, n2.peers.open_forward)
        leader.lead("n1", 1, is_leader=True)
        follower.node.reads_at_once = False
        follower.lead("n1", 1)
        nodes = Pair(n1, n2, leader, follower)
        await nodes.until(lambda: follower.service.forwarder.is_linked)
        yield nodes
        follower.lead(None, 2)


async def test_commands_are_run_by_the_leader_and_answered_by_the_follower(tmp_path: Path) -> None:
    async with pair(tmp_path) as nodes:
        peer = nodes.follower.peer()
        replies = await nodes.ask(peer, "SET k v", "INCR k", "GET k", "LPUSHY k", "STRLEN k")
        assert texts(replies) == [
            "OK", "ERR value is not an integer or out of range", b"v",
            "ERR unknown command 'LPUSHY', with args beginning with: 'k' ", 1,
        ]  # fmt: skip
        assert nodes.leader.machine.databases[0].key_count == 1


async def test_many_callers_at_once_each_get_their_own_answers(tmp_path: Path) -> None:
    async with pair(tmp_path) as nodes:
        peers = [nodes.follower.peer() for _ in range(40)]
        for number in range(5):
            for peer in peers:
                nodes.follower.send(peer, f"SET k{peer.id} {number}", f"GET k{peer.id}")
            nodes.step()
        await nodes.until(lambda: all(len(peer.replies) == 10 for peer in peers))
        for peer in peers:
            assert peer.taken() == [reply for number in range(5) for reply in (OK, b"%d" % number)]


async def test_values_of_many_bytes_go_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarded_module, "RESPONSE_BYTES_MAX", 1 << 16)
    value = "v" * 3_000_000
    async with pair(tmp_path) as nodes:
        peer = nodes.follower.peer()
        assert await nodes.ask(peer, f"SET k {value}") == [OK]
        replies = await nodes.ask(peer, *["GET k", "STRLEN k"] * 5)
        assert replies == [value.encode(), len(value)] * 5


async def test_the_end_of_the_leader_is_known_at_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as nodes:
        peer = nodes.follower.peer()
        nodes.is_committing = False
        nodes.follower.send(peer, "SET k 1")
        await nodes.until(lambda: nodes.leader.node.log)
        started = asyncio.get_running_loop().time()
        await nodes.n1.server.stop()
        await nodes.until(lambda: peer.replies)
        assert asyncio.get_running_loop().time() - started < 1.0
        [reply] = peer.taken()
        assert isinstance(reply, ErrorReply)
        assert type(reply.cause) is LeadershipLost


async def test_a_caller_of_a_node_that_is_gone_is_answered_no_more(tmp_path: Path) -> None:
    async with pair(tmp_path) as nodes:
        peer = nodes.follower.peer()
        nodes.is_committing = False
        nodes.follower.send(peer, "SET k 1")
        await nodes.until(lambda: nodes.leader.node.log)
        nodes.follower.lead(None, 1)
        nodes.follower.service.forwarder.outcome_timeout_s = 0.0
        nodes.follower.fire_timers()
        await nodes.until(lambda: peer.replies)
        nodes.is_committing = True
        nodes.step()
        assert nodes.leader.machine.databases[0].key_count == 1, "what ran is not undone"


async def test_a_request_that_is_no_command_ends_the_stream(tmp_path: Path) -> None:
    async with pair(tmp_path) as nodes:
        for commands in (b"*1\r\n", b"", b"junk"):
            stream = await nodes.n2.peers.open_forward("n1")
            call = raft_pb2.ForwardCall(call_id=1, session_id=1, commands=commands)
            await stream.write(raft_pb2.ForwardRequest(term=1, calls=[call]))
            assert await stream.read() is None
            await stream.close()
        assert await nodes.ask(nodes.follower.peer(), "SET k 1") == [OK], "others are served"
        assert not nodes.n1.defects


async def test_a_leader_that_cannot_be_reached_is_dialled_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as nodes:
        attempts = 0

        async def unreachable(_leader: str) -> object:
            nonlocal attempts
            attempts += 1
            raise LinkBroken("nobody there")

        dial(nodes.follower.service.forwarder, unreachable)  # type: ignore[arg-type]  # it never returns a stream
        nodes.follower.lead("n1", 2)
        await nodes.until(lambda: attempts >= 3)
        dial(nodes.follower.service.forwarder, nodes.n2.peers.open_forward)
        nodes.leader.lead("n1", 2, is_leader=True)
        assert await nodes.ask(nodes.follower.peer(), "SET k 1") == [OK]


async def test_a_defect_in_handling_an_answer_ends_the_link_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as nodes:
        peer = nodes.follower.peer()
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        monkeypatch.setattr(
            nodes.follower.service.forwarder, "received", lambda _link, _response: (_ for _ in ()).throw(KeyError())
        )
        nodes.follower.send(peer, "SET k 1")
        await nodes.until(lambda: peer.replies)
        [reply] = peer.taken()
        assert isinstance(reply, ErrorReply)
        assert type(reply.cause) is LeadershipLost
