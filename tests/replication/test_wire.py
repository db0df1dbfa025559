"""Messages as bytes: what goes in comes out, and what was never put in is refused by name."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redan.raft.v1 import raft_pb2
from replication.core.membership import Configuration
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from replication.wire import (
    ENTRY_BYTES,
    KIND_COUNT,
    NUMBER_MAX,
    Batch,
    StateDigest,
    WireError,
    decode_request,
    encode_request,
    size_bytes,
)

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, NUMBER_MAX))
ENTRIES_MAX = 5


@st.composite
def appends(draw: st.DrawFn) -> AppendEntries:
    """An append as a leader makes it: terms of entries rise up to the message's."""
    terms = sorted(draw(st.lists(NUMBERS, min_size=2, max_size=ENTRIES_MAX + 2)))
    previous_index = draw(st.integers(0, NUMBER_MAX - ENTRIES_MAX))
    entries = [
        Entry(term, previous_index + 1 + place, draw(st.sampled_from(EntryKind)), draw(NUMBERS), draw(st.binary()))
        for place, term in enumerate(terms[1:-1])
    ]
    return AppendEntries(
        terms[-1], previous_index, terms[0], draw(NUMBERS), entries, draw(NUMBERS), draw(st.booleans())
    )


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    appends(),
    st.builds(AppendReply, NUMBERS, st.booleans(), NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.booleans()),
    st.builds(Heartbeat, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(HeartbeatReply, NUMBERS, NUMBERS),
    st.builds(RequestVote, NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.booleans()),
    st.builds(VoteReply, NUMBERS, st.booleans(), st.booleans(), NUMBERS, NUMBERS),
    st.builds(TimeoutNow, NUMBERS),
)
DIGESTS = st.none() | st.builds(StateDigest, NUMBERS, st.integers(0, 2**64 - 1))


def entry(index: int, payload: bytes = b"*1\r\n$4\r\nPING\r\n", term: int = 3) -> Entry:
    return Entry(term, index, EntryKind.COMMANDS, 1000 + index, payload)


def append(*payloads: bytes, previous: int = 9) -> AppendEntries:
    entries = [entry(previous + 1 + place, payload) for place, payload in enumerate(payloads)]
    return AppendEntries(3, previous, 3, previous, entries, 5)


@given(st.lists(MESSAGES, max_size=6), DIGESTS)
def test_a_request_gives_back_the_messages_it_was_made_of(messages: list[Message], digest: StateDigest | None) -> None:
    decoded = decode_request(encode_request(messages, digest))
    assert decoded == Batch(messages, digest)
    assert [type(message) for message in decoded.messages] == [type(message) for message in messages]


@given(st.lists(MESSAGES, min_size=1, max_size=6))
def test_a_request_is_never_longer_than_its_messages_were_counted(messages: list[Message]) -> None:
    # The tag and length of the payloads come once a request; a message's reserve covers them.
    assert len(encode_request(messages)) <= sum(map(size_bytes, messages)) + ENTRY_BYTES


@given(st.lists(MESSAGES, max_size=6), DIGESTS)
def test_payloads_are_read_wherever_protobuf_puts_them(messages: list[Message], digest: StateDigest | None) -> None:
    raw = encode_request(messages, digest)
    anywhere = raft_pb2.ExchangeRequest.FromString(raw).SerializeToString()
    assert decode_request(anywhere) == Batch(messages, digest)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_request_or_refused(content: bytes) -> None:
    with suppress(WireError):
        decode_request(content)


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_a_request_with_changed_bytes_is_a_request_or_refused(messages: list[Message], choice: st.DataObject) -> None:
    raw = bytearray(encode_request(messages, StateDigest(7, 8)))
    for _ in range(choice.draw(st.integers(1, 4))):
        raw[choice.draw(st.integers(0, len(raw) - 1))] = choice.draw(st.integers(0, 255))
    try:
        decoded = decode_request(bytes(raw))
    except WireError:
        return
    for message in decoded.messages:
        if isinstance(message, AppendEntries):
            indexes = [item.index for item in message.entries]
            terms = [message.previous_term, *(item.term for item in message.entries)]
            assert indexes == list(range(message.previous_index + 1, message.previous_index + 1 + len(indexes)))
            assert terms == sorted(terms)
            assert {item.kind for item in message.entries} <= set(range(KIND_COUNT))


