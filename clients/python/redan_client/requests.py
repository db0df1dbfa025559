"""The calls of the client as values: which method, with what request, and what its response means in Python.

Guarantees: every write carries a request id of its own, unless the caller wants none; the same value sent again is the
same write. A call says whether running it twice is the same as once (``runs_once``).
Leaves to the caller: sending, and whether to repeat.
Reference: proto/redan/kv/v1/kv.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from redan_client.errors import error_of_command
from redan_client.stubs import kv_pb2

Text: TypeAlias = bytes | str
"""A key or a string; str is sent as UTF-8."""
Argument: TypeAlias = bytes | str | int | float
"""An argument of a command; numbers are sent as decimal text."""
SetCondition: TypeAlias = Literal["always", "if_absent", "if_present"]
ExpireCondition: TypeAlias = Literal["always", "if_none", "if_some", "if_later", "if_sooner"]
T = TypeVar("T")

NEVER: Final = inf
"""How long a key lives that has no deadline."""

DATA_COMMANDS: Final = frozenset(
    """
    APPEND BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS COPY DBSIZE DECR DECRBY DEL DUMP ECHO EXISTS EXPIRE EXPIREAT
    EXPIRETIME FLUSHALL FLUSHDB GET GETBIT GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT KEYS LCS MGET MOVE
    MSET MSETNX OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PING PSETEX PTTL RANDOMKEY RENAME RENAMENX RESTORE
    SCAN SET SETBIT SETEX SETNX SETRANGE STRLEN SUBSTR SWAPDB TIME TOUCH TTL TYPE UNLINK
    """.split()  # noqa: SIM905 - a list of words
)
"""Commands that read, or that a request id makes run once. Others are about one node, such as SHUTDOWN: never repeated
when it is not known whether they were done."""

_SET_CONDITIONS: Final[dict[SetCondition, kv_pb2.SetCondition]] = {
    "always": kv_pb2.SET_CONDITION_UNSPECIFIED,
    "if_absent": kv_pb2.SET_CONDITION_IF_ABSENT,
    "if_present": kv_pb2.SET_CONDITION_IF_PRESENT,
}
_EXPIRE_CONDITIONS: Final[dict[ExpireCondition, kv_pb2.ExpireCondition]] = {
    "always": kv_pb2.EXPIRE_CONDITION_UNSPECIFIED,
    "if_none": kv_pb2.EXPIRE_CONDITION_IF_NONE,
    "if_some": kv_pb2.EXPIRE_CONDITION_IF_SOME,
    "if_later": kv_pb2.EXPIRE_CONDITION_IF_LATER,
    "if_sooner": kv_pb2.EXPIRE_CONDITION_IF_SOONER,
}


class Entry(NamedTuple):
    """A key that a scan found."""

    key: bytes
    value: bytes | None
    """The string, if values were asked for; None if the key holds another type or has just been removed."""
    value_omitted: bool
    """Whether the string was too long for the page; `get` reads it."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of KVService."""

    method: str
    request: Message
    read: Callable[[Any], T]
    """Makes the result of the response."""
    runs_once: bool
    """Whether sending it twice is the same as once."""


