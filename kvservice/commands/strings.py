"""String commands: whole values, ranges, and several keys at once.

Guarantees: errors are raised before anything changed. GET and SET without options are hot and do only what they must.
Reference: the Redis command pages of the string group. Counters are in ``counters``, LCS in ``lcs``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.lookup import current_string, raw_of, read_string, writable
from kvservice.commands.options import (
    GETEX_WORDS,
    SET_WORDS,
    check_length,
    deadline_of_option,
    integer,
    string_options,
)
from kvservice.commands.reply import OK, Reply
from kvservice.commands.rows import OF_KEYS, Family
from kvservice.commands.table import ALL_KEYS, ONE_KEY, PAIRS, Args
from kvservice.errors import RequestError, WrongType
from kvservice.keyspace.slots import slot_of
from kvservice.keyspace.values import STRING_TYPES, Value, compact, text_of


def get(ctx: Context, args: Args) -> Reply:
    """Answer the string at a key; hot."""
    value = ctx.db.get(args[1])
    if type(value) is bytes:
        ctx.hits += 1
        return value
    if value is None:
        ctx.misses += 1
        return None
    ctx.hits += 1
    if type(value) not in STRING_TYPES:
        raise WrongType
    return text_of(value)


def get_group(ctx: Context, commands: list[Args]) -> list[Reply] | None:
    """Answer GETs that came together: 0.3 us less for each than one by one, of 1.3 us in all."""
    values, expires, now_ms = ctx.db.values, ctx.db.expires, ctx.clock.now_ms
    replies: list[Reply] = []
    append = replies.append
    misses = 0
    for args in commands:
        key = args[1]
        slot = slot_of(key)
        deadlines = expires[slot]
        if deadlines is not None and deadlines.get(key, now_ms + 1) <= now_ms:
            return None
        value = values[slot].get(key)
        if value is None:
            misses += 1
        elif type(value) is int:
            value = b"%d" % value
        elif type(value) is not bytes:
            return None
        append(value)
    ctx.misses += misses
    ctx.hits += len(commands) - misses
    return replies


def set_group(ctx: Context, commands: list[Args]) -> list[Reply] | None:
    """Store strings without options that came together."""
    if len(commands[0]) != 3:
        return None
    ctx.db.set_all(commands)
    return [OK] * len(commands)


def set_(ctx: Context, args: Args) -> Reply:
    """Store a string; hot without options."""
    if len(args) == 3:
        ctx.db.set(args[1], compact(args[2]))
        return OK
    return set_with_options(ctx, args)


def set_with_options(ctx: Context, args: Args) -> Reply:
    """Store a string if its condition holds, with a deadline, answering the old value if asked for it."""
    key = args[1]
    options = string_options(args, 3, SET_WORDS)
    deadline_ms = options.deadline(ctx.clock.now_ms, "set")
    words = options.words
    reply: Reply = OK
    refused: Reply = None
    if b"GET" in words:
        old = read_string(ctx, key)
        reply = refused = None if old is None else text_of(old)
    if b"NX" in words or b"XX" in words:
        exists = ctx.db.get(key) is not None
        if exists if b"NX" in words else not exists:
            return refused
    if b"KEEPTTL" in words:
        ctx.db.put(key, compact(args[2]))
    else:
        set_until(ctx, key, compact(args[2]), deadline_ms)
    return reply


def set_until(ctx: Context, key: bytes, value: Value, deadline_ms: int | None) -> None:
    """Store a value that lives until ``deadline_ms``, or for ever if that is None."""
    if deadline_ms is None:
        ctx.db.set(key, value)
    elif deadline_ms > ctx.clock.now_ms:
        ctx.db.set(key, value)
        ctx.db.set_deadline(key, deadline_ms)
    else:
        ctx.db.delete(key)


def setnx(ctx: Context, args: Args) -> Reply:
    """Store a string if the key does not exist; answer 1 if it was stored."""
    if ctx.db.get(args[1]) is not None:
        return 0
    ctx.db.set(args[1], compact(args[2]))
    return 1


def setex(ctx: Context, args: Args) -> Reply:
    """Store a string with a time to live in seconds."""
    set_until(ctx, args[1], compact(args[3]), deadline_of_option(b"EX", args[2], ctx.clock.now_ms, "setex"))
    return OK


def psetex(ctx: Context, args: Args) -> Reply:
    """Store a string with a time to live in ms."""
    set_until(ctx, args[1], compact(args[3]), deadline_of_option(b"PX", args[2], ctx.clock.now_ms, "psetex"))
    return OK


def getset(ctx: Context, args: Args) -> Reply:
    """Store a string and answer the old one."""
    old = read_string(ctx, args[1])
    reply = None if old is None else text_of(old)
    ctx.db.set(args[1], compact(args[2]))
    return reply


def getdel(ctx: Context, args: Args) -> Reply:
    """Remove a key and answer the string that it held."""
    old = read_string(ctx, args[1])
    if old is None:
        return None
    reply = text_of(old)
    ctx.db.delete(args[1])
    return reply


def getex(ctx: Context, args: Args) -> Reply:
    """Answer the string at a key and change its time to live."""
    key = args[1]
    options = string_options(args, 2, GETEX_WORDS)
    value = read_string(ctx, key)
    if value is None:
        return None
    deadline_ms = options.deadline(ctx.clock.now_ms, "getex")
    reply = text_of(value)
    if deadline_ms is not None:
        if deadline_ms > ctx.clock.now_ms:
            ctx.db.set_deadline(key, deadline_ms)
        else:
            ctx.db.delete(key)
    elif b"PERSIST" in options.words:
        ctx.db.persist(key)
    return reply


def mget(ctx: Context, args: Args) -> Reply:
    """Answer the strings at several keys, null where there is none."""
    find = ctx.db.get
    reply: list[Reply] = []
    for key in args[1:]:
        value = find(key)
        if value is None:
            ctx.misses += 1
            reply.append(None)
            continue
        ctx.hits += 1
        reply.append(text_of(value) if type(value) in STRING_TYPES else None)
    return reply


def pairs_of(args: Args, command: str) -> range:
    """Return the positions of the keys in ``key value …`` arguments. Raise RequestError if a value is missing."""
    if len(args) % 2 == 0:
        raise RequestError(f"wrong number of arguments for '{command}' command")
    return range(1, len(args), 2)


def mset(ctx: Context, args: Args) -> Reply:
    """Store several strings."""
    store = ctx.db.set
    for position in pairs_of(args, "mset"):
        store(args[position], compact(args[position + 1]))
    return OK


def msetnx(ctx: Context, args: Args) -> Reply:
    """Store several strings if none of the keys exists; answer 1 if they were stored."""
    positions = pairs_of(args, "msetnx")
    if any(ctx.db.get(args[position]) is not None for position in positions):
        return 0
    for position in positions:
        ctx.db.set(args[position], compact(args[position + 1]))
    return 1


def append(ctx: Context, args: Args) -> Reply:
    """Append to a string; answer the new length in bytes."""
    key, text = args[1], args[2]
    value = current_string(ctx, key)
    if value is None:
        ctx.db.put(key, compact(text))
        return len(text)
    size = len(raw_of(value))
    check_length(size, len(text))
    buffer = writable(ctx.db, key, value, size + len(text))
    buffer[size:] = text
    return len(buffer)


def strlen(ctx: Context, args: Args) -> Reply:
    """Answer the length of a string in bytes."""
    return len(raw_of(read_string(ctx, args[1])))


def getrange(ctx: Context, args: Args) -> Reply:
    """Answer the bytes from a first to a last position, both included; negative ones count from the end."""
    first = integer(args[2])
    last = integer(args[3])
    raw = raw_of(read_string(ctx, args[1]))
    if first < 0 and last < 0 and first > last:
        return b""
    # A last position before the string means its first byte, not an empty range: so it is in Redis.
    first = max(first + len(raw), 0) if first < 0 else first
    last = max(last + len(raw), 0) if last < 0 else last
    return bytes(raw[first : last + 1])


def check_append(args: Args, length_of: Callable[[bytes], int], bytes_max: int) -> None:
    """Raise RequestError if APPEND would make a string too long."""
    check_length(length_of(args[1]), len(args[2]), bytes_max)


def check_setrange(args: Args, _length_of: Callable[[bytes], int], bytes_max: int) -> None:
    """Raise RequestError if SETRANGE would make a string too long, or is no SETRANGE."""
    if args[3] and (offset := integer(args[2])) >= 0:
        check_length(offset, len(args[3]), bytes_max)


def setrange(ctx: Context, args: Args) -> Reply:
    """Overwrite part of a string from an offset on, with zero bytes before it where needed; answer the new length."""
    key, text = args[1], args[3]
    offset = integer(args[2])
    if offset < 0:
        raise RequestError("offset is out of range")
    value = current_string(ctx, key)
    if not text:
        return len(raw_of(value))
    check_length(offset, len(text))
    buffer = writable(ctx.db, key, value, offset + len(text))
    buffer[offset : offset + len(text)] = text
    return len(buffer)


_row = Family("string", "string").row
_OF_PART: Final = "O(N) where N is the number of bytes returned"
_OF_WRITTEN: Final = "O(N) where N is the number of bytes written"

ROWS: Final = [
    _row("get", get, 2, "readonly fast", ONE_KEY, "1.0.0", "Returns the string at a key.", run_group=get_group),
    _row(
        "set",
        set_,
        -3,
        "write denyoom",
        ONE_KEY,
        "1.0.0",
        "Stores a string, with a condition or deadline if asked.",
        run_group=set_group,
        quick=True,
    ),
    _row("setnx", setnx, 3, "write denyoom fast", ONE_KEY, "1.0.0", "Stores a string if the key does not exist."),
    _row(
        "setex",
        setex,
        4,
        "write denyoom",
        ONE_KEY,
        "2.0.0",
        "Stores a string that expires after some seconds.",
        quick=True,
    ),
    _row(
        "psetex",
        psetex,
        4,
        "write denyoom",
        ONE_KEY,
        "2.6.0",
        "Stores a string that expires after some ms.",
        quick=True,
    ),
    _row("getset", getset, 3, "write denyoom fast", ONE_KEY, "1.0.0", "Stores a string and returns the old one."),
    _row("getdel", getdel, 2, "write fast", ONE_KEY, "6.2.0", "Removes a key and returns the string it held."),
    _row("getex", getex, -2, "write fast", ONE_KEY, "6.2.0", "Returns a string and changes when it expires."),
    _row(
        "mget",
        mget,
        -2,
        "readonly fast",
        ALL_KEYS,
        "1.0.0",
        "Returns the strings at several keys.",
        OF_KEYS,
        quick=False,
    ),
    _row("mset", mset, -3, "write denyoom", PAIRS, "1.0.1", "Stores several strings at once.", OF_KEYS),
    _row("msetnx", msetnx, -3, "write denyoom", PAIRS, "1.0.1", "Stores several strings if no key exists.", OF_KEYS),
    # The first time, the string is copied to where it can grow: as much work as it is long.
    _row(
        "append",
        append,
        3,
        "write denyoom fast",
        ONE_KEY,
        "2.0.0",
        "Appends to a string.",
        quick=False,
        check_growth=check_append,
    ),
    _row("strlen", strlen, 2, "readonly fast", ONE_KEY, "2.2.0", "Returns the length of a string in bytes."),
    _row("getrange", getrange, 4, "readonly", ONE_KEY, "2.4.0", "Returns part of a string.", _OF_PART),
    _row(
        "substr", getrange, 4, "readonly", ONE_KEY, "1.0.0", "Returns part of a string (GETRANGE's old name).", _OF_PART
    ),
    _row(
        "setrange",
        setrange,
        4,
        "write denyoom",
        ONE_KEY,
        "2.2.0",
        "Overwrites part of a string.",
        _OF_WRITTEN,
        check_growth=check_setrange,
    ),
]
