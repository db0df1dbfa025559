"""Nodes that applied the same entries have one digest; nodes whose states differ do not, within one rotation."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kvservice.commands.registry import TABLE
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace import crowded, database, digest
from kvservice.keyspace.database import Database
from kvservice.keyspace.expiry import expire_slice
from kvservice.keyspace.machine import Machine
from kvservice.keyspace.slots import SLOTS, slot_of

DATABASES = 4
START_MS = 1_700_000_000_000
KEYS = [b"k%d" % number for number in range(40)] + [b"{tag}%d" % number for number in range(80)]
LINES = (
    "SET {k} {n}", "SET {k} text{n}", "SET {k} {n} PX {ms}", "SET {k} x KEEPTTL", "APPEND {k} tail", "INCR {k}",
    "SETRANGE {k} 3 abc", "GETDEL {k}", "DEL {k} {j}", "PEXPIRE {k} {ms}", "PERSIST {k}", "RENAME {k} {j}",
    "COPY {k} {j} REPLACE", "MOVE {k} 2", "GETEX {k} PX {ms}", "MSET {k} 1 {j} two", "SETBIT {k} 77 1",
    "RENAMENX {k} {j}", "SETNX {k} new", "INCRBYFLOAT {k} 1.5", "EXPIRE {k} -1", "BITOP OR {k} {j} {k}",
)  # fmt: skip


class Replica:
    """A machine that is told entries, as a node is."""

    def __init__(self) -> None:
        self.machine = Machine(TABLE, DATABASES, random.Random)

    def apply(self, index: int, stamp_ms: int, payload: bytes) -> None:
        """Apply an entry that came from elsewhere."""
        self.machine.begin_entry(index, 1, stamp_ms, payload)
        if payload:
            self.machine.replay(payload)
        self.machine.end_entry()

    def apply_own(self, index: int, stamp_ms: int, commands: list[list[bytes]], payload: bytes) -> None:
        """Apply an entry that was proposed here, with reads that ride along and fail."""
        machine = self.machine
        machine.begin_entry(index, 1, stamp_ms, payload)
        db = 0
        for args in commands:
            if args[0] == b"SELECT":
                db = int(args[1])
                continue
            for line in (args, [b"GETRANGE", args[1], b"no", b"number"]):
                row = TABLE.find(line[0])
                assert row is not None
                machine.execute_alike(db, row, [line])
        machine.failures.clear()
        machine.end_entry()

    def expire(self, limit: int) -> None:
        """Remove some keys that are due."""
        expire_slice(self.machine.databases, self.machine.clock.stamp_ms, limit)

    def copy(self) -> Replica:
        """Return another one that loads what a snapshot of this one holds."""
        other, ours = Replica(), self.machine
        walk, loader = ours.begin_walk(), other.machine.loader()
        while (chunk := walk.next_slice(100)) is not None:
            loader.load(chunk)
        ours.snapshot = None
        other.machine.stand_at(ours.index, ours.term, ours.clock.stamp_ms, loader.chain)
        return other

    @property
    def digest(self) -> int:
        """The chain."""
        return self.machine.digests.value


def some_commands(chance: random.Random) -> list[list[bytes]]:
    commands: list[list[bytes]] = []
    for _ in range(chance.randrange(4)):
        line = chance.choice(LINES)
        key, other = chance.choice(KEYS).decode(), chance.choice(KEYS).decode()
        words = line.format(k=key, j=other, n=chance.randrange(50), ms=chance.randrange(1, 9_000))
        commands.append(words.encode().split())
    if commands and chance.random() < 0.2:
        commands.insert(0, [b"SELECT", b"%d" % chance.randrange(DATABASES)])
    return commands


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slot of a few dozen keys be a crowded one, and a reading end within slots."""
    monkeypatch.setattr(crowded, "CROWDED_MIN", 30)
    monkeypatch.setattr(database, "CROWDED_MIN", 30)
    monkeypatch.setattr(database, "SPARSE_MAX", 10)
    monkeypatch.setattr(digest, "ROTATION_KEYS", 7)
    monkeypatch.setattr(digest, "ROTATION_SLOTS", SLOTS)
    monkeypatch.setattr(digest, "ROTATION_ENTRIES", 3)


