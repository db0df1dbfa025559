"""Commands that give keys a deadline, take it away, and tell it.

Guarantees: a relative time becomes absolute by the stamp of the entry, so that it is the same on every node; a deadline
that has passed already removes the key.
Reference: the Redis command pages of EXPIRE, PERSIST, TTL and their kin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.options import integer
from kvservice.commands.reply import Reply
from kvservice.commands.rows import Family
from kvservice.commands.table import ONE_KEY, Args, Handler
from kvservice.errors import RequestError
from kvservice.keyspace.values import INT64_MAX, INT64_MIN

CONDITIONS: Final = frozenset({b"NX", b"XX", b"GT", b"LT"})

MISSING: Final = -2
PERSISTENT: Final = -1


def expirer(name: str, unit_ms: int, relative: bool) -> Handler:
    """Return the function of one command of the EXPIRE family; ``unit_ms`` is 1 or 1000."""

    def expire(ctx: Context, args: Args) -> Reply:
        conditions = _conditions(args) if len(args) > 3 else frozenset()
        deadline_ms = integer(args[2]) * unit_ms
        now_ms = ctx.clock.now_ms
        if not INT64_MIN <= deadline_ms <= INT64_MAX or (relative and deadline_ms > INT64_MAX - now_ms):
            raise RequestError(f"invalid expire time in '{name}' command")
        if relative:
            deadline_ms += now_ms
        key = args[1]
        if ctx.db.get(key) is None:
            return 0
        if conditions and not _allowed(conditions, ctx.db.deadline_of(key), deadline_ms):
            return 0
        if deadline_ms <= now_ms:
            ctx.db.delete(key)
        else:
            ctx.db.set_deadline(key, deadline_ms)
        return 1

    return expire


def _conditions(args: Args) -> frozenset[bytes]:
    conditions = set()
    for text in args[3:]:
        word = text.upper()
        if word not in CONDITIONS:
            raise RequestError(f"Unsupported option {text.split(bytes(1))[0].decode('utf-8', 'surrogateescape')}")
        conditions.add(word)
    if b"NX" in conditions and len(conditions) > 1:
        raise RequestError("NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in conditions and b"LT" in conditions:
        raise RequestError("GT and LT options at the same time are not compatible")
    return frozenset(conditions)


def _allowed(conditions: frozenset[bytes], current_ms: int | None, deadline_ms: int) -> bool:
    """Tell whether the new deadline may be set; a key without one counts as living for ever."""
    if b"NX" in conditions and current_ms is not None:
        return False
    if b"XX" in conditions and current_ms is None:
        return False
    if b"GT" in conditions and (current_ms is None or deadline_ms <= current_ms):
        return False
    return not (b"LT" in conditions and current_ms is not None and deadline_ms >= current_ms)


def persist(ctx: Context, args: Args) -> Reply:
    """Take the deadline of a key away."""
    return 1 if ctx.db.persist(args[1]) else 0


def _seconds(time_ms: int) -> int:
    return (time_ms + 500) // 1000


def _milliseconds(time_ms: int) -> int:
    return time_ms


def deadline_reader(unit: Callable[[int], int], relative: bool) -> Handler:
    """Return the function of one command of the TTL family; seconds are rounded to the nearest."""

    def read_deadline(ctx: Context, args: Args) -> Reply:
        if ctx.db.get(args[1]) is None:
            ctx.misses += 1
            return MISSING
        ctx.hits += 1
        deadline_ms = ctx.db.deadline_of(args[1])
        if deadline_ms is None:
            return PERSISTENT
        return unit(deadline_ms - ctx.clock.now_ms if relative else deadline_ms)

    return read_deadline


_row = Family("generic", "keyspace").row

_WRITE: Final = "write fast"
_READ: Final = "readonly fast"

ROWS = [
    _row("expire", expirer("expire", 1000, True), -3, _WRITE, ONE_KEY, "1.0.0", "Lets a key live for some seconds."),
    _row(
        "pexpire", expirer("pexpire", 1, True), -3, _WRITE, ONE_KEY, "2.6.0", "Lets a key live for some milliseconds."
    ),
    _row("expireat", expirer("expireat", 1000, False), -3, _WRITE, ONE_KEY, "1.2.0", "Lets a key live until a second."),
    _row(
        "pexpireat",
        expirer("pexpireat", 1, False),
        -3,
        _WRITE,
        ONE_KEY,
        "2.6.0",
        "Lets a key live until a millisecond.",
    ),
    _row("persist", persist, 2, _WRITE, ONE_KEY, "2.2.0", "Takes the deadline of a key away."),
    _row("ttl", deadline_reader(_seconds, True), 2, _READ, ONE_KEY, "1.0.0", "Tells how many seconds a key has left."),
    _row("pttl", deadline_reader(_milliseconds, True), 2, _READ, ONE_KEY, "2.6.0", "Tells how many ms a key has left."),
    _row(
        "expiretime", deadline_reader(_seconds, False), 2, _READ, ONE_KEY, "7.0.0", "Tells the deadline of a key in s."
    ),
    _row(
        "pexpiretime",
        deadline_reader(_milliseconds, False),
        2,
        _READ,
        ONE_KEY,
        "7.0.0",
        "Tells the deadline of a key in ms.",
    ),
]
