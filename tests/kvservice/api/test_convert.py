"""Replies as protobuf: every kind, and the hand-written wire format against the generated one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvservice.api.convert import ReplyTooLarge, encode_values, size_of, to_value, varint
from kvservice.commands.reply import OK, ErrorReply, PushReply, Reply, SetReply, Status, Verbatim
from kvservice.errors import Loading, WrongType
from redan.kv.v1 import kv_pb2

LIMIT = 1 << 30

scalars: st.SearchStrategy[Reply] = st.one_of(
    st.binary(max_size=300),
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
    st.integers(min_value=-70, max_value=70),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.just(OK),
    st.builds(Status, st.binary(max_size=20)),
    st.builds(Verbatim, st.binary(max_size=20)),
    st.just(ErrorReply(WrongType())),
    st.just(ErrorReply(Loading())),
)
hashable = st.one_of(st.binary(max_size=8), st.integers(-5, 5))
replies: st.SearchStrategy[Reply] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(SetReply),
        st.dictionaries(hashable, inner, max_size=4),
    ),
    max_leaves=12,
)


def read_back(encoded: bytes) -> list[kv_pb2.Value]:
    return list(kv_pb2.PipelineResponse.FromString(encoded).values)


@given(st.lists(replies, max_size=20))
def test_the_wire_format_by_hand_is_that_of_the_generated_code(batch: list[Reply]) -> None:
    assert read_back(encode_values(batch, LIMIT)) == [to_value(reply) for reply in batch]


def test_lengths_around_every_change_of_their_encoding_are_right() -> None:
    batch: list[Reply] = [b"x" * size for size in (*range(140), 16381, 16382, 16383, 16384, 16385)]
    assert [value.bulk for value in read_back(encode_values(batch, LIMIT))] == batch


@given(st.lists(replies, min_size=1, max_size=10))
def test_the_size_is_never_much_too_little(batch: list[Reply]) -> None:
    assert to_value(batch).ByteSize() <= size_of(batch) + 64


@given(st.lists(st.binary(max_size=400), max_size=40), st.integers(200, 4000))
def test_what_does_not_fit_becomes_an_error_at_its_place(batch: list[bytes], limit: int) -> None:
    values = read_back(encode_values(list(batch), limit))
    assert len(values) == len(batch)
    for value, reply in zip(values, batch, strict=True):
        assert value.bulk == reply if value.WhichOneof("kind") == "bulk" else value.error.reason == ReplyTooLarge.reason
    assert sum(len(value.bulk) for value in values) <= limit


def test_one_large_reply_does_not_take_the_others_with_it() -> None:
    values = read_back(encode_values([b"a", b"x" * 5000, b"b", [b"y" * 5000], OK], 1000))
    assert [value.WhichOneof("kind") for value in values] == ["bulk", "error", "bulk", "error", "status"]
    assert values[1].error.outcome == kv_pb2.OUTCOME_UNKNOWN


def test_every_kind_of_reply_keeps_its_type() -> None:
    expected: list[tuple[Reply, str]] = [
        (None, "null"),
        (OK, "status"),
        (b"", "bulk"),
        (0, "integer"),
        (1.5, "double"),
        (False, "boolean"),
        ([], "array"),
        (SetReply([1]), "set"),
        (PushReply([b"a"]), "array"),
        ({b"a": 1}, "map"),
        (ErrorReply(WrongType()), "error"),
        (Verbatim(b"text"), "verbatim"),
        (2**63, "bulk"),
    ]
    assert [to_value(reply).WhichOneof("kind") for reply, _ in expected] == [kind for _, kind in expected]


def test_an_error_among_other_replies_says_what_its_call_would() -> None:
    error = to_value(ErrorReply(WrongType())).error
    assert (error.code, error.reason, error.outcome) == (9, "WRONG_TYPE", kv_pb2.OUTCOME_REJECTED)
    assert f"{error.prefix} {error.message}" == WrongType().line


def test_varints_have_seven_bits_a_byte() -> None:
    assert [varint(number) for number in (0, 127, 128, 300)] == [b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02"]
