"""The key-value service: every typed call as a command, and its reply as a response.

Guarantees: a call takes the one write path of all commands; what its fields say wrong is refused by name before that.
A write with a request id runs once.
Leaves to the caller: decoding, admission, errors as status (kvservice.api.calls).
Reference: redan/kv/v1/kv.proto; the Redis command that each call runs has its name in the code.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator

from google.protobuf.duration_pb2 import Duration

from kvservice.api.calls import CallContext, Gate
from kvservice.api.commands import (
    ARGS_MAX,
    bytes_of,
    check_key,
    check_keys,
    check_value,
    deadline_ms,
    integer_of,
    refusal,
    succeeded,
    ttl_ms,
)
from kvservice.api.convert import ReplyTooLarge, size_of, to_value
from kvservice.api.edge import Edge
from kvservice.api.once import once
from kvservice.api.pipeline import Pipeline
from kvservice.api.scan import read_page, read_walk, token_of
from kvservice.api.status import InvalidField
from kvservice.commands.reply import Reply
from kvservice.commands.table import Args
from redan.kv.v1 import kv_pb2

SET_CONDITIONS = {
    kv_pb2.SET_CONDITION_UNSPECIFIED: [],
    kv_pb2.SET_CONDITION_IF_ABSENT: [b"NX"],
    kv_pb2.SET_CONDITION_IF_PRESENT: [b"XX"],
}
EXPIRE_CONDITIONS = {
    kv_pb2.EXPIRE_CONDITION_UNSPECIFIED: [],
    kv_pb2.EXPIRE_CONDITION_IF_NONE: [b"NX"],
    kv_pb2.EXPIRE_CONDITION_IF_SOME: [b"XX"],
    kv_pb2.EXPIRE_CONDITION_IF_LATER: [b"GT"],
    kv_pb2.EXPIRE_CONDITION_IF_SOONER: [b"LT"],
}
Write = (
    kv_pb2.SetRequest
    | kv_pb2.DeleteRequest
    | kv_pb2.ExpireRequest
    | kv_pb2.IncrementRequest
    | kv_pb2.MultiSetRequest
    | kv_pb2.ExecuteRequest
)
"""Requests that may carry a request id."""
TTL_NO_KEY = -2
TTL_NEVER = -1


class KeyValueService:
    """Calls of redan.kv.v1.KVService; methods have the names of the calls."""

    def __init__(self, edge: Edge, gate: Gate, loop: AbstractEventLoop) -> None:
        self._edge = edge
        self._gate = gate
        self._loop = loop
        self._config = edge.config

    async def _one(self, context: CallContext, database: int, args: Args) -> Reply:
        [reply] = await self._edge.run(context, database, [args])
        return reply

    async def _once(self, context: CallContext, request: Write, args: Args) -> Reply:
        """Run a write, once for its request id."""
        return await self._one(context, request.database, once(self._edge.service.table, args, request.request_id))

    async def get(self, request: kv_pb2.GetRequest, context: CallContext) -> kv_pb2.GetResponse:
        """GET."""
        key = check_key(request.key, "key", self._config)
        value = bytes_of(await self._one(context, request.database, [b"GET", key]))
        return kv_pb2.GetResponse(header=self._edge.header(), value=value)

    async def set(self, request: kv_pb2.SetRequest, context: CallContext) -> kv_pb2.SetResponse:
        """SET."""
        args = [b"SET", check_key(request.key, "key", self._config), check_value(request.value, "value", self._config)]
        condition = request.condition
        if condition not in SET_CONDITIONS:
            raise InvalidField("condition", f"{condition} is not known to this node")
        args += SET_CONDITIONS[condition]
        match request.WhichOneof("expiry"):
            case "ttl":
                args += [b"PX", b"%d" % ttl_ms(request.ttl, "ttl")]
            case "expire_at":
                args += [b"PXAT", b"%d" % deadline_ms(request.expire_at, "expire_at")]
            case "keep_ttl" if request.keep_ttl:
                args.append(b"KEEPTTL")
        if not request.return_previous:
            applied = succeeded(await self._once(context, request, args)) is not None
            return kv_pb2.SetResponse(header=self._edge.header(), applied=applied)
        previous = bytes_of(await self._once(context, request, [*args, b"GET"]))
        # With GET the reply does not say whether the value was stored, but the previous value and the condition do.
        applied = condition == kv_pb2.SET_CONDITION_UNSPECIFIED or (
            (previous is None) == (condition == kv_pb2.SET_CONDITION_IF_ABSENT)
        )
        return kv_pb2.SetResponse(header=self._edge.header(), applied=applied, previous=previous)

    async def delete(self, request: kv_pb2.DeleteRequest, context: CallContext) -> kv_pb2.DeleteResponse:
        """DEL."""
        args = [b"DEL", *check_keys(request.keys[:], self._config)]
        deleted = integer_of(await self._once(context, request, args))
        return kv_pb2.DeleteResponse(header=self._edge.header(), deleted=deleted)

    async def exists(self, request: kv_pb2.ExistsRequest, context: CallContext) -> kv_pb2.ExistsResponse:
        """EXISTS."""
        args = [b"EXISTS", *check_keys(request.keys[:], self._config)]
        count = integer_of(await self._one(context, request.database, args))
        return kv_pb2.ExistsResponse(header=self._edge.header(), count=count)

    async def expire(self, request: kv_pb2.ExpireRequest, context: CallContext) -> kv_pb2.ExpireResponse:
        """PEXPIRE, PEXPIREAT or PERSIST."""
        key = check_key(request.key, "key", self._config)
        if request.condition not in EXPIRE_CONDITIONS:
            raise InvalidField("condition", f"{request.condition} is not known to this node")
        condition = EXPIRE_CONDITIONS[request.condition]
        match request.WhichOneof("expiry"):
            case "ttl":
                args = [b"PEXPIRE", key, b"%d" % ttl_ms(request.ttl, "ttl"), *condition]
            case "expire_at":
                args = [b"PEXPIREAT", key, b"%d" % deadline_ms(request.expire_at, "expire_at"), *condition]
            case "persist" if request.persist:
                if condition:
                    raise InvalidField("condition", "cannot go together with persist")
                args = [b"PERSIST", key]
            case _:
                raise InvalidField("expiry", "one of ttl, expire_at and persist is required")
        applied = integer_of(await self._once(context, request, args)) == 1
        return kv_pb2.ExpireResponse(header=self._edge.header(), applied=applied)

    async def ttl(self, request: kv_pb2.TtlRequest, context: CallContext) -> kv_pb2.TtlResponse:
        """PTTL."""
        key = check_key(request.key, "key", self._config)
        left_ms = integer_of(await self._one(context, request.database, [b"PTTL", key]))
        response = kv_pb2.TtlResponse(header=self._edge.header(), exists=left_ms != TTL_NO_KEY)
        if left_ms not in (TTL_NO_KEY, TTL_NEVER):
            response.ttl.CopyFrom(Duration(seconds=left_ms // 1000, nanos=left_ms % 1000 * 1_000_000))
        return response

    async def increment(self, request: kv_pb2.IncrementRequest, context: CallContext) -> kv_pb2.IncrementResponse:
        """INCRBY."""
        key = check_key(request.key, "key", self._config)
        delta = request.delta if request.HasField("delta") else 1
        value = integer_of(await self._once(context, request, [b"INCRBY", key, b"%d" % delta]))
        return kv_pb2.IncrementResponse(header=self._edge.header(), value=value)

    async def multi_get(self, request: kv_pb2.MultiGetRequest, context: CallContext) -> kv_pb2.MultiGetResponse:
        """MGET."""
        args = [b"MGET", *check_keys(request.keys[:], self._config)]
        values = succeeded(await self._one(context, request.database, args))
        assert isinstance(values, list)
        self._check_size(values)
        lookups = [kv_pb2.Lookup(value=bytes_of(value)) for value in values]
        return kv_pb2.MultiGetResponse(header=self._edge.header(), lookups=lookups)

    async def multi_set(self, request: kv_pb2.MultiSetRequest, context: CallContext) -> kv_pb2.MultiSetResponse:
        """MSET or MSETNX."""
        count, count_max = len(request.entries), (ARGS_MAX - 1) // 2
        if not 0 < count <= count_max:
            raise InvalidField("entries", f"has {count} entries, allowed are 1..{count_max}")
        args = [b"MSETNX" if request.if_all_absent else b"MSET"]
        for position, entry in enumerate(request.entries):
            args.append(check_key(entry.key, f"entries[{position}].key", self._config))
            args.append(check_value(entry.value, f"entries[{position}].value", self._config))
        reply = succeeded(await self._once(context, request, args))
        return kv_pb2.MultiSetResponse(header=self._edge.header(), applied=reply != 0)

    async def scan(self, request: kv_pb2.ScanRequest, context: CallContext) -> kv_pb2.ScanResponse:
        """SCAN, and MGET for values."""
        walk = read_walk(request, self._config)
        with self._edge.session(context) as session:
            session.db = walk.database
            page = await read_page(session, walk)
        token = token_of(walk, page.cursor)
        return kv_pb2.ScanResponse(header=self._edge.header(), entries=page.entries, next_page_token=token)

    async def scan_stream(
        self, request: kv_pb2.ScanStreamRequest, context: CallContext
    ) -> AsyncGenerator[kv_pb2.ScanStreamResponse, None]:
        """SCAN to the end. A page without keys is not sent, but for the last, which says that it is."""
        walk = read_walk(request, self._config)
        with self._edge.session(context) as session:
            session.db = walk.database
            while True:
                page = await read_page(session, walk)
                if page.entries or page.cursor == 0:
                    token = token_of(walk, page.cursor)
                    header = self._edge.header()
                    yield kv_pb2.ScanStreamResponse(header=header, entries=page.entries, next_page_token=token)
                if page.cursor == 0:
                    return
                walk = walk._replace(cursor=page.cursor)

    async def execute(self, request: kv_pb2.ExecuteRequest, context: CallContext) -> kv_pb2.ExecuteResponse:
        """Run any command that is not about a connection."""
        args = request.args[:]
        error = refusal(args, self._config)
        if error is not None:
            raise InvalidField("args", error.text)
        reply = succeeded(await self._once(context, request, args))
        self._check_size(reply)
        return kv_pb2.ExecuteResponse(header=self._edge.header(), value=to_value(reply))

    async def pipeline(self, context: CallContext) -> None:
        """Run batches of commands (kvservice.api.pipeline)."""
        await Pipeline(self._edge, self._gate, context, self._loop).serve()

    def _check_size(self, reply: Reply) -> None:
        """Refuse to encode a reply that cannot be sent: it would cost its size in memory once more."""
        size_bytes = size_of(reply)
        if size_bytes > self._gate.message_bytes_max:
            raise ReplyTooLarge(size_bytes, self._gate.message_bytes_max)
