"""Frames and records as bytes: what was encoded comes back, anything else is refused in one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.record import (
    CONTROL_FRAME_BYTES,
    FRAME_ALIGNMENT,
    FRAME_HEADER,
    KIND_SEAL,
    Frame,
    FrameKey,
    WalRecord,
    decode_records,
    encode_control,
    encode_records,
    frame_at,
    frame_crc,
    frame_key,
    padded,
)

KEY = frame_key(b"saltsalt", 1)
RECORDS = st.lists(st.builds(WalRecord, st.integers(1, 255), st.integers(0, 2**64 - 1), st.binary(max_size=200)))


def encode(payload: bytes, offset: int, previous_crc: int = 7, synced: int = 0, key: FrameKey = KEY) -> bytes:
    crc = frame_crc(key, payload, previous_crc, offset, synced)
    return FRAME_HEADER.pack(key.marker, len(payload), previous_crc, crc, synced) + payload


@given(RECORDS)
def test_records_come_back_from_a_padded_payload(records: list[WalRecord]) -> None:
    payload = padded(encode_records(records))
    assert len(payload) % FRAME_ALIGNMENT == 0
    assert decode_records(payload) == records


@given(RECORDS, st.integers(0, 2**32 - 1), st.integers(0, 2**40))
def test_a_frame_comes_back_from_the_place_it_was_written_for(
    records: list[WalRecord], previous_crc: int, offset: int
) -> None:
    payload = padded(encode_records(records))
    content = encode(payload, offset, previous_crc, synced=offset)
    frame = frame_at(KEY, b"12345678" + content + b"more", 8, offset)
    assert frame is not None
    assert frame == Frame(offset, offset + len(content), previous_crc, frame.crc, offset, payload)


def test_a_frame_is_none_in_another_place_another_segment_or_another_log() -> None:
    content = encode(padded(b"x" * 100), 64)
    assert frame_at(KEY, content, 0, 64) is not None
    assert frame_at(KEY, content, 0, 72) is None
    for other in (frame_key(b"saltsalt", 2), frame_key(b"another!", 1)):
        assert frame_at(other, content, 0, 64) is None
        assert frame_at(FrameKey(KEY.marker, other.seed), content, 0, 64) is None


def test_a_frame_with_any_bit_flipped_or_any_byte_missing_is_none() -> None:
    content = encode(padded(encode_records([WalRecord(1, 2, b"value"), WalRecord(2, 2, b"")])), 64)
    for offset in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[offset] ^= 1 << bit
            assert frame_at(KEY, bytes(flipped), 0, 64) is None
        assert frame_at(KEY, content[:offset], 0, 64) is None


@given(st.binary(max_size=300), st.integers(0, 300))
def test_foreign_bytes_are_no_frame_and_raise_nothing(content: bytes, position: int) -> None:
    assert frame_at(KEY, content, position, 64) is None


@given(st.binary(max_size=100))
def test_foreign_bytes_are_records_that_encode_to_them_or_a_value_error(payload: bytes) -> None:
    try:
        records = decode_records(payload)
    except ValueError:
        return
    encoded = encode_records(records)
    assert payload == encoded.ljust(len(payload), b"\0")


def test_a_payload_that_is_cut_inside_a_record_is_refused_at_every_byte() -> None:
    payload = encode_records([WalRecord(1, 1, b"body")])
    for size in range(1, len(payload)):
        with pytest.raises(ValueError, match=r"longer than its frame|follow the last record"):
            decode_records(payload[:size])


def test_a_control_frame_has_the_size_that_room_is_kept_for() -> None:
    assert len(encode(encode_control(KIND_SEAL, 2**64 - 1), 64)) == CONTROL_FRAME_BYTES


def test_the_marker_is_never_what_fresh_space_holds() -> None:
    assert all(frame_key(b"saltsalt", sequence).marker for sequence in range(1000))
