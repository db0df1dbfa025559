"""When snapshots are taken, what is kept and purged, and what a failing disk leaves behind."""

from __future__ import annotations

import asyncio
import random
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest

from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, ErrorReply, Reply
from kvservice.config import Config
from kvservice.errors import RequestError
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.machine import Machine
from kvservice.recovery import load_snapshot
from kvservice.runner import Runner
from kvservice.snapshots import Snapshots
from kvservice.stats import Stats
from persistence.errors import Damaged
from persistence.snapshot import list_snapshots
from persistence.wal import Wal, WalOptions
from replication.core.messages import Entry, EntryKind
from replication.storage import Storage
from tests.harness.disk import FaultyDisk

DATA = Path("/data")
SNAPSHOTS = DATA / "snapshots"
WAIT_SECONDS = 60.0


class Bench:
    """A machine, its log and its snapshots on a disk in memory."""

    def __init__(self, **settings: Any) -> None:
        self.disk = FaultyDisk()
        self.disk.make_dirs(SNAPSHOTS)
        self.config = Config(**settings)
        self.machine = Machine(TABLE, 16, random.Random)
        self.runner = Runner(self.machine, Stats(self.config), lambda _session: None)
        self.wal, _ = Wal.open(DATA / "wal", self.disk, WalOptions(segment_bytes=64 * 1024), salt=b"saltsalt")
        self.storage = Storage(self.wal)
        self.loop = asyncio.get_running_loop()
        self.snapshots = Snapshots(
            SNAPSHOTS, self.disk, self.config, self.machine, self.storage, self.wal.stats, self.loop
        )

    def write(self, *lines: str) -> None:
        """Put one entry into the log and apply it."""
        self._append(EntryKind.COMMANDS, encode_commands([line.encode().split() for line in lines]))

    def move_time(self) -> None:
        """Put an entry without a write into the log and apply it, as a start and a read of an expired key do."""
        self._append(EntryKind.NOOP, b"")

    def _append(self, kind: EntryKind, payload: bytes) -> None:
        entry = Entry(1, self.machine.index + 1, kind, 1000 + self.machine.index, payload)
        self.storage.append(None, [entry], 0, entry.index)
        self.wal.write_queued()
        self.runner.apply(entry, None)

    def is_saving(self) -> bool:
        """Whether a snapshot is being written now."""
        return self.snapshots.in_progress

    async def saved(self) -> Reply:
        """Take a snapshot and return its reply."""
        replies: list[Reply] = []
        self.snapshots.save().then(replies.append)
        await until(lambda: bool(replies))
        return replies[0]

    async def loaded(self) -> Machine:
        """Return a machine with the newest snapshot in it."""
        machine = Machine(TABLE, 16, random.Random)
        await load_snapshot(SNAPSHOTS, self.disk, machine, self.wal.first_index)
        return machine

    @property
    def indexes(self) -> list[int]:
        """Indexes of the snapshots on disk, the newest first."""
        return [file.last_index for file in list_snapshots(SNAPSHOTS, self.disk)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


def content(machine: Machine) -> list[list[tuple[bytes, object]]]:
    # Later commands change a bytearray in place.
    return [
        [(key, bytearray(value) if isinstance(value, bytearray) else value) for key, value in database.items()]
        for database in machine.databases
    ]


async def test_a_snapshot_holds_the_moment_it_was_asked_for_whatever_is_written_meanwhile() -> None:
    bench = Bench()
    for number in range(3000):
        bench.write(f"SET k{number} {number}", f"SETBIT b{number % 50} {number} 1")
    before = content(bench.machine)
    pending = bench.snapshots.save()
    replies: list[Reply] = []
    pending.then(replies.append)
    for number in range(1500):
        bench.write(f"SET k{number} changed", f"DEL k{number + 1}", f"SETBIT b{number % 50} {number} 0")
        if number % 100 == 0:
            await asyncio.sleep(0)
    bench.write("SWAPDB 0 1", "FLUSHALL")
    await until(lambda: bool(replies))
    assert replies == [OK]
    loaded = await bench.loaded()
    assert content(loaded) == before
    assert (loaded.index, loaded.clock.stamp_ms) == (3000, 1000 + 2999)


async def test_two_snapshots_are_kept_and_the_log_goes_behind_the_older() -> None:
    bench = Bench()
    for number in range(1, 6):
        for _ in range(20):
            bench.write(f"SET k{number} {'v' * 8000}")
        assert await bench.saved() == OK
    assert bench.indexes == [100, 80]
    assert bench.snapshots.taken == 5
    assert 1 < bench.wal.first_index <= 81
    assert [entry.index for entry in bench.storage.entries(81, 100)] == list(range(81, 101))


async def test_the_first_snapshot_alone_purges_nothing() -> None:
    bench = Bench()
    for _ in range(40):
        bench.write(f"SET k {'v' * 8000}")
    assert await bench.saved() == OK
    assert bench.wal.first_index == 1


async def test_a_damaged_newest_snapshot_costs_nothing_while_the_log_reaches_back() -> None:
    bench = Bench()
    for number in range(3):
        bench.write(f"SET k{number} v")
        await bench.saved()
    newest = list_snapshots(SNAPSHOTS, bench.disk)[0].path
    bench.disk.flip(newest, len(bench.disk.content(newest)) - 10)
    loaded = await bench.loaded()
    assert loaded.index == 2
    assert loaded.databases[0].key_count == 2


async def test_damage_of_all_snapshots_is_refused_once_the_log_is_purged() -> None:
    bench = Bench()
    for _ in range(3):
        for _ in range(20):
            bench.write(f"SET k {'v' * 8000}")
        await bench.saved()
    assert bench.wal.first_index > 1
    for file in list_snapshots(SNAPSHOTS, bench.disk):
        bench.disk.flip(file.path, len(bench.disk.content(file.path)) - 10)
    with pytest.raises(Damaged):
        await bench.loaded()


async def test_a_snapshot_is_due_by_bytes() -> None:
    bench = Bench(snapshot_every_bytes=10_000, snapshot_every_seconds=0)
    bench.write("SET k v")
    bench.snapshots.start_if_due()
    assert not bench.is_saving()
    bench.write(f"SET k {'v' * 10_000}")
    bench.snapshots.start_if_due()
    assert bench.is_saving()
    assert bench.snapshots.current_seconds >= 0
    await until(lambda: not bench.snapshots.in_progress)
    assert bench.indexes == [2]
    assert bench.snapshots.changes_since_last == 0
    bench.snapshots.start_if_due()
    assert not bench.is_saving()


async def test_a_snapshot_is_due_by_time_but_not_without_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(snapshot_every_bytes=0, snapshot_every_seconds=60)
    started_s = bench.loop.time()
    now_s = [started_s]
    monkeypatch.setattr(bench.snapshots, "_loop", Clock(bench.loop, now_s))
    now_s[0] = started_s + 100
    bench.snapshots.start_if_due()
    assert not bench.is_saving(), "nothing has changed"
    bench.move_time()
    bench.snapshots.start_if_due()
    assert not bench.is_saving(), "an entry without a write changes no key"
    bench.write("SET k v")
    now_s[0] = started_s + 59
    bench.snapshots.start_if_due()
    assert not bench.is_saving()
    now_s[0] = started_s + 61
    bench.snapshots.start_if_due()
    assert bench.is_saving()
    await until(lambda: not bench.snapshots.in_progress)
    assert bench.indexes == [2]


async def test_entries_without_a_write_are_no_changes_and_make_no_closing_snapshot() -> None:
    bench = Bench()
    bench.move_time()
    assert bench.snapshots.changes_since_last == 0
    await bench.snapshots.save_and_wait()
    assert bench.indexes == []
    bench.write("SET k v")
    bench.move_time()
    bench.snapshots.save()
    bench.write("SET k w")
    await until(lambda: not bench.snapshots.in_progress)
    assert bench.indexes == [3]
    assert bench.snapshots.changes_since_last == 1, "written while the snapshot was taken"


async def test_a_log_that_grew_by_entries_without_writes_is_cut_all_the_same() -> None:
    bench = Bench(snapshot_every_bytes=10_000, snapshot_every_seconds=0)
    for _ in range(1000):
        bench.move_time()
    bench.snapshots.start_if_due()
    assert bench.is_saving()
    await until(lambda: not bench.snapshots.in_progress)
    assert bench.indexes == [1000]


async def test_every_slice_is_noted_and_the_longest_is_kept() -> None:
    bench = Bench()
    for number in range(3000):
        bench.write(f"SET k{number} {number}")
    noted: list[tuple[str, float]] = []
    bench.snapshots.note = lambda event, milliseconds: noted.append((event, milliseconds))
    assert bench.snapshots.slice_seconds_max == 0
    assert await bench.saved() == OK
    assert {event for event, _ in noted} == {"snapshot"}
    assert bench.snapshots.slice_seconds_max * 1000 == max(milliseconds for _, milliseconds in noted) > 0


class Clock:
    """The event loop with a clock that a test sets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_s: list[float]) -> None:
        self._now_s = now_s
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later
        self.call_soon_threadsafe = loop.call_soon_threadsafe

    def time(self) -> float:
        """What the test set."""
        return self._now_s[0]


async def test_zero_switches_both_reasons_off() -> None:
    bench = Bench(snapshot_every_bytes=0, snapshot_every_seconds=0)
    bench.write(f"SET k {'v' * 100_000}")
    bench.snapshots.start_if_due()
    assert not bench.is_saving()


async def test_a_second_save_meanwhile_is_refused_in_redis_words() -> None:
    bench = Bench()
    bench.write("SET k v")
    first = bench.snapshots.save()
    with pytest.raises(RequestError, match="Background save already in progress"):
        bench.snapshots.save()
    await until(lambda: first.is_resolved)


async def test_one_that_was_received_meanwhile_stays_the_newest() -> None:
    bench = Bench()
    bench.write("SET k v")
    pending = bench.snapshots.save()
    bench.snapshots.last_index = 100
    await until(lambda: pending.is_resolved)
    assert bench.indexes == [1]
    assert (bench.snapshots.taken_index, bench.snapshots.last_index) == (1, 100)


async def test_a_clean_stop_waits_for_the_running_snapshot_and_takes_one_of_the_end() -> None:
    bench = Bench()
    bench.write("SET k v")
    bench.snapshots.save()
    bench.write("SET k w")
    await bench.snapshots.save_and_wait()
    assert bench.indexes == [2, 1]
    await bench.snapshots.save_and_wait()
    assert bench.snapshots.taken == 2, "nothing has changed since"


@pytest.mark.parametrize(("call", "errno"), [("pwrite", ENOSPC), ("fsync", EIO), ("rename", EIO), ("create", ENOSPC)])
async def test_a_snapshot_that_fails_is_answered_and_leaves_no_file_behind(call: str, errno: int) -> None:
    bench = Bench()
    bench.write("SET k v")
    files = set(bench.disk.files())
    bench.disk.fail(call, 1, errno)
    reply = await bench.saved()
    assert isinstance(reply, ErrorReply)
    assert reply.text.startswith(b"ERR snapshot failed: ")
    assert (bench.snapshots.last_ok, bench.snapshots.in_progress, bench.machine.snapshot) == (False, False, None)
    assert set(bench.disk.files()) == files
    bench.write("SET k w")
    assert await bench.saved() == OK
    assert bench.snapshots.taken == 1
    assert bench.indexes == [2]


async def test_an_old_snapshot_that_cannot_be_removed_does_not_fail_the_new_one() -> None:
    bench = Bench()
    for number in range(2):
        bench.write(f"SET k {number}")
        await bench.saved()
    bench.write("SET k 3")
    bench.disk.fail("unlink", 1, EIO)
    assert await bench.saved() == OK
    assert bench.indexes == [3, 2, 1]
    bench.write("SET k 4")
    assert await bench.saved() == OK
    assert bench.indexes == [4, 3]
