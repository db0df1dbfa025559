"""What every call goes through, whatever it asks: admission, decoding, counting, and errors as status.

Order: admission (how many calls there are, password or protected mode, then requests in memory) → decoding → the call →
encoding → counting.
Methods are registered with plain bytes on both sides, so that bytes that are no message get a proper error instead of a
stack trace in the log, and so that the pipeline may write its own wire format.

Guarantees: a call ends with a response, or with a status that has details; whatever it held is given back.
Leaves to the caller: a bound on calls of other services, which do not come through here.
Reference: RFC 6750 (bearer tokens), for the ``authorization`` metadata.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, contextmanager
from hmac import compare_digest
from time import perf_counter_ns
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status  # type: ignore[import-untyped]

from kvservice.api.convert import ReplyTooLarge
from kvservice.api.status import status_of
from kvservice.config import Config
from kvservice.errors import NoAuthentication, Overloaded, RedanError, RequestError, WrongPassword
from kvservice.keyspace.machine import InternalError
from kvservice.latency_buckets import bucket_of, new_histogram
from kvservice.logs import Event, Log
from kvservice.protected_mode import ProtectedMode, denies

CallContext: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
Request = TypeVar("Request", bound=Message)
UnaryCall: TypeAlias = Callable[[Any, CallContext], Awaitable[Message]]
StreamingCall: TypeAlias = Callable[[Any, CallContext], AsyncGenerator[Message, None]]
BytesCall: TypeAlias = Callable[[CallContext], Awaitable[None]]

TOKEN_SCHEME: Final = "bearer "

log = Log("authentication")


class NotAMessage(RequestError):  # noqa: N818 - named as the rest of the tree
    """The bytes of a request are no message of its type."""

    reason = "MALFORMED_MESSAGE"


class MethodStats:
    """Counts of one method."""

    __slots__ = ("buckets", "by_code", "nanoseconds", "running")

    def __init__(self) -> None:
        self.running = 0
        """Calls that have begun and not ended."""
        self.by_code: dict[str, int] = {}
        """Calls that have ended, by the name of their status code."""
        self.buckets = new_histogram()
        """Durations of unary calls (kvservice.latency_buckets); a stream lasts as long as its client likes."""
        self.nanoseconds = 0
        """Sum of these durations."""

    def lasted(self, nanoseconds: int) -> None:
        """Count the duration of a unary call."""
        self.nanoseconds += nanoseconds
        self.buckets[bucket_of(nanoseconds // 1000)] += 1


class Gate:
    """Admission and counts of all calls of a server."""

    def __init__(self, config: Config, on_defect: Callable[[str, BaseException], None]) -> None:
        self._config = config
        self._on_defect = on_defect
        """Told an exception that no call may raise, with the name of the method."""
        self.methods: dict[str, MethodStats] = {}
        """Counts by full name, such as `redan.kv.v1.KVService/Get`."""
        self.running = 0
        """Calls that have begun and not ended."""
        self.request_bytes = 0
        """Bytes of requests that have not been answered."""

    def stats_of(self, method: MethodDescriptor) -> MethodStats:
        """Return the counts of a method."""
        return self.methods.setdefault(f"{method.containing_service.full_name}/{method.name}", MethodStats())

    def admit(self, context: CallContext) -> None:
        """Let a call in that has begun. Raise Overloaded, NoAuthentication, WrongPassword or ProtectedMode."""
        if self.running > self._config.maxclients:
            raise Overloaded
        self._authenticate(context)

    def _authenticate(self, context: CallContext) -> None:
        """Check the bearer token if a password is set, and else protected mode."""
        password = self._config.requirepass
        if not password:
            if denies(self._config, address_of(context)):
                raise ProtectedMode
            return
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                token = value if isinstance(value, str) else value.decode("utf-8", "replace")
                scheme, given = token[: len(TOKEN_SCHEME)], token[len(TOKEN_SCHEME) :]
                if scheme.lower() == TOKEN_SCHEME and compare_digest(given.encode(), password.encode()):
                    return
                log.warning(Event.AUTHENTICATION_FAILED, address=address_of(context))
                raise WrongPassword
        raise NoAuthentication

    def take(self, size_bytes: int) -> None:
        """Count a request in. Raise Overloaded when too much waits already."""
        if self.request_bytes and self.request_bytes + size_bytes > self._config.query_buffer_bytes_max:
            raise Overloaded
        self.request_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Count a request out."""
        self.request_bytes -= size_bytes

    @property
    def message_bytes_max(self) -> int:
        """Longest message that is sent."""
        return self._config.grpc_max_message_bytes

    def as_error(self, method: str, exception: Exception) -> RedanError:
        """Return the error to answer for what a call raised; a defect is reported.

        Raises the exception itself if it says that the client has gone.
        """
        if isinstance(exception, grpc.aio.InternalError):
            raise exception
        if isinstance(exception, RedanError):
            return exception
        self._on_defect(method, exception)
        return InternalError(f"internal error in {method}: {type(exception).__name__}")