@pytest.mark.parametrize("seed", range(6))
def test_nodes_agree_however_they_came_by_their_state(seed: int, small_bounds: None) -> None:
    chance = random.Random(seed)
    proposer, follower, late = Replica(), Replica(), Replica()
    stamp_ms = START_MS
    for index in range(1, 400):
        stamp_ms += chance.choice((0, 1, 200, 700))
        commands = some_commands(chance)
        payload = encode_commands(commands) if commands else b""
        proposer.apply_own(index, stamp_ms, commands, payload)
        for replica in (follower, late):
            replica.apply(index, stamp_ms, payload)
        proposer.expire(1000)
        if chance.random() < 0.1:
            late.expire(3)
        if chance.random() < 0.05:
            late = chance.choice((proposer, follower)).copy()
        assert proposer.digest == follower.digest == late.digest, f"entry {index}: {commands}"
    newest = proposer.machine.digests.checkpoint()
    assert newest is not None
    assert newest == follower.machine.digests.checkpoint() == late.machine.digests.checkpoint()


def other_value(db: Database, key: bytes) -> None:
    db.values[slot_of(key)][key] = b"other"


def other_type(db: Database, key: bytes) -> None:
    db.values[slot_of(key)][key] = bytearray(b"value")


def other_deadline(db: Database, key: bytes) -> None:
    db.set_deadline(key, START_MS + 9_000_000)


def missing(db: Database, key: bytes) -> None:
    db.delete(key)


def additional(db: Database, _key: bytes) -> None:
    db.set(b"additional", b"value")


@pytest.mark.parametrize("change", [other_value, other_type, other_deadline, missing, additional])
def test_a_state_that_differs_in_one_place_is_seen_within_one_rotation(
    change: Callable[[Database, bytes], None],
) -> None:
    good, bad = Replica(), Replica()
    keys = [b"key:%d" % number for number in range(2000)]
    payload = encode_commands([[b"SET", key, b"value"] for key in keys])
    for replica in (good, bad):
        replica.apply(1, START_MS, payload)
    change(bad.machine.databases[0], keys[1234])
    rotation = SLOTS // digest.ROTATION_SLOTS + len(keys) // digest.ROTATION_KEYS + 2
    for second in range(1, rotation + 1):
        for replica in (good, bad):
            replica.apply(1 + second, START_MS + second * 1000 * digest.ROTATION_SECONDS, b"")
    newest = bad.machine.digests.checkpoint()
    assert newest is not None
    assert good.machine.digests.compare(*newest) is False


def test_a_key_that_differs_is_seen_at_once_when_the_entry_at_a_checkpoint_names_it() -> None:
    good, bad = Replica(), Replica()
    for replica in (good, bad):
        replica.apply(1, START_MS, encode_commands([[b"SET", b"k", b"1"]]))
    bad.machine.databases[0].set(b"k", 2)
    for replica in (good, bad):
        replica.apply(2, START_MS + 10_000, encode_commands([[b"APPEND", b"k", b"0"]]))
    assert good.digest != bad.digest


@pytest.mark.parametrize(
    "second", [(2, START_MS, b""), (2, START_MS, b"*1\r\n$7\r\nFLUSHDB\r\n"), (2, START_MS + 1, b"")]
)
def test_every_entry_counts(second: tuple[int, int, bytes]) -> None:
    one, other = Replica(), Replica()
    for replica in (one, other):
        replica.apply(1, START_MS, b"")
    one.apply(*second)
    other.apply(2, START_MS, encode_commands([[b"FLUSHALL"]]))
    assert one.digest != other.digest


def test_a_write_that_failed_on_one_node_only_counts() -> None:
    good, bad = Replica(), Replica()
    bad.machine.databases[0].set(b"k", b"no number")
    for replica in (good, bad):
        replica.machine.digests.stand_at(START_MS, digest.ChainState(0, 0, 0, 0, 0))
        replica.apply(1, START_MS, encode_commands([[b"INCR", b"k"]]))
    assert good.digest != bad.digest


