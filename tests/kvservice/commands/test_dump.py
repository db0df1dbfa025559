"""DUMP and RESTORE: what we write Redis reads, what Redis writes we read, and nothing else gets in."""

from __future__ import annotations

import random

import anycrc  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvservice.commands.dump import BAD_CHECKSUM, BAD_FORMAT, FOOTER_BYTES, VERSION_READ_MAX
from kvservice.commands.reply import ErrorReply, Status
from kvservice.keyspace.values import STRING_BYTES_MAX
from tests.harness.inprocess import InProcess
from tests.harness.oracle import Oracle
from tests.harness.resp2 import bulk_of

TEXTS = [
    b"",
    b"hello",
    b"0",
    b"-1",
    b"127",
    b"-128",
    b"128",
    b"32767",
    b"-32768",
    b"32768",
    b"2147483647",
    b"-2147483648",
    b"2147483648",
    b"9223372036854775807",
    b"9223372036854775808",
    b"00",
    b"+1",
    b"a" * 20,
    b"a" * 21,
    b"a" * 63,
    b"abcdefgh" * 8,
    b"x" * 16_383,
    b"x" * 16_384,
    b"ab" * 100_000,
    random.Random(1).randbytes(21),
    random.Random(2).randbytes(100),
    random.Random(3).randbytes(70_000),
]


def closed(body: bytes, version: int = 10) -> bytes:
    """Return a payload with a right footer."""
    body += version.to_bytes(2, "little")
    return body + int(anycrc.Model("CRC64-REDIS").calc(body)).to_bytes(8, "little")


def dump_of(ours: InProcess, text: bytes) -> bytes:
    ours.run(b"SET", b"key", text)
    payload = ours.say("DUMP key")
    assert isinstance(payload, bytes)
    return payload


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{len(text)}-{text[:8].hex()}")
def test_redis_and_we_restore_each_other(text: bytes, ours: InProcess, oracle: Oracle) -> None:
    commands = [
        [b"FLUSHALL"],
        [b"RESTORE", b"a", b"0", dump_of(ours, text)],
        [b"GET", b"a"],
        [b"OBJECT", b"ENCODING", b"a"],
    ]
    *_, restored, got, encoding = oracle.send(commands)
    assert restored == b"+OK\r\n"
    assert bulk_of(got) == text
    *_, theirs = oracle.send([[b"SET", b"b", text], [b"DUMP", b"b"]])
    assert ours.run(b"RESTORE", b"b", b"0", bulk_of(theirs)) == Status(b"OK")
    assert ours.say("GET b") == text
    assert ours.say("OBJECT ENCODING b") == bulk_of(encoding)


@settings(max_examples=200)
@given(text=st.binary(max_size=300) | st.integers().map(lambda number: b"%d" % number))
def test_any_string_survives_the_round_trip(text: bytes) -> None:
    ours = InProcess()
    assert ours.run(b"RESTORE", b"copy", b"0", dump_of(ours, text)) == Status(b"OK")
    assert ours.say("GET copy") == text


def test_a_string_changed_in_place_is_dumped_as_its_text(ours: InProcess) -> None:
    ours.say("APPEND a 12")
    ours.say("APPEND a 3")
    assert ours.say("DUMP a") == dump_of(ours, b"123")


def test_a_missing_key_has_no_payload(ours: InProcess) -> None:
    assert ours.say("DUMP nothing") is None


def test_a_repetitive_string_is_compressed(ours: InProcess) -> None:
    assert len(dump_of(ours, b"a" * 10_000)) < 500


def refused(ours: InProcess, payload: bytes) -> str:
    reply = ours.run(b"RESTORE", b"new", b"0", payload)
    assert isinstance(reply, ErrorReply), payload
    assert ours.say("EXISTS new") == 0
    return reply.text.decode()