class Requests:
    """Makes the calls of one client."""

    def __init__(self, database: int, *, request_ids: bool) -> None:
        self.database = database
        self._request_ids = request_ids

    def new_id(self) -> str:
        """Return the identity of one write, "" if writes get none."""
        return uuid4().hex if self._request_ids else ""

    def get(self, key: Text) -> Call[bytes | None]:
        """Read a string."""
        request = kv_pb2.GetRequest(database=self.database, key=encoded(key))
        return Call("Get", request, _value_or_none, runs_once=True)

    def set(
        self, key: Text, value: Argument, ttl: float | None, at: datetime | None, keep: bool, condition: SetCondition
    ) -> Call[bool]:
        """Store a string."""
        request = self._set_request(key, value, ttl, at, keep, condition)
        return Call("Set", request, lambda response: bool(response.applied), self._request_ids)

    def swap(
        self, key: Text, value: Argument, ttl: float | None, at: datetime | None, keep: bool
    ) -> Call[bytes | None]:
        """Store a string and read the one before."""
        request = self._set_request(key, value, ttl, at, keep, "always")
        request.return_previous = True
        return Call("Set", request, _previous_or_none, self._request_ids)

    def _set_request(
        self, key: Text, value: Argument, ttl: float | None, at: datetime | None, keep: bool, condition: SetCondition
    ) -> kv_pb2.SetRequest:
        if (ttl is not None) + (at is not None) + keep > 1:
            raise ValueError("ttl, expire_at and keep_ttl exclude each other")
        request = kv_pb2.SetRequest(
            database=self.database,
            key=encoded(key),
            value=encoded(value),
            condition=_SET_CONDITIONS[condition],
            keep_ttl=True if keep else None,
            request_id=self.new_id(),
        )
        if ttl is not None:
            request.ttl.CopyFrom(_duration(ttl))
        if at is not None:
            request.expire_at.CopyFrom(_timestamp(at))
        return request

    def delete(self, keys: tuple[Text, ...]) -> Call[int]:
        """Remove keys."""
        request = kv_pb2.DeleteRequest(
            database=self.database, keys=[encoded(key) for key in keys], request_id=self.new_id()
        )
        return Call("Delete", request, lambda response: int(response.deleted), self._request_ids)

    def exists(self, keys: tuple[Text, ...]) -> Call[int]:
        """Count keys that exist."""
        request = kv_pb2.ExistsRequest(database=self.database, keys=[encoded(key) for key in keys])
        return Call("Exists", request, lambda response: int(response.count), runs_once=True)

    def expire(self, key: Text, ttl: float | None, at: datetime | None, condition: ExpireCondition) -> Call[bool]:
        """Give a key a deadline; take it away if neither ttl nor at is given."""
        request = kv_pb2.ExpireRequest(
            database=self.database,
            key=encoded(key),
            condition=_EXPIRE_CONDITIONS[condition],
            request_id=self.new_id(),
        )
        if ttl is not None and at is not None:
            raise ValueError("ttl and at exclude each other")
        if ttl is not None:
            request.ttl.CopyFrom(_duration(ttl))
        elif at is not None:
            request.expire_at.CopyFrom(_timestamp(at))
        else:
            request.persist = True
        return Call("Expire", request, lambda response: bool(response.applied), self._request_ids)

    def ttl(self, key: Text) -> Call[float | None]:
        """Tell how long a key lives."""
        request = kv_pb2.TtlRequest(database=self.database, key=encoded(key))
        return Call("Ttl", request, _seconds_left, runs_once=True)

    def increment(self, key: Text, delta: int) -> Call[int]:
        """Add to an integer."""
        request = kv_pb2.IncrementRequest(
            database=self.database, key=encoded(key), delta=delta, request_id=self.new_id()
        )
        return Call("Increment", request, lambda response: int(response.value), self._request_ids)

    def get_many(self, keys: tuple[Text, ...]) -> Call[list[bytes | None]]:
        """Read several strings."""
        request = kv_pb2.MultiGetRequest(database=self.database, keys=[encoded(key) for key in keys])
        return Call("MultiGet", request, _lookups, runs_once=True)

    def set_many(self, entries: Mapping[Any, Argument], if_all_absent: bool) -> Call[bool]:
        """Store several strings."""
        request = kv_pb2.MultiSetRequest(
            database=self.database,
            entries=[kv_pb2.KeyValue(key=encoded(key), value=encoded(value)) for key, value in entries.items()],
            if_all_absent=if_all_absent,
            request_id=self.new_id(),
        )
        return Call("MultiSet", request, lambda response: bool(response.applied), self._request_ids)

    def scan(self, match: Text, with_values: bool, page_size: int, token: str) -> Call[tuple[list[Entry], str]]:
        """Read a page of keys, and what to ask the next one with."""
        request = kv_pb2.ScanRequest(
            database=self.database,
            match=encoded(match),
            with_values=with_values,
            page_size=page_size,
            page_token=token,
        )
        return Call("Scan", request, _page, runs_once=True)

    def execute(self, args: tuple[Argument, ...]) -> Call[Any]:
        """Run a command."""
        command = [encoded(arg) for arg in args]
        runs_once = self.runs_once(command)
        request = kv_pb2.ExecuteRequest(
            database=self.database, args=command, request_id=self.new_id() if runs_once else ""
        )
        return Call("Execute", request, lambda response: python_value(response.value), runs_once)

    def runs_once(self, command: list[bytes]) -> bool:
        """Tell whether a command is one that a request id makes run once, and gets one; or reads."""
        return self._request_ids and bool(command) and command[0].decode("latin-1").upper() in DATA_COMMANDS


def encoded(argument: Argument) -> bytes:
    """Return the bytes of an argument. Raise TypeError for what is neither text nor a number."""
    if isinstance(argument, bytes):
        return argument
    if isinstance(argument, str):
        return argument.encode()
    if type(argument) in (int, float):  # a bool is an int too, and has no one text
        return repr(argument).encode()
    raise TypeError(f"{type(argument).__name__} is neither bytes, str, int nor float")


def python_value(value: kv_pb2.Value) -> Any:
    """Return a reply as Python has it; an error is returned as an exception, and not raised."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null":
        return None
    if kind in ("array", "set"):
        items = value.array.values if kind == "array" else value.set.values
        return [python_value(item) for item in items]
    if kind == "map":
        return {_hashable(python_value(entry.key)): python_value(entry.value) for entry in value.map.entries}
    if kind == "error":
        return error_of_command(value.error)
    if kind == "verbatim":
        return value.verbatim.text
    return getattr(value, kind)


def milliseconds(seconds: float) -> int:
    """Return a time to live in ms, rounded up. Raise ValueError unless it is greater than zero."""
    if not 0 < seconds < inf:
        raise ValueError(f"a time to live of {seconds} seconds is not possible")
    return ceil(seconds * 1000)


def unix_ms(at: datetime) -> int:
    """Return a time in ms since 1970, rounded down. Raise ValueError for one without a time zone."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone")
    since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def _duration(seconds: float) -> Duration:
    whole, rest = divmod(milliseconds(seconds), 1000)
    return Duration(seconds=whole, nanos=rest * 1_000_000)


def _timestamp(at: datetime) -> Timestamp:
    whole, rest = divmod(unix_ms(at), 1000)
    return Timestamp(seconds=whole, nanos=rest * 1_000_000)


def _value_or_none(response: kv_pb2.GetResponse) -> bytes | None:
    return response.value if response.HasField("value") else None


def _previous_or_none(response: kv_pb2.SetResponse) -> bytes | None:
    return response.previous if response.HasField("previous") else None


def _seconds_left(response: kv_pb2.TtlResponse) -> float | None:
    if not response.exists:
        return None
    return response.ttl.seconds + response.ttl.nanos / 1e9 if response.HasField("ttl") else NEVER


def _lookups(response: kv_pb2.MultiGetResponse) -> list[bytes | None]:
    return [lookup.value if lookup.HasField("value") else None for lookup in response.lookups]


def _page(response: kv_pb2.ScanResponse) -> tuple[list[Entry], str]:
    entries = [
        Entry(entry.key, entry.value if entry.HasField("value") else None, entry.value_omitted)
        for entry in response.entries
    ]
    return entries, response.next_page_token


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
