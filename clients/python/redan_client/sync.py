# Generated from aio.py by unasync.py. DO NOT EDIT!
"""The client for programs without an event loop; threads may share one.

Guarantees: one channel a node, made when it is first asked; nothing runs between calls.
Leaves to the caller: closing, or a with statement.
Reference: redan_client.requests (what calls mean), policy (what is repeated), routes (who is asked).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from redan_client.batches import Batches, Commands
from redan_client.channels import channel_options, credentials_of
from redan_client.errors import RedanError, RequestError, error_of_call
from redan_client.policy import Attempts, Settings, is_node_at_fault
from redan_client.requests import Argument, Call, Entry, ExpireCondition, Requests, SetCondition, Text
from redan_client.routes import Routes
from redan_client.stubs import cluster_pb2, cluster_pb2_grpc, kv_pb2_grpc

T = TypeVar("T")
DEFAULT_SETTINGS: Final = Settings()


class Client:
    """Reads and writes keys of a cluster; made without a connection."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        password: str | None = None,
        database: int = 0,
        request_ids: bool = True,
        settings: Settings = DEFAULT_SETTINGS,
    ) -> None:
        """Take the addresses of some nodes, host:port; ValueError for what is none, or for a password not in ASCII.

        Without request_ids no write is repeated whose outcome is unknown: it raises OutcomeUnknownError.
        """
        self._routes = Routes(addresses)
        self._requests = Requests(database, request_ids=request_ids)
        self._settings = settings
        self._metadata = credentials_of(password)
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def get(self, key: Text) -> bytes | None:
        """Return the string at a key, None without one."""
        return self._run(self._requests.get(key))

    def set(
        self,
        key: Text,
        value: Argument,
        *,
        ttl: float | None = None,
        expire_at: datetime | None = None,
        keep_ttl: bool = False,
        condition: SetCondition = "always",
    ) -> bool:
        """Store a string, for ttl seconds or until expire_at; return whether it was stored."""
        return self._run(self._requests.set(key, value, ttl, expire_at, keep_ttl, condition))

    def swap(
        self,
        key: Text,
        value: Argument,
        *,
        ttl: float | None = None,
        expire_at: datetime | None = None,
        keep_ttl: bool = False,
    ) -> bytes | None:
        """Store a string and return the one that was there before."""
        return self._run(self._requests.swap(key, value, ttl, expire_at, keep_ttl))

    def delete(self, *keys: Text) -> int:
        """Remove keys in one step; return how many there were."""
        return self._run(self._requests.delete(keys))

    def exists(self, *keys: Text) -> int:
        """Return how many of the keys exist."""
        return self._run(self._requests.exists(keys))

    def increment(self, key: Text, delta: int = 1) -> int:
        """Add to the integer at a key, 0 without one; return the sum."""
        return self._run(self._requests.increment(key, delta))

    def expire(
        self,
        key: Text,
        *,
        ttl: float | None = None,
        at: datetime | None = None,
        condition: ExpireCondition = "always",
    ) -> bool:
        """Let a key expire after ttl seconds or at a time; return whether it will."""
        if (ttl is None) == (at is None):
            raise ValueError("either ttl or at is needed")
        return self._run(self._requests.expire(key, ttl, at, condition))

    def persist(self, key: Text) -> bool:
        """Take the deadline of a key away; return whether there was one."""
        return self._run(self._requests.expire(key, None, None, "always"))

    def ttl(self, key: Text) -> float | None:
        """Return how many seconds a key still lives: NEVER (infinite) without a deadline, None without the key."""
        return self._run(self._requests.ttl(key))

    def get_many(self, *keys: Text) -> list[bytes | None]:
        """Return the strings at several keys, read in one step."""
        return self._run(self._requests.get_many(keys))

    def set_many(self, entries: Mapping[Any, Argument], *, if_all_absent: bool = False) -> bool:
        """Store several strings in one step; return whether they were stored."""
        return self._run(self._requests.set_many(entries, if_all_absent))

    def scan(self, match: Text = "", *, with_values: bool = False, page_size: int = 0) -> Iterator[Entry]:
        """Yield the keys that match a pattern of Redis's glob style, all of them by default.

        A key that is there from the beginning to the end is yielded at least once.
        """
        token = ""
        while True:
            entries, token = self._run(self._requests.scan(match, with_values, page_size, token))
            yield from entries
            if not token:
                return

    def execute(self, *args: Argument) -> Any:
        """Run any command of the Redis API and return its reply."""
        return self._run(self._requests.execute(args))

    def pipeline(self) -> Pipeline:
        """Return an empty pipeline: commands that are sent together, by far the fastest way in."""
        return Pipeline(self)

    def status(self) -> cluster_pb2.StatusResponse:
        """Return how the cluster stands, as one of its nodes sees it."""
        attempts = self._attempts()
        while True:
            for address in self._routes.candidates(monotonic()):
                try:
                    return self._ask_status(address, attempts.seconds(monotonic()))
                except grpc.RpcError as failure:
                    error = _error_of(failure)
                    if isinstance(error, RequestError):
                        raise error from None
                    self._routes.failed(address, monotonic())
            sleep(attempts.pause_after(error, monotonic(), runs_once=True))

    def _run(self, call: Call[T]) -> T:
        """Make a call, as often as is safe. Raise RedanError."""
        attempts = self._attempts()
        while True:
            address = self._find(attempts)
            method = getattr(kv_pb2_grpc.KVServiceStub(self._channel(address)), call.method)
            try:
                response = method(call.request, timeout=attempts.seconds(monotonic()), metadata=self._metadata)
            except grpc.RpcError as failure:
                self._pause(attempts, address, _error_of(failure), runs_once=call.runs_once)
            else:
                self._routes.answered(response.header)
                return call.read(response)

    def _attempts(self) -> Attempts:
        return Attempts(self._settings, monotonic(), random.random)

    def _pause(self, attempts: Attempts, address: str, error: RedanError, *, runs_once: bool) -> None:
        """Wait until the next attempt. Raise the error if there is none."""
        if is_node_at_fault(error):
            self._routes.failed(address, monotonic())
        sleep(attempts.pause_after(error, monotonic(), runs_once=runs_once))

    def _find(self, attempts: Attempts) -> str:
        """Return whom to ask: the leader, as far as anybody who answers knows it."""
        if target := self._routes.target():
            return target
        candidates = self._routes.candidates(monotonic())
        for address in candidates:
            seconds = attempts.probe_seconds(monotonic())
            try:
                self._routes.learned(address, self._ask_status(address, seconds), monotonic())
            except grpc.RpcError as failure:
                error = _error_of(failure)
                if isinstance(error, RequestError):
                    return address  # the call itself will be told why
                self._routes.failed(address, monotonic())
            else:
                return self._routes.target()
        return candidates[0]

    def _ask_status(self, address: str, seconds: float) -> cluster_pb2.StatusResponse:
        stub: Any = cluster_pb2_grpc.ClusterServiceStub(self._channel(address))
        response: cluster_pb2.StatusResponse = stub.Status(
            cluster_pb2.StatusRequest(), timeout=seconds, metadata=self._metadata
        )
        return response

    def _channel(self, address: str) -> grpc.Channel:
        channel = self._channels.get(address)
        if channel is None:
            made = grpc.insecure_channel(address, options=channel_options())
            channel = self._channels.setdefault(address, made)
            if channel is not made:
                made.close()  # another thread was first
        return channel


