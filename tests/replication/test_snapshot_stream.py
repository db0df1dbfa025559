"""Snapshots between real servers: whole or not at all, on from where it broke, at a rate, and past a purge."""

from __future__ import annotations

import asyncio
from errno import EIO, ENOSPC
from pathlib import Path
from time import monotonic

import grpc
import pytest

from persistence.disk import OpenMode, RealDisk
from persistence.errors import DiskFailed
from persistence.snapshot import (
    SnapshotReader,
    list_snapshots,
    purge_snapshots,
    snapshot_path,
)
from redan.raft.v1 import raft_pb2
from replication.core.messages import InstallSnapshot
from replication.snapshot_receiver import INCOMING
from replication.snapshot_stream import CHUNK_BYTES, TRANSFER_SNAPSHOT, RateLimit, TransferFailed, open_newest
from tests.harness.disk import FaultyDisk
from tests.harness.peer_nodes import QUICK, PeerNode, Proxy, until
from tests.harness.snapshots import MEMBERS, write_snapshot

DIRECTORY = Path("/data/snapshots")
SIZE = 3 * CHUNK_BYTES + 12345


def wanted(index: int = 100, term: int = 4) -> InstallSnapshot:
    return InstallSnapshot(term, index, 3, MEMBERS)


def received(node: PeerNode, index: int = 100, term: int = 3) -> bytes:
    path = snapshot_path(node.directory, index, term)
    with SnapshotReader.open(path, node.disk) as reader:
        reader.verify()
    return path.read_bytes()


