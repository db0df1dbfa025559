"""DEBUG DIGEST in slices: of one state, whatever is written meanwhile, and beside a snapshot."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kvservice import dataset_walks
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import Reply, Status
from kvservice.dataset_walks import DatasetWalks
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.machine import Machine

ZEROS = Status(b"0" * 40)


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each turn walk over one chunk."""
    monkeypatch.setattr(dataset_walks, "SLICE_SECONDS", 0.0)


class Bench:
    """A machine and timers that come due when a test says so."""

    def __init__(self) -> None:
        self.machine = Machine(TABLE, 16, random.Random)
        self.timers: list[Callable[[], None]] = []
        self.walks = DatasetWalks(self.machine, lambda _seconds, act: self.timers.append(act))

    def write(self, *lines: str) -> None:
        machine = self.machine
        payload = encode_commands([line.encode().split() for line in lines])
        machine.begin_entry(machine.index + 1, 1, 1000 + machine.index, payload)
        machine.replay(payload)
        machine.end_entry()

    def ask(self) -> list[Reply]:
        replies: list[Reply] = []
        self.walks.digest().then(replies.append)
        return replies

    def turn(self) -> None:
        timers, self.timers = self.timers, []
        for act in timers:
            act()

    def digest(self) -> Reply:
        replies = self.ask()
        while not replies:
            self.turn()
        return replies[0]


def filled(count: int = 2000) -> Bench:
    bench = Bench()
    for number in range(count):
        bench.write(f"SET k{number} v{number}")
    return bench


def test_the_digest_is_that_of_the_moment_whatever_is_written_meanwhile() -> None:
    still = filled().digest()
    bench = filled()
    replies = bench.ask()
    at = 0
    while not replies:
        assert bench.machine.digesting is not None
        bench.write(f"SET k{at} changed", f"DEL k{1999 - at}", f"SET new{at} 1")
        if at == 3:
            bench.write("SWAPDB 0 1", "FLUSHALL")
        at += 1
        bench.turn()
    assert at > 2000 // dataset_walks.SLICE_KEYS, "each turn does a part"
    assert replies == [still]
    assert bench.machine.digesting is None
    assert bench.digest() != still


def test_the_order_of_writes_does_not_matter_and_an_empty_keyspace_has_zeros() -> None:
    bench, other = Bench(), Bench()
    assert bench.digest() == ZEROS
    bench.write("SET a 1", "SET b 2")
    other.write("SET b 0", "SET a 1", "SET b 2", "SET c 3", "DEL c")
    assert bench.digest() == other.digest() != ZEROS
    other.write("FLUSHALL")
    assert other.digest() == ZEROS


def test_the_same_key_in_another_database_or_with_a_deadline_is_other_data() -> None:
    found = set()
    for lines in (["SET a 1"], ["SET a 1 EX 100"], ["SET a 1", "MOVE a 1"], ["SET a 2"], ["SET b 1"]):
        bench = Bench()
        bench.write(*lines)
        reply = bench.digest()
        assert isinstance(reply, Status)
        found.add(reply.text)
    assert len(found) == 5


def test_who_asks_later_gets_a_later_state() -> None:
    bench = filled()
    first = bench.ask()
    bench.write("SET later 1")
    second, third = bench.ask(), bench.ask()
    while not third:
        bench.turn()
    assert first != second == third
    assert bench.digest() == second[0]


def test_a_snapshot_and_a_digest_walk_at_the_same_time() -> None:
    still = filled().digest()
    bench = filled()
    walk = bench.machine.begin_walk()
    replies = bench.ask()
    copy = Machine(TABLE, 16, random.Random)
    loader = copy.loader()
    at = 0
    while (chunk := walk.next_slice(100)) is not None:
        loader.load(chunk)
        bench.write(f"SET k{at} changed", f"DEL k{1999 - at}")
        at += 1
        bench.turn()
    bench.machine.snapshot = None
    while not replies:
        bench.turn()
    assert replies == [still]
    assert dict(copy.databases[0].items()) == dict(filled().machine.databases[0].items())
