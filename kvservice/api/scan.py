"""Pages of keys: the tokens that lead from one to the next, and what is on them.

Layout of a token, in URL-safe base64 without padding: version u8, check u32 (CRC-32 of what the scan asks for), cursor
u64, big endian. The cursor is that of SCAN, which depends on names of keys only: a token is good for any node, and for
any time.

Guarantees: a key that exists from the first page to the last is on one of them. Keys and values of a page together stay
below what a client takes by default.
Leaves to the caller: sending.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import crc32
from struct import Struct
from typing import Final, NamedTuple

from kvservice.api.commands import bytes_of, check_database, check_key, succeeded
from kvservice.api.session import ApiSession
from kvservice.api.status import InvalidField
from kvservice.config import Config
from redan.kv.v1 import kv_pb2

TOKEN_VERSION: Final = 1
TOKEN_CHARACTERS_MAX: Final = 64
PAGE_SIZE_DEFAULT: Final = 1000
PAGE_SIZE_MAX: Final = 10_000
PAGE_BYTES: Final = 2 * 1024 * 1024
"""Keys, and again values, of a page: with both a page stays under 4 MiB, the longest message clients take by default,
unless a single key is longer."""

_TOKEN: Final = Struct(">BIQ")


class Walk(NamedTuple):
    """What a scan asks for, and where it stands."""

    database: int
    match: bytes
    page_size: int
    with_values: bool
    cursor: int


class Page(NamedTuple):
    """Keys found, and where to go on; cursor 0 is the end."""

    entries: list[kv_pb2.ScanEntry]
    cursor: int


def read_walk(request: kv_pb2.ScanRequest | kv_pb2.ScanStreamRequest, config: Config) -> Walk:
    """Return what a request asks for. Raise InvalidField."""
    database = check_database(request.database, config)
    if request.page_size > PAGE_SIZE_MAX:
        raise InvalidField("page_size", f"is {request.page_size}, allowed are 0..{PAGE_SIZE_MAX}")
    match = check_key(request.match, "match", config)
    cursor = _read_token(request.page_token, _check_of(database, match)) if request.page_token else 0
    return Walk(database, match, request.page_size or PAGE_SIZE_DEFAULT, request.with_values, cursor)


def token_of(walk: Walk, cursor: int) -> str:
    """Return the token of the page that begins at a cursor; empty at the end."""
    if cursor == 0:
        return ""
    raw = _TOKEN.pack(TOKEN_VERSION, _check_of(walk.database, walk.match), cursor)
    return urlsafe_b64encode(raw).decode().rstrip("=")


async def read_page(session: ApiSession, walk: Walk) -> Page:
    """Return the page at the walk's cursor; the session stands at the walk's database."""
    cursor, keys = await _scan(session, walk, walk.page_size)
    size = walk.page_size
    while size > 1 and sum(map(len, keys)) > PAGE_BYTES:
        # Keys are long here: look at fewer. The walk is read-only, so that the first look costs nothing but its time.
        size //= min(8, size)
        cursor, keys = await _scan(session, walk, max(1, size))
    if not walk.with_values or not keys:
        return Page([kv_pb2.ScanEntry(key=key) for key in keys], cursor)
    [reply] = await session.run([[b"MGET", *keys]])
    values = succeeded(reply)
    assert isinstance(values, list)
    entries: list[kv_pb2.ScanEntry] = []
    total = 0
    for key, item in zip(keys, values, strict=True):
        value = bytes_of(item)
        total += len(value or b"")
        if value is not None and total > PAGE_BYTES:
            total -= len(value)
            entries.append(kv_pb2.ScanEntry(key=key, value_omitted=True))
        else:
            entries.append(kv_pb2.ScanEntry(key=key, value=value))
    return Page(entries, cursor)


async def _scan(session: ApiSession, walk: Walk, count: int) -> tuple[int, list[bytes]]:
    args = [b"SCAN", b"%d" % walk.cursor, b"COUNT", b"%d" % count]
    if walk.match:
        args += [b"MATCH", walk.match]
    [reply] = await session.run([args])
    pair = succeeded(reply)
    assert isinstance(pair, list)
    cursor, keys = pair
    assert isinstance(cursor, bytes)
    assert isinstance(keys, list)
    return int(cursor), keys  # type: ignore[return-value]  # SCAN answers keys


def _check_of(database: int, match: bytes) -> int:
    return crc32(b"%d:%b" % (database, match))


def _read_token(token: str, check: int) -> int:
    """Return the cursor of a token. Raise InvalidField."""
    try:
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise ValueError
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, Base64Error):
        raise InvalidField("page_token", "is not a page token") from None
    if raw[:1] != bytes([TOKEN_VERSION]):
        raise InvalidField("page_token", f"is of an unknown version; this node reads version {TOKEN_VERSION}")
    if len(raw) != _TOKEN.size:
        raise InvalidField("page_token", "is not a page token")
    _version, found, cursor = _TOKEN.unpack(raw)
    if found != check:
        raise InvalidField("page_token", "belongs to a scan with another database or match")
    return int(cursor)
