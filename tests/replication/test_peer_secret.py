"""The cluster secret: nodes that share it talk on every plane, and who does not know it is refused on each, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from redan.raft.v1 import raft_pb2
from replication import peer_secret
from replication.core.membership import Configuration
from replication.core.messages import Heartbeat, InstallSnapshot
from replication.peer_link import EXCHANGE, LinkBroken
from replication.peer_secret import (
    CHALLENGE,
    NAME_KEY,
    NO_MATCH,
    NONCE_BYTES,
    NONCE_KEY,
    PROOF_KEY,
    UNNAMED,
    ClusterSecret,
    SecretUnknown,
    Unproven,
    named_by,
)
from replication.peers import FORWARD, PeerEvent
from replication.snapshot_stream import TRANSFER_SNAPSHOT, TransferFailed
from tests.harness.peer_nodes import PeerNode, until
from tests.harness.snapshots import MEMBERS, write_snapshot

SECRET = "correct horse battery staple"
OTHER = "correct horse battery stable"
INTRODUCE = "/redan.raft.v1.RaftService/Introduce"
JOIN = "/redan.raft.v1.RaftService/Join"
METHODS = (EXCHANGE, TRANSFER_SNAPSHOT, FORWARD, INTRODUCE, JOIN)


async def test_nodes_with_the_same_secret_talk_on_every_plane(tmp_path: Path) -> None:
    async with (
        PeerNode("n1", tmp_path / "1", secret=SECRET) as n1,
        PeerNode("n2", tmp_path / "2", secret=SECRET) as n2,
    ):
        n1.knows(n2)
        n2.knows(n1)
        await n1.has_opened(n2)
        n1.peers.send("n2", [Heartbeat(1, 2, 3)])
        await until(lambda: n2.listener.received)
        assert (await n1.peers.introduce(n2.address, raft_pb2.IntroduceRequest(name="n1"), 30)).name == "n2"
        assert (await n1.peers.join(n2.address, raft_pb2.JoinRequest(name="n1"), 30)).accepted
        call = await n1.peers.open_forward("n2")
        await call.write(raft_pb2.ForwardRequest(term=1, calls=[raft_pb2.ForwardCall(call_id=4, commands=b"x")]))
        answer = await call.read()
        assert answer is not None
        assert answer.replies[0].replies == b"x"
        await call.close()
        write_snapshot(n1.directory, n1.disk)
        n1.peers.send_snapshot("n2", InstallSnapshot(3, 100, 3, MEMBERS))
        await until(lambda: n1.listener.sent)
        assert n1.listener.sent == [("n2", True)]
        assert (n1.refused, n2.refused) == ([], [])


@pytest.mark.parametrize(
    ("own", "theirs", "text"),
    [
        (OTHER, SECRET, NO_MATCH),
        ("", SECRET, "it has no cluster secret, and this node has one"),
        (SECRET, "", "it has a cluster secret, and this node has none"),
    ],
    ids=["another", "none here", "none there"],
)
async def test_a_node_with_another_secret_is_refused_by_name_on_every_plane_and_on_both_sides(
    tmp_path: Path, own: str, theirs: str, text: str
) -> None:
    async with PeerNode("n1", tmp_path / "1", secret=own) as n1, PeerNode("n2", tmp_path / "2", secret=theirs) as n2:
        refused = f"UNAUTHENTICATED: n2 refuses n1: {text}"
        n1.knows(n2)
        await until(lambda: n1.peers.links["n2"].problem)
        assert n1.peers.links["n2"].problem == refused
        assert (PeerEvent.UNREACHABLE, "n2", refused) in n1.listener.events
        assert set(n2.refused) == {("n1", text)}
        if not theirs:
            return  # what a node without a secret refuses is the question for a number, and all calls begin with it
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: n1.peers.introduce(n2.address, raft_pb2.IntroduceRequest(name="n1"), 30),
            lambda: n1.peers.join(n2.address, raft_pb2.JoinRequest(name="n1"), 30),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError, match=text) as caught:
                await call()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(LinkBroken, match=f"n2 takes no commands: UNAUTHENTICATED: .*{text}"):
            await n1.peers.open_forward("n2")
        write_snapshot(n1.directory, n1.disk)
        with pytest.raises(TransferFailed, match=text):
            await n1.sender.send("n2", n2.address, InstallSnapshot(3, 100, 3, MEMBERS))
        assert set(n2.refused) == {("n1", text)}
        assert not n2.listener.received
        assert not n2.listener.snapshots


async def test_a_node_that_does_not_prove_itself_is_not_talked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        PeerNode("n1", tmp_path / "1", secret=SECRET) as n1,
        PeerNode("n2", tmp_path / "2", secret=OTHER) as impostor,
    ):
        # One that lets everybody in, to learn what they say.
        monkeypatch.setattr(ClusterSecret, "accept", lambda _self, _metadata: b"\0" * NONCE_BYTES)
        n1.knows(impostor)
        await until(lambda: n1.peers.links["n2"].problem)
        assert n1.peers.links["n2"].problem == "the node that answers does not know the cluster secret"
        with pytest.raises(OSError, match="does not know the cluster secret"):
            await n1.peers.introduce(impostor.address, raft_pb2.IntroduceRequest(name="n1"), 30)
        with pytest.raises(OSError, match="does not know the cluster secret"):
            await n1.peers.join(impostor.address, raft_pb2.JoinRequest(name="n1"), 30)
        with pytest.raises(LinkBroken, match="does not know the cluster secret"):
            await n1.peers.open_forward("n2")
        assert not n1.peers.links["n2"].is_open


async def test_peers_find_each_other_once_the_secret_is_right(tmp_path: Path) -> None:
    async with PeerNode("n2", tmp_path / "2", secret=SECRET) as n2:
        async with PeerNode("n1", tmp_path / "1", secret=OTHER) as n1:
            n1.knows(n2)
            n2.knows(n1)
            await until(lambda: n2.refused)
            port = int(n1.address.rpartition(":")[2])
        async with PeerNode("n1", tmp_path / "1", port=port, incarnation=2, secret=SECRET) as n1:
            n1.knows(n2)
            await n1.has_opened(n2)
            await n2.has_opened(n1)


async def one_empty_request() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize("method", METHODS)
async def test_no_call_is_answered_without_a_proof_or_with_one_that_was_used(tmp_path: Path, method: str) -> None:
    async with PeerNode("n1", tmp_path / "1", secret=SECRET) as n1, grpc.aio.insecure_channel(n1.address) as channel:
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)

        async def refusal(metadata: tuple[tuple[str, str | bytes], ...]) -> str:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(one_empty_request(), metadata=metadata, timeout=30).read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            return caught.value.details() or ""

        assert await refusal(()) == f"n1 refuses {UNNAMED}: it has no cluster secret, and this node has one"
        spoken = ((NAME_KEY, "a b"), (NONCE_KEY, b"0" * NONCE_BYTES), (PROOF_KEY, b""))
        assert "comes late, or a second time" in await refusal(spoken)
        proof = await ClusterSecret(SECRET).prove(channel, "n2", 30)
        assert n1.secret is not None
        n1.secret.accept(proof.metadata)
        assert "comes late, or a second time" in await refusal(proof.metadata)


def answered(secret: ClusterSecret, name: str = "n2") -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata of a call that was proven to a node with this very secret."""
    mine = b"m" * NONCE_BYTES
    theirs = secret.challenge(name, mine)
    return ((NONCE_KEY, theirs), (PROOF_KEY, secret._proof(peer_secret.DIALS, name, mine, theirs)))


