"""A snapshot is the keyspace of the moment it began, whatever is written while it walks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvservice.keyspace.database import NO_DEADLINES, NO_VALUES, Clock, Database, TooFewDatabases
from kvservice.keyspace.digest import ChainState
from kvservice.keyspace.expiry import expire_slice
from kvservice.keyspace.image import CHUNK_BYTES, SLOT_KEYS_MAX, ImageDamaged, ImageLoader, SnapshotWalk
from kvservice.keyspace.kinds import KINDS, KINDS_BY_CODE, Kind, register
from kvservice.keyspace.once import Answer, OnceTable
from kvservice.keyspace.slots import slot_of
from kvservice.keyspace.values import Value
from tests.harness.inprocess import DATABASES, InProcess
from tests.harness.work import steps_of

STEPS_MAX = 100_000
State = list[list[tuple[bytes, type, Any, int | None]]]


def state_of(databases: list[Database]) -> State:
    """Return everything that commands can observe, in the order of the slots."""
    return [
        [
            (key, type(value), bytes(value) if isinstance(value, bytearray) else value, db.deadline_of(key))
            for key, value in db.items()
        ]
        for db in databases
    ]


def chunks_of(walk: SnapshotWalk, budget_keys: int = 100, between: Callable[[], None] = lambda: None) -> list[bytes]:
    chunks: list[bytes] = []
    for _ in range(STEPS_MAX):
        chunk = walk.next_slice(budget_keys)
        if chunk is None:
            return chunks
        chunks.append(chunk)
        between()
    raise AssertionError("the walk does not end")


def loaded(chunks: list[bytes], clock: Clock, count: int = DATABASES) -> list[Database]:
    databases = [Database(index, clock) for index in range(count)]
    loader = ImageLoader(databases, OnceTable())
    assert [loader.load(chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return databases


def write(ours: InProcess, walk: SnapshotWalk | None, line: str) -> None:
    """Run a command as keyspace/machine does while a snapshot walks."""
    args = line.encode().split()
    row = ours.table.find(args[0])
    if walk is not None and row is not None:
        for key in row.keys_of(args):
            walk.save_before(slot_of(key))
    ours.run(*args)


def some_keys(ours: InProcess) -> None:
    for line in (
        "SET int 12345", "SET text hello", "SET empty x", "SETRANGE empty 0 y", "APPEND raw abc", "SET dead 1 PX 5",
        "SET soon 1 PX 5000", "SET later 2 EX 100000", "SET {t}1 1", "SET {t}2 2 EX 99", "SET {t}3 3", "SELECT 3",
        "SET other 1", "SET int 7 EX 50", "SELECT 0",
    ):  # fmt: skip
        ours.say(line)


def test_an_empty_keyspace_is_one_chunk(ours: InProcess) -> None:
    walk = SnapshotWalk(ours.databases)
    chunks = chunks_of(walk)
    assert len(chunks) == 1
    assert walk.is_finished
    assert state_of(loaded(chunks, ours.clock)) == [[]] * DATABASES


def test_loading_gives_back_values_types_deadlines_order_and_accounting(ours: InProcess) -> None:
    some_keys(ours)
    walk = SnapshotWalk(ours.databases)
    databases = loaded(chunks_of(walk), ours.clock)
    assert state_of(databases) == state_of(ours.databases)
    assert walk.items == sum(db.key_count for db in ours.databases)
    for before, after in zip(ours.databases, databases, strict=True):
        assert (after.key_count, after.expiry_count) == (before.key_count, before.expiry_count)
        assert after.bytes_used == before.bytes_used


def test_loaded_deadlines_expire(ours: InProcess) -> None:
    some_keys(ours)
    ours.databases[:] = loaded(chunks_of(SnapshotWalk(ours.databases)), ours.clock)
    ours.context.db = ours.databases[0]
    ours.pass_ms(10_000)
    assert expire_slice(ours.databases, ours.clock.stamp_ms, 100) == (2, False)
    assert ours.say("EXISTS dead soon later") == 1


def test_a_slot_of_very_many_keys_comes_in_parts_and_in_order(ours: InProcess) -> None:
    for number in range(10_000):
        ours.run(b"SET", b"{tag}%d" % number, b"%d" % number, b"PX", b"%d" % (1000 + number))
    chunks = chunks_of(SnapshotWalk(ours.databases), 500)
    assert len(chunks) > 15
    assert state_of(loaded(chunks, ours.clock)) == state_of(ours.databases)


def test_a_chunk_is_bounded_by_bytes(ours: InProcess) -> None:
    for number in range(200):
        ours.run(b"SET", b"{tag}%d" % number, bytes(50_000))
    chunks = chunks_of(SnapshotWalk(ours.databases), 10_000)
    assert max(map(len, chunks)) < 2 * CHUNK_BYTES + 50_000
    assert state_of(loaded(chunks, ours.clock)) == state_of(ours.databases)


LINES = (
    "SET {a} {b}", "DEL {a}", "APPEND {a} xyz", "INCR {a}", "SETRANGE {a} 2 ab", "RENAME {a} {b}",
    "COPY {a} {b} REPLACE",
    "PEXPIRE {a} 5", "PERSIST {a}", "EXPIRE {a} 100", "MOVE {a} 1", "COPY {a} {b} DB 2 REPLACE", "SELECT 1", "SELECT 0",
    "FLUSHDB", "FLUSHALL", "SWAPDB 0 1", "SETBIT {a} 77 1", "MSET {a} 1 {b} 2", "pass", "housekeep",
)  # fmt: skip

ROUNDS = st.lists(
    st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 15), st.integers(0, 15)), max_size=4),
    min_size=1,
    max_size=20,
)


@settings(max_examples=100)
@given(rounds=ROUNDS, seed=st.integers(0, 1_000), budget=st.integers(1, 40))
def test_writes_between_slices_do_not_change_what_is_saved(
    rounds: list[list[tuple[str, int, int]]], seed: int, budget: int
) -> None:
    ours = InProcess()
    del ours.databases[3:]
    # Names of neighbouring slots, so that a walk meets some before and some after they are changed.
    names = [b"{%d}k%d" % (number % 11, number) for number in range(16)]
    chance = random.Random(seed)
    for _ in range(40):
        line, a, b = chance.choice(LINES[:12]), chance.randrange(16), chance.randrange(16)
        write(ours, None, line.format(a=names[a].decode(), b=names[b].decode()))
    ours.say("SELECT 0")
    started_ms = ours.clock.stamp_ms
    expected = state_of(ours.databases)
    walk = SnapshotWalk(ours.databases)
    pending = iter(rounds)

    def between() -> None:
        for line, a, b in next(pending, []):
            if line == "pass":
                ours.pass_ms(2)
            elif line == "housekeep":
                expire_slice(ours.databases, ours.clock.stamp_ms, 5, walk.save_before)
                for db in ours.databases:
                    replace_dicts(db)
            else:
                write(ours, walk, line.format(a=names[a].decode(), b=names[b].decode()))

    between()
    chunks = chunks_of(walk, budget * 100, between)
    clock = Clock()
    clock.now_ms = clock.stamp_ms = started_ms
    assert state_of(loaded(chunks, clock, 3)) == expected


def test_a_change_in_place_after_the_slot_was_kept_is_not_seen(ours: InProcess) -> None:
    ours.say("APPEND a old")
    ours.say("APPEND a !")
    walk = SnapshotWalk(ours.databases)
    write(ours, walk, "SETRANGE a 0 new")
    databases = loaded(chunks_of(walk), ours.clock)
    assert databases[0].get(b"a") == bytearray(b"old!")
    assert ours.say("GET a") == b"new!"


def test_a_loaded_value_can_be_changed_in_place_again(ours: InProcess) -> None:
    ours.say("APPEND a 12")
    ours.say("APPEND a 3")
    ours.databases[:] = loaded(chunks_of(SnapshotWalk(ours.databases)), ours.clock)
    ours.context.db = ours.databases[0]
    assert ours.say("OBJECT ENCODING a") == b"raw"
    assert ours.say("APPEND a 4") == 4


def replace_dicts(db: Database) -> None:
    """Do to all slots what keyspace/memory does to those that are mostly empty."""
    if db.values is not NO_VALUES:
        db.values[:] = [dict(values) for values in db.values]
    if db.expires is not NO_DEADLINES:
        db.expires[:] = [dict(deadlines) if deadlines else None for deadlines in db.expires]


class Hash(dict[bytes, bytes]):
    """Stands for a data type to come."""


def test_a_new_data_type_needs_nothing_but_its_kind(ours: InProcess) -> None:
    register(Hash, Kind(b"hash", 200, lambda _value: b"listpack", Hash, dict, Hash))
    try:
        fields = Hash({b"name": b"Ada", b"born": b"1815"})
        value: Value = fields  # type: ignore[assignment]
        ours.context.db.values = [{} for _ in ours.context.db.values]
        ours.context.db.values[slot_of(b"h")][b"h"] = value
        ours.context.db.key_count = 1
        walk = SnapshotWalk(ours.databases)
        walk.save_before(slot_of(b"h"))
        fields[b"late"] = b"1"
        assert ours.say("OBJECT ENCODING h") == b"listpack"
        frozen = [part for chunk in chunks_of(walk) for part in msgspec.msgpack.decode(chunk)[0]]
        assert frozen[0][4] == [[b"h", 200, {b"name": b"Ada", b"born": b"1815"}]]
    finally:
        del KINDS[Hash], KINDS_BY_CODE[200]


def test_damaged_chunks_are_refused(ours: InProcess) -> None:
    some_keys(ours)
    chunks = chunks_of(SnapshotWalk(ours.databases), 5)
    for size in range(len(chunks[0])):
        with pytest.raises(ImageDamaged):
            loaded([chunks[0][:size]], ours.clock)
    for wrong in (
        msgspec.msgpack.encode([[[0, 16384, {}, None, None]], None]),
        msgspec.msgpack.encode([[[0, 1, {b"a": None}, None, [[b"a", 99, b""]]]], None]),
        msgspec.msgpack.encode([[], {0: 1}]),
        msgspec.msgpack.encode([[], [], [{0: 1}, None]]),
        msgspec.msgpack.encode([[], [[b"a", b"", b""]] * 2, None]),
        msgspec.msgpack.encode([[], [], [{}, [1, 2, 3]]]),
        msgspec.msgpack.encode({"no": "chunk"}),
    ):
        with pytest.raises(ImageDamaged):
            loaded([wrong], ours.clock)


def test_a_database_that_this_node_does_not_have_is_named(ours: InProcess) -> None:
    with pytest.raises(TooFewDatabases, match="99"):
        loaded([msgspec.msgpack.encode([[[99, 0, {}, None, None]], None])], ours.clock)


def some_answers(count: int) -> list[Answer]:
    return [Answer(b"id:%d" % number, b"arguments", b"reply:%d" % number) for number in range(count)]


def test_answers_and_the_chain_come_back_behind_the_keys(ours: InProcess) -> None:
    some_keys(ours)
    chain = ChainState(1, 2, 3, 4, 5)
    chunks = chunks_of(SnapshotWalk(ours.databases, some_answers(1_000), chain), 100)
    databases, once = [Database(index, Clock()) for index in range(DATABASES)], OnceTable()
    loader = ImageLoader(databases, once)
    for chunk in chunks:
        assert not loader.is_finished
        loader.load(chunk)
    assert loader.is_finished
    assert loader.chain == chain
    assert once.answers() == some_answers(1_000)
    assert state_of(databases) == state_of(ours.databases)


def test_answers_are_given_out_in_slices_and_in_chunks_of_bounded_size() -> None:
    answers = [Answer(b"%d" % number, b"", bytes(CHUNK_BYTES // 2)) for number in range(6)]
    chunks = chunks_of(SnapshotWalk([], answers), 100_000)
    assert max(map(len, chunks)) < CHUNK_BYTES + CHUNK_BYTES // 2 + 1_000
    assert max(len(msgspec.msgpack.decode(chunk)[1]) for chunk in chunks_of(SnapshotWalk([], some_answers(90)), 7)) == 7


def test_a_snapshot_of_version_1_is_read(ours: InProcess) -> None:
    for number in range(500):
        ours.run(b"SET", b"key:%d" % number, b"1")
    some_keys(ours)
    chunks = [msgspec.msgpack.decode(chunk, strict=False) for chunk in chunks_of(SnapshotWalk(ours.databases), 100)]
    old = [msgspec.msgpack.encode([parts, None if end is None else end[0]]) for parts, _answers, end in chunks]
    databases = [Database(index, Clock()) for index in range(DATABASES)]
    loader = ImageLoader(databases, OnceTable())
    assert [loader.load(chunk) for chunk in old] == [False] * (len(old) - 1) + [True]
    assert state_of(databases) == state_of(ours.databases)
    assert loader.chain is None


def test_what_the_footer_says_is_compared_with_what_was_loaded(ours: InProcess) -> None:
    some_keys(ours)
    walk = SnapshotWalk(ours.databases)
    chunks = chunks_of(walk)
    digest = walk.digest.to_bytes(8, "big")

    def loader(count: int) -> ImageLoader:
        fresh = ImageLoader([Database(index, Clock()) for index in range(DATABASES)], OnceTable())
        for chunk in chunks[:count]:
            fresh.load(chunk)
        return fresh

    loader(len(chunks)).check(walk.items, digest)
    for count, items, told in (
        (len(chunks), walk.items + 1, digest),
        (len(chunks), walk.items, bytes(8)),
        (0, 0, bytes(8)),
    ):
        with pytest.raises(ImageDamaged):
            loader(count).check(items, told)
    with pytest.raises(ImageDamaged, match="follows"):
        loader(len(chunks)).load(chunks[-1])


def test_a_missing_chunk_is_noticed_at_the_end(ours: InProcess) -> None:
    for number in range(3_000):
        ours.run(b"SET", b"key:%d" % number, b"1")
    chunks = chunks_of(SnapshotWalk(ours.databases), 1_000)
    assert len(chunks) > 3
    with pytest.raises(ImageDamaged, match="keys of 3000"):
        loaded(chunks[1:], ours.clock)


def test_digest_depends_on_content(ours: InProcess) -> None:
    digests = set[int]()
    for line in ("SET a 1", "SET a 2", "EXPIRE a 100", "DEL a"):
        ours.say(line)
        walk = SnapshotWalk(ours.databases)
        chunks_of(walk)
        digests.add(walk.digest)
    assert len(digests) == 4


@pytest.mark.parametrize("count", [1_000, 100_000])
def test_the_work_of_a_slice_does_not_depend_on_how_many_keys_there_are(count: int, ours: InProcess) -> None:
    db, budget_keys = ours.databases[0], 1_000
    for number in range(count):
        db.set(b"key:%012d" % number, bytes(64))
    for number in range(SLOT_KEYS_MAX + 2 * budget_keys):
        db.set(b"{tag}%d" % number, b"1")
    walk = SnapshotWalk(ours.databases)
    for _ in range(STEPS_MAX):
        items = walk.items
        # Fifteen steps for each slot that is passed, and some for a key; a slot may bring a few keys too many.
        assert steps_of(lambda: walk.next_slice(budget_keys)) < 30 * budget_keys
        assert walk.items - items <= budget_keys + 100
        if walk.is_finished:
            break
    assert walk.items == db.key_count
