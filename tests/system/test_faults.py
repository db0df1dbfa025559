"""A disk that fails, fills up or lies: the node stops with exit code 3 and acknowledges nothing that is not there."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from kvservice.server import EXIT_STORAGE
from persistence.disk import RealDisk
from persistence.segment import FrameReader, list_segments, read_header
from tests.harness.local_server import WAIT_SECONDS, LocalServer, until
from tests.harness.process import ROOT, TIMEOUT_S, NodeProcess
from tests.harness.small_disk import SMALL_DISK_BYTES, needs_mount, small_disk

# -- a disk that is full -----------------------------------------------------------------------------------------------


class NodeOnSmallDisk(NodeProcess):
    """A node whose data is on a small disk and whose log is not."""

    def __init__(self, disk: Path, folder: Path, *options: str) -> None:
        super().__init__(disk, *options)
        self.log_path = folder / "node.log"


@needs_mount
def test_a_full_disk_stops_the_node_without_acknowledging_what_is_not_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        node = NodeOnSmallDisk(disk, tmp_path, "--wal-segment-bytes", "1mb", "--snapshot-every-seconds", "0")
        try:
            node.start()
            acknowledged = write_until_broken(node)
            assert node.wait() == EXIT_STORAGE
            [failure] = [event for event in node.events() if event["event"] == "disk_failed"]
            assert "No space left on device" in str(failure["error"])
            assert str(disk) in str(failure["error"])
            assert acknowledged > 100
        finally:
            node.kill()
        roomy = tmp_path / "roomy"
        roomy.mkdir()
        shutil.copytree(disk / "data", roomy / "data")
    with NodeProcess(roomy) as again, again.client() as client:
        assert client.dbsize() >= acknowledged
        assert client.exists(*(f"k{number}" for number in range(acknowledged))) == acknowledged


def write_until_broken(node: NodeProcess) -> int:
    """Write numbered keys one by one; return how many were acknowledged, in order."""
    acknowledged = 0
    with node.client() as client:
        for number in range(100_000):
            try:
                client.set(f"k{number}", os.urandom(8000))
            except (redis.ConnectionError, redis.TimeoutError):
                return acknowledged
            acknowledged += 1
    raise AssertionError("the disk did not fill up")


@needs_mount
def test_a_node_that_finds_its_disk_full_at_the_start_ends_instead_of_waiting(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(SMALL_DISK_BYTES - 64 * 1024))
        node = NodeOnSmallDisk(disk, tmp_path)
        with pytest.raises(RuntimeError, match="the node ended with 3"):
            node.start()
        filler.unlink()
        with node, node.client() as client:
            assert client.set("k", "v") is True
            assert node.stop() == 0


# -- calls that fail ---------------------------------------------------------------------------------------------------


async def test_after_a_failed_sync_nothing_is_acknowledged_and_the_node_ends(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    reader, writer = await node.connect()
    writer.write(b"SET before 1\r\n")
    assert await reader.readline() == b"+OK\r\n"
    node.disk.is_failing = True
    writer.write(b"SET after 1\r\nGET before\r\nSET after 2\r\nPING\r\n")
    answered = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
    assert b"+OK" not in answered
    assert await node.ended() == EXIT_STORAGE
    assert node.disk.failures >= 1
    writer.close()
    again = LocalServer(tmp_path / "data")
    reader, writer = await again.connect()
    writer.write(b"GET before\r\n")
    assert await reader.readline() == b"$1\r\n"
    assert await reader.readline() == b"1\r\n"
    writer.close()
    assert await again.stopped() == 0


async def test_a_vote_that_cannot_be_made_durable_ends_the_node(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    node.disk.is_failing_frames = True
    assert await node.ended() == EXIT_STORAGE
    assert not node.server.is_started
    again = LocalServer(tmp_path / "data")
    _reader, writer = await again.connect()
    writer.close()
    assert await again.stopped() == 0


async def test_with_many_writers_no_reply_follows_the_failure(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    streams = [await node.connect() for _ in range(10)]
    acknowledged = [0] * len(streams)

    async def write(number: int) -> None:
        reader, writer = streams[number]
        for value in range(100_000):
            try:
                writer.write(b"SET w%d %d\r\n" % (number, value))
                if await reader.readline() != b"+OK\r\n":
                    return
            except ConnectionError:
                return
            acknowledged[number] = value

    writers = [asyncio.create_task(write(number)) for number in range(len(streams))]
    await until(lambda: min(acknowledged) > 5)
    node.disk.is_failing = True
    await asyncio.wait_for(asyncio.gather(*writers), WAIT_SECONDS)
    assert await node.ended() == EXIT_STORAGE
    for _reader, writer in streams:
        writer.close()
    again = LocalServer(tmp_path / "data")
    reader, writer = await again.connect()
    for number, value in enumerate(acknowledged):
        writer.write(b"GET w%d\r\n" % number)
        await reader.readline()
        assert int(await reader.readline()) >= value
    writer.close()
    assert await again.stopped() == 0


async def test_a_failure_while_the_node_stops_is_told_by_the_exit_code(tmp_path: Path) -> None:
    node = LocalServer(tmp_path / "data")
    reader, writer = await node.connect()
    writer.write(b"SET k 1\r\n")
    assert await reader.readline() == b"+OK\r\n"
    node.disk.is_failing = True
    assert await node.stopped() == EXIT_STORAGE
    writer.close()


@pytest.mark.parametrize("fsync", ["always", "interval"])
async def test_a_failed_snapshot_alone_stops_nothing(tmp_path: Path, fsync: str) -> None:
    node = LocalServer(tmp_path / "data", fsync=fsync)
    reader, writer = await node.connect()
    writer.write(b"SET k 1\r\n")
    assert await reader.readline() == b"+OK\r\n"
    snapshots = node.config.data_dir / "snapshots"
    snapshots.rename(snapshots.with_name("away"))
    writer.write(b"SAVE\r\n")
    assert (await reader.readline()).startswith(b"-ERR snapshot failed: ")
    snapshots.with_name("away").rename(snapshots)
    writer.write(b"SET k 2\r\nSAVE\r\n")
    assert [await reader.readline() for _ in range(2)] == [b"+OK\r\n"] * 2
    writer.close()
    assert await node.stopped() == 0


# -- bytes that changed ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 200 commands, as kill -9 leaves it."""
    folder = tmp_path_factory.mktemp("killed")
    with NodeProcess(folder, "--snapshot-every-seconds", "0") as node, node.client() as client:
        for number in range(200):
            client.set(f"k{number}", "v" * 50)
    return folder