async def test_a_snapshot_arrives_whole_and_the_node_is_told_behind_the_disk(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        sent = write_snapshot(n1.directory, n1.disk).read_bytes()
        n1.knows(n2)
        n1.peers.send_snapshot("n2", wanted(index=90))
        await until(lambda: n1.listener.sent)
        assert n1.listener.sent == [("n2", True)]
        # The file that was sent is newer than what was asked for; the node is told what the file holds.
        assert n2.listener.snapshots == [("n1", InstallSnapshot(4, 100, 3, MEMBERS))]
        assert received(n2) == sent
        assert list((n2.directory / INCOMING).iterdir()) == []


async def test_the_configuration_of_the_message_stands_in_for_one_that_the_file_has_not(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        write_snapshot(n1.directory, n1.disk, configuration=b"")
        n1.knows(n2)
        n1.peers.send_snapshot("n2", wanted())
        await until(lambda: n2.listener.snapshots)
        assert n2.listener.snapshots[0][1].configuration == MEMBERS


async def test_without_a_snapshot_that_is_new_enough_nothing_is_sent(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        write_snapshot(n1.directory, n1.disk, index=50)
        n1.knows(n2)
        with pytest.raises(TransferFailed, match="no snapshot of index 51 or later"):
            await n1.sender.send("n2", n2.address, wanted(index=51))
        assert [path for path, _ in n1.useless] == [None]
        n1.peers.send_snapshot("n2", wanted(index=51))
        await until(lambda: n1.listener.sent)
        assert n1.listener.sent == [("n2", False)]


async def test_a_broken_stream_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    size = 25 * CHUNK_BYTES
    async with (
        PeerNode("n1", tmp_path / "1") as n1,
        PeerNode("n2", tmp_path / "2") as n2,
        Proxy(n2.address) as proxy,
    ):
        sent = write_snapshot(n1.directory, n1.disk, size=size).read_bytes()
        proxy.cut_after_bytes = size // 2
        await n1.sender.send("n2", proxy.address, wanted())
        assert received(n2) == sent
        assert proxy.connections == 2
        # What was on its way when the stream broke is sent twice: of the receiver's, at most the chunk in its hands.
        assert n1.sender.bytes_sent < size * 3 // 2, "or it began again"
        assert len(sent) <= n2.receiver.bytes_received < len(sent) + 2 * CHUNK_BYTES


async def test_a_purge_in_the_middle_takes_the_name_and_not_the_bytes(tmp_path: Path) -> None:
    async with (
        PeerNode("n1", tmp_path / "1") as n1,
        PeerNode("n2", tmp_path / "2") as n2,
        Proxy(n2.address) as proxy,
    ):
        path = write_snapshot(n1.directory, n1.disk, size=20 * CHUNK_BYTES)
        sent = path.read_bytes()
        proxy.cut_after_bytes = 2 * CHUNK_BYTES
        sending = asyncio.ensure_future(n1.sender.send("n2", proxy.address, wanted()))
        await until(lambda: proxy.bytes_relayed > CHUNK_BYTES)
        write_snapshot(n1.directory, n1.disk, index=200, size=1000)
        write_snapshot(n1.directory, n1.disk, index=300, size=1000)
        purge_snapshots(n1.directory, n1.disk, keep=2)
        assert path not in [snapshot.path for snapshot in list_snapshots(n1.directory, n1.disk)]
        await sending
        assert proxy.connections == 2, "also the second stream sends the purged file"
        assert received(n2) == sent


async def test_transfers_together_keep_to_the_rate(tmp_path: Path) -> None:
    rate, size = 8 * 1024 * 1024, 2 * 1024 * 1024
    options = QUICK._replace(snapshot_bytes_per_second=rate)
    async with (
        PeerNode("n1", tmp_path / "1", options=options) as n1,
        PeerNode("n2", tmp_path / "2") as n2,
        PeerNode("n3", tmp_path / "3") as n3,
    ):
        write_snapshot(n1.directory, n1.disk, size=size)
        started = monotonic()
        await asyncio.gather(*(n1.sender.send(node.name, node.address, wanted()) for node in (n2, n3)))
        seconds = monotonic() - started
        # Two files of 2 MiB at 8 MiB/s, less the burst.
        assert seconds >= 2 * size / rate - 0.1
        assert received(n2) == received(n3)


def test_a_rate_of_zero_waits_for_nothing() -> None:
    with pytest.raises(StopIteration):  # it comes to its end without giving way once
        RateLimit(0).take(10**12).send(None)


async def test_a_second_request_for_the_same_peer_takes_the_place_of_the_first(tmp_path: Path) -> None:
    options = QUICK._replace(snapshot_bytes_per_second=1024 * 1024)
    async with PeerNode("n1", tmp_path / "1", options=options) as n1, PeerNode("n2", tmp_path / "2") as n2:
        write_snapshot(n1.directory, n1.disk, size=SIZE)
        n1.knows(n2)
        n1.peers.send_snapshot("n2", wanted(term=4))
        await until(lambda: n1.sender.bytes_sent)
        n1.sender.rate.bytes_per_second = 0
        n1.peers.send_snapshot("n2", wanted(term=5))
        await until(lambda: n1.listener.sent)
        assert n1.listener.sent == [("n2", True)]
        assert [snapshot.term for _, snapshot in n2.listener.snapshots] == [5]


async def test_a_transfer_to_a_peer_that_is_not_there_ends_after_some_attempts(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1:
        write_snapshot(n1.directory, n1.disk, size=1000)
        async with PeerNode("n2", tmp_path / "2") as n2:
            address = n2.address
        with pytest.raises(TransferFailed, match="UNAVAILABLE"):
            await n1.sender.send("n2", address, wanted())


async def test_a_transfer_to_a_peer_that_is_removed_ends_in_silence(tmp_path: Path) -> None:
    options = QUICK._replace(snapshot_bytes_per_second=1024 * 1024)
    async with PeerNode("n1", tmp_path / "1", options=options) as n1, PeerNode("n2", tmp_path / "2") as n2:
        write_snapshot(n1.directory, n1.disk)
        n1.knows(n2)
        n1.peers.send_snapshot("n2", wanted())
        n1.peers.send_snapshot("nobody", wanted())
        await until(lambda: n1.sender.bytes_sent)
        n1.knows()
        await until(lambda: n1.listener.sent)
        assert n1.listener.sent == [("nobody", False)]
        assert n2.listener.snapshots == []


async def test_a_transfer_that_is_cancelled_at_any_time_leaves_no_file_open(tmp_path: Path) -> None:
    class Counting(RealDisk):
        opened = 0

        def open(self, path: Path, mode: OpenMode) -> int:
            self.opened += 1
            return super().open(path, mode)

        def close(self, handle: int) -> None:
            self.opened -= 1
            super().close(handle)

    disk = Counting()
    async with PeerNode("n1", tmp_path / "1", disk=disk) as n1, PeerNode("n2", tmp_path / "2") as n2:
        write_snapshot(n1.directory, n1.disk)
        for turns in range(12):
            sending = asyncio.ensure_future(n1.sender.send("n2", n2.address, wanted()))
            for _ in range(turns):
                await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await until(lambda: disk.opened == 0)


async def test_a_node_of_another_cluster_takes_no_snapshot(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2", cluster_id="c2") as n2:
        write_snapshot(n1.directory, n1.disk, size=1000)
        with pytest.raises(TransferFailed, match="n1 belongs to cluster c1, and n2 to c2"):
            await n1.sender.send("n2", n2.address, wanted())


# -- damage and failing disks ------------------------------------------------------------------------------------------


async def test_a_snapshot_that_is_damaged_at_its_source_gets_no_name_and_is_not_sent_again(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        path = write_snapshot(n1.directory, n1.disk)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(TransferFailed, match="the checksum of a chunk does not match"):
            await n1.sender.send("n2", n2.address, wanted())
        assert n1.sender.bytes_sent == len(content)
        ((useless, reason),) = n1.useless
        assert useless == path
        assert "is damaged at offset" in reason
        assert list_snapshots(n2.directory, n2.disk) == []
        await until(lambda: not list((n2.directory / INCOMING).iterdir()))
        assert n2.listener.snapshots == []


async def test_a_snapshot_whose_header_is_damaged_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2") as n2:
        path = write_snapshot(n1.directory, n1.disk, size=1000)
        path.write_bytes(b"\0" + path.read_bytes()[1:])
        with pytest.raises(TransferFailed, match="is damaged at offset 0"):
            await n1.sender.send("n2", n2.address, wanted())
        assert [useless for useless, _ in n1.useless] == [path]


async def test_a_snapshot_that_spoils_on_its_way_is_not_held_against_its_source(tmp_path: Path) -> None:
    class Spoiling(RealDisk):
        def pwritev(self, handle: int, buffers: object, offset: int) -> None:
            assert isinstance(buffers, tuple)
            super().pwritev(handle, (bytes(len(buffers[0])),), offset)

    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2", disk=Spoiling()) as n2:
        write_snapshot(n1.directory, n1.disk, size=1000)
        with pytest.raises(TransferFailed, match="is damaged at offset 0"):
            await n1.sender.send("n2", n2.address, wanted())
        assert n1.useless == []


class BadSector(RealDisk):
    """A disk that cannot read one place of a snapshot."""

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        if offset <= CHUNK_BYTES < offset + count:
            raise DiskFailed("pread", "a test's disk", EIO)
        return super().pread(handle, count, offset)


async def test_a_snapshot_that_cannot_be_read_at_its_source_is_useless(tmp_path: Path) -> None:
    async with PeerNode("n1", tmp_path / "1", disk=BadSector()) as n1, PeerNode("n2", tmp_path / "2") as n2:
        path = write_snapshot(n1.directory, n1.disk)
        with pytest.raises(TransferFailed, match="pread failed"):
            await n1.sender.send("n2", n2.address, wanted())
        assert n1.useless == [(path, "pread failed on a test's disk: Input/output error (errno 5)")]


class FullDisk(RealDisk):
    """The real disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def pwritev(self, handle: int, buffers: object, offset: int) -> None:
        assert isinstance(buffers, tuple)
        self.room -= len(buffers[0])
        if self.room < 0:
            raise DiskFailed("pwrite", "a test's disk", ENOSPC)
        super().pwritev(handle, buffers, offset)


async def test_a_full_disk_fails_the_transfer_gives_back_the_room_and_lets_the_next_one_in(tmp_path: Path) -> None:
    full = FullDisk(2 * CHUNK_BYTES)
    async with PeerNode("n1", tmp_path / "1") as n1, PeerNode("n2", tmp_path / "2", disk=full) as n2:
        sent = write_snapshot(n1.directory, n1.disk).read_bytes()
        with pytest.raises(TransferFailed, match="pwrite failed on a test's disk: No space left"):
            await n1.sender.send("n2", n2.address, wanted())
        await until(lambda: not list((n2.directory / INCOMING).iterdir()))
        full.room = 10 * SIZE
        await n1.sender.send("n2", n2.address, wanted())
        assert received(n2) == sent


def test_a_snapshot_that_vanishes_between_listing_and_opening_is_passed_over() -> None:
    class Vanishing(FaultyDisk):
        def listdir(self, directory: Path) -> list[str]:
            names = super().listdir(directory)
            if names[-1].startswith("00000000000000c8"):
                self.remove(directory / names[-1])
            return names

    disk = Vanishing()
    write_snapshot(DIRECTORY, disk, index=100, size=1000)
    write_snapshot(DIRECTORY, disk, index=200, size=1000)
    opened = open_newest(DIRECTORY, disk, 100)
    assert opened.meta.last_index == 100
    disk.close(opened.handle)


async def test_garbage_on_the_stream_is_refused_with_a_status(tmp_path: Path) -> None:
    async with PeerNode("n2", tmp_path / "2") as n2:
        chunk = raft_pb2.TransferSnapshotRequest(chunk=raft_pb2.SnapshotChunk(content=b"abc")).SerializeToString()
        for first in (b"\xff\xff", b"", chunk):
            async with grpc.aio.insecure_channel(n2.address) as channel:
                call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(TRANSFER_SNAPSHOT)()
                await call.write(first)
                assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
