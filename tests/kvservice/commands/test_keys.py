"""Key commands, conversation by conversation the same as a real redis-server's; and what only we promise."""

from __future__ import annotations

import pytest

from kvservice.commands.reply import ErrorReply, Status
from tests.harness.inprocess import InProcess
from tests.harness.oracle import Oracle

CONVERSATIONS = {
    "removing": """
        SET a 1 | SET b 2 | SET c 3 | DEL a a x | UNLINK b b c | EXISTS a b c | DBSIZE | DEL nothing
    """,
    "counting": """
        SET a 1 | SET b 2 | EXISTS a a b x | TOUCH a a b x | TYPE a | TYPE x | DBSIZE
    """,
    "renaming": """
        SET a 1 | RENAME a b | GET a | GET b | RENAME x y | RENAME x x | RENAME b b | SET c 2 | RENAME b c |
        GET c | DBSIZE
    """,
    "renaming a key with a deadline": """
        SET a 1 EXAT 9999999999 | RENAME a b | EXPIRETIME b | SET c 1 EXAT 10000000000 | SET d 1 |
        RENAME d c | EXPIRETIME c | RENAME c d | EXPIRETIME d
    """,
    "renaming if the name is free": """
        SET a 1 | SET b 2 | RENAMENX a b | RENAMENX a c | GET c | RENAMENX c c | RENAMENX x y | RENAMENX x x
    """,
    "copying": """
        SET a 1 EXAT 9999999999 | COPY a b | GET b | EXPIRETIME b | SET c 3 | COPY a c | COPY a c REPLACE |
        GET c | EXPIRETIME c | COPY a a | COPY x x | COPY x y | COPY x y REPLACE | COPY a d DB 3 |
        COPY a d DB 3 | COPY a d DB 3 REPLACE | COPY a a DB 3 | COPY a a DB 0
    """,
    "copying with bad options": """
        SET a 1 | COPY a b DB | COPY a b DB x | COPY a b DB 99 | COPY a b DB -1 | COPY a b NOSUCH |
        COPY a b DB 99999999999 | COPY a b DB 1 DB 2 REPLACE replace | COPY a
    """,
    "copying keeps the encoding": """
        SET a 1 | APPEND a 2 | COPY a b | OBJECT ENCODING b | GET b | APPEND a 3 | GET b
    """,
    "moving": """
        SET a 1 EXAT 9999999999 | MOVE a 1 | GET a | SELECT 1 | GET a | EXPIRETIME a | SELECT 0 | SET a 2 |
        MOVE a 1 | MOVE a 0 | MOVE x 0 | MOVE x 1 | MOVE a 99 | MOVE a x | MOVE a -1 | MOVE a 4294967296 |
        MOVE a 9223372036854775808 | MOVE a
    """,
    "deadlines": """
        SET a 1 | TTL a | PTTL a | TTL x | PTTL x | EXPIRE a 100 | TTL a | PERSIST a | PERSIST a | PERSIST x |
        TTL a | EXPIREAT a 9999999999 | EXPIRETIME a | PEXPIRETIME a | PEXPIREAT a 9999999999499 | EXPIRETIME a |
        PEXPIREAT a 9999999999500 | EXPIRETIME a | PEXPIRETIME a | EXPIRETIME x | PEXPIRETIME x
    """,
    "deadlines that have passed": """
        SET a 1 | EXPIRE a 0 | GET a | SET a 1 | EXPIRE a -1 | GET a | SET a 1 | PEXPIRE a -5 | GET a |
        SET a 1 | EXPIREAT a 1 | GET a | SET a 1 | PEXPIREAT a 1 | GET a | SET a 1 | EXPIREAT a -1 |
        EXISTS a | EXPIRE x 0 | DBSIZE
    """,
    "deadlines that overflow": """
        SET a 1 | EXPIRE a 9223372036854775807 | EXPIRE a 9223372036854775 | EXPIRE a -9223372036854775808 |
        SET a 1 | EXPIRE a -9223372036854776 | PEXPIRE a 9223372036854775807 |
        PEXPIREAT a 9223372036854775807 | PEXPIRETIME a | EXPIREAT a 9223372036854775807 |
        EXPIRE a 9223372036854775808 | EXPIRE a 1.5 | EXPIRE a abc | EXPIRE a | EXPIRE x 9223372036854775807 |
        TTL x
    """,
    "deadlines on condition": """
        SET a 1 | EXPIREAT a 9999999999 XX | EXPIREAT a 9999999999 GT | EXPIREAT a 9999999999 LT |
        EXPIREAT a 9999999999 NX | EXPIRETIME a | EXPIREAT a 9999999999 GT | EXPIREAT a 9999999999 LT |
        EXPIREAT a 10000000000 GT | EXPIRETIME a | EXPIREAT a 9999999999 LT | EXPIRETIME a |
        EXPIREAT a 9999999998 GT | EXPIREAT a 10000000008 XX GT | EXPIREAT a 10000000007 XX LT |
        EXPIRETIME a | PERSIST a | EXPIREAT a 9999999999 gt | EXPIREAT a 9999999999 lt | EXPIRETIME a |
        EXPIRE a 1 NX XX | EXPIRE a 1 NX GT | EXPIRE a 1 NX LT | EXPIRE a 1 GT LT | EXPIRE a 1 NX NX |
        EXPIRE a x FOO | EXPIRE a 1 FOO | EXPIRE a 1 XX EX | EXPIRE x 1 NX | EXPIREAT a 1 LT | EXISTS a
    """,
    "whole databases": """
        SET a 1 | SELECT 1 | SET b 2 | FLUSHDB | DBSIZE | SELECT 0 | DBSIZE | FLUSHDB ASYNC | SET a 1 |
        FLUSHALL SYNC | DBSIZE | FLUSHALL async | FLUSHDB NOW | FLUSHALL SYNC SYNC | FLUSHALL SYNC ASYNC
    """,
    "exchanging databases": """
        SET a 1 EXAT 9999999999 | SELECT 1 | SET b 2 | SWAPDB 0 1 | GET a | EXPIRETIME a | GET b | DBSIZE |
        SELECT 0 | GET b | DBSIZE | SWAPDB 0 0 | SWAPDB x 0 | SWAPDB 0 x | SWAPDB 0 99 | SWAPDB -1 0 |
        SWAPDB 0 | SWAPDB 99999999999 0 | KEYS *
    """,
    "objects": """
        SET a 1 | OBJECT ENCODING a | OBJECT REFCOUNT a | SET a 10000 | OBJECT REFCOUNT a | SET a abc |
        OBJECT ENCODING a | OBJECT REFCOUNT a | APPEND a d | OBJECT ENCODING a | OBJECT ENCODING x |
        OBJECT REFCOUNT x | OBJECT IDLETIME x | OBJECT FREQ x | OBJECT FREQ a | OBJECT IDLETIME a |
        OBJECT NOSUCH a | OBJECT ENCODING | OBJECT ENCODING a b | OBJECT | SET a 9223372036854775807 |
        OBJECT ENCODING a | SET a -1 | OBJECT REFCOUNT a
    """,
    "cursors": """
        SCAN 0 | SET a 1 | SCAN 0 | SCAN x | SCAN 1x | SCAN 18446744073709551616 | SCAN 0 COUNT 0 |
        SCAN 0 COUNT -1 | SCAN 0 COUNT x | SCAN 0 COUNT | SCAN 0 FOO 1 | SCAN 0 MATCH | SCAN 0 MATCH a |
        SCAN 0 MATCH b | SCAN 0 TYPE string | SCAN 0 TYPE STRING | SCAN 0 TYPE list | SCAN 0 TYPE nosuch |
        SCAN 0 MATCH * COUNT 100 TYPE string | SCAN 00 | SCAN +0 | SCAN
    """,
    "a single key": """
        RANDOMKEY | KEYS * | SET a 1 | RANDOMKEY | KEYS * | KEYS a | KEYS b | KEYS [ab] | KEYS | RANDOMKEY x
    """,
}
"""Commands between bars. Deadlines lie near the second 9999999999, which is in the year 2286."""


def conversation(text: str) -> list[list[bytes]]:
    return [command.encode().split() for command in text.split("|")]


@pytest.mark.parametrize("title", CONVERSATIONS)
def test_a_conversation_reads_as_with_redis(title: str, ours: InProcess, oracle: Oracle) -> None:
    commands = conversation(CONVERSATIONS[title])
    oracle.send([[b"SELECT", b"0"], [b"FLUSHALL"]])
    theirs = oracle.send(commands)
    for command, our_reply, their_reply in zip(commands, ours.send(commands), theirs, strict=True):
        assert our_reply == their_reply, command


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
