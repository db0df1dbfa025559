"""The receiver of snapshots alone: what a sender could say, streams that follow each other, failing disks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from errno import EIO
from pathlib import Path

import pytest
from google_crc32c import value

from persistence.errors import DiskFailed
from persistence.snapshot import snapshot_path
from redan.raft.v1 import raft_pb2
from replication import snapshot_receiver
from replication.core.messages import InstallSnapshot
from replication.snapshot_receiver import INCOMING, SnapshotReceiver, TransferRefused, remove_partial_snapshots
from replication.snapshot_stream import CHUNK_BYTES
from tests.harness.disk import FaultyDisk, keep_none
from tests.harness.peer_nodes import until
from tests.harness.snapshots import write_snapshot

DIRECTORY = Path("/data/snapshots")


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
    # Taken from the stream is not on its way to the disk: what ends the stream in between loses the chunk.
    await until(lambda: [len(content) for content in node.disk.files().values()] == [2000])
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
