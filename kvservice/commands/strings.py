"""String commands.

Reference: the Redis command pages of the string group.
"""

from __future__ import annotations

from kvservice.commands.context import Context
from kvservice.commands.reply import OK, Reply
from kvservice.commands.table import ONE_KEY, Args, Command, flags
from kvservice.errors import WrongType
from kvservice.keyspace.values import STRING_TYPES, compact, text_of


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


def set_(ctx: Context, args: Args) -> Reply:
    """Store a string; hot without options."""
    if len(args) == 3:
        ctx.db.set(args[1], compact(args[2]))
        return OK
    raise NotImplementedError


ROWS = [
    Command("get", get, 2, flags("readonly fast"), ONE_KEY, "string", "1.0.0", "Returns the string value of a key."),
    Command("set", set_, -3, flags("write denyoom"), ONE_KEY, "string", "1.0.0", "Sets the string value of a key."),
]