def test_a_request_cut_at_any_byte_is_refused_or_says_less() -> None:
    messages: list[Message] = [append(b"first", b"second"), Heartbeat(3, 9, 5)]
    raw = encode_request(messages)
    for cut in range(len(raw)):
        try:
            assert len(decode_request(raw[:cut]).messages) < len(messages)
        except WireError:
            continue


def changed(raw: bytes, change: str) -> bytes:
    """Return a request with one field changed: a Python statement about ``m``, its first message, or ``r``, itself."""
    request = raft_pb2.ExchangeRequest.FromString(raw)
    exec(change, {"r": request, "m": request.messages[0], "pb": raft_pb2})
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("m.append_entries.entries[0].kind = 0", "entry 10 is of kind 0"),
        ("m.append_entries.entries[1].kind = 4", "entry 11 is of kind 4, which this version does not know"),
        ("m.append_entries.entries[0].term = 4", "entry 10 of term 4 stands after term 3 in term 3"),
        ("m.append_entries.entries[1].term = 2", "entry 11 of term 2 stands after term 3"),
        ("m.append_entries.entries[0].payload_bytes = 99", "ends 88 bytes behind the payloads"),
        ("m.append_entries.entries[1].payload_bytes = 1", "5 bytes of payload belong to no entry"),
        ("r.payloads = b''", "ends 5 bytes behind the payloads"),
        ("m.append_entries.previous_index = 2**64 - 1", "is beyond"),
        ("m.append_entries.previous_index = 2**63 - 2", "is beyond"),
        ("m.append_entries.commit_index = 2**63", "the commit index 9223372036854775808 is beyond"),
        ("m.append_entries.entries[0].stamp_ms = 2**63", "the stamp"),
        ("m.append_entries.read_round = 2**63", "the read round"),
        ("m.term = 2**63", "the term"),
        ("m.group = 1", "consensus group 1 is not known"),
        ("m.ClearField('append_entries')", "no body"),
        ("r.greeting.sender = 'n1'", "a greeting stands only in the first request"),
        ("r.state_digest.index = 2**63", "the index"),
        ("m.heartbeat.commit_index = 2**63; r.payloads = b''", "the commit index"),
        ("m.heartbeat.leader_commit = 2**63; r.payloads = b''", "the leader's commit index"),
        ("m.heartbeat_reply.read_round = 2**63; r.payloads = b''", "the read round"),
        ("m.append_entries_reply.hint_term = 2**63; r.payloads = b''", "the hint term"),
        ("m.request_vote_reply.commit_term = 2**63; r.payloads = b''", "the term"),
        ("m.request_vote.last_index = 2**63; r.payloads = b''", "the index"),
    ],
)
def test_an_unlawful_request_is_refused_by_what_is_wrong(change: str, says: str) -> None:
    raw = changed(encode_request([append(b"first", b"second")]), change)
    with pytest.raises(WireError, match=says):
        decode_request(raw)


def test_a_heartbeat_of_a_version_that_does_not_tell_the_leaders_commit_index_is_understood() -> None:
    raw = changed(encode_request([Heartbeat(3, 9, 5, 11)]), "m.heartbeat.ClearField('leader_commit')")
    assert decode_request(raw).messages == [Heartbeat(3, 9, 5)]


def test_payloads_that_lie_about_their_length_are_refused_before_anything_is_copied() -> None:
    for raw in (b"\x22", b"\x22\xff", b"\x22" + b"\xff" * 12, b"\x22\xff\xff\xff\xff\x7f" + b"x" * 8, b"\x22\x05abcd"):
        with pytest.raises(WireError):
            decode_request(raw)


def test_payloads_in_two_places_are_refused() -> None:
    raw = encode_request([append(b"first", b"second")])
    twice = raw + raft_pb2.ExchangeRequest(payloads=b"third").SerializeToString()
    with pytest.raises(WireError, match="two places"):
        decode_request(twice)


def test_a_snapshot_does_not_travel_as_a_message() -> None:
    with pytest.raises(TypeError, match="InstallSnapshot"):
        encode_request([InstallSnapshot(1, 2, 1, Configuration(("n1",)))])


def test_an_entry_is_copied_once_out_of_the_request_and_shares_nothing_with_it() -> None:
    payload = bytes(range(256)) * 4096
    raw = encode_request([append(payload)])
    assert raw.count(payload) == 1
    assert raw.index(payload) < 8, "payloads stand first"
    (message,) = decode_request(raw).messages
    assert isinstance(message, AppendEntries)
    assert message.entries[0].payload == payload
