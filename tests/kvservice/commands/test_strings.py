"""What holds for every string, counter and bit command, besides its replies (those are in scripts and differential)."""

from __future__ import annotations

import pickle
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings

from kvservice.commands import bitfield, bits, counters, lcs, strings
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.errors import WrongType
from kvservice.keyspace.database import Database, StampNeeded
from kvservice.keyspace.values import DEADLINE_BYTES, Value, cost_of, key_cost
from tests.harness.inprocess import InProcess
from tests.kvservice.commands.strategies import ARGUMENTS, BITS, STRINGS, conversations

FAMILIES = (strings, counters, lcs, bits, bitfield)
ROWS = {row.name: row for family in FAMILIES for row in family.ROWS}

CALLS = {
    "get": "GET k", "set": "SET k 1", "setnx": "SETNX k 1", "setex": "SETEX k 9 1", "psetex": "PSETEX k 9 1",
    "getset": "GETSET k 1", "getdel": "GETDEL k", "getex": "GETEX k PERSIST", "mget": "MGET k", "mset": "MSET k 1",
    "msetnx": "MSETNX k 1", "append": "APPEND k 1", "strlen": "STRLEN k", "getrange": "GETRANGE k 0 1",
    "substr": "SUBSTR k 0 1", "setrange": "SETRANGE k 0 x", "incr": "INCR k", "decr": "DECR k", "incrby": "INCRBY k 1",
    "decrby": "DECRBY k 1", "incrbyfloat": "INCRBYFLOAT k 1", "lcs": "LCS k k", "setbit": "SETBIT k 0 1",
    "getbit": "GETBIT k 0", "bitcount": "BITCOUNT k 0 -1", "bitpos": "BITPOS k 1 0", "bitop": "BITOP AND to k",
    "bitfield": "BITFIELD k SET u8 0 1", "bitfield_ro": "BITFIELD_RO k GET u8 0",
}  # fmt: skip
IGNORE_THE_TYPE = {"set", "setnx", "setex", "psetex", "mget", "mset", "msetnx"}
QUICK = settings(max_examples=100, suppress_health_check=list(HealthCheck))


class Foreign:
    """A value of some type that is no string."""

    def __len__(self) -> int:
        return 1


def image(ours: InProcess) -> bytes:
    """Return all that is stored, as bytes that can be compared later."""
    return pickle.dumps([(db.values, db.expires, db.key_count, db.bytes_used) for db in ours.databases[:2]])


def test_every_command_of_these_families_is_tried() -> None:
    assert set(CALLS) == set(ROWS) == {**STRINGS, **BITS}.keys()


@pytest.mark.parametrize("name", sorted(CALLS.keys() - IGNORE_THE_TYPE))
def test_a_value_of_another_type_is_refused_and_left_alone(ours: InProcess, name: str) -> None:
    value = cast("Value", Foreign())
    ours.context.db.set(b"k", value)
    reply = ours.say(CALLS[name])
    expected = "The specified keys must contain string values" if name == "lcs" else WrongType.default_text
    assert isinstance(reply, ErrorReply)
    assert reply.cause.text == expected
    assert ours.context.db.get(b"k") is value
    assert ours.context.db.key_count == 1


def test_storing_replaces_a_value_of_another_type(ours: InProcess) -> None:
    for name in ("set", "setex", "psetex", "mset"):
        ours.context.db.set(b"k", cast("Value", Foreign()))
        ours.say(CALLS[name])
        assert ours.say("GET k") == b"1"


def test_mget_answers_null_for_another_type(ours: InProcess) -> None:
    ours.context.db.set(b"k", cast("Value", Foreign()))
    assert ours.say("MGET k k") == [None, None]


@QUICK
@given(conversations(ARGUMENTS, 5, 15))
def test_an_error_changes_nothing(conversation: list[list[bytes]]) -> None:
    ours = InProcess()
    for command in conversation:
        before = image(ours)
        if isinstance(ours.run(*command), ErrorReply):
            assert image(ours) == before, command