@pytest.mark.parametrize(
    "line", ["INCR k", "APPEND k 00", "GETSET k 0", "GETDEL k", "SET k 0 NX", "DEL k", "SET k 0 GET", "MSETNX k 1"]
)
def test_a_write_that_answered_something_else_on_one_node_counts(line: str) -> None:
    good, bad = Replica(), Replica()
    for replica, number in ((good, 1), (bad, 20)):
        if replica is bad or not line.startswith(("SET k 0 NX", "DEL", "MSETNX")):
            replica.machine.databases[0].set(b"k", number)
        replica.machine.digests.stand_at(START_MS, digest.ChainState(0, 0, 0, 0, 0))
        replica.apply(1, START_MS, encode_commands([line.encode().split()]))
    assert good.digest != bad.digest


def test_what_was_last_written_before_a_pause_is_a_checkpoint_too() -> None:
    replica = Replica()
    digests = replica.machine.digests
    digests.mark(0)
    assert digests.checkpoint() is None, "nothing was written"
    for index in (1, 2, 3):
        replica.apply(index, START_MS, b"")
    [(first, _)] = [digests.checkpoint() or (0, 0)]
    digests.mark(3)
    assert (first, digests.checkpoint()) == (1, (3, replica.digest))
    digests.mark(3)
    replica.apply(4, START_MS + 1000, b"")
    assert digests.compare(3, replica.digest) is False
    assert digests.checkpoint() == (4, replica.digest)


def test_checkpoints_are_kept_for_some_time_and_others_are_not_judged() -> None:
    replica = Replica()
    digests = replica.machine.digests
    assert digests.checkpoint() is None
    for index in range(1, digest.CHECKPOINTS_MAX + 11):
        replica.apply(index, START_MS + index * 1000, b"")
        newest = digests.checkpoint()
        assert newest == (index, replica.digest)
        assert digests.compare(*newest) is True
        assert digests.compare(index, replica.digest ^ 1) is False
    assert digests.compare(10, 0) is None, "forgotten"
    assert digests.compare(11, 0) is False
    assert digests.compare(10_000, 0) is None, "not reached"


def test_there_is_one_checkpoint_a_second() -> None:
    replica = Replica()
    seen = set()
    for index in range(1, 1001):
        replica.apply(index, START_MS + index * 10, b"")
        seen.add(replica.machine.digests.checkpoint())
    assert len(seen) == 11


@pytest.mark.parametrize("chain", [None, digest.ChainState(1, 2, 3, 4, 5), digest.ChainState(1, 2, 3, 4, 5, 99)])
def test_a_chain_that_a_snapshot_did_not_carry_or_of_another_formula_is_not_judged_nor_told(
    chain: digest.ChainState | None,
) -> None:
    replica = Replica()
    replica.machine.stand_at(10, 1, START_MS, chain)
    replica.apply(11, START_MS + 2_000, b"")
    assert replica.machine.digests.state() is None
    assert replica.machine.digests.checkpoint() is None
    assert replica.machine.digests.compare(11, replica.digest) is None


def test_a_long_value_is_sampled_and_the_window_reaches_all_of_it() -> None:
    size = 5 * digest.SAMPLE_BYTES
    good, bad = Replica(), Replica()
    for replica in (good, bad):
        replica.apply(1, START_MS, encode_commands([[b"SETRANGE", b"k", b"%d" % (size - 1), b"x"]]))
    text = bytearray(size)
    text[size // 2] ^= 1
    text[-1:] = b"x"
    bad.machine.databases[0].set(b"k", text)
    for index in range(2, 2 + 4 * 5 + 1):
        for replica in (good, bad):
            replica.apply(index, START_MS + index * 10_000, encode_commands([[b"PERSIST", b"k"]]))
    assert good.digest != bad.digest


def test_reading_is_bounded_however_many_keys_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica()
    payload = encode_commands([[b"SET", b"{tag}%d" % number, b"v"] for number in range(20_000)])
    replica.apply(1, START_MS, payload)
    taken: list[int] = []
    take = digest.Reading._take

    def counted(reading: digest.Reading, db: int, found: list[digest.Found]) -> None:
        taken.append(len(found))
        take(reading, db, found)

    monkeypatch.setattr(digest.Reading, "_take", counted)
    for second in range(1, 100):
        taken.clear()
        replica.apply(1 + second, START_MS + second * 10_000, b"")
        assert sum(taken) <= digest.ROTATION_KEYS + 8
