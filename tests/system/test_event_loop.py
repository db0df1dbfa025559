"""The event loop of a whole node, in this process: nothing that serves clients waits for a disk, a lock or a sleep."""

import asyncio
import os
import signal
import socket
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import blockbuster
import pytest
import redis.asyncio
from blockbuster import BlockBuster, BlockBusterFunction

from kvservice.config_load import load_config
from kvservice.server import Server

WAIT_SECONDS = 60.0
NOWHERE = "127.0.0.1:0"
SERVING = ["kvservice", "replication", "persistence"]
# blockbuster knows sleep, sockets, locks and streams; these are what a log and its snapshots wait for.
DISK_CALLS = ("fsync", "fdatasync", "pwritev", "pread", "open", "close", "rename", "ftruncate", "posix_fallocate")


class Recorded(blockbuster.BlockingError):
    """A blocking call that is remembered even where somebody catches the exception."""

    seen: list[str]

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.seen.append(f"{call}\n{''.join(traceback.format_stack(limit=8))}")


@pytest.fixture
def blocking_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls that blocked the loop since the guard was set."""
    Recorded.seen = []
    monkeypatch.setattr("blockbuster.blockbuster.BlockingError", Recorded)
    return Recorded.seen


def guard() -> BlockBuster:
    """Return a guard of the loop that also knows the calls of a disk."""
    guard = BlockBuster(SERVING)
    for name in DISK_CALLS:
        guard.functions[f"os.{name}"] = BlockBusterFunction(os, name, scanned_modules=SERVING)
    return guard


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    places = {f"{plane}_addr": NOWHERE for plane in ("grpc", "peer", "admin")}
    places["resp_addr"] = f"127.0.0.1:{free_port}"
    loaded = load_config(
        {**places, "data_dir": str(tmp_path / "data"), "log_level": "error", "wal_segment_bytes": "64kb"}, {}
    )
    server = Server(loaded.config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(WAIT_SECONDS):
        while not server.is_started:
            assert not serving.done(), serving
            await asyncio.sleep(0.01)
    yield server
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, WAIT_SECONDS) == 0


async def use(client: redis.asyncio.Redis) -> None:
    """Do a bit of everything, and so much of it that segments of the log are switched and purged behind snapshots."""
    for turn in range(1, 4):
        async with client.pipeline(transaction=False) as pipeline:
            for number in range(500):
                pipeline.set(f"key:{number}", "x" * 300, px=None if number % 2 else 50)
                pipeline.incr("count")
            await pipeline.execute()
        assert await client.get("count") == b"%d" % (turn * 500)
        assert await client.bgsave()
        async with asyncio.timeout(WAIT_SECONDS):
            while (await client.info("persistence"))["rdb_bgsave_in_progress"] or await client.dbsize() > 251:
                await asyncio.sleep(0.01)
    await client.config_set("maxmemory", "1gb")
    await client.flushall()


async def test_serving_never_blocks_the_loop(node: Server, blocking_calls: list[str]) -> None:
    client = redis.asyncio.Redis(port=node.config.resp_addr.port)
    try:
        await client.ping()
        with_guard = guard()
        with_guard.activate()
        try:
            await use(client)
            async with asyncio.timeout(WAIT_SECONDS):
                while node.group.wal is None or node.group.wal.first_index == 1:
                    await asyncio.sleep(0.01)
        finally:
            with_guard.deactivate()
    finally:
        await client.aclose()
    assert blocking_calls == []


async def test_the_guard_sees_a_sync_on_the_loop(blocking_calls: list[str], tmp_path: Path) -> None:
    from persistence.disk import RealDisk

    disk = RealDisk()
    with_guard = guard()
    with_guard.activate()
    try:
        with pytest.raises(blockbuster.BlockingError):
            disk.fsync_dir(tmp_path)
    finally:
        with_guard.deactivate()
    assert blocking_calls
