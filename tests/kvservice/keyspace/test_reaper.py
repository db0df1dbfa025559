"""What was flushed is freed, in slices."""

from __future__ import annotations

import weakref
from itertools import pairwise

import pytest

from kvservice.keyspace.database import RETIRED_MAX, Database
from kvservice.keyspace.expiry import CHUNK_KEYS_MAX
from kvservice.keyspace.image import ImageLoader, SnapshotWalk
from kvservice.keyspace.once import OnceTable
from kvservice.keyspace.reaper import reap_slice
from kvservice.keyspace.slots import SLOTS, slot_of
from tests.harness.inprocess import InProcess
from tests.harness.work import steps_of

SLICES_MAX = 100_000


class Witness(bytearray):
    """A value that can tell whether it was freed."""


def reap_all(databases: list[Database], budget_keys: int) -> int:
    for slices in range(1, SLICES_MAX):
        if not reap_slice(databases, budget_keys):
            return slices
    raise AssertionError("the reaper does not finish")


def test_nothing_to_do_is_said(ours: InProcess) -> None:
    assert not reap_slice(ours.databases, 100)


def test_flushed_values_are_freed_and_the_new_ones_stay(ours: InProcess) -> None:
    witness = Witness(b"x")
    ours.databases[0].set(b"witness", witness)
    ours.say("SET old 1 EX 100")
    ours.say("FLUSHALL")
    ours.say("SET new 1 EX 100")
    gone = weakref.ref(witness)
    del witness
    assert gone() is not None
    reap_all(ours.databases, 1_000)
    assert gone() is None
    assert ours.say("TTL new") == 100
    assert not ours.databases[0].retired


def test_a_slice_frees_about_what_it_is_asked_for(ours: InProcess) -> None:
    for number in range(5_000):
        ours.run(b"SET", b"key:%d" % number, b"1", b"EX", b"%d" % (100 + number))
    ours.say("FLUSHALL")
    # Three dicts hold each key, and every slot counts as one more.
    slices = reap_all(ours.databases, 1_000)
    assert (3 * 5_000 + 2 * SLOTS) / 1_000 * 0.8 < slices < (3 * 5_000 + 3 * SLOTS) / 1_000 + 20


def test_a_slot_of_very_many_keys_is_freed_in_slices(ours: InProcess) -> None:
    for number in range(50_000):
        ours.run(b"SET", b"{tag}%d" % number, b"1")
    ours.say("FLUSHALL")
    slot = slot_of(b"{tag}")
    values = ours.databases[0].retired[0][0]
    sizes = []
    for _ in range(SLICES_MAX):
        more = reap_slice(ours.databases, 1_000)
        if slot < len(values):
            sizes.append(len(values[slot]))
        if not more:
            break
    assert max(before - after for before, after in pairwise(sizes)) <= 1_000


def test_a_running_snapshot_keeps_what_it_has_not_saved(ours: InProcess) -> None:
    for number in range(3_000):
        ours.run(b"SET", b"{tag}%d" % number, b"1")
        ours.run(b"SET", b"key:%d" % number, b"1", b"EX", b"100")
    walk = SnapshotWalk(ours.databases)
    ours.say("FLUSHALL")
    reap_all(ours.databases, 100)
    node = InProcess()
    loader = ImageLoader(node.databases, OnceTable())
    while (chunk := walk.next_slice(500)) is not None:
        loader.load(chunk)
    assert node.say("DBSIZE") == 6_000
    assert node.say("TTL key:7") == 100


def test_a_flood_of_flushes_keeps_a_bounded_number_of_dropped_keyspaces(ours: InProcess) -> None:
    for _ in range(2 * RETIRED_MAX):
        ours.say("SET a 1")
        ours.say("FLUSHDB")
    assert len(ours.databases[0].retired) == RETIRED_MAX
    reap_all(ours.databases, 10_000)


class Counted(bytes):
    """A key or a value that counts how many of its class were freed."""

    freed = 0

    def __del__(self) -> None:
        type(self).freed += 1


@pytest.mark.parametrize("count", [2_000, 40_000])
def test_flushing_frees_nothing_at_once_and_a_bounded_number_in_each_slice(count: int, ours: InProcess) -> None:
    class Key(Counted):
        """Of this test."""

    class Held(Counted):
        """Of this test."""

    db, budget_keys = ours.databases[0], 1_000
    for number in range(count):
        key = Key(b"key:%d" % number)
        db.set(key, Held(b"value"))
        db.set_deadline(key, ours.clock.now_ms + 100_000 + number)
    del key
    assert steps_of(lambda: ours.say("FLUSHALL")) < 5_000, "the databases, whatever they hold"
    assert (Key.freed, Held.freed) == (0, 0)
    more = True
    for _ in range(SLICES_MAX):
        keys, values = Key.freed, Held.freed
        more = reap_slice(ours.databases, budget_keys)
        assert Held.freed - values <= budget_keys
        # A bucket of the index goes as a whole.
        assert Key.freed - keys <= budget_keys + CHUNK_KEYS_MAX
        if not more:
            break
    assert not more
    assert (Key.freed, Held.freed) == (count, count)