def test_a_number_counts_once() -> None:
    secret = ClusterSecret(SECRET)
    metadata = answered(secret)
    assert len(secret.accept(metadata)) == NONCE_BYTES
    with pytest.raises(Unproven, match="a second time"):
        secret.accept(metadata)


def test_a_number_counts_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(peer_secret, "monotonic", lambda: now_s)
    secret = ClusterSecret(SECRET)
    early, late = answered(secret), answered(secret)
    now_s += peer_secret.ISSUED_SECONDS
    secret.accept(early)
    now_s += 0.001
    with pytest.raises(Unproven, match="comes late"):
        secret.accept(late)


def test_numbers_that_wait_are_bounded_and_the_oldest_goes() -> None:
    secret = ClusterSecret(SECRET)
    first = answered(secret)
    others = [answered(secret) for _ in range(peer_secret.ISSUED_MAX)]
    assert len(secret._issued) == peer_secret.ISSUED_MAX
    with pytest.raises(Unproven):
        secret.accept(first)
    secret.accept(others[0])


def test_what_one_side_says_is_no_proof_of_the_other() -> None:
    secret = ClusterSecret(SECRET)
    mine = b"m" * NONCE_BYTES
    theirs = secret.challenge("n2", mine)
    mirrored = secret._proof(peer_secret.ANSWERS, "n2", mine, theirs)
    with pytest.raises(Unproven, match=NO_MATCH):
        secret.accept(((NONCE_KEY, theirs), (PROOF_KEY, mirrored)))


