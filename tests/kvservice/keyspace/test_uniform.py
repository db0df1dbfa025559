"""Commands of one shape: read as what they encode, and nothing else passes for them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies

from kvservice.gateway.resp import encode_commands
from kvservice.keyspace import uniform as module
from kvservice.keyspace.uniform import GROUP_BYTES_MAX, GROUP_COMMANDS_MAX, read_uniform, resp_shape_of, uniform_groups

Row = tuple[bytes, ...]

SETS: list[Row] = [(b"SET", b"key:%03d" % number, b"\r\n=%03d*\r\n" % number) for number in range(11)]


@strategies.composite
def alike(draw: strategies.DrawFn) -> list[Row]:
    """Return commands of one name and one length for each argument."""
    name = draw(strategies.binary(max_size=6))
    lengths = draw(strategies.lists(strategies.integers(0, 40), min_size=1, max_size=module.ARGUMENTS_MAX - 1))
    count = draw(strategies.integers(24, 60))
    row = strategies.tuples(*[strategies.binary(min_size=length, max_size=length) for length in lengths])
    return [(name, *arguments) for arguments in draw(strategies.lists(row, min_size=count, max_size=count))]


@settings(max_examples=200)
@given(alike(), strategies.integers(0, 200))
def test_commands_of_one_shape_are_read_up_to_one_that_is_cut(commands: list[Row], cut: int) -> None:
    encoded = encode_commands(commands)
    assert read_uniform(encoded) == (commands, len(encoded))
    stride = len(encoded) // len(commands)
    data = encoded[: max(len(encoded) - cut, module.LEARN_BYTES_MIN)]
    whole = len(data) // stride
    assert read_uniform(data) == (commands[:whole], whole * stride)


def test_every_byte_that_is_read_is_what_the_commands_encode_as() -> None:
    encoded = encode_commands(SETS)
    read = 0
    for place in range(len(encoded)):
        for byte in b"\0\r\n$*+=0139a":
            changed = encoded[:place] + bytes([byte]) + encoded[place + 1 :]
            commands, end = read_uniform(changed)
            assert encode_commands(commands) == changed[:end]
            read += bool(end)
    arguments = sum([len(argument) for _, *arguments in SETS for argument in arguments])
    assert read >= arguments * 12, "bytes of arguments may be any"


@pytest.mark.parametrize("place", [0, 1, 5, 10])
@pytest.mark.parametrize("other", [(b"SET", b"k", b"v"), (b"GET", b"key:001"), (b"SEt", b"key:001", b"\r\n=001*\r\n")])
def test_one_that_is_unlike_ends_the_groups(place: int, other: Row) -> None:
    commands = [*SETS[:place], other, *SETS[place:]]
    encoded = encode_commands(commands)
    assert read_uniform(encoded) == ([], 0)
    read = [args for group, _ in uniform_groups(encoded) for args in group]
    assert read == commands[: len(read)]
    assert len(read) <= place


def test_shapes_that_begin_alike_are_told_apart() -> None:
    for length in [64, 65, 64, 9, 10, 9]:
        commands = [(b"SET", b"key:000000000001", b"=" * length)] * 16
        assert read_uniform(encode_commands(commands)) == (commands, len(encode_commands(commands)))


def test_groups_are_powers_of_two_and_no_longer_than_the_cache() -> None:
    for length in (1, 64, 900):
        encoded = encode_commands([[b"SET", b"%04d" % number, b"v" * length] for number in range(1000)])
        groups = list(uniform_groups(encoded))
        assert [end for _, end in groups][-1] == len(encoded)
        assert {len(group) for group, _ in groups} <= {1, 2, 4, 8, 16, 32, 64, 128}
        largest = max(len(group) for group, _ in groups)
        assert largest == GROUP_COMMANDS_MAX or largest * len(encoded) // 1000 > GROUP_BYTES_MAX // 2


def test_shapes_are_kept_in_bounds() -> None:
    for number in range(3 * module.SHAPES_MAX):
        commands = [(b"%d" % number, b"k", b"v")] * 20
        assert read_uniform(encode_commands(commands))[0] == commands
        assert len(module._RESP._shapes) <= module.SHAPES_MAX


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"*",
        b"PING\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"*02\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$03\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\n\n",
        b"*2\r\n$3\r\nGET\r\n+1\r\nk\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n" + b"v" * 1000 + b"\r\n",
        b"*5\r\n" + b"$1\r\na\r\n" * 5,
    ],
)
def test_what_has_no_shape_is_left_to_others(first: bytes) -> None:
    assert resp_shape_of(first) is None
    assert read_uniform(first * 8) == ([], 0)