@QUICK
@given(conversations(ARGUMENTS))
def test_the_same_commands_give_the_same_state_again(conversation: list[list[bytes]]) -> None:
    first, second = InProcess(), InProcess()
    assert first.send(conversation) == second.send(conversation)
    assert image(first) == image(second)


@QUICK
@given(conversations(ARGUMENTS))
def test_memory_is_accounted_for_exactly(conversation: list[list[bytes]]) -> None:
    ours = InProcess()
    ours.send(conversation)
    for db in ours.databases:
        assert db.bytes_used == recounted(db)


def recounted(db: Database) -> int:
    """Return what the bytes_used of a database should be."""
    keys_and_values = sum(key_cost(key) + cost_of(value) for values in db.values for key, value in values.items())
    return keys_and_values + DEADLINE_BYTES * sum(len(expires) for expires in db.expires if expires)


@QUICK
@given(conversations({**STRINGS, **BITS}))
def test_replies_share_nothing_with_the_keyspace(conversation: list[list[bytes]]) -> None:
    ours = InProcess()
    for command in conversation:
        assert is_immutable(ours.run(*command)), command


def is_immutable(reply: Reply) -> bool:
    if isinstance(reply, list):
        return all(map(is_immutable, reply))
    if isinstance(reply, dict):
        return all(map(is_immutable, reply.values()))
    return not isinstance(reply, bytearray)


def test_a_relative_deadline_counts_from_the_stamp(ours: InProcess) -> None:
    for command in ("SET k v EX 1", "SET k v PX 1000", "SETEX k 1 v", "PSETEX k 1000 v"):
        ours.say(command)
        ours.pass_ms(999)
        assert ours.say("GET k") == b"v"
        ours.pass_ms(1)
        assert ours.say("GET k") is None


@pytest.mark.parametrize("command", ["APPEND k x", "INCR k", "INCRBYFLOAT k 1", "SETRANGE k 0 x", "SETBIT k 1 1"])
def test_changing_an_expired_key_begins_a_new_one_without_deadline(ours: InProcess, command: str) -> None:
    ours.say("SET k 41 PX 10")
    ours.pass_ms(10)
    ours.say(command)
    assert ours.say("PTTL k") == -1
    assert ours.say("GET k") in (b"x", b"1", b"@")


@pytest.mark.parametrize("name", sorted(name for name, row in ROWS.items() if not row.is_write))
def test_a_read_past_a_deadline_that_the_log_does_not_know_waits_for_a_stamp(ours: InProcess, name: str) -> None:
    ours.say("SET k v PX 10")
    ours.context.applying = False
    ours.clock.now_ms += 10
    with pytest.raises(StampNeeded):
        ours.say(CALLS[name])


@pytest.mark.parametrize("command", ["APPEND k 12345678", "SETRANGE k 3 12345678", "SETRANGE new 11 x"])
def test_a_string_does_not_outgrow_its_bound(ours: InProcess, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("kvservice.commands.options.STRING_BYTES_MAX", 10)
    ours.say("SET k abc")
    reply = ours.say(command)
    assert isinstance(reply, ErrorReply)
    assert reply.text == b"ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    assert ours.say("GET k") == b"abc"
    assert ours.say("SETRANGE k 3 1234567") == 10


def test_hits_and_misses_are_counted_by_reads(ours: InProcess) -> None:
    ours.say("SET k v")
    for command in ("GET k", "GET no", "MGET k no k", "STRLEN k", "GETRANGE no 0 1", "GETBIT k 0", "LCS k no"):
        ours.say(command)
    assert (ours.context.hits, ours.context.misses) == (6, 4)
    ours.say("INCR n")
    ours.say("APPEND k x")
    assert (ours.context.hits, ours.context.misses) == (6, 4)
