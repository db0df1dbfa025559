"""Mutual TLS between nodes: who shows no certificate of the nodes' authority is not heard, and files can be replaced.

Certificates are made by the openssl program when the tests run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest

from redan.raft.v1 import raft_pb2
from replication.core.messages import Heartbeat
from replication.peer_channel import server_credentials
from replication.peer_pems import PeerTls, PemUnusable
from replication.peer_server import PeerServer
from tests.harness.certificates import OPENSSL, authority, certificate
from tests.harness.peer_nodes import QUICK, PeerNode, until

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PeerTls]:
    directory = tmp_path_factory.mktemp("pems")
    ours, theirs = authority(directory, "ours"), authority(directory, "theirs")
    return {
        "n1": certificate(directory, "n1", ours),
        "n2": certificate(directory, "n2", ours),
        "stranger": certificate(directory, "stranger", theirs),
    }


async def test_nodes_with_certificates_of_one_authority_talk(tmp_path: Path, pems: dict[str, PeerTls]) -> None:
    async with (
        PeerNode("n1", tmp_path / "1", tls=pems["n1"]) as n1,
        PeerNode("n2", tmp_path / "2", tls=pems["n2"]) as n2,
    ):
        n1.knows(n2)
        n2.knows(n1)
        await n1.has_opened(n2)
        n1.peers.send("n2", [Heartbeat(1, 2, 3)])
        await until(lambda: n2.listener.received)


@pytest.mark.parametrize("who", ["without TLS", "of another authority", "without a certificate"])
async def test_nobody_else_is_answered(tmp_path: Path, pems: dict[str, PeerTls], who: str) -> None:
    async with PeerNode("n1", tmp_path / "1", tls=pems["n1"]) as n1:
        ours, stranger = pems["n1"], pems["stranger"]
        trusted = ours.authority.read_bytes()
        if who == "without TLS":
            channel = grpc.aio.insecure_channel(n1.address)
        elif who == "of another authority":
            pair = stranger.key.read_bytes(), stranger.certificate.read_bytes()
            channel = grpc.aio.secure_channel(n1.address, grpc.ssl_channel_credentials(trusted, *pair))
        else:
            channel = grpc.aio.secure_channel(n1.address, grpc.ssl_channel_credentials(trusted))
        async with channel:
            introduce: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/redan.raft.v1.RaftService/Introduce"
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await introduce(raft_pb2.IntroduceRequest(name="x").SerializeToString(), timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_node_does_not_talk_to_a_server_of_another_authority(tmp_path: Path, pems: dict[str, PeerTls]) -> None:
    async with (
        PeerNode("n1", tmp_path / "1", tls=pems["n1"]) as n1,
        PeerNode("n2", tmp_path / "2", tls=pems["stranger"]) as n2,
    ):
        n1.knows(n2)
        await until(lambda: n1.peers.links["n2"].problem)
        assert "UNAVAILABLE" in n1.peers.links["n2"].problem


async def test_certificates_are_replaced_by_replacing_their_files(tmp_path: Path, pems: dict[str, PeerTls]) -> None:
    directory = tmp_path / "pems"
    directory.mkdir()

    def put(tls: PeerTls) -> PeerTls:
        copies = PeerTls(directory / "crt", directory / "key", directory / "ca")
        for source, target in zip(tls, copies, strict=True):
            shutil.copyfile(source, target)
        return copies

    async with (
        PeerNode("n1", tmp_path / "1", tls=put(pems["stranger"])) as n1,
        PeerNode("n2", tmp_path / "2", tls=pems["n2"]) as n2,
    ):
        n1.knows(n2)
        n2.knows(n1)
        await until(lambda: n1.peers.links["n2"].problem and n2.peers.links["n1"].problem)
        put(pems["n1"])
        await n1.has_opened(n2)
        await n2.has_opened(n1)
        for path in directory.iterdir():
            path.unlink()
        with pytest.raises(OSError, match="No such file"):
            await n1.peers.introduce(n2.address, raft_pb2.IntroduceRequest(), 5)
        # The server goes on with the certificates that it read last.
        response = await n2.peers.introduce(n1.address, raft_pb2.IntroduceRequest(), 5)
        assert response.name == "n1"


async def test_a_server_with_unreadable_certificates_does_not_start(tmp_path: Path, pems: dict[str, PeerTls]) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    async with PeerNode("n1", tmp_path / "1") as n1:
        for tls in (
            pems["n1"]._replace(key=tmp_path / "missing.pem"),
            pems["n1"]._replace(certificate=garbage),
        ):
            with pytest.raises(OSError, match=r"missing\.pem|garbage\.pem"):
                await PeerServer("127.0.0.1:0", n1.servicer, QUICK, tls).start()


@pytest.mark.parametrize("which", ["certificate", "key", "authority"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, which: str, content: str | None) -> None:
    tls = certificate(tmp_path, "node", authority(tmp_path, "ours"))
    file: Path = getattr(tls, which)
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(PemUnusable, match=file.name) as unusable:
        server_credentials(tls)
    # Of a certificate and a key that do not go together, OpenSSL does not say which one is wrong.
    assert unusable.value.part == ("certificate" if which == "key" and content is not None else which)
