"""A database keeps its books: counts, bytes, deadlines and the index of crowded slots agree with what it stores."""

from __future__ import annotations

import random
from binascii import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from kvservice.keyspace.crowded import CROWDED_MIN, SPARSE_MAX
from kvservice.keyspace.database import NO_DEADLINES, NO_VALUES, Database
from kvservice.keyspace.image import ImageLoader, SnapshotWalk
from kvservice.keyspace.once import OnceTable
from kvservice.keyspace.slots import SLOTS, slot_of
from kvservice.keyspace.values import DEADLINE_BYTES, cost_of, key_cost
from tests.harness.inprocess import InProcess


def check(db: Database) -> None:
    """Raise AssertionError unless the books agree with the slots."""
    values = {key: value for slot in db.values for key, value in slot.items()}
    deadlines = {key: due for slot in db.expires if slot for key, due in slot.items()}
    assert db.key_count == len(values)
    assert db.expiry_count == len(deadlines)
    assert deadlines.keys() <= values.keys()
    key_bytes = sum(map(key_cost, values))
    assert db.bytes_used == key_bytes + sum(map(cost_of, values.values())) + DEADLINE_BYTES * len(deadlines)
    assert all(slot_of(key) == number for number, slot in enumerate(db.values) for key in slot)
    for slot, crowded in db.crowded.items():
        held = [key for keys in crowded.lists.values() for key in keys]
        assert sorted(held) == sorted(db.values[slot])
        assert all(crc32(key) >> 16 == number for number, keys in crowded.lists.items() for key in keys)
    assert NO_VALUES == [{}] * SLOTS
    assert NO_DEADLINES == [None] * SLOTS


LINES = (
    "SET {a} 1", "SET {a} {b}", "SET {a} x PX 3", "APPEND {a} yz", "INCR {a}", "DEL {a}", "RENAME {a} {b}",
    "PERSIST {a}", "COPY {a} {b} REPLACE", "EXPIRE {a} 9", "PEXPIRE {a} 2", "MOVE {a} 1", "SWAPDB 0 1", "FLUSHDB",
    "GETDEL {a}", "SETRANGE {a} 40 z", "GETEX {a} PX 4", "SETBIT {a} 300 1", "MSET {a} 1 {b} 22", "FLUSHALL",
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), max_size=30)
)
def test_the_books_agree_after_any_commands(steps: list[tuple[str, int, int, int]]) -> None:
    ours = InProcess()
    for line, a, b, passed_ms in steps:
        ours.say(line.format(a=f"key:{a}", b=f"key:{b}"))
        ours.pass_ms(passed_ms)
    for db in ours.databases[:2]:
        check(db)


def test_the_index_of_a_crowded_slot_follows_its_keys(ours: InProcess) -> None:
    chance = random.Random(1)
    db = ours.databases[0]
    for number in range(CROWDED_MIN):
        db.set(b"{tag}%d" % number, 1)
    assert not db.crowded
    for _ in range(5_000):
        ours.run(chance.choice([b"SET", b"SET", b"APPEND"]), b"{tag}%d" % chance.randrange(9_000), b"1")
        ours.run(b"DEL", b"{tag}%d" % chance.randrange(9_000))
    assert db.crowded
    check(db)
    ours.say("SWAPDB 0 5")
    check(ours.databases[0])
    check(ours.databases[5])
    ours.say("SELECT 5")
    for key in ours.databases[5].live_keys(slot_of(b"{tag}"))[SPARSE_MAX // 2 :]:
        ours.run(b"DEL", key)
    assert not ours.databases[5].crowded
    check(ours.databases[5])


def test_a_slot_that_is_crowded_no_more_but_not_sparse_keeps_its_index_whole(ours: InProcess) -> None:
    for number in range(CROWDED_MIN + 1):
        ours.run(b"SET", b"{tag}%d" % number, b"1")
    for number in range(CROWDED_MIN // 2):
        ours.run(b"DEL", b"{tag}%d" % number)
    for number in range(100):
        ours.run(b"SET", b"{tag}%d" % number, b"1")
    assert ours.databases[0].crowded
    check(ours.databases[0])
    assert ours.run(b"DEL", b"{tag}7") == 1


def test_a_loaded_slot_of_very_many_keys_is_crowded_too(ours: InProcess) -> None:
    for number in range(3 * CROWDED_MIN):
        ours.databases[0].set(b"{tag}%d" % number, 1)
    walk, node = SnapshotWalk(ours.databases), InProcess()
    loader = ImageLoader(node.databases, OnceTable())
    while (chunk := walk.next_slice(1_000)) is not None:
        loader.load(chunk)
    assert node.databases[0].crowded
    check(node.databases[0])
    node.say("FLUSHALL")
    check(node.databases[0])
