"""Commands on keys of any type: existence, removal, renaming, copying, and whole databases.

Guarantees: errors are raised before anything changed; a key keeps its deadline when it is renamed, moved or copied.
Leaves to the caller: freeing what FLUSHDB and FLUSHALL dropped (keyspace/reaper); both are asynchronous by nature, so
ASYNC and SYNC mean the same.
Reference: the Redis command pages of the generic and server groups. Deadlines are in ``expire``, SCAN and KEYS in
``scan``, DUMP and RESTORE in ``dump``, OBJECT in ``objects``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kvservice.commands.context import Context
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.reply import OK, Reply, Status
from kvservice.commands.rows import OF_KEYS, OF_VALUE, Family
from kvservice.commands.table import ALL_KEYS, NO_KEYS, ONE_KEY, TWO_KEYS, Args, Command
from kvservice.errors import RequestError
from kvservice.keyspace.database import Database
from kvservice.keyspace.kinds import kind_of
from kvservice.keyspace.sampling import draw_key
from kvservice.keyspace.values import STRING_TYPES, Value

NO_SUCH_KEY: Final = "no such key"
SAME_OBJECTS: Final = "source and destination objects are the same"
NO_SUCH_DATABASE: Final = "DB index is out of range"
INT32_MIN: Final = -(1 << 31)
INT32_MAX: Final = (1 << 31) - 1
RANDOM_TRIES_MAX: Final = 100
"""Expired keys that RANDOMKEY draws before it takes the first live key it finds."""
STRING: Final = Status(b"string")


def delete(ctx: Context, args: Args) -> Reply:
    """Remove keys and answer how many there were; hot. UNLINK is the same: values are freed by reference counts."""
    remove = ctx.db.delete
    if len(args) == 2:
        return 1 if remove(args[1]) else 0
    return sum([remove(key) for key in args[1:]])


def exists(ctx: Context, args: Args) -> Reply:
    """Answer how many of the keys exist, counting a key as often as it is named."""
    get = ctx.db.get
    found = sum([get(key) is not None for key in args[1:]])
    ctx.hits += found
    ctx.misses += len(args) - 1 - found
    return found


def type_(ctx: Context, args: Args) -> Reply:
    """Answer the type of the value at a key."""
    value = ctx.db.get(args[1])
    if value is None:
        return Status(b"none")
    return STRING if type(value) in STRING_TYPES else Status(kind_of(value).type_name)


def random_key(ctx: Context, _args: Args) -> Reply:
    """Answer a random key, or null if there is none."""
    db = ctx.db
    for _ in range(RANDOM_TRIES_MAX):
        drawn = draw_key(db.values, ctx.chance.randrange)
        if drawn is None or db.get(drawn) is not None:
            return drawn
    return next((key for key, _value in db.items()), None)


def rename(ctx: Context, args: Args) -> Reply:
    """Give a key another name, replacing what was there."""
    value = _existing(ctx, args[1])
    if args[1] != args[2]:
        _move(ctx.db, args[1], ctx.db, args[2], value)
    return OK


def rename_if_absent(ctx: Context, args: Args) -> Reply:
    """Give a key another name unless that is taken."""
    value = _existing(ctx, args[1])
    if args[1] == args[2] or ctx.db.get(args[2]) is not None:
        return 0
    _move(ctx.db, args[1], ctx.db, args[2], value)
    return 1


def move(ctx: Context, args: Args) -> Reply:
    """Move a key to another database unless its name is taken there."""
    target = database_of(ctx, args[2])
    if target is ctx.db:
        raise RequestError(SAME_OBJECTS)
    value = ctx.db.get(args[1])
    if value is None or target.get(args[1]) is not None:
        return 0
    _move(ctx.db, args[1], target, args[1], value)
    return 1


def copy(ctx: Context, args: Args) -> Reply:
    """Copy a key, perhaps to another database."""
    target, replaces = _copy_options(ctx, args)
    source_key, target_key = args[1], args[2]
    if target is ctx.db and source_key == target_key:
        raise RequestError(SAME_OBJECTS)
    value = ctx.db.get(source_key)
    if value is None:
        ctx.misses += 1
        return 0
    ctx.hits += 1
    if target.get(target_key) is not None and not replaces:
        return 0
    _put(target, target_key, kind_of(value).copied(value), ctx.db.deadline_of(source_key))
    return 1


def _copy_options(ctx: Context, args: Args) -> tuple[Database, bool]:
    target = ctx.db
    replaces = False
    position = 3
    while position < len(args):
        word = args[position].upper()
        if word == b"REPLACE":
            replaces = True
        elif word == b"DB" and position + 1 < len(args):
            position += 1
            target = database_of(ctx, args[position])
        else:
            raise RequestError(SYNTAX_ERROR)
        position += 1
    return target, replaces


def _existing(ctx: Context, key: bytes) -> Value:
    value = ctx.db.get(key)
    if value is None:
        raise RequestError(NO_SUCH_KEY)
    return value


def _move(source: Database, key: bytes, target: Database, new_key: bytes, value: Value) -> None:
    deadline_ms = source.deadline_of(key)
    source.delete(key)
    _put(target, new_key, value, deadline_ms)


def _put(target: Database, key: bytes, value: Value, deadline_ms: int | None) -> None:
    # Renaming replaces: the old value and its place in the slot's order go first, on every node alike.
    target.delete(key)
    target.set(key, value)
    if deadline_ms is not None:
        target.set_deadline(key, deadline_ms)


def database_number(ctx: Context, text: bytes, message: str = "") -> int:
    """Return the number of a database that ``text`` names. Raise RequestError, with ``message`` for a bad number."""
    number = integer(text, message) if message else integer(text)
    if not INT32_MIN <= number <= INT32_MAX:
        raise RequestError(message or f"value is out of range, value must between {INT32_MIN} and {INT32_MAX}")
    return number


def database_of(ctx: Context, text: bytes) -> Database:
    """Return the database whose number ``text`` spells. Raise RequestError."""
    return _database(ctx, database_number(ctx, text))


def _database(ctx: Context, number: int) -> Database:
    if not 0 <= number < len(ctx.databases):
        raise RequestError(NO_SUCH_DATABASE)
    return ctx.databases[number]


def db_size(ctx: Context, _args: Args) -> Reply:
    """Answer how many keys the database stores, those included that are due and not yet removed, as Redis does."""
    return ctx.db.key_count


def flush_db(ctx: Context, args: Args) -> Reply:
    """Drop every key of the database."""
    _check_flush_mode(args)
    ctx.db.clear()
    return OK


def flush_all(ctx: Context, args: Args) -> Reply:
    """Drop every key of every database."""
    _check_flush_mode(args)
    for db in ctx.databases:
        db.clear()
    return OK


def _check_flush_mode(args: Args) -> None:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise RequestError(SYNTAX_ERROR)


def swap_db(ctx: Context, args: Args) -> Reply:
    """Exchange the keys of two databases."""
    first = database_number(ctx, args[1], "invalid first DB index")
    second = database_number(ctx, args[2], "invalid second DB index")
    left, right = _database(ctx, first), _database(ctx, second)
    if left is not right:
        left.swap(right)
    return OK


_generic = Family("generic", "keyspace").row
_server = Family("server", "keyspace").row


def dangerous(row: Command) -> Command:
    """Return a row with the ACL category of commands that administrators may want to forbid."""
    return replace(row, categories=row.categories | {"dangerous"})


ROWS = [
    _generic("del", delete, -2, "write", ALL_KEYS, "1.0.0", "Removes keys.", OF_KEYS),
    _generic(
        "unlink", delete, -2, "write fast", ALL_KEYS, "4.0.0", "Removes keys, just as DEL does.", OF_KEYS, quick=False
    ),
    _generic(
        "exists",
        exists,
        -2,
        "readonly fast",
        ALL_KEYS,
        "1.0.0",
        "Counts which of the keys exist.",
        OF_KEYS,
        quick=False,
    ),
    _generic("type", type_, 2, "readonly fast", ONE_KEY, "1.0.0", "Tells the type of the value at a key."),
    _generic(
        "touch",
        exists,
        -2,
        "readonly fast",
        ALL_KEYS,
        "3.2.1",
        "Marks keys as used now, and counts them.",
        OF_KEYS,
        quick=False,
    ),
    _generic("randomkey", random_key, 1, "readonly", NO_KEYS, "1.0.0", "Draws a key at random."),
    _generic("rename", rename, 3, "write", TWO_KEYS, "1.0.0", "Gives a key another name.", quick=True),
    _generic(
        "renamenx", rename_if_absent, 3, "write fast", TWO_KEYS, "1.0.0", "Gives a key another name if it is free."
    ),
    _generic("copy", copy, -3, "write denyoom", TWO_KEYS, "6.2.0", "Copies a key.", OF_VALUE),
    _generic("move", move, 3, "write fast", ONE_KEY, "1.0.0", "Moves a key to another database."),
    _server("dbsize", db_size, 1, "readonly fast", NO_KEYS, "1.0.0", "Counts the keys of the database."),
    dangerous(_server("flushdb", flush_db, -1, "write", NO_KEYS, "1.0.0", "Drops all keys of the database.")),
    dangerous(_server("flushall", flush_all, -1, "write", NO_KEYS, "1.0.0", "Drops all keys of all databases.")),
    dangerous(_server("swapdb", swap_db, 3, "write fast", NO_KEYS, "4.0.0", "Exchanges the keys of two databases.")),
]
