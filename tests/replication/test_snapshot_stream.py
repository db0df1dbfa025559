"""Snapshots between real servers: whole or not at all, on from where it broke, at a rate, and past a purge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from errno import EIO, ENOSPC
from pathlib import Path
from random import Random
from time import monotonic

import grpc
import pytest
from google_crc32c import value

from persistence.disk import Disk, RealDisk
from persistence.errors import DiskFailed
from persistence.snapshot import (
    SnapshotMeta,
    SnapshotReader,
    SnapshotWriter,
    list_snapshots,
    purge_snapshots,
    snapshot_path,
)
from redan.raft.v1 import raft_pb2
from replication import snapshot_receiver
from replication.core import membership
from replication.core.membership import Configuration
from replication.core.messages import InstallSnapshot
from replication.snapshot_receiver import INCOMING, SnapshotReceiver, TransferRefused, remove_partial_snapshots
from replication.snapshot_stream import CHUNK_BYTES, TRANSFER_SNAPSHOT, RateLimit, TransferFailed, open_newest
from tests.harness.disk import FaultyDisk, keep_none
from tests.harness.peer_nodes import QUICK, PeerNode, Proxy, until

MEMBERS = Configuration(("n1", "n2"), addresses={"n1": "h1:1", "n2": "h2:2"})
NOISE = Random(7)
DIRECTORY = Path("/data/snapshots")
SIZE = 3 * CHUNK_BYTES + 12345


def write_snapshot(
    directory: Path, disk: Disk, index: int = 100, term: int = 3, size: int = SIZE, configuration: bytes | None = None
) -> Path:
    """Write a snapshot of about so many bytes; return its path."""
    disk.make_dirs(directory)
    encoded = membership.encode(MEMBERS) if configuration is None else configuration
    finished: list[Path] = []
    failed: list[DiskFailed] = []
    meta = SnapshotMeta(index, term, 1000, encoded)
    writer = SnapshotWriter(directory, disk, meta, finished.append, failed.append, threaded=False)
    for offset in range(0, size, 100_000):
        assert writer.put(NOISE.randbytes(min(100_000, size - offset)))
    writer.finish(1, b"digest")
    writer.run()
    assert failed == []
    return finished[0]


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


async def test_a_rate_of_zero_waits_for_nothing() -> None:
    started = monotonic()
    await RateLimit(0).take(10**12)
    assert monotonic() - started < 1


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
        assert list_snapshots(n2.directory, n2.disk) == []
        await until(lambda: not list((n2.directory / INCOMING).iterdir()))
        assert n2.listener.snapshots == []


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


# -- the receiver alone: what a sender could say, and crashes ----------------------------------------------------------


def header(content: bytes, *, index: int = 100, term: int = 4, transfer_id: int = 1) -> raft_pb2.SnapshotHeader:
    return raft_pb2.SnapshotHeader(
        greeting=raft_pb2.Greeting(sender="n1"),
        term=term,
        last_index=index,
        last_term=3,
        size_bytes=len(content),
        transfer_id=transfer_id,
    )


def chunk(content: bytes, offset: int, count: int = 1000) -> bytes:
    piece = content[offset : offset + count]
    body = raft_pb2.SnapshotChunk(offset=offset, content=piece, crc32c=value(piece))
    return raft_pb2.TransferSnapshotRequest(chunk=body).SerializeToString()


class Conversation:
    """One stream to a receiver, without a network."""

    def __init__(self, receiver: SnapshotReceiver, first: raft_pb2.SnapshotHeader) -> None:
        self.answers: list[raft_pb2.TransferSnapshotResponse] = []
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.task = asyncio.ensure_future(receiver.receive(first, self._requests.get, self._write))

    async def _write(self, raw: bytes) -> None:
        self.answers.append(raft_pb2.TransferSnapshotResponse.FromString(raw))

    async def say(self, *requests: bytes | None) -> None:
        for request in requests:
            self._requests.put_nowait(request)
        await until(lambda: self._requests.empty() or self.task.done())

    async def offset(self) -> int:
        await until(lambda: self.answers or self.task.done())
        return int(self.answers[0].offset)


def source(size: int = 5000, index: int = 100) -> bytes:
    disk = FaultyDisk()
    return disk.content(write_snapshot(DIRECTORY, disk, index=index, size=size))


class Received:
    """A receiver on a disk of the test, and what it told."""

    def __init__(self, disk: FaultyDisk) -> None:
        disk.make_dirs(DIRECTORY)
        self.disk = disk
        self.told: list[InstallSnapshot] = []
        self.receiver = SnapshotReceiver(DIRECTORY, disk, lambda _sender, snapshot: self.told.append(snapshot))


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        (lambda content: chunk(content, 1000), "a chunk at offset 1000 came, and 0 bytes are here"),
        (lambda content: chunk(content, 0).replace(content[:100], bytes(100)), "checksum of the chunk at offset 0"),
        (lambda content: chunk(content, len(content)), "a chunk at offset"),
        (lambda content: chunk(content + bytes(9), 0, len(content) + 9), "does not fit"),
        (lambda content: chunk(b"", 0), "a chunk of 0 bytes at offset 0 does not fit"),
        (lambda content: b"\xff\xff", "not a redan.raft.v1.TransferSnapshotRequest"),
        (lambda content: b"", "only chunks follow"),
        (
            lambda content: raft_pb2.TransferSnapshotRequest(header=header(content)).SerializeToString(),
            "only chunks follow",
        ),
    ],
)
async def test_a_chunk_that_cannot_be_is_refused_and_leaves_no_file(
    request_of: Callable[[bytes], bytes], says: str
) -> None:
    content = source()
    node = Received(FaultyDisk())
    conversation = Conversation(node.receiver, header(content))
    await conversation.say(request_of(content))
    with pytest.raises(TransferRefused, match=says):
        await conversation.task
    await node.receiver.stop()
    assert node.disk.files() == {}


@pytest.mark.parametrize("field", ["term", "last_index", "last_term", "size_bytes"])
@pytest.mark.parametrize("number", [0, 2**63])
async def test_a_header_with_an_impossible_number_is_refused(field: str, number: int) -> None:
    node = Received(FaultyDisk())
    first = header(source())
    setattr(first, field, number)
    with pytest.raises(TransferRefused, match=f"the number {number}"):
        await Conversation(node.receiver, first).task
    await node.receiver.stop()


async def test_a_configuration_that_cannot_be_read_keeps_the_snapshot_out() -> None:
    disk = FaultyDisk()
    content = disk.content(write_snapshot(DIRECTORY, disk, configuration=b"none"))
    node = Received(FaultyDisk())
    conversation = Conversation(node.receiver, header(content))
    await conversation.say(*(chunk(content, offset, CHUNK_BYTES) for offset in range(0, len(content), CHUNK_BYTES)))
    with pytest.raises(TransferRefused, match="configuration cannot be read"):
        await conversation.task
    await node.receiver.stop()
    assert node.disk.files() == {}


async def test_an_older_leader_does_not_take_the_place_of_a_newer_one() -> None:
    content = source()
    node = Received(FaultyDisk())
    newer = Conversation(node.receiver, header(content, term=5))
    await newer.offset()
    with pytest.raises(TransferRefused, match="a snapshot of term 5 is being received"):
        await Conversation(node.receiver, header(content, term=4, transfer_id=2)).task
    await newer.say(*(chunk(content, offset) for offset in range(0, len(content), 1000)))
    await newer.task
    assert [snapshot.term for snapshot in node.told] == [5]
    await node.receiver.stop()


async def test_another_transfer_begins_at_zero_and_the_same_one_where_the_file_ends() -> None:
    content = source()
    node = Received(FaultyDisk())
    first = Conversation(node.receiver, header(content))
    await first.say(chunk(content, 0), chunk(content, 1000))
    second = Conversation(node.receiver, header(content))
    assert await second.offset() == 2000
    assert first.task.cancelled() or first.task.cancelling() or first.task.done()
    await second.say(chunk(content, 2000), None)
    await second.task
    third = Conversation(node.receiver, header(content))
    assert await third.offset() == 3000
    other = Conversation(node.receiver, header(content, transfer_id=9))
    assert await other.offset() == 0
    await other.say(*(chunk(content, offset) for offset in range(0, len(content), 1000)))
    await other.task
    assert [answer.installed for answer in other.answers] == [False, True]
    # A sender whose stream broke before the last answer asks once more.
    again = Conversation(node.receiver, header(content, transfer_id=9))
    await again.task
    assert again.answers[0].installed
    assert len(node.told) == 1
    await node.receiver.stop()


async def test_a_transfer_that_nobody_goes_on_with_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_receiver, "ABANDONED_SECONDS", 0.02)
    content = source()
    node = Received(FaultyDisk())
    conversation = Conversation(node.receiver, header(content))
    await conversation.say(chunk(content, 0), None)
    await conversation.task
    await until(lambda: not node.disk.files())
    stuck = Conversation(node.receiver, header(content))
    await stuck.say(chunk(content, 0))
    await until(lambda: stuck.task.cancelled() and not node.disk.files())
    await node.receiver.stop()


async def receive_whole(node: Received, content: bytes) -> None:
    conversation = Conversation(node.receiver, header(content))
    await conversation.say(*(chunk(content, offset, 2000) for offset in range(0, len(content), 2000)))
    await conversation.task


async def test_every_failing_call_of_the_disk_fails_the_transfer_and_leaves_no_snapshot_behind() -> None:
    content = source()
    calls = Received(FaultyDisk())
    await receive_whole(calls, content)
    await calls.receiver.stop()
    made = [kind for kind, _ in calls.disk.calls]
    assert {"create", "pwrite", "fsync", "rename", "fsync_dir"} <= set(made)
    for kind in sorted(set(made)):
        for nth in range(1, made.count(kind) + 1):
            node = Received(FaultyDisk())
            node.disk.fail(kind, nth, EIO)
            with pytest.raises(DiskFailed):
                await receive_whole(node, content)
            assert node.told == []
            # The next attempt of the sender finds a receiver as good as new.
            await receive_whole(node, content)
            assert len(node.told) == 1
            await node.receiver.stop()


async def test_what_the_node_was_told_of_survives_a_power_cut() -> None:
    content = source()
    node = Received(FaultyDisk())
    await receive_whole(node, content)
    assert len(node.told) == 1
    await node.receiver.stop()
    for names_kept in range(node.disk.names_pending + 1):
        left = node.disk.after_power_cut(keep_none, names_kept)
        assert left.content(snapshot_path(DIRECTORY, 100, 3)) == content


async def test_what_earlier_runs_left_behind_is_removed() -> None:
    disk = FaultyDisk()
    disk.put(DIRECTORY / INCOMING / "0000000000000064-0000000000000003.snap", b"half")
    path = write_snapshot(DIRECTORY, disk)
    assert remove_partial_snapshots(DIRECTORY, disk) == 1
    assert list(disk.files()) == [path]
    assert remove_partial_snapshots(DIRECTORY, disk) == 0


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
        for first in (b"\xff\xff", b"", chunk(b"abc", 0)):
            async with grpc.aio.insecure_channel(n2.address) as channel:
                call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(TRANSFER_SNAPSHOT)()
                await call.write(first)
                assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
