"""SCAN's promise: what is there from beginning to end is returned."""

from __future__ import annotations

import random
from binascii import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvservice.commands.reply import Reply
from kvservice.keyspace.database import StampNeeded
from kvservice.keyspace.slots import slot_of
from tests.harness.inprocess import InProcess
from tests.harness.work import steps_of

STEPS_MAX = 50_000


def page(reply: Reply) -> tuple[bytes, list[bytes]]:
    assert isinstance(reply, list)
    cursor, keys = reply
    assert isinstance(cursor, bytes)
    assert isinstance(keys, list)
    return cursor, [key for key in keys if isinstance(key, bytes)]


def scanned(ours: InProcess, *options: bytes) -> list[bytes]:
    """Walk from beginning to end and return all keys."""
    cursor, found = b"0", []
    for _ in range(STEPS_MAX):
        cursor, keys = page(ours.run(b"SCAN", cursor, *options))
        found += keys
        if cursor == b"0":
            return found
    raise AssertionError("the walk does not end")


def name(number: int, in_one_slot: bool) -> bytes:
    return b"{tag}%d" % number if in_one_slot else b"key:%d" % number


@pytest.mark.parametrize("in_one_slot", [False, True])
@pytest.mark.parametrize(("count", "total"), [(1, 1_000), (7, 6_000), (10, 1_000), (1_000, 6_000), (100_000, 6_000)])
def test_a_walk_over_a_still_keyspace_returns_every_key_once(
    count: int, total: int, in_one_slot: bool, ours: InProcess
) -> None:
    names = [name(number, in_one_slot) for number in range(total)]
    for key in names:
        ours.run(b"SET", key, b"1")
    found = scanned(ours, b"COUNT", b"%d" % count)
    assert sorted(found) == sorted(names)


def test_a_call_returns_about_as_many_keys_as_asked_for(ours: InProcess) -> None:
    for number in range(5_000):
        ours.run(b"SET", name(number, number % 2 == 0), b"1")
    cursor, sizes = b"0", []
    for _ in range(STEPS_MAX):
        cursor, keys = page(ours.run(b"SCAN", cursor, b"COUNT", b"25"))
        if cursor == b"0":
            break
        sizes.append(len(keys))
    assert set(sizes) == {25}


def colliding_names() -> list[bytes]:
    """Return two names with one slot and one CRC-32: they differ by the CRC's own polynomial."""
    generator = f"{(1 << 32) | 0x04C11DB7:033b}".ljust(72, "0")
    difference = bytes(int(generator[start : start + 8][::-1], 2) for start in range(0, 72, 8))
    return [b"{t}" + bytes(9), b"{t}" + difference]


def test_keys_that_share_a_position_come_together(ours: InProcess) -> None:
    pair = colliding_names()
    assert len({crc32(key) for key in pair}) == len({slot_of(key) for key in pair}) == 1
    for key in pair:
        ours.run(b"SET", key, b"1")
    assert sorted(scanned(ours, b"COUNT", b"1")) == sorted(pair)


def test_a_pattern_and_a_type_only_filter(ours: InProcess) -> None:
    for number in range(300):
        ours.run(b"SET", b"key:%d" % number, b"1")
    assert sorted(scanned(ours, b"MATCH", b"key:1*")) == sorted(
        b"key:%d" % number for number in range(300) if str(number).startswith("1")
    )
    assert len(scanned(ours, b"TYPE", b"string")) == 300
    assert scanned(ours, b"TYPE", b"list") == []


def test_a_cursor_from_nowhere_is_answered(ours: InProcess) -> None:
    ours.say("SET a 1")
    for cursor in (b"1", b"99999999999", b"18446744073709551615", b"-1"):
        next_cursor, keys = page(ours.run(b"SCAN", cursor, b"COUNT", b"100"))
        assert next_cursor == b"0"
        assert keys in ([], [b"a"])


def test_the_same_cursor_works_on_another_node() -> None:
    here, there = InProcess(), InProcess()
    for number in range(500):
        here.run(b"SET", name(number, False), b"1")
        there.run(b"SET", name(499 - number, False), b"1")
    cursor, first = page(here.run(b"SCAN", b"0", b"COUNT", b"100"))
    found = list(first)
    nodes = (there, here)
    for turn in range(STEPS_MAX):
        cursor, keys = page(nodes[turn % 2].run(b"SCAN", cursor, b"COUNT", b"100"))
        found += keys
        if cursor == b"0":
            break
    assert sorted(found) == sorted(name(number, False) for number in range(500))