class Pipeline(Commands):
    """Commands that are sent together; made by Client.pipeline."""

    def __init__(self, client: Client) -> None:
        super().__init__(client._requests)
        self._client = client

    def execute(self, *, raise_errors: bool = True) -> list[Any]:
        """Send all and return their results in order; the pipeline is empty afterwards.

        Raises the first error of a command, unless raise_errors is false: then errors are among the results.
        """
        client, batches = self._client, self.take()
        attempts = client._attempts()
        while left := batches.left:
            address = client._find(attempts)
            error = self._send(address, batches, attempts.seconds(monotonic()))
            if batches.left < left:
                attempts = client._attempts()  # the time limit is one for going on
            if error is not None:
                try:
                    client._pause(attempts, address, error, runs_once=batches.runs_once)
                except RedanError:
                    batches.gave_up(error)
                    break
        results = batches.results()
        if raise_errors and (failed := next((one for one in results if isinstance(one, RedanError)), None)) is not None:
            raise failed
        return results

    def _send(self, address: str, batches: Batches, seconds: float) -> RedanError | None:
        """Send a part of what is left; return why some of it has to be sent again, None if nothing has."""
        stub: Any = kv_pb2_grpc.KVServiceStub(self._client._channel(address))
        call = stub.Pipeline(batches.begin(), timeout=seconds, metadata=self._client._metadata)
        try:
            for response in call:
                batches.answered(response)
            batches.ended()
        except (grpc.RpcError, RedanError) as failure:
            error = failure if isinstance(failure, RedanError) else _error_of(failure)
            batches.broke(error)
            return error
        finally:
            call.cancel()
        return batches.last_error


def _error_of(failure: Any) -> RedanError:
    trailers = failure.trailing_metadata() or ()
    return error_of_call(failure.code().name, failure.details() or "", [(key, value) for key, value in trailers])