@pytest.mark.parametrize("nonce", [b"", b"0" * (NONCE_BYTES - 1), b"0" * (NONCE_BYTES + 1)])
def test_a_number_of_the_wrong_length_is_refused(nonce: bytes) -> None:
    with pytest.raises(Unproven, match=f"has {len(nonce)} bytes, and 32 are wanted"):
        ClusterSecret(SECRET).challenge("n2", nonce)


@pytest.mark.parametrize("name", ["", "a b", "n2\n", "x" * 64, "x" * 1_000_000])
def test_a_name_that_no_node_can_have_is_refused_and_not_kept(name: str) -> None:
    secret = ClusterSecret(SECRET)
    with pytest.raises(Unproven, match="gives no name that a node can have"):
        secret.challenge(name, b"m" * NONCE_BYTES)
    assert not secret._issued


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"\xff", "the answer is not a redan.raft.v1.ChallengeResponse"),
        (b"", "the number of the node that answers has 0 bytes, not 32"),
        (raft_pb2.ChallengeResponse(nonce=b"0" * 33).SerializeToString(), "has 33 bytes, not 32"),
    ],
    ids=["garbage", "nothing", "too long"],
)
async def test_who_answers_with_no_number_knows_no_secret(tmp_path: Path, answer: bytes, text: str) -> None:
    async def challenge(_raw: bytes, _context: object) -> bytes:
        return answer

    handlers: dict[str, Any] = {"Challenge": grpc.unary_unary_rpc_method_handler(challenge)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("redan.raft.v1.RaftService", handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with PeerNode("n1", tmp_path / "1", secret=SECRET) as n1:
            with pytest.raises(SecretUnknown, match=text):
                await n1.peers.introduce(address, raft_pb2.IntroduceRequest(name="n1"), 30)
            configuration = Configuration(("n1", "n2"), addresses={"n1": n1.address, "n2": address})
            n1.peers.peers_changed(configuration)
            await until(lambda: n1.peers.links["n2"].problem)
            assert text in n1.peers.links["n2"].problem
    finally:
        await server.stop(None)


def test_no_text_of_a_secret_has_it() -> None:
    secret = ClusterSecret(SECRET)
    assert SECRET not in repr(secret) + str(secret) + str(vars(type(secret)))


@pytest.mark.parametrize(("given", "shown"), [("n2", "n2"), ("", UNNAMED), ("a b", UNNAMED), ("x" * 64, UNNAMED)])
def test_a_name_that_no_node_can_have_is_not_repeated(given: str, shown: str) -> None:
    assert named_by(((NAME_KEY, given),)) == shown
    assert named_by(()) == UNNAMED


async def test_bytes_that_are_no_question_are_refused(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1", secret=SECRET) as n1, grpc.aio.insecure_channel(n1.address) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHALLENGE)
        with pytest.raises(grpc.aio.AioRpcError, match=r"not a redan\.raft\.v1\.ChallengeRequest"):
            await ask(b"\xff")
        with pytest.raises(grpc.aio.AioRpcError, match="0 bytes, and 32 are wanted"):
            await ask(raft_pb2.ChallengeRequest(name="n2").SerializeToString())
