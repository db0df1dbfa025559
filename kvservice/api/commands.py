"""Which commands a call may carry, and how its fields become commands and replies become fields.

Guarantees: what is let through may run for a caller that is no connection: no command here changes what a later call
means, ends a connection, or makes one receive messages on its own.
Leaves to the caller: existence, arity and key sizes, which the service checks for every caller.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from kvservice.admission import unknown_command
from kvservice.api.status import InvalidField
from kvservice.commands.debug_reads import INSPECT, POSITION, VALUE_DIGESTS
from kvservice.commands.once import GROWING, ONCE
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import NAME_OF, Args
from kvservice.config import Config
from kvservice.errors import RequestError

CONNECTION_COMMANDS: Final = frozenset(
    b"ASKING AUTH DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY READWRITE REPLCONF "
    b"RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WATCH".split()
)
NODE_COMMANDS: Final = frozenset({ONCE, GROWING, POSITION, VALUE_DIGESTS, INSPECT})
"""What a call may not name because only nodes make them; for a client they do not exist."""
REFUSED_NAMES: Final = CONNECTION_COMMANDS | NODE_COMMANDS | {b"CLIENT"}
CLIENT_SUBCOMMANDS: Final = frozenset((b"LIST", b"KILL", b"PAUSE", b"UNPAUSE", b"HELP"))
"""Subcommands of CLIENT that are not about the caller's own connection."""

ARGS_MAX: Final = 1024 * 1024
"""Most arguments of a command: Redis's limit of a multibulk."""
MS_MAX: Final = 1 << 53
"""Latest deadline, in ms: far beyond the year 280,000, and exact in every language's numbers."""

DURATION_SECONDS_MAX: Final = 315_576_000_000
"""10,000 years: the bound that google.protobuf.Duration sets."""
NANOS_MAX: Final = 999_999_999


def refusal(args: Args, config: Config) -> RequestError | None:
    """Return why a command cannot be part of a call, or None."""
    if not args:
        return RequestError("empty command")
    name = args[0].upper()
    if name in NODE_COMMANDS:
        return unknown_command(args)
    if name in CONNECTION_COMMANDS or (
        name == b"CLIENT" and len(args) > 1 and args[1].upper() not in CLIENT_SUBCOMMANDS
    ):
        shown = b" ".join(args[:2] if name == b"CLIENT" else args[:1])[:64].decode("utf-8", "replace")
        hint = "; set the field database" if name == b"SELECT" else ""
        return RequestError(f"'{shown}' is about a connection, and a call is none{hint}")
    if len(args) > ARGS_MAX:
        return RequestError(f"{len(args)} arguments, allowed are 1..{ARGS_MAX}")
    longest = max(map(len, args))
    if longest > config.value_bytes_max:
        return RequestError(
            f"an argument is {longest} bytes long, allowed are 0..{config.value_bytes_max} (value-bytes-max)"
        )
    return None


def refusals(commands: list[Args], size_bytes: int, config: Config) -> list[tuple[int, RequestError]]:
    """Return (position, reason) of the commands of a batch that cannot be part of it; hot when there are none.

    ``size_bytes`` is the size of the batch as a message: no argument is longer.
    """
    counts = set(map(len, commands))
    if size_bytes <= config.value_bytes_max and 0 not in counts and max(counts, default=0) <= ARGS_MAX:
        names = set(map(NAME_OF, commands))
        if not any(name.upper() in REFUSED_NAMES for name in names):
            return []
    return [(at, error) for at, args in enumerate(commands) if (error := refusal(args, config)) is not None]


def check_database(database: int, config: Config) -> int:
    """Return the number of a database that exists. Raise InvalidField."""
    if database >= config.databases:
        raise InvalidField("database", f"{database} is out of range, allowed are 0..{config.databases - 1}")
    return database


def check_key(key: bytes, field: str, config: Config) -> bytes:
    """Return a key that is not too long. Raise InvalidField."""
    if len(key) > config.key_bytes_max:
        raise InvalidField(field, f"is {len(key)} bytes long, allowed are 0..{config.key_bytes_max} (key-bytes-max)")
    return key


def check_keys(keys: list[bytes], config: Config) -> list[bytes]:
    """Return keys of which there is at least one, and none is too long. Raise InvalidField."""
    if not 0 < len(keys) < ARGS_MAX:
        raise InvalidField("keys", f"has {len(keys)} keys, allowed are 1..{ARGS_MAX - 1}")
    if max(map(len, keys)) > config.key_bytes_max:
        for position, key in enumerate(keys):
            check_key(key, f"keys[{position}]", config)
    return keys


def check_value(value: bytes, field: str, config: Config) -> bytes:
    """Return a value that is not too long. Raise InvalidField."""
    if len(value) > config.value_bytes_max:
        description = f"is {len(value)} bytes long, allowed are 0..{config.value_bytes_max} (value-bytes-max)"
        raise InvalidField(field, description)
    return value


def check_duration(duration: Duration, field: str) -> None:
    """Raise InvalidField unless a duration is one by its definition: parts in their ranges, and of one sign."""
    seconds, nanos = duration.seconds, duration.nanos
    if abs(seconds) > DURATION_SECONDS_MAX:
        allowed = f"{-DURATION_SECONDS_MAX}..{DURATION_SECONDS_MAX}"
        raise InvalidField(field, f"seconds is {seconds}, allowed are {allowed}")
    least = 0 if seconds > 0 else -NANOS_MAX
    most = 0 if seconds < 0 else NANOS_MAX
    if not least <= nanos <= most:
        raise InvalidField(field, f"nanos is {nanos}, allowed are {least}..{most} where seconds is {seconds}")


def ttl_ms(ttl: Duration, field: str) -> int:
    """Return a duration in ms, rounded up. Raise InvalidField unless it is well-formed and greater than zero."""
    check_duration(ttl, field)
    milliseconds = ttl.seconds * 1000 - (-ttl.nanos // 1_000_000)
    if not 0 < milliseconds <= MS_MAX:
        raise InvalidField(field, f"is {milliseconds} ms, allowed are 1..{MS_MAX} ms")
    return milliseconds


def deadline_ms(time: Timestamp, field: str) -> int:
    """Return a time in ms since 1970, rounded down. Raise InvalidField unless it is well-formed and after 1970."""
    if not 0 <= time.nanos <= NANOS_MAX:
        raise InvalidField(field, f"nanos is {time.nanos}, allowed are 0..{NANOS_MAX}")
    milliseconds = time.seconds * 1000 + time.nanos // 1_000_000
    if not 0 < milliseconds <= MS_MAX:
        raise InvalidField(field, f"is {milliseconds} ms after 1970, allowed are 1..{MS_MAX} ms")
    return milliseconds


def succeeded(reply: Reply) -> Reply:
    """Return a reply that is no error; raise the error that it is."""
    if isinstance(reply, ErrorReply):
        raise reply.cause
    return reply


def integer_of(reply: Reply) -> int:
    """Return the integer that a command answered; raise the error that it answered instead."""
    number = succeeded(reply)
    assert isinstance(number, int), f"an integer was due, not {number!r}"
    return number


def bytes_of(reply: Reply) -> bytes | None:
    """Return the string or null that a command answered; raise the error that it answered instead."""
    text = succeeded(reply)
    assert text is None or isinstance(text, bytes), f"a string was due, not {text!r}"
    return text
