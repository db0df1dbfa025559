"""DEBUG RELOAD: what serves afterwards came from the disk, and nothing is missing; a difference changes nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from errno import EIO
from typing import Any

import pytest

from kvservice import reload
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, ErrorReply, Reply
from kvservice.errors import RequestError
from kvservice.keyspace.machine import Machine
from kvservice.keyspace.reaper import reap_slice
from kvservice.reload import Reload
from persistence.snapshot import list_snapshots
from replication.core.messages import Entry, EntryKind
from tests.kvservice.test_snapshots import SNAPSHOTS, Bench, content

WAIT_SECONDS = 60.0


class ReloadBench(Bench):
    """A machine with snapshots that can be reloaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.twins: list[Machine] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.before_load: Callable[[], object] = lambda: None
        """Called when the file is written and before it is loaded."""
        self.reload = Reload(SNAPSHOTS, self.disk, self.runner, self.snapshots, self._new_machine, self._spawn)

    def _new_machine(self) -> Machine:
        self.twins.append(Machine(TABLE, 16, random.Random))
        return self.twins[-1]

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self.before_load()
        self.tasks.append(self.loop.create_task(work))

    def begin(self) -> list[Reply]:
        """Begin a reload; return where its reply will be."""
        replies: list[Reply] = []
        self.reload.start().then(replies.append)
        return replies


async def until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def test_the_keys_come_from_the_disk_and_nothing_written_meanwhile_is_missing() -> None:
    bench = ReloadBench()
    for number in range(1500):
        bench.write(f"SET k{number} {number}", f"SETBIT b{number % 50} {number} 1", f"SET d{number} x PX 9000000")
    old = [values for values in bench.machine.databases[0].values if values]
    replies = bench.begin()
    written = 0
    while not replies:
        bench.write(f"SET k{written} changed", f"APPEND b{written % 50} x", f"DEL d{written}", "INCR n")
        if written == 7:
            bench.write("SWAPDB 0 3", "FLUSHDB", "SET fresh 1")
        bench.move_time()
        written += 1
        await asyncio.sleep(0)
    assert replies == [OK]
    assert written > 8
    bench.write("SET after 1")
    assert bench.machine.databases[0].get(b"n") is not None
    now = [values for values in bench.machine.databases[3].values if values]
    assert now
    assert not set(map(id, old)) & set(map(id, now)), "the dicts are new"
    # A machine that only ever replayed the log has the same.
    other = Machine(TABLE, 16, random.Random)
    for entry in bench.storage.entries(1, bench.machine.index):
        other.begin_entry(entry.index, entry.term, entry.stamp_ms, entry.payload)
        other.replay(entry.payload)
        other.end_entry()
    assert content(bench.machine) == content(other)
    assert bench.machine.is_equal(other)
    assert all(bench.machine.has_same_slot(other, slot) for slot in range(16384))
    while reap_slice(bench.machine.databases, 1000):
        pass


async def test_expired_keys_that_one_side_has_removed_do_not_count() -> None:
    bench = ReloadBench()
    bench.write("SET gone 1 PX 1", "SET stays 1")
    for _ in range(5):
        bench.move_time()
    replies = bench.begin()
    bench.machine.databases[0].remove(_slot_of(bench.machine, b"gone"), b"gone")
    await until(lambda: bool(replies))
    assert replies == [OK]
    assert dict(bench.machine.databases[0].items()) == {b"stays": 1}


def _slot_of(machine: Machine, key: bytes) -> int:
    return next(slot for slot, values in enumerate(machine.databases[0].values) if key in values)


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        ("SET k text", lambda values: values.__setitem__(b"k", b"other")),
        ("SET k text", lambda values: values.__setitem__(b"k", bytearray(b"text"))),
        ("SET k text", lambda values: values.__setitem__(b"new", b"1")),
        ("SET k text", lambda values: values.clear()),
    ],
    ids=["value", "form", "more", "fewer"],
)
async def test_a_difference_is_told_and_changes_nothing(line: str, damage: Any) -> None:
    bench = ReloadBench()
    bench.write(line)
    slot = bench.machine.databases[0].values[_slot_of(bench.machine, b"k")]
    bench.before_load = lambda: damage(slot)
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert "are not as they were saved" in str(replies[0].cause)
    assert any(values is slot for values in bench.machine.databases[0].values), "the old keys stay"
    assert bench.runner.follow is None


async def test_a_deadline_that_differs_is_a_difference() -> None:
    bench = ReloadBench()
    bench.write("SET k text PX 900000")
    deadlines = bench.machine.databases[0].expires[_slot_of(bench.machine, b"k")]
    assert deadlines is not None
    bench.before_load = lambda: deadlines.__setitem__(b"k", deadlines[b"k"] + 1)
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)


async def test_another_history_is_a_difference() -> None:
    bench = ReloadBench()
    bench.write("SET k text")

    def fail_on_one_side() -> None:
        bench.machine.digests.failures = 7
        bench.write("SET k text")

    bench.before_load = fail_on_one_side
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert "digests" in str(replies[0].cause)


async def test_a_state_that_is_replaced_meanwhile_ends_the_reload() -> None:
    bench = ReloadBench()
    bench.write("SET k text")

    def replace() -> None:
        bench.machine.stand_at(900, 1, 5000, None)
        bench.runner.apply(Entry(1, 901, EntryKind.NOOP, 5001, b""), None)

    bench.before_load = replace
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert "replaced meanwhile" in str(replies[0].cause)


async def test_more_than_is_kept_ends_the_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "NOTED_BYTES_MAX", 1000)
    bench = ReloadBench()
    bench.write("SET k text")
    replies = bench.begin()
    for _ in range(20):
        bench.write(f"SET k {'v' * 200}")
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert "more was written meanwhile" in str(replies[0].cause)
    assert bench.machine.databases[0].get(b"k") == b"v" * 200


async def test_one_at_a_time_and_not_while_a_snapshot_is_written() -> None:
    bench = ReloadBench()
    bench.write("SET k text")
    replies = bench.begin()
    with pytest.raises(RequestError, match="under way already"):
        bench.reload.start()
    await until(lambda: bool(replies))
    saved: list[Reply] = []
    bench.snapshots.save().then(saved.append)
    with pytest.raises(RequestError, match="already in progress"):
        bench.reload.start()
    assert bench.runner.follow is None
    await until(lambda: bool(saved))
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert replies == [OK]


async def test_a_file_that_is_damaged_meanwhile_changes_nothing() -> None:
    bench = ReloadBench()
    bench.write("SET k text")
    bench.before_load = lambda: bench.disk.flip(list_snapshots(SNAPSHOTS, bench.disk)[0].path, 60)
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert bench.machine.databases[0].get(b"k") == b"text"


async def test_a_defect_is_answered_and_reported_and_leaves_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ReloadBench()
    bench.write("SET k text")
    with monkeypatch.context() as broken:
        broken.setattr(bench.machine, "is_equal", lambda _other: 1 // 0)
        replies = bench.begin()
        await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert str(replies[0].cause) == "internal error in 'debug|reload': ZeroDivisionError"
    with pytest.raises(ZeroDivisionError):
        await bench.tasks[0]
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert replies == [OK]


async def test_a_snapshot_that_fails_is_the_answer() -> None:
    bench = ReloadBench()
    bench.write("SET k text")
    bench.disk.fail("fsync", 1, EIO)
    replies = bench.begin()
    await until(lambda: bool(replies))
    assert isinstance(replies[0], ErrorReply)
    assert bench.runner.follow is None