def test_a_damaged_payload_is_refused_at_every_byte(ours: InProcess) -> None:
    payload = dump_of(ours, b"some text that is long enough, long enough, long enough")
    for position in range(len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= 0x10
        assert refused(ours, bytes(damaged)) == f"ERR {BAD_CHECKSUM}"
    for size in range(len(payload)):
        assert refused(ours, payload[:size]) == f"ERR {BAD_CHECKSUM}"


def test_a_payload_with_a_right_checksum_may_still_be_nonsense(ours: InProcess) -> None:
    for body in (
        b"",  # no type
        b"\x00",  # no string
        b"\x01\x01a",  # a list
        b"\x00\x05abc",  # shorter than it says
        b"\x00\x40",  # half a length of 14 bits
        b"\x00\x80\x00\x00",  # half a length of 32 bits
        b"\x00\x81" + b"\xff" * 8,  # longer than memory
        b"\x00\x82\x00",  # no such length
        b"\x00\xc0",  # no integer
        b"\x00\xc2\x00\x00",  # half an integer
        b"\x00\xc4\x00",  # no such encoding
        b"\x00\xc3\x05\x10abc",  # compressed, shorter than it says
        b"\x00\xc3\x03\x80" + STRING_BYTES_MAX.to_bytes(4, "big") + b"abc",  # three bytes that promise 512 MiB
        b"\x00\xc3\x03\x14\xff\xff\xff",  # what LZF cannot read
        b"\x00\xc3\x03\x00\x02ab",  # compressed to nothing
    ):
        assert refused(ours, closed(body)) == f"ERR {BAD_FORMAT}", body


@settings(max_examples=300)
@given(body=st.binary(max_size=40))
def test_any_payload_is_restored_or_refused(body: bytes) -> None:
    ours = InProcess()
    reply = ours.run(b"RESTORE", b"a", b"0", closed(b"\x00" + body))
    assert reply == Status(b"OK") or (isinstance(reply, ErrorReply) and reply.text.endswith(BAD_FORMAT.encode()))


def test_versions_are_read_up_to_that_of_redis_7_2(ours: InProcess) -> None:
    assert ours.run(b"RESTORE", b"a", b"0", closed(b"\x00\x01x", VERSION_READ_MAX)) == Status(b"OK")
    assert refused(ours, closed(b"\x00\x01x", VERSION_READ_MAX + 1)) == f"ERR {BAD_CHECKSUM}"
    assert len(closed(b"")) == FOOTER_BYTES


@pytest.mark.parametrize(
    "options",
    [
        b"0", b"0 REPLACE", b"0 replace", b"-1", b"x", b"0 FOO", b"0 IDLETIME", b"0 IDLETIME -1", b"0 IDLETIME x",
        b"0 FREQ", b"0 FREQ 256", b"0 FREQ -1", b"0 FREQ 5", b"0 IDLETIME 1000", b"0 IDLETIME 1 FREQ 1",
        b"0 FREQ 1 IDLETIME 1", b"1 ABSTTL", b"1 ABSTTL REPLACE", b"99999999999999 ABSTTL", b"-1 REPLACE", b"0 ABSTTL",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", [b"there", b"new"])
def test_options_read_as_with_redis(options: bytes, key: bytes, ours: InProcess, oracle: Oracle) -> None:
    ttl, *words = options.split()
    payload = dump_of(ours, b"value")
    commands = [
        [b"FLUSHALL"],
        [b"SET", b"there", b"old"],
        [b"RESTORE", key, ttl, payload, *words],
        [b"GET", key],
        [b"PEXPIRETIME", key],
        [b"EXISTS", key],
        [b"RESTORE", key, ttl, b"nonsense", *words],
    ]
    assert ours.send(commands) == oracle.send(commands)


def test_a_restored_deadline_counts_from_the_entry(ours: InProcess) -> None:
    payload = dump_of(ours, b"value")
    ours.run(b"RESTORE", b"a", b"1500", payload)
    assert ours.say("PTTL a") == 1500
    ours.pass_ms(1500)
    assert ours.say("GET a") is None


def test_restored_idle_time_is_what_idletime_tells(ours: InProcess) -> None:
    payload = dump_of(ours, b"value")
    ours.say("OBJECT IDLETIME key")
    ours.pass_ms(10_000)
    ours.run(b"RESTORE", b"a", b"0", payload, b"IDLETIME", b"7")
    assert ours.say("OBJECT IDLETIME a") == 7
