"""What DEBUG asks of the data plane, wherever that is: commands of nodes among themselves, which no client may send.

Guarantees: reads; a key whose time has come is not there.
Leaves to the caller: who may ask (commands/debug).
Reference: Redis ``debug.c``.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.dump import FOOTER_BYTES, dumped
from kvservice.commands.objects import references_of
from kvservice.commands.reply import Reply
from kvservice.commands.table import ALL_KEYS, NO_KEYS, ONE_KEY, Args, Command, KeySpec, flags
from kvservice.keyspace.database import StampNeeded
from kvservice.keyspace.dataset_digest import key_digests
from kvservice.keyspace.kinds import kind_of

POSITION: Final = b"REDAN.POSITION"
VALUE_DIGESTS: Final = b"REDAN.VALUEDIGESTS"
INSPECT: Final = b"REDAN.INSPECT"

LRU_CLOCK_MASK: Final = 0xFFFFFF


def position(ctx: Context, _args: Args) -> Reply:
    """Answer the index of the last entry, once no key is due that the log has not dropped yet."""
    for database in ctx.databases:
        due_ms = database.expiry.next_deadline_ms()
        if due_ms is not None and ctx.clock.stamp_ms < due_ms <= ctx.clock.now_ms:
            raise StampNeeded
    return ctx.index


def value_digests(ctx: Context, args: Args) -> Reply:
    """Answer the digest of the value at each key, zeros where there is none."""
    db = ctx.db
    return [*key_digests([(db.get(key), db.deadline_of(key) is not None) for key in args[1:]])]


def inspect(ctx: Context, args: Args) -> Reply:
    """Answer DEBUG OBJECT's line, or null."""
    key, db = args[1], ctx.db
    value = db.get(key)
    if value is None:
        return None
    now_ms = ctx.clock.now_ms
    idle_ms = db.access.idle_ms(key, now_ms) if db.access is not None and not db.access.lfu else 0
    return b"Value at:0x%x refcount:%d encoding:%b serializedlength:%d lru:%d lru_seconds_idle:%d" % (
        id(value),
        references_of(value),
        kind_of(value).encoding(value),
        len(dumped(value)) - 1 - FOOTER_BYTES,  # as in Redis: neither the byte of the type nor the footer
        (now_ms - idle_ms) // 1000 & LRU_CLOCK_MASK,
        idle_ms // 1000,
    )


def _row(name: bytes, run: object, arity: int, keys: KeySpec = NO_KEYS) -> Command:
    # Without a summary: statistics do not show what no client can name.
    return Command(name.decode().lower(), run, arity, flags("readonly"), keys, quick=False)  # type: ignore[arg-type]


ROWS: Final = [
    _row(POSITION, position, 1),
    _row(VALUE_DIGESTS, value_digests, -2, ALL_KEYS),
    _row(INSPECT, inspect, 2, ONE_KEY),
]
