"""From the disk to a machine: which snapshot is taken, what progress is told, what is refused."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from kvservice import recovery
from kvservice.commands.registry import TABLE
from kvservice.config import Config
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.image import SnapshotWalk
from kvservice.keyspace.machine import Machine
from kvservice.service import Service
from kvservice.stats import Stats
from persistence.errors import Damaged
from persistence.snapshot import SnapshotMeta, SnapshotWriter, snapshot_path
from persistence.wal import Wal, WalOptions
from replication.core.messages import Entry, EntryKind, HardState
from replication.node import Node
from replication.storage import LogEnd, Storage
from tests.harness.disk import FaultyDisk

SNAPSHOTS = Path("/data/snapshots")
LOG = Path("/data/wal")
SALT = b"saltsalt"


def new_machine() -> Machine:
    return Machine(TABLE, 16, random.Random)


def filled(keys: int) -> Machine:
    machine = new_machine()
    machine.begin_entry(keys, 2, 5_000, b"")
    machine.replay(encode_commands([[b"SET", b"k%d" % number, b"v"] for number in range(keys)]))
    machine.end_entry()
    return machine


def write_snapshot(disk: FaultyDisk, machine: Machine) -> Path:
    """Write what a machine holds, in this thread."""
    disk.make_dirs(SNAPSHOTS)
    failed: list[object] = []
    writer = SnapshotWriter(
        SNAPSHOTS,
        disk,
        SnapshotMeta(machine.index, machine.term, machine.clock.stamp_ms, machine.configuration),
        on_finished=lambda _path: None,
        on_failed=failed.append,
        threaded=False,
    )
    walk = machine.begin_walk()
    machine.snapshot = None
    while (chunk := walk.next_slice(500)) is not None:
        assert writer.put(chunk)
    writer.finish(walk.items, walk.digest.to_bytes(8, "big"))
    writer.run()
    assert failed == []
    return snapshot_path(SNAPSHOTS, machine.index, machine.term)


async def test_without_snapshots_the_machine_stays_empty() -> None:
    disk = FaultyDisk()
    disk.make_dirs(SNAPSHOTS)
    machine = new_machine()
    assert await recovery.load_snapshot(SNAPSHOTS, disk, machine, 1) is None
    assert machine.index == 0


async def test_the_newest_snapshot_is_loaded_and_unfinished_ones_are_removed() -> None:
    disk = FaultyDisk()
    write_snapshot(disk, filled(10))
    write_snapshot(disk, filled(300))
    leftover = SNAPSHOTS / f"{999:016x}-{2:016x}.snap.tmp"
    disk.put(leftover, b"half")
    machine = new_machine()
    meta = await recovery.load_snapshot(SNAPSHOTS, disk, machine, 1)
    assert meta is not None
    assert (meta.last_index, machine.index, machine.term, machine.clock.stamp_ms) == (300, 300, 2, 5_000)
    assert machine.databases[0].key_count == 300
    assert not machine.context.applying
    assert leftover not in disk.files()


async def test_a_snapshot_brings_back_all_that_is_replicated() -> None:
    disk = FaultyDisk()
    ours = filled(10)
    ours.configuration = b"members"
    ours.begin_entry(11, 2, 6_000, payload := encode_commands([[b"REDAN.ONCE", b"id", b"INCR", b"n"]]))
    ours.replay(payload)
    ours.end_entry()
    write_snapshot(disk, ours)
    machine = new_machine()
    await recovery.load_snapshot(SNAPSHOTS, disk, machine, 1)
    assert machine.configuration == b"members"
    assert machine.once.answers() == ours.once.answers() != []
    assert machine.digests.value == ours.digests.value
    for one in (ours, machine):
        one.begin_entry(12, 2, 9_000, payload)
        one.replay(payload)
        one.end_entry()
        assert one.databases[0].get(b"n") == 1
    assert machine.digests.checkpoint() == ours.digests.checkpoint()


async def test_a_snapshot_whose_digest_is_not_that_of_its_content_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk()
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotWalk, "digest", property(lambda _walk: 1, lambda _walk, _value: None), raising=False)
        path = write_snapshot(disk, filled(10))
    with pytest.raises(Damaged, match=f"{path.name}.*digest of the content"):
        await recovery.load_file(path, disk, new_machine())


@pytest.mark.parametrize("place", [20, -4])
async def test_nothing_of_a_damaged_snapshot_is_kept_when_an_older_one_stands_in(place: int) -> None:
    disk = FaultyDisk()
    write_snapshot(disk, filled(10))
    newest = write_snapshot(disk, filled(300))
    disk.flip(newest, len(disk.content(newest)) + place if place < 0 else place)
    machine = new_machine()
    meta = await recovery.load_snapshot(SNAPSHOTS, disk, machine, 11)
    assert meta is not None
    assert meta.last_index == 10
    assert machine.databases[0].key_count == 10


async def test_an_older_snapshot_does_not_stand_in_when_the_log_begins_behind_it() -> None:
    disk = FaultyDisk()
    write_snapshot(disk, filled(10))
    newest = write_snapshot(disk, filled(300))
    disk.flip(newest, len(disk.content(newest)) - 4)
    with pytest.raises(Damaged, match=newest.name):
        await recovery.load_snapshot(SNAPSHOTS, disk, new_machine(), 12)


async def test_damage_without_any_way_back_but_the_whole_log_uses_the_log() -> None:
    disk = FaultyDisk()
    newest = write_snapshot(disk, filled(10))
    disk.flip(newest, len(disk.content(newest)) - 4)
    machine = new_machine()
    assert await recovery.load_snapshot(SNAPSHOTS, disk, machine, 1) is None
    assert machine.databases[0].key_count == 0
    with pytest.raises(Damaged):
        await recovery.load_snapshot(SNAPSHOTS, disk, machine, 2)


async def test_loading_gives_way_to_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk()
    write_snapshot(disk, filled(3000))
    monkeypatch.setattr(recovery, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(recovery, "PROGRESS_SECONDS", 0.0)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_turns())
    await recovery.load_snapshot(SNAPSHOTS, disk, new_machine(), 1)
    counter.cancel()
    assert turns >= 3


class Replaying:
    """A node over a log in memory with entries of an earlier run."""

    def __init__(self, entries: int) -> None:
        disk = FaultyDisk()
        wal, _report = Wal.open(LOG, disk, WalOptions(segment_bytes=64 * 1024), salt=SALT)
        storage = Storage(wal)
        for index in range(1, entries + 1):
            payload = encode_commands([[b"INCR", b"n"]])
            storage.append(None, [Entry(1, index, EntryKind.COMMANDS, 1000 + index, payload)], 0, 0)
        wal.write_queued()
        self.wal, _report = Wal.open(LOG, disk.after_kill(), WalOptions(), salt=SALT)
        self.storage = Storage(self.wal)
        end = self.storage.recover(0, 0)
        loop = asyncio.get_running_loop()
        config = Config()
        service = Service(config, TABLE, new_machine(), Stats(config), loop.call_soon, loop.call_later)
        self.machine = service.machine
        raft = recovery.new_raft("n1", end, 0)
        self.node = Node(raft, self.storage, service.runner, wall_clock_ms=lambda: 0, last_stamp_ms=end.last_stamp_ms)

    async def write(self) -> None:
        """Be the writer thread for a while."""
        for _ in range(1000):
            token = self.wal.write_queued()
            if token is not None:
                self.node.durable(token)
            await asyncio.sleep(0)


async def test_replay_returns_when_the_node_leads_and_everything_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PROGRESS_SECONDS", 0.0)
    replaying = Replaying(500)
    replaying.node.start()
    writer = asyncio.create_task(replaying.write())
    async with asyncio.timeout(60):
        await recovery.replay(replaying.node)
    writer.cancel()
    assert replaying.node.is_leader
    assert replaying.node.applied_index == replaying.node.commit_index == 501
    assert replaying.machine.databases[0].get(b"n") == 500
    assert replaying.machine.clock.stamp_ms == 1500, "the no-op is not stamped before the entries it follows"


async def test_replay_of_a_stopped_node_ends() -> None:
    replaying = Replaying(5)
    replaying.node.start()
    replaying.node.stop()
    async with asyncio.timeout(60):
        await recovery.replay(replaying.node)
    assert not replaying.node.is_replayed


def test_the_core_begins_where_the_disk_ends() -> None:
    raft = recovery.new_raft("n7", LogEnd(9, 4, HardState(5, "n7"), 0), 3)
    assert (raft.name, raft.configuration.voters, raft.term, raft.vote) == ("n7", ("n7",), 5, "n7")
    assert (raft.log.last_index, raft.log.last_term, raft.log.applied, raft.log.committed) == (9, 4, 3, 3)
