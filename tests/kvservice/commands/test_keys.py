"""What key commands promise beyond the conversations in tests/scripts/commands."""

from __future__ import annotations

import pytest

from kvservice.commands.reply import ErrorReply, Status
from tests.harness.inprocess import InProcess


def test_names_may_be_any_bytes(ours: InProcess) -> None:
    odd = bytes(range(256))
    assert ours.run(b"SET", odd, b"1") == Status(b"OK")
    assert ours.run(b"SET", b"", b"2") == Status(b"OK")
    assert ours.run(b"KEYS", b"*") in ([odd, b""], [b"", odd])
    assert ours.run(b"RENAME", odd, b"") == Status(b"OK")
    assert ours.run(b"GET", b"") == b"1"


def test_an_unknown_option_that_is_no_text_is_repeated_up_to_its_first_zero_byte(ours: InProcess) -> None:
    reply = ours.run(b"EXPIRE", b"a", b"1", b"\xff\x00x")
    assert isinstance(reply, ErrorReply)
    assert reply.text == b"ERR Unsupported option \xff"


def test_a_key_is_gone_at_its_deadline_and_not_a_millisecond_before(ours: InProcess) -> None:
    for command in (
        "GET a",
        "EXISTS a",
        "TTL a",
        "TYPE a",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "DUMP a",
        "OBJECT ENCODING a",
    ):
        ours.flush()
        gone = ours.say(command)
        ours.say("SET a 1 PX 10")
        ours.pass_ms(9)
        assert ours.say(command) != gone, command
        ours.pass_ms(1)
        assert ours.say(command) == gone, command


@pytest.mark.parametrize(
    "command", ["RENAME a b", "RENAMENX a b", "COPY a b", "MOVE a 1", "PERSIST a", "EXPIRE a 9", "DEL a", "TOUCH a"]
)
def test_an_expired_key_counts_as_missing_for_those_that_change_it(command: str, ours: InProcess) -> None:
    missing = ours.say(command)
    ours.say("SET a 1 PX 10")
    ours.pass_ms(10)
    assert ours.say(command) == missing
    assert ours.say("EXISTS a b") == 0


def test_an_expired_target_does_not_stand_in_the_way(ours: InProcess) -> None:
    for command in ("RENAMENX a b", "COPY a b"):
        ours.flush()
        ours.say("SET a new")
        ours.say("SET b old PX 10")
        ours.pass_ms(10)
        assert ours.say(command) == 1
        assert ours.say("GET b") == b"new"
        assert ours.say("TTL b") == -1


def test_idle_time_is_counted_from_the_last_use_once_somebody_has_asked(ours: InProcess) -> None:
    ours.say("SET a 1")
    assert ours.say("OBJECT IDLETIME a") == 0
    ours.pass_ms(3_000)
    assert ours.say("OBJECT IDLETIME a") == 3


def test_random_key_meets_every_key(ours: InProcess) -> None:
    names = {b"key:%d" % number for number in range(20)}
    for name in names:
        ours.run(b"SET", name, b"1")
    assert {ours.say("RANDOMKEY") for _ in range(2_000)} == names


def test_random_key_passes_over_expired_keys(ours: InProcess) -> None:
    for number in range(300):
        ours.run(b"SET", b"key:%d" % number, b"1", b"PX", b"1")
    ours.say("SET live 1")
    ours.pass_ms(1)
    assert ours.say("RANDOMKEY") == b"live"


def test_accounting_returns_to_zero_when_everything_is_gone(ours: InProcess) -> None:
    for line in ("SET a 1 EX 9", "SET b text", "APPEND b more", "COPY a c", "RENAME b d", "MOVE c 1", "EXPIRE d 5"):
        ours.say(line)
    for database in ours.databases:
        for key in [key for key, _value in database.items()]:
            database.delete(key)
        assert (database.key_count, database.expiry_count, database.bytes_used) == (0, 0, 0)
