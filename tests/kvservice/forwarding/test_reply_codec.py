"""Replies travel between nodes and come out as what went in: values, kinds, and errors with what a client concludes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvservice import errors
from kvservice.commands import reply as reply_module
from kvservice.commands.reply import OK, ErrorReply, PushReply, Reply, SetReply, Status, Verbatim
from kvservice.errors import OutcomeUnknownError, RedanError
from kvservice.forwarding.reply_codec import RepliesDamaged, decode_replies, encode_replies
from kvservice.keyspace.machine import InternalError

ERRORS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RedanError)),
    key=lambda kind: kind.__name__,
)
scalars: st.SearchStrategy[Reply] = (
    st.binary(max_size=40)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.just(OK)
    | st.binary(max_size=20).map(Status)
)
replies: st.SearchStrategy[Reply] = st.recursive(
    scalars
    | st.binary(max_size=20).map(Verbatim)
    | st.builds(lambda kind, text: ErrorReply(kind(text)), st.sampled_from(ERRORS), st.text(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(SetReply)
        | st.lists(inner, max_size=4).map(PushReply)
        | st.dictionaries(scalars, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(left: Reply, right: Reply) -> bool:
    """Tell whether two replies are the same down to classes, which ``==`` does not."""
    if type(left) is not type(right):
        return False
    if isinstance(left, ErrorReply) and isinstance(right, ErrorReply):
        return (type(left.cause), left.cause.text, left.text) == (type(right.cause), right.cause.text, right.text)
    if isinstance(left, Verbatim) and isinstance(right, Verbatim):
        return left.text == right.text
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same(one, other) and same(left[one], right[other]) for one, other in zip(left, right, strict=True))
    if isinstance(left, list) and isinstance(right, list):
        return all(map(same, left, right)) and len(left) == len(right)
    return left == right and repr(left) == repr(right)


@given(st.lists(replies, max_size=6))
def test_every_reply_comes_back_as_it_went(values: list[Reply]) -> None:
    got = decode_replies(encode_replies(values))
    assert len(got) == len(values)
    assert all(map(same, values, got))


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_every_class_keeps_class_text_and_reason(kind: type[RedanError]) -> None:
    for error in (kind(), kind("a text of its own\r\n\udcff")):
        [got] = decode_replies(encode_replies([ErrorReply(error)]))
        assert isinstance(got, ErrorReply)
        assert type(got.cause) is kind
        assert got.text == ErrorReply(error).text
        assert (got.cause.reason, got.cause.grpc_status) == (kind.reason, kind.grpc_status)


def test_every_class_of_replies_is_carried() -> None:
    classes = {
        kind
        for kind in vars(reply_module).values()
        if isinstance(kind, type) and kind.__module__ == reply_module.__name__
    }
    assert classes == {Status, ErrorReply, Verbatim, SetReply, PushReply, reply_module.Pending}
    with pytest.raises(TypeError):
        encode_replies([reply_module.Pending()])  # type: ignore[list-item]  # it stands for a reply that comes later


def test_a_class_that_the_reader_does_not_know_answers_as_the_writer_meant() -> None:
    class Newer(OutcomeUnknownError):  # noqa: N818 - named as the rest of the tree
        resp_prefix = "NEWER"
        reason = "NEWER_REASON"

    for error, base in ((Newer("text"), OutcomeUnknownError), (InternalError("defect"), RedanError)):
        [got] = decode_replies(encode_replies([ErrorReply(error)]))
        assert isinstance(got, ErrorReply)
        assert isinstance(got.cause, base)
        assert got.text == ErrorReply(error).text
        assert (got.cause.reason, got.cause.grpc_status) == (error.reason, error.grpc_status)


def test_the_status_ok_stays_the_one_object_that_encoders_look_for() -> None:
    conversations: list[list[Reply]] = [[OK], [OK, b"x"], [[OK]]]
    for values in conversations:
        [first, *_] = decode_replies(encode_replies(values))
        assert (first[0] if isinstance(first, list) else first) is OK


def test_a_double_that_is_no_number_stays_one() -> None:
    [got] = decode_replies(encode_replies([math.nan]))
    assert isinstance(got, float)
    assert math.isnan(got)


@given(st.binary(max_size=60))
def test_other_bytes_are_replies_or_are_refused(encoded: bytes) -> None:
    try:
        got = decode_replies(encoded)
    except RepliesDamaged:
        return
    assert isinstance(got, list)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x01",
        b"\xc4\x01a",
        b"\x91",
        b"\x91\xd4\x09x",
        b"\x91\xd4\x02x",
        b"\x91\xd4\x06x",
        b"\x91\xd4\x07\x91",
        b"\x91\xd5\x07\x91\x01",
        b"\x91" * 5000 + b"\x90",
    ],
)
def test_damage_is_named(encoded: bytes) -> None:
    with pytest.raises(RepliesDamaged):
        decode_replies(encoded)
