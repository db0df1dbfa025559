"""Frames and records of the write-ahead log, as bytes: encode, check, decode. No file is touched here.

A frame is one write: the group-commit batch that became durable with one sync. A record is one item in it.

Guarantees:
- A frame that `frame_at` returns was written whole, with this salt, in this segment, at this offset: all of these are
  in its checksum, so a copy of a frame inside a client's value, or a write that landed elsewhere, is not a frame.
- The padding is part of the checksum: there is no byte of a frame that can change unnoticed.
Leaves to the caller: the chain (`previous_crc` is reported, not compared), and what kinds below CONTROL_KIND_MIN mean.

Layout, little endian; a frame starts at a multiple of 8 and its length is one:

    frame   marker u32 | length u32 | previous_crc u32 | crc u32 | synced u64 | payload [length]
    payload record ... | zeros up to the next multiple of 8
    record  kind u8 | index u64 | length u32 | body [length]

- marker: CRC-32C of salt and segment number. Scanning for it is a search for 4 bytes that a client cannot know, so
  hostile values do not make recovery slow.
- previous_crc: crc of the frame before, for the first frame that of the segment header.
- crc: CRC-32C over (salt, segment number, length, previous_crc, offset of this frame, synced) and the payload.
- synced: offset in this segment up to which all bytes were known durable when this frame was written.
"""

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from google_crc32c import extend, value

FRAME_HEADER = Struct("<IIIIQ")
FRAME_HEADER_BYTES = FRAME_HEADER.size
RECORD_HEADER = Struct("<BQI")
RECORD_HEADER_BYTES = RECORD_HEADER.size
FRAME_ALIGNMENT = 8
CONTROL_FRAME_BYTES = FRAME_HEADER_BYTES + 16
"""A frame with one record without a body: 24 + 13, padded."""

PAYLOAD_BYTES_MAX = (1 << 32) - FRAME_ALIGNMENT

KIND_ENTRY = 1
"""The one kind of the caller whose index the log follows, to name segments and to know which ones to purge."""
CONTROL_KIND_MIN = 0xF0
"""Kinds from here on belong to the log itself."""
KIND_SYNC_MARK = 0xF0
"""Written once when the log falls idle: everything before it is durable."""
KIND_SEAL = 0xF1
"""Clean shutdown."""
KIND_CONTINUED = 0xF2
"""The last frame of a segment: the next segment exists."""

_CHECKED_FIELDS = Struct("<IIQQ")
_SALTED = Struct("<8sQ")
PADDING = [bytes(count) for count in range(FRAME_ALIGNMENT)]


class WalRecord(NamedTuple):
    """One record: a kind of the caller (1..239), the log index it belongs to, and its bytes."""

    kind: int
    index: int  # type: ignore[assignment]  # tuple.index is never wanted here; the log's word is
    body: bytes


class FrameKey(NamedTuple):
    """What ties frames to one segment of one log."""

    marker: int
    seed: int


class Frame(NamedTuple):
    """A frame whose checksum holds. Offsets in bytes in the segment; end is where the next frame starts."""

    offset: int
    end: int
    previous_crc: int
    crc: int
    synced: int
    payload: bytes


def frame_key(salt: bytes, sequence: int) -> FrameKey:
    """Return the key of a segment. Salt is 8 bytes."""
    seed = value(_SALTED.pack(salt, sequence))
    # Zero is what preallocated space holds, so it can never be the marker.
    return FrameKey(extend(seed, b"frame") or 1, seed)


def padded(payload: bytes) -> bytes:
    """Append zeros up to the alignment of frames."""
    rest = -len(payload) % FRAME_ALIGNMENT
    return payload + PADDING[rest] if rest else payload


def frame_crc(key: FrameKey, payload: bytes, previous_crc: int, offset: int, synced: int) -> int:
    """Return the checksum of a frame at an offset."""
    crc: int = extend(extend(key.seed, _CHECKED_FIELDS.pack(len(payload), previous_crc, offset, synced)), payload)
    return crc


def encode_control(kind: int, index: int) -> bytes:
    """Return the payload of a frame with one record without a body."""
    return padded(RECORD_HEADER.pack(kind, index, 0))


def encode_records(records: Iterable[WalRecord]) -> bytes:
    """Return records one after the other, without padding."""
    return b"".join([RECORD_HEADER.pack(kind, index, len(body)) + body for kind, index, body in records])


def frame_at(key: FrameKey, content: bytes, position: int, offset: int) -> Frame | None:
    """Return the frame that stands at a position of content, or None when none stands there whole.

    Position is where to look in content, offset is where that is in the segment.
    """
    start = position + FRAME_HEADER_BYTES
    if len(content) < start:
        return None
    marker, length, previous_crc, crc, synced = FRAME_HEADER.unpack_from(content, position)
    if marker != key.marker or length % FRAME_ALIGNMENT or length > len(content) - start:
        return None
    payload = content[start : start + length]
    if frame_crc(key, payload, previous_crc, offset, synced) != crc:
        return None
    return Frame(offset, offset + FRAME_HEADER_BYTES + length, previous_crc, crc, synced, payload)


def decode_records(payload: bytes) -> list[WalRecord]:
    """Return the records of a payload. Raises ValueError when they do not fill it exactly."""
    position = 0
    end = len(payload)
    unpack = RECORD_HEADER.unpack_from
    new = tuple.__new__
    records = []
    # Fewer bytes than a record header can only be padding: it is shorter than 8.
    while end - position >= RECORD_HEADER_BYTES:
        kind, index, length = unpack(payload, position)
        start = position + RECORD_HEADER_BYTES
        position = start + length
        if position > end:
            raise ValueError("a record is longer than its frame")
        # WalRecord(…) would call this in a function of its own: a third of what a record costs.
        records.append(new(WalRecord, (kind, index, payload[start:position])))
    if position != end and payload[position:].strip(b"\0"):
        raise ValueError("bytes follow the last record of a frame")
    return records