def copy_of(killed: Path, folder: Path) -> NodeProcess:
    shutil.copytree(killed / "data", folder / "data")
    return NodeProcess(folder)


def frame_ends(data_dir: Path) -> tuple[Path, list[int]]:
    """Return the last segment and where each of its frames ends."""
    disk = RealDisk()
    path = list_segments(data_dir / "wal", disk)[0][-1].path
    handle = disk.open(path, "read")
    try:
        return path, [frame.end for frame in FrameReader(disk, handle, read_header(disk, handle, path))]
    finally:
        disk.close(handle)


def test_a_flipped_byte_in_the_middle_is_refused_by_name_and_nothing_is_changed(killed: Path, tmp_path: Path) -> None:
    node = copy_of(killed, tmp_path)
    path, ends = frame_ends(node.data_dir)
    content = bytearray(path.read_bytes())
    place = ends[100] + (ends[101] - ends[100]) // 2
    content[place] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match="the node ended with 3") as refused:
        node.start()
    assert f"{path} is damaged at offset {ends[100]}" in str(refused.value)
    assert "redan verify DIR" in str(refused.value)
    assert path.read_bytes() == content
    command = [sys.executable, "-m", "kvservice", "verify", str(node.data_dir)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert found.returncode == 3
    assert f"damaged at offset {ends[100]}" in found.stdout


def test_a_log_cut_off_anywhere_opens_with_all_its_whole_batches(killed: Path, tmp_path: Path) -> None:
    source, ends = frame_ends(killed / "data")
    chance = random.Random(11)
    # All but the last frames are known durable, so a cut there would be damage; of the tail any byte may be missing.
    for number, cut in enumerate(sorted(chance.sample(range(ends[-2], ends[-1] + 300), 4))):
        folder = tmp_path / str(number)
        folder.mkdir()
        node = copy_of(killed, folder)
        path = node.data_dir / "wal" / source.name
        os.truncate(path, cut)
        with node, node.client() as client:
            whole = sum(end <= cut for end in ends)
            # The first two frames are the vote and the no-op, each other one a SET or the mark of an idle log.
            lost = len(ends) - whole
            assert client.dbsize() >= 200 - lost
            assert client.dbsize() in (199, 200)
            told = [event for event in node.events() if event.get("event") == "log_tail_cut"]
            torn = [(str(path), ends[whole - 1], cut - ends[whole - 1])] if ends[whole - 1] < cut < ends[-1] else []
            assert [(event["file"], event["offset"]) for event in told] == [place[:2] for place in torn]
            assert all(0 < int(str(event["bytes"])) <= place[2] for event, place in zip(told, torn, strict=True))


def test_a_missing_log_is_refused_and_not_begun_anew(killed: Path, tmp_path: Path) -> None:
    node = copy_of(killed, tmp_path)
    path, _ends = frame_ends(node.data_dir)
    path.unlink()
    with pytest.raises(RuntimeError, match="the node ended with 3"):
        node.start()
    assert list((node.data_dir / "wal").iterdir()) == []


def test_missing_snapshots_are_refused_once_the_log_was_purged_behind_them(tmp_path: Path) -> None:
    flags = ("--wal-segment-bytes", "64kb")
    node = NodeProcess(tmp_path, *flags)
    with node, node.client() as client:
        for _ in range(3):
            for number in range(10):
                client.set(f"k{number}", "v" * 60_000)
            client.save()
    for snapshot in (node.data_dir / "snapshots").glob("*.snap"):
        snapshot.unlink()
    with pytest.raises(RuntimeError, match="the node ended with 3") as refused:
        node.start()
    assert "after which the log begins" in str(refused.value)
