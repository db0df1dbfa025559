"""What each command does to one key when nothing else happens: the sequential specification that histories must fit.

Written apart from `kvservice/commands` on purpose, so that a defect there does not excuse itself.
Guarantees: pure functions (value, arguments) -> (value, answer); a value is bytes, or None for a key that is not there.
Leaves to the caller: keys with a deadline, which need the time of the log.
Reference: the Redis command pages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvservice.simulation.history import Answer, Args

Value = bytes | None
Step = Callable[[Value, Args], tuple[Value, Answer]]

OK: Final = b"OK"
ERROR: Final = b"ERR"
INTEGER_MAX: Final = (1 << 63) - 1


def get(value: Value, _args: Args) -> tuple[Value, Answer]:
    """GET key."""
    return value, value


def exists(value: Value, _args: Args) -> tuple[Value, Answer]:
    """EXISTS key."""
    return value, int(value is not None)


def length(value: Value, _args: Args) -> tuple[Value, Answer]:
    """STRLEN key."""
    return value, len(value or b"")


def set_(_value: Value, args: Args) -> tuple[Value, Answer]:
    """SET key value."""
    return args[2], OK


def set_if_absent(value: Value, args: Args) -> tuple[Value, Answer]:
    """SETNX key value."""
    return (args[2], 1) if value is None else (value, 0)


def exchange(value: Value, args: Args) -> tuple[Value, Answer]:
    """GETSET key value."""
    return args[2], value


def take(value: Value, _args: Args) -> tuple[Value, Answer]:
    """GETDEL key."""
    return None, value


def delete(value: Value, _args: Args) -> tuple[Value, Answer]:
    """DEL key."""
    return None, int(value is not None)


def append(value: Value, args: Args) -> tuple[Value, Answer]:
    """APPEND key value."""
    longer = (value or b"") + args[2]
    return longer, len(longer)


def increment(value: Value, args: Args) -> tuple[Value, Answer]:
    """INCR key, INCRBY key amount."""
    amount = int(args[2]) if len(args) > 2 else 1
    try:
        number = int(value or b"0")
    except ValueError:
        return value, ERROR
    if str(number).encode() != (value or b"0") or not -INTEGER_MAX - 1 <= number + amount <= INTEGER_MAX:
        return value, ERROR
    return str(number + amount).encode(), number + amount


STEPS: Final[dict[bytes, Step]] = {
    b"GET": get,
    b"EXISTS": exists,
    b"STRLEN": length,
    b"SET": set_,
    b"SETNX": set_if_absent,
    b"GETSET": exchange,
    b"GETDEL": take,
    b"DEL": delete,
    b"APPEND": append,
    b"INCR": increment,
    b"INCRBY": increment,
}
READS: Final = frozenset({b"GET", b"EXISTS", b"STRLEN"})
