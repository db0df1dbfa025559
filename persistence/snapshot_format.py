"""The bytes of a snapshot file: header, chunks, footer. No file is touched here.

Guarantees: every byte of a file is covered by a checksum, and the checksums form a chain from the header to the footer:
a chunk that is missing, twice, swapped or of another snapshot does not check.
Leaves to the caller: what chunks contain.

Layout, little endian, file `<last_index:016x>-<last_term:016x>.snap`:

    header  magic 8s "REDANSNP" | version u32 | configuration_length u32 | last_index u64 | last_term u64 | stamp_ms u64
            | crc u32 | configuration [configuration_length]
    chunk   kind u8 | zero 3s | raw_length u32 | stored_length u32 | crc u32 | stored [stored_length]
    ...
    footer  a chunk of kind FOOTER, stored: chunk_count u64 | item_count u64 | digest

- kinds: 1 = zstd, 2 = stored as it is, because it does not get shorter; 0xFF = footer, the last bytes of the file.
- crc of the header: CRC-32C over the header before it and the configuration.
- crc of a chunk: CRC-32C continued from the crc before, over the fields before it and the stored bytes.
"""

from struct import Struct
from typing import NamedTuple

from google_crc32c import extend, value

FORMAT_VERSION = 2
"""Version 2 carries the members in the header, and in its chunks what kvservice/keyspace/image says."""
FORMAT_VERSION_OLDEST = 1
MAGIC = b"REDANSNP"
CHUNK_BYTES_MAX = 1 << 30
"""No chunk is longer, raw or stored: twice the largest value that can be configured. A reader allocates by this."""

KIND_ZSTD = 1
KIND_STORED = 2
KIND_FOOTER = 0xFF

HEADER = Struct("<8sIIQQQ")
CRC = Struct("<I")
HEADER_BYTES = HEADER.size + CRC.size
CHUNK_HEADER = Struct("<B3sIII")
CHUNK_HEADER_BYTES = CHUNK_HEADER.size
_CHUNK_FIELDS = Struct("<B3sII")
FOOTER = Struct("<QQ")
_ZERO = b"\0\0\0"


class SnapshotMeta(NamedTuple):
    """What a snapshot is of: the last entry in it, the stamp of the state in ms, the configuration as opaque bytes."""

    last_index: int
    last_term: int
    stamp_ms: int
    configuration: bytes


class SnapshotFooter(NamedTuple):
    """What a whole snapshot ends with. Items and digest are the caller's."""

    chunk_count: int
    item_count: int
    digest: bytes


class ChunkHeader(NamedTuple):
    """The header of a chunk. Lengths in bytes."""

    kind: int
    raw_length: int
    stored_length: int
    crc: int


def encode_header(meta: SnapshotMeta) -> tuple[bytes, int]:
    """Return the header with the configuration, and its checksum, which the first chunk continues."""
    fields = HEADER.pack(MAGIC, FORMAT_VERSION, len(meta.configuration), meta.last_index, meta.last_term, meta.stamp_ms)
    crc: int = value(fields + meta.configuration)
    return fields + CRC.pack(crc) + meta.configuration, crc


def encode_chunk(kind: int, raw_length: int, stored: bytes, previous_crc: int) -> tuple[bytes, int]:
    """Return the header of a chunk whose stored bytes follow it, and the checksum that the next one continues."""
    crc = chunk_crc(kind, raw_length, stored, previous_crc)
    return CHUNK_HEADER.pack(kind, _ZERO, raw_length, len(stored), crc), crc


def chunk_crc(kind: int, raw_length: int, stored: bytes, previous_crc: int) -> int:
    """Return the checksum of a chunk that follows the one with previous_crc."""
    crc: int = extend(extend(previous_crc, _CHUNK_FIELDS.pack(kind, _ZERO, raw_length, len(stored))), stored)
    return crc


def decode_chunk_header(content: bytes) -> ChunkHeader:
    """Return the header of a chunk. Raises ValueError when it cannot be one."""
    kind, zero, raw_length, stored_length, crc = CHUNK_HEADER.unpack(content)
    if zero != _ZERO or kind not in (KIND_ZSTD, KIND_STORED, KIND_FOOTER):
        raise ValueError("no chunk starts here")
    if raw_length > CHUNK_BYTES_MAX or stored_length > CHUNK_BYTES_MAX:
        raise ValueError("the length of the chunk is impossible")
    return ChunkHeader(kind, raw_length, stored_length, crc)
