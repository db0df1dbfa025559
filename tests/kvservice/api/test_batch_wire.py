"""Batches cut at fixed places: what protobuf reads from the same bytes, or nothing."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings, strategies

from kvservice.api import batch_wire as module
from kvservice.api.batch_wire import command_shape_of, read_uniform_batch
from redan.kv.v1 import kv_pb2

Rows = list[list[bytes]]


def encoded(commands: Rows, batch_id: int = 0, database: int = 0, request_id: str = "") -> bytes:
    messages = [kv_pb2.Command(args=args, request_id=request_id) for args in commands]
    return kv_pb2.PipelineRequest(batch_id=batch_id, database=database, commands=messages).SerializeToString()


def check(raw: bytes) -> bool:
    """Check what is read, if anything is, against protobuf; tell whether it was."""
    try:
        found = read_uniform_batch(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            kv_pb2.PipelineRequest.FromString(raw)
        return False
    if found is None:
        return False
    request = kv_pb2.PipelineRequest.FromString(raw)
    head, commands = found
    assert (head.batch_id, head.database) == (request.batch_id, request.database)
    assert commands == [tuple(message.args) for message in request.commands]
    assert not any(message.request_id for message in request.commands)
    return True


SETS = [[b"SET", b"key:%03d" % number, b"\x1a\x0a%03d" % number] for number in range(20)]


@strategies.composite
def alike(draw: strategies.DrawFn) -> Rows:
    """Return commands of one name and one length for each argument."""
    name = draw(strategies.binary(max_size=6))
    lengths = draw(strategies.lists(strategies.integers(0, 150), min_size=1, max_size=3))
    row = strategies.tuples(*[strategies.binary(min_size=length, max_size=length) for length in lengths])
    return [[name, *arguments] for arguments in draw(strategies.lists(row, min_size=50, max_size=70))]


@settings(max_examples=200)
@given(alike(), strategies.integers(0, (1 << 64) - 1), strategies.integers(0, 1 << 31))
def test_commands_of_one_shape_are_read_behind_any_numbers(commands: Rows, batch_id: int, database: int) -> None:
    assert check(encoded(commands, batch_id, database))


def test_any_byte_may_change_and_what_is_read_is_what_protobuf_reads() -> None:
    raw = encoded(SETS, 300, 5)
    read = 0
    for place in range(len(raw)):
        for byte in b"\0\x03\x08\x0a\x10\x12\x1a\x80\xff":
            read += check(raw[:place] + bytes([byte]) + raw[place + 1 :])
        check(raw[:place])
    assert read > len(SETS) * 12 * 8, "bytes of arguments may be any"


def test_what_is_not_one_shape_is_left_to_protobuf() -> None:
    assert not check(encoded([*SETS, [b"GET", b"k"]]))
    assert not check(encoded([[b"GET", b"k"], *SETS]))
    assert not check(encoded(SETS, request_id="abc"))
    assert not check(encoded(SETS) + b"\x10\x01")
    assert not check(encoded([]))
    assert not check(encoded([[b"PING"]] * 100))
    assert not check(encoded([[b"MSET", b"k", b"v", b"l", b"w"]] * 100))
    assert not check(encoded([[b"SET", b"k", b"v" * 2000]] * 100))


def test_a_long_request_is_left_to_protobuf_which_counts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encoded(SETS)
    monkeypatch.setattr(module, "_REQUEST_BYTES_MAX", len(raw))
    assert check(raw)
    monkeypatch.setattr(module, "_REQUEST_BYTES_MAX", len(raw) - 1)
    assert not check(raw)


@pytest.mark.parametrize(
    "data", [b"", b"\x1a", b"\x1a\x80\x80\x01", b"\x1a\x02\x0a\x05abcde", b"\x1a\xff", b"\x0a\x01a"]
)
def test_what_is_no_command_has_no_shape(data: bytes) -> None:
    assert command_shape_of(data) is None
