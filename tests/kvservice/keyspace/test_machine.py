"""A machine that takes over the state of another, as after a snapshot that a peer sent; entries of other nodes."""

from __future__ import annotations

import random

from kvservice.commands.registry import TABLE
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.access import AccessTable
from kvservice.keyspace.machine import Machine
from kvservice.keyspace.reaper import reap_slice
from kvservice.keyspace.slots import slot_of

START_MS = 1_700_000_000_000


def machine_with(*lines: str) -> Machine:
    machine = Machine(TABLE, 4, random.Random)
    for index, line in enumerate(lines, 1):
        apply(machine, index, line)
    return machine


def apply(machine: Machine, index: int, line: str) -> None:
    payload = encode_commands([line.encode().split()])
    machine.begin_entry(index, 3, START_MS + index, payload)
    machine.replay(payload)
    machine.end_entry()


def test_everything_that_is_replicated_is_taken_over() -> None:
    ours = machine_with("SET old 1", "SET older 2 EX 5")
    fresh = machine_with("SET a 1", "SET b 2 EX 9", "REDAN.ONCE id INCR a")
    fresh.configuration = b"members"
    digest, answers = fresh.digests.value, fresh.once.answers()
    context = ours.context
    ours.replace_by(fresh)
    assert (ours.index, ours.term, ours.clock.stamp_ms) == (3, 3, START_MS + 3)
    assert dict(ours.databases[0].items()) == {b"a": 2, b"b": 2}
    assert ours.databases[0].expiry_count == 1
    assert ours.configuration == b"members"
    assert (ours.digests.value, ours.once.answers()) == (digest, answers)
    assert ours.context is context
    assert context.once is ours.once
    apply(ours, 4, "REDAN.ONCE id INCR a")
    assert ours.databases[0].get(b"a") == 2, "the request was answered before"


def test_what_was_there_is_freed_by_the_reaper_and_use_of_keys_is_tracked_on() -> None:
    ours = machine_with("SET old 1")
    access = ours.databases[0].access = AccessTable(START_MS)
    ours.replace_by(machine_with("SET a 1"))
    assert ours.databases[0].access is access
    assert len(ours.databases[0].retired) == 1
    while reap_slice(ours.databases, 1000):
        pass
    assert ours.databases[0].retired == []
    assert ours.databases[0].key_count == 1


def test_a_walk_that_is_under_way_keeps_the_old_state() -> None:
    ours = machine_with("SET old 1")
    walk = ours.begin_walk()
    ours.replace_by(machine_with("SET a 1", "SET b 2"))
    apply(ours, 3, "SET old 3")
    other = Machine(TABLE, 4, random.Random)
    loader = other.loader()
    while (chunk := walk.next_slice(100)) is not None:
        loader.load(chunk)
    assert dict(other.databases[0].items()) == {b"old": 1}


def test_a_twin_is_adopted_with_what_is_known_of_the_use_of_keys() -> None:
    lines = ["SET a 1", "SET b 2 EX 9", "SET c 3"]
    ours, twin = machine_with(*lines), machine_with(*lines)
    access = ours.databases[0].access = AccessTable(START_MS)
    access.touch(b"a", START_MS + 5000)
    idle_ms = access.idle_ms(b"a", START_MS + 90_000)
    walk = ours.begin_walk()
    assert ours.is_equal(twin)
    assert ours.has_same_slot(twin, slot_of(b"a"))
    theirs = twin.databases[0].values
    ours.adopt(twin)
    assert ours.databases[0].values is theirs
    assert ours.databases[0].access is access
    assert access.idle_ms(b"a", START_MS + 90_000) == idle_ms < 90_000
    assert ours.databases[0].expiry_count == 1
    apply(ours, 4, "SET a changed")
    copy = Machine(TABLE, 4, random.Random)
    loader = copy.loader()
    while (chunk := walk.next_slice(100)) is not None:
        loader.load(chunk)
    assert dict(copy.databases[0].items()) == {b"a": 1, b"b": 2, b"c": 3}
    while reap_slice(ours.databases, 1000):
        pass
    assert ours.databases[0].key_count == 3


def test_machines_that_differ_are_told_apart() -> None:
    ours = machine_with("SET a 1", "SET b text")
    assert not ours.is_equal(machine_with("SET a 1", "SET b other"))
    assert not ours.is_equal(machine_with("SET a 1"))
    assert not ours.has_same_slot(machine_with("SET a 1 PX 100000", "SET b text"), slot_of(b"a"))
    assert not ours.has_same_slot(machine_with("SET a 1", "SET b te", "APPEND b xt"), slot_of(b"b")), (
        "raw is not embstr"
    )
    assert ours.has_same_slot(machine_with("SET b text", "SET a 1"), slot_of(b"a"))
    assert not ours.has_same_slot(machine_with("SET a 1", "SET b text", "MOVE b 1"), slot_of(b"b"))


def test_a_selected_database_holds_for_all_that_follows() -> None:
    machine = machine_with()
    alike = [[b"SET", b"k%d" % number, b"v" * 100] for number in range(500)]
    mixed = [[name, b"%b%d" % (name, number), b"v" * 100] for number in range(250) for name in (b"SET", b"APPEND")]
    payload = encode_commands(
        [[b"SET", b"a", b"0"], [b"SELECT", b"2"], *alike, *mixed, [b"SELECT", b"0"], *mixed, *alike]
    )
    machine.begin_entry(1, 3, START_MS, payload)
    machine.replay(payload)
    machine.end_entry()
    assert [db.key_count for db in machine.databases] == [1001, 0, 1000, 0]