class Outcome:
    """How a call ended, for its counts."""

    __slots__ = ("code",)

    def __init__(self) -> None:
        self.code = "OK"


@contextmanager
def counted(gate: Gate, stats: MethodStats) -> Any:
    """Count one call, whatever way it ends."""
    outcome = Outcome()
    stats.running += 1
    gate.running += 1
    try:
        yield outcome
    except (CancelledError, grpc.aio.InternalError) as gone:
        # The client went away or its deadline passed; the two look the same here, and a write to a client that has
        # just gone is an InternalError.
        outcome.code = "CANCELLED"
        raise CancelledError from gone
    finally:
        stats.running -= 1
        gate.running -= 1
        stats.by_code[outcome.code] = stats.by_code.get(outcome.code, 0) + 1


async def end_with(context: CallContext, error: RedanError) -> None:
    """End a call with an error; does not return."""
    try:
        await context.abort_with_status(rpc_status.to_status(status_of(error)))
    except grpc.aio.InternalError:
        # The client has gone in this very moment: cancelling is what ends a call that nobody waits for.
        raise CancelledError from None


def address_of(context: CallContext) -> str:
    """Return where a call comes from, as CLIENT LIST shows it."""
    kind, _, address = context.peer().partition(":")
    return unquote(address) if kind in ("ipv4", "ipv6") else context.peer()


def decoder(method: MethodDescriptor) -> Callable[[bytes], Message]:
    """Return what reads the requests of a method. It raises NotAMessage."""
    parse: Callable[[bytes], Message] = GetMessageClass(method.input_type).FromString
    name = method.input_type.full_name

    def decode(raw: bytes) -> Message:
        try:
            return parse(raw)
        except DecodeError:
            raise NotAMessage(f"the request is not a {name}") from None

    return decode


def unary(gate: Gate, method: MethodDescriptor, call: UnaryCall) -> Any:
    """Return the handler of a call with one request and one response."""
    decode, stats = decoder(method), gate.stats_of(method)

    async def handle(raw: bytes, context: CallContext) -> bytes:
        started_ns = perf_counter_ns()
        taken = 0
        with counted(gate, stats) as outcome:
            try:
                gate.admit(context)
                gate.take(len(raw))
                taken = len(raw)
                response = await call(decode(raw), context)
                encoded = response.SerializeToString()
                if len(encoded) > gate.message_bytes_max:
                    raise ReplyTooLarge(len(encoded), gate.message_bytes_max)
                return encoded
            except Exception as exception:
                error = gate.as_error(method.name, exception)
                outcome.code = error.grpc_status
            finally:
                gate.give_back(taken)
                stats.lasted(perf_counter_ns() - started_ns)
            await end_with(context, error)
        raise AssertionError("abort_with_status returned")

    return grpc.unary_unary_rpc_method_handler(handle)


def server_streaming(gate: Gate, method: MethodDescriptor, call: StreamingCall) -> Any:
    """Return the handler of a call with one request and a stream of responses."""
    decode, stats = decoder(method), gate.stats_of(method)

    async def handle(raw: bytes, context: CallContext) -> None:
        with counted(gate, stats) as outcome:
            try:
                gate.admit(context)
                async with aclosing(call(decode(raw), context)) as responses:
                    async for response in responses:
                        await context.write(response.SerializeToString())
                return
            except Exception as exception:
                error = gate.as_error(method.name, exception)
                outcome.code = error.grpc_status
            await end_with(context, error)

    return grpc.unary_stream_rpc_method_handler(handle)


def bidirectional(gate: Gate, method: MethodDescriptor, call: BytesCall) -> Any:
    """Return the handler of a stream that reads and writes bytes by itself."""
    stats = gate.stats_of(method)

    async def handle(_requests: AsyncIterator[bytes], context: CallContext) -> None:
        with counted(gate, stats) as outcome:
            try:
                gate.admit(context)
                await call(context)
                return
            except Exception as exception:
                error = gate.as_error(method.name, exception)
                outcome.code = error.grpc_status
            await end_with(context, error)

    return grpc.stream_stream_rpc_method_handler(handle)
