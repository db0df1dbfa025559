"""SCAN and KEYS: walking the keyspace.

A cursor is a place, not a state: slot times 2^32 plus a position inside the slot, and a key's position is the CRC-32
of its name. Both depend on the name alone. So a key that is there throughout is met when the walk passes its place,
however many others come and go, on whatever node, before and after a failover; and a cursor costs nothing to keep.

Guarantees: SCAN returns every key that exists from the beginning of a walk to its end. A call returns about COUNT keys
before filters; those with the same position come together, so that the next cursor can stand behind them.
Leaves to the caller: nothing; cursors may be used at any time, by anyone.
Reference: the Redis command pages of SCAN and KEYS.
"""

from __future__ import annotations

import re
from binascii import crc32
from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.glob import is_literal, matcher
from kvservice.commands.keys import dangerous
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.reply import Reply
from kvservice.commands.rows import Family
from kvservice.commands.table import NO_KEYS, Args
from kvservice.errors import RequestError
from kvservice.keyspace.database import Database
from kvservice.keyspace.kinds import kind_of
from kvservice.keyspace.slots import SLOTS

POSITION_BITS: Final = 32
COUNT_DEFAULT: Final = 10
CURSOR_MAX: Final = (1 << 64) - 1
CURSOR_FORM: Final = re.compile(rb"[+-]?[0-9]+")


def scan(ctx: Context, args: Args) -> Reply:
    """Answer the next cursor and some keys."""
    cursor = parse_cursor(args[1])
    count, pattern, type_name = _options(args, 2)
    next_cursor, keys = walk(ctx.db, cursor, count)
    if pattern is not None:
        matches = matcher(pattern)
        keys = [key for key in keys if matches(key)]
    if type_name is not None:
        values = ctx.db
        keys = [key for key in keys if (value := values.get(key)) is not None and kind_of(value).type_name == type_name]
    return [b"%d" % next_cursor, list(keys)]


def parse_cursor(text: bytes) -> int:
    """Return the cursor that ``text`` spells, as C's strtoul reads it. Raise RequestError."""
    if not text:
        return 0
    if not CURSOR_FORM.fullmatch(text) or len(text) > 64:
        raise RequestError("invalid cursor")
    cursor = int(text)
    if abs(cursor) > CURSOR_MAX:
        raise RequestError("invalid cursor")
    return cursor & CURSOR_MAX


def _options(args: Args, start: int) -> tuple[int, bytes | None, bytes | None]:
    """Return COUNT, the pattern and the type of a SCAN; None stands for all keys."""
    count, pattern, type_name = COUNT_DEFAULT, None, None
    for position in range(start, len(args), 2):
        word = args[position].upper()
        if position + 1 == len(args):
            raise RequestError(SYNTAX_ERROR)
        text = args[position + 1]
        if word == b"COUNT":
            count = integer(text)
            if count < 1:
                raise RequestError(SYNTAX_ERROR)
        elif word == b"MATCH":
            pattern = None if text == b"*" else text
        elif word == b"TYPE":
            type_name = text.lower()
        else:
            raise RequestError(SYNTAX_ERROR)
    return count, pattern, type_name


def walk(db: Database, cursor: int, count: int) -> tuple[int, list[bytes]]:
    """Return the cursor behind about ``count`` keys from ``cursor`` on, 0 at the end, and the live ones of them."""
    slot, position = cursor >> POSITION_BITS, cursor & ((1 << POSITION_BITS) - 1)
    found: list[bytes] = []
    values = db.values
    wanted = count
    while slot < SLOTS:
        if size := len(values[slot]):
            if wanted <= 0:
                return slot << POSITION_BITS, found
            if position == 0 and size <= wanted:
                found += db.live_keys(slot)
                wanted -= size
            else:
                page, last = _page(db, slot, position, wanted)
                found += page
                wanted -= len(page)
                if last is not None:
                    return (slot << POSITION_BITS) + last + 1, found
        slot += 1
        position = 0
    return 0, found


def _page(db: Database, slot: int, position: int, wanted: int) -> tuple[list[bytes], int | None]:
    """Return live keys of a slot from a position on; and the last position if ``wanted`` keys were before its end."""
    crowded = db.crowded.get(slot)
    if crowded is not None:
        ordered = crowded.from_position(position, wanted)
    else:
        ordered = sorted([(place, key) for key in db.values[slot] if (place := crc32(key)) >= position])
    last = None
    if len(ordered) > wanted:
        last = ordered[wanted - 1][0]
        while wanted < len(ordered) and ordered[wanted][0] == last:
            wanted += 1
        ordered = ordered[:wanted]
    return db.live_among(slot, [key for _place, key in ordered]), last


def keys(ctx: Context, args: Args) -> Reply:
    """Answer all live keys that match a pattern."""
    db, pattern = ctx.db, args[1]
    if pattern == b"*":
        return [key for key, _value in db.items()]
    if is_literal(pattern):
        return [pattern] if db.get(pattern) is not None else []
    matches = matcher(pattern)
    values = db.values
    return [key for slot in range(SLOTS) if values[slot] for key in db.live_keys(slot) if matches(key)]


_row = Family("generic", "keyspace").row
_OF_ALL: Final = "O(N) where N is the number of keys in the database"
_OF_CALL: Final = "O(N) where N is COUNT"

ROWS = [
    dangerous(_row("keys", keys, 2, "readonly", NO_KEYS, "1.0.0", "Lists the keys that match a pattern.", _OF_ALL)),
    _row(
        "scan", scan, -2, "readonly", NO_KEYS, "2.8.0", "Walks the keys of the database, some at each call.", _OF_CALL
    ),
]
