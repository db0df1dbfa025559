"""Counters: strings that spell numbers.

Guarantees: integers are 64 bits wide and never wrap; floats are calculated as Redis does (``long_double``). The key
keeps its deadline.
Reference: the Redis command pages of INCR, DECR, INCRBY, DECRBY and INCRBYFLOAT.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands import long_double
from kvservice.commands.context import Context
from kvservice.commands.lookup import current_string, raw_of
from kvservice.commands.options import NOT_A_FLOAT, integer
from kvservice.commands.reply import Reply
from kvservice.commands.rows import Family
from kvservice.commands.table import ONE_KEY, Args
from kvservice.errors import RequestError
from kvservice.keyspace.values import INT64_MAX, INT64_MIN


def add_integer(ctx: Context, key: bytes, amount: int) -> int:
    """Add to the integer at ``key``, which counts as 0 if it is missing; return the sum. Hot. Raise RequestError."""
    value = ctx.db.get(key)
    if type(value) is int:
        total = value + amount
    elif value is None:
        total = amount
    else:
        total = integer(bytes(raw_of(current_string(ctx, key)))) + amount
    if not INT64_MIN <= total <= INT64_MAX:
        raise RequestError("increment or decrement would overflow")
    ctx.db.put(key, total)
    return total


def incr(ctx: Context, args: Args) -> Reply:
    """Add one."""
    return add_integer(ctx, args[1], 1)


def decr(ctx: Context, args: Args) -> Reply:
    """Take one away."""
    return add_integer(ctx, args[1], -1)


def incrby(ctx: Context, args: Args) -> Reply:
    """Add a number."""
    return add_integer(ctx, args[1], integer(args[2]))


def decrby(ctx: Context, args: Args) -> Reply:
    """Take a number away."""
    amount = integer(args[2])
    if amount == INT64_MIN:
        raise RequestError("decrement would overflow")
    return add_integer(ctx, args[1], -amount)


def long_double_of(text: bytes) -> long_double.LongDouble | None:
    """Return the number that ``text`` spells, None for infinity. Raise RequestError."""
    try:
        return long_double.parse(text)
    except ValueError:
        raise RequestError(NOT_A_FLOAT) from None


def incrbyfloat(ctx: Context, args: Args) -> Reply:
    """Add a fraction; the sum is stored and answered as text."""
    key = args[1]
    value = current_string(ctx, key)
    current = long_double_of(b"0" if value is None else bytes(raw_of(value)))
    amount = long_double_of(args[2])
    total = None if current is None or amount is None else long_double.add(current, amount)
    if total is None:
        raise RequestError("increment would produce NaN or Infinity")
    text = long_double.text_of_number(total)
    ctx.db.put(key, text)
    return text


_row = Family("string", "string").row
_FLAGS: Final = "write denyoom fast"

ROWS: Final = [
    _row("incr", incr, 2, _FLAGS, ONE_KEY, "1.0.0", "Adds one to the integer at a key."),
    _row("decr", decr, 2, _FLAGS, ONE_KEY, "1.0.0", "Takes one away from the integer at a key."),
    _row("incrby", incrby, 3, _FLAGS, ONE_KEY, "1.0.0", "Adds a number to the integer at a key."),
    _row("decrby", decrby, 3, _FLAGS, ONE_KEY, "1.0.0", "Takes a number away from the integer at a key."),
    _row("incrbyfloat", incrbyfloat, 3, _FLAGS, ONE_KEY, "2.6.0", "Adds a fraction to the number at a key."),
]
