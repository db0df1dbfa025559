"""OBJECT: what Redis shows of a value's inside.

Guarantees: ENCODING and REFCOUNT answer as Redis 7.2 does for the same history. IDLETIME and FREQ tell what this node
has seen since it began to track use: IDLETIME is a lower bound, and where no eviction policy tracks use, the first one
begins it, and an hour without another one ends it (keyspace/access).
Reference: the Redis command pages of OBJECT.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kvservice.commands.containers import container, server_row
from kvservice.commands.context import Context
from kvservice.commands.reply import Reply
from kvservice.commands.table import Args, Command, Handler, KeySpec, Plane
from kvservice.errors import RequestError
from kvservice.keyspace.access import AccessTable
from kvservice.keyspace.kinds import kind_of
from kvservice.keyspace.values import Value

SHARED_INTEGERS: Final = 10_000
SHARED_COUNT: Final = (1 << 31) - 1
"""Redis shares one object for each small integer, and shows the largest count for it."""

ADJUSTS: Final = (
    "Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust."
)
NOT_LFU: Final = f"An LFU maxmemory policy is not selected, access frequency not tracked. {ADJUSTS}"
IS_LFU: Final = f"An LFU maxmemory policy is selected, idle time not tracked. {ADJUSTS}"


def encoding(ctx: Context, args: Args) -> Reply:
    """Answer the name of a value's inner form."""
    value = ctx.db.get(args[2])
    return None if value is None else kind_of(value).encoding(value)


def reference_count(ctx: Context, args: Args) -> Reply:
    """Answer how many references Redis would count."""
    value: Value | None = ctx.db.get(args[2])
    return None if value is None else references_of(value)


def references_of(value: Value) -> int:
    """Return how many references Redis would count."""
    return SHARED_COUNT if type(value) is int and 0 <= value < SHARED_INTEGERS else 1


def idle_seconds(ctx: Context, args: Args) -> Reply:
    """Answer how long ago a key was used, in seconds."""
    db = ctx.db
    if db.get(args[2]) is None:
        return None
    now_ms = ctx.clock.now_ms
    if db.access is None:
        db.access = AccessTable(now_ms)
        db.access.reserve(db.key_count)
    if db.access.lfu:
        raise RequestError(IS_LFU)
    db.access.asked_ms = now_ms
    return db.access.idle_ms(args[2], now_ms) // 1000


def frequency(ctx: Context, args: Args) -> Reply:
    """Answer the logarithmic counter of a key's use."""
    db = ctx.db
    if db.get(args[2]) is None:
        return None
    if db.access is None or not db.access.lfu:
        raise RequestError(NOT_LFU)
    return db.access.frequency(args[2], ctx.clock.now_ms)


HELP_LINES: Final = """
ENCODING <key>
    Name the inner form of the value.
FREQ <key>
    Tell how often the key is used, on a logarithmic scale from 0 to 255 (LFU policies only).
IDLETIME <key>
    Tell how many seconds ago the key was used.
REFCOUNT <key>
    Count the references to the value.
"""

KEY_AT_2: Final = KeySpec(2, 2, 1)


def _subcommand(name: str, run: Handler, summary: str, since: str = "2.2.3") -> Command:
    return server_row(
        f"object|{name}", run, 3, "readonly", "keyspace", since, summary,
        group="generic", keys=KEY_AT_2, plane=Plane.DATA,
    )  # fmt: skip


_CONTAINER = container(
    "object",
    [
        _subcommand("encoding", encoding, "Names the inner form of a value."),
        _subcommand("freq", frequency, "Tells how often a key is used.", "4.0.0"),
        _subcommand("idletime", idle_seconds, "Tells how long ago a key was used."),
        _subcommand("refcount", reference_count, "Counts the references to a value."),
    ],
    "2.2.3",
    "Holds the commands that show a value's inside.",
    help_lines=HELP_LINES,
    help_categories="keyspace",
    group="generic",
)

ROWS = [replace(_CONTAINER, plane=Plane.DATA, find_keys=lambda args: args[2:3])]