def test_a_walk_that_meets_a_key_due_by_the_wall_clock_only_waits_for_the_log(ours: InProcess) -> None:
    ours.say("SET a 1 PX 10")
    ours.clock.now_ms += 10
    for command in ("SCAN 0", "KEYS *", "GET a", "TTL a"):
        with pytest.raises(StampNeeded):
            ours.say(command)
    ours.pass_ms(0)
    assert page(ours.say("SCAN 0")) == (b"0", [])


def test_a_walk_through_a_crowded_slot_meets_every_key_that_stays(ours: InProcess) -> None:
    chance = random.Random(1)
    stays = {name(number, True) for number in range(0, 9_000, 3)}
    for number in range(9_000):
        ours.run(b"SET", name(number, True), b"1")
    assert ours.databases[0].crowded
    for key in colliding_names():
        ours.run(b"SET", key.replace(b"{t}", b"{tag}"), b"1")
    cursor, found = b"0", set[bytes]()
    for _ in range(STEPS_MAX):
        cursor, keys = page(ours.run(b"SCAN", cursor, b"COUNT", b"50"))
        found.update(keys)
        if cursor == b"0":
            break
        for _ in range(40):
            number = chance.randrange(12_000)
            if name(number, True) not in stays:
                ours.run(chance.choice([b"DEL", b"INCR"]), name(number, True))
        ours.run(b"PEXPIRE", name(1 + 3 * chance.randrange(3_000), True), b"1")
        ours.pass_ms(1)
    assert stays <= found


@pytest.mark.parametrize("count", [10_000, 50_000])
def test_a_call_in_a_slot_of_very_many_keys_looks_at_few_of_them(count: int, ours: InProcess) -> None:
    for number in range(count):
        ours.databases[0].set(b"{tag}%d" % number, b"1")
    cursor, replies = b"%d" % (slot_of(b"{tag}") << 32), list[Reply]()
    for _ in range(300):
        # A key is some steps; a list of the index that is empty is three, and there are six of them for a key.
        assert steps_of(lambda cursor=cursor: replies.append(ours.run(b"SCAN", cursor))) < 2_000  # type: ignore[misc]
        cursor, keys = page(replies[-1])
        assert len(keys) < 20


Event = tuple[str, int]

EVENTS = st.lists(
    st.tuples(st.sampled_from(["set", "del", "expire", "pass", "rename", "flush other"]), st.integers(0, 60)),
    max_size=6,
)


@settings(max_examples=200)
@given(
    steps=st.lists(EVENTS, min_size=1, max_size=30),
    count=st.integers(1, 12),
    tagged=st.booleans(),
    keepers=st.sets(st.integers(100, 160), max_size=40),
)
def test_what_is_there_throughout_is_returned_whatever_happens_between_calls(
    steps: list[list[Event]], count: int, tagged: bool, keepers: set[int]
) -> None:
    ours = InProcess()
    for number in keepers:
        ours.run(b"SET", name(number, tagged), b"kept")
    for number in range(30):
        ours.run(b"SET", name(number, tagged), b"may go")
    cursor, found, turn = b"0", set[bytes](), 0
    while True:
        cursor, keys = page(ours.run(b"SCAN", cursor, b"COUNT", b"%d" % count))
        found.update(keys)
        if cursor == b"0":
            break
        for what, number in steps[turn % len(steps)] if turn < 200 else []:
            happen(ours, what, name(number, tagged))
        turn += 1
        assert turn < STEPS_MAX
    assert {name(number, tagged) for number in keepers} <= found


def happen(ours: InProcess, what: str, key: bytes) -> None:
    """Change keys other than those that have to stay."""
    if what == "set":
        ours.run(b"SET", key, b"new")
    elif what == "del":
        ours.run(b"DEL", key)
    elif what == "expire":
        ours.run(b"PEXPIRE", key, b"5")
    elif what == "pass":
        ours.pass_ms(3)
    elif what == "rename":
        ours.run(b"RENAME", key, key + b"'")
    else:
        ours.databases[1].clear()
