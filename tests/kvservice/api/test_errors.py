"""What goes wrong, and what a caller is told: code, reason, outcome, field."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from kvservice import errors
from kvservice.api.status import DOMAIN, InvalidField, code_of, outcome_of, status_of, text_of
from kvservice.errors import Loading, NotAppliedError, OutcomeUnknownError, RedanError, RequestError, ShuttingDown
from redan.kv.v1 import kv_pb2
from tests.kvservice.api.local_node import Client, LocalNode, failure_of, serving, unary_bytes, until

Node = tuple[LocalNode, Client]


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with serving(key_bytes_max=100, value_bytes_max=2000, grpc_max_message_bytes=65536) as running:
        yield running


def leaves(root: type[RedanError]) -> Iterator[type[RedanError]]:
    for child in root.__subclasses__():
        yield child
        yield from leaves(child)


def test_every_error_has_a_status_a_reason_and_an_outcome() -> None:
    classes = [
        found for found in leaves(RedanError) if found.__module__.startswith(("kvservice.errors", "kvservice.api"))
    ]
    assert errors.WrongType in classes
    for found in classes:
        assert code_of(found.__new__(found)) in grpc.StatusCode
        assert found.reason.isupper()
        assert found.reason != "UNSPECIFIED"


def test_the_outcome_follows_the_branch_of_the_tree() -> None:
    assert outcome_of(RequestError("x")) == kv_pb2.OUTCOME_REJECTED
    assert outcome_of(NotAppliedError("x")) == kv_pb2.OUTCOME_NOT_APPLIED
    assert outcome_of(OutcomeUnknownError("x")) == kv_pb2.OUTCOME_UNKNOWN
    assert outcome_of(RedanError("x")) == kv_pb2.OUTCOME_UNKNOWN


def test_a_text_with_bytes_of_a_client_is_valid_and_bounded() -> None:
    error = RequestError(b"unknown '\xff\xfe'".decode("utf-8", "surrogateescape") + "é" * 5000)
    text = text_of(error)
    assert text.startswith("unknown '\ufffd\ufffd'")
    assert len(status_of(error).SerializeToString()) < 4096


async def test_an_error_of_a_command_comes_with_its_details(node: Node) -> None:
    _, client = node
    await client.execute(b"SET", b"text", b"abc")
    failure = await failure_of(client.kv.Increment(kv_pb2.IncrementRequest(key=b"text")))
    assert (failure.code.name, failure.reason, failure.outcome) == ("INVALID_ARGUMENT", "INVALID_REQUEST", "rejected")
    assert failure.info.domain == DOMAIN
    assert failure.info.metadata["prefix"] == "ERR"
    assert failure.message == "value is not an integer or out of range"


async def test_a_command_that_does_not_exist_is_named(node: Node) -> None:
    _, client = node
    failure = await failure_of(client.execute(b"NOSUCH\xff", b"a"))
    assert failure.code.name == "INVALID_ARGUMENT"
    assert failure.message.startswith("unknown command 'NOSUCH\ufffd'")


async def test_a_wrong_number_of_arguments_is_refused(node: Node) -> None:
    _, client = node
    failure = await failure_of(client.execute(b"GET"))
    assert failure.message == "wrong number of arguments for 'get' command"


INVALID: list[tuple[str, str, object]] = [
    ("Get", "database", kv_pb2.GetRequest(database=16, key=b"k")),
    ("Get", "key", kv_pb2.GetRequest(key=b"k" * 101)),
    ("Set", "key", kv_pb2.SetRequest(key=b"k" * 101)),
    ("Set", "value", kv_pb2.SetRequest(key=b"k", value=b"v" * 2001)),
    ("Set", "ttl", kv_pb2.SetRequest(key=b"k", ttl=Duration())),
    ("Set", "ttl", kv_pb2.SetRequest(key=b"k", ttl=Duration(seconds=-1))),
    ("Set", "ttl", kv_pb2.SetRequest(key=b"k", ttl=Duration(nanos=-1))),
    ("Set", "ttl", kv_pb2.SetRequest(key=b"k", ttl=Duration(seconds=2**62))),
    ("Set", "ttl", kv_pb2.SetRequest(key=b"k", ttl=Duration(seconds=5, nanos=10**9))),
    ("Set", "ttl", kv_pb2.SetRequest(key=b"k", ttl=Duration(seconds=5, nanos=-1))),
    ("Expire", "ttl", kv_pb2.ExpireRequest(key=b"k", ttl=Duration(seconds=-5, nanos=1))),
    ("Set", "expire_at", kv_pb2.SetRequest(key=b"k", expire_at=Timestamp())),
    ("Set", "expire_at", kv_pb2.SetRequest(key=b"k", expire_at=Timestamp(seconds=5, nanos=-1))),
    ("Set", "expire_at", kv_pb2.SetRequest(key=b"k", expire_at=Timestamp(seconds=5, nanos=10**9))),
    ("Set", "expire_at", kv_pb2.SetRequest(key=b"k", expire_at=Timestamp(seconds=2**62))),
    ("Set", "condition", kv_pb2.SetRequest(key=b"k", condition=99)),  # type: ignore[arg-type]
    ("Delete", "keys", kv_pb2.DeleteRequest()),
    ("Delete", "keys[1]", kv_pb2.DeleteRequest(keys=[b"", b"k" * 101])),
    ("Exists", "keys", kv_pb2.ExistsRequest()),
    ("Expire", "expiry", kv_pb2.ExpireRequest(key=b"k")),
    ("Expire", "expiry", kv_pb2.ExpireRequest(key=b"k", persist=False)),
    ("Expire", "ttl", kv_pb2.ExpireRequest(key=b"k", ttl=Duration(seconds=-5))),
    (
        "Expire",
        "condition",
        kv_pb2.ExpireRequest(key=b"k", persist=True, condition=kv_pb2.EXPIRE_CONDITION_IF_LATER),
    ),
    ("Ttl", "key", kv_pb2.TtlRequest(key=b"k" * 101)),
    ("Increment", "key", kv_pb2.IncrementRequest(key=b"k" * 101)),
    ("MultiGet", "keys", kv_pb2.MultiGetRequest()),
    ("MultiSet", "entries", kv_pb2.MultiSetRequest()),
    ("MultiSet", "entries[0].value", kv_pb2.MultiSetRequest(entries=[kv_pb2.KeyValue(key=b"k", value=b"v" * 2001)])),
    ("Scan", "page_size", kv_pb2.ScanRequest(page_size=10_001)),
    ("Scan", "page_token", kv_pb2.ScanRequest(page_token="not a token")),
    ("Scan", "page_token", kv_pb2.ScanRequest(page_token="AgAAAAAAAAAAAAAAAA")),
    ("Scan", "page_token", kv_pb2.ScanRequest(page_token="AQ")),
    ("Scan", "page_token", kv_pb2.ScanRequest(page_token="ü" * 10)),
    ("Scan", "match", kv_pb2.ScanRequest(match=b"*" * 101)),
    ("Execute", "args", kv_pb2.ExecuteRequest()),
    ("Execute", "args", kv_pb2.ExecuteRequest(args=[b"ECHO", b"v" * 2001])),
]


@pytest.mark.parametrize(("method", "field", "request_"), INVALID, ids=[f"{row[0]}-{row[1]}" for row in INVALID])
async def test_a_field_out_of_range_is_named(node: Node, method: str, field: str, request_: object) -> None:
    _, client = node
    failure = await failure_of(getattr(client.kv, method)(request_))
    assert (failure.code.name, failure.reason, failure.outcome) == ("INVALID_ARGUMENT", "INVALID_FIELD", "rejected")
    assert list(failure.fields) == [field]


@pytest.mark.parametrize(
    ("ttl", "described"),
    [
        (Duration(seconds=5, nanos=10**9), "nanos is 1000000000, allowed are 0..999999999 where seconds is 5"),
        (Duration(seconds=5, nanos=-1), "nanos is -1, allowed are 0..999999999 where seconds is 5"),
        (Duration(seconds=-5, nanos=1), "nanos is 1, allowed are -999999999..0 where seconds is -5"),
        (Duration(seconds=315_576_000_001), "seconds is 315576000001, allowed are -315576000000..315576000000"),
        (Duration(seconds=0, nanos=-1), "is 0 ms, allowed are 1.."),
    ],
)
async def test_what_is_no_duration_is_refused_with_its_value_and_what_is_allowed(
    node: Node, ttl: Duration, described: str
) -> None:
    _, client = node
    failure = await failure_of(client.kv.Set(kv_pb2.SetRequest(key=b"k", ttl=ttl)))
    assert failure.fields["ttl"].startswith(described)
    await client.kv.Set(kv_pb2.SetRequest(key=b"k", ttl=Duration(seconds=315_576_000_000, nanos=999_999_999)))


@pytest.mark.parametrize(
    "command",
    [
        *(b"SELECT 1", b"hello 3", b"AUTH x", b"QUIT", b"RESET", b"MULTI", b"WATCH k", b"SUBSCRIBE c", b"MONITOR"),
        *(b"CLIENT REPLY OFF", b"client setname x", b"CLIENT ID", b"CLIENT TRACKING ON"),
    ],
)
async def test_commands_about_a_connection_are_refused(node: Node, command: bytes) -> None:
    _, client = node
    failure = await failure_of(client.execute(*command.split()))
    assert failure.code.name == "INVALID_ARGUMENT"
    assert "is about a connection" in failure.message


async def test_a_loading_node_says_that_nothing_was_done(node: Node) -> None:
    running, client = node
    running.service.refusal = Loading()
    failure = await failure_of(client.kv.Get(kv_pb2.GetRequest(key=b"k")))
    assert (failure.code.name, failure.reason, failure.outcome) == ("UNAVAILABLE", "LOADING", "not_applied")
    assert failure.has_retry_delay


async def test_a_draining_node_says_that_nothing_was_done(node: Node) -> None:
    running, client = node
    running.service.drain()
    failure = await failure_of(client.kv.Set(kv_pb2.SetRequest(key=b"k")))
    assert (failure.code.name, failure.reason, failure.outcome) == ("UNAVAILABLE", ShuttingDown.reason, "not_applied")


async def test_a_full_memory_is_told(node: Node) -> None:
    running, client = node
    running.config.change({"maxmemory": 1})
    running.service.config_changed(frozenset({"maxmemory"}))
    running.service.make_room = lambda _commands: False
    failure = await failure_of(client.kv.Set(kv_pb2.SetRequest(key=b"k")))
    assert (failure.code.name, failure.reason, failure.outcome) == (
        "RESOURCE_EXHAUSTED",
        "OUT_OF_MEMORY",
        "not_applied",
    )


async def test_a_write_in_flight_when_the_node_stops_has_an_unknown_outcome(node: Node) -> None:
    running, client = node
    running.log.is_held = True
    call = client.kv.Set(kv_pb2.SetRequest(key=b"k", value=b"v"))
    await until(lambda: running.service.node.proposals_pending > 0)
    await running.api.stop()
    failure = await failure_of(call)
    assert (failure.code.name, failure.reason, failure.outcome) == ("ABORTED", "SESSION_ENDED", "unknown")


async def test_a_call_past_its_deadline_may_still_be_applied(node: Node) -> None:
    running, client = node
    running.log.is_held = True
    call = client.kv.Set(kv_pb2.SetRequest(key=b"k", value=b"v"), timeout=1.5)
    await until(lambda: running.service.node.proposals_pending > 0)
    failure = await failure_of(call)
    assert failure.code.name == "DEADLINE_EXCEEDED"
    await until(lambda: running.api.gate.methods["redan.kv.v1.KVService/Set"].by_code.get("CANCELLED") == 1)
    running.log.release()
    await until(lambda: running.machine.databases[0].get(b"k") == b"v")
    assert running.api.gate.request_bytes == 0


async def test_bytes_that_are_no_message_are_refused(node: Node) -> None:
    running, _ = node
    garbage = b"\xff\xff\xff\xff\xff\x01"
    async with running.channel() as channel:
        for method in ("Get", "Scan", "MultiSet", "Execute"):
            failure = await failure_of(unary_bytes(channel, method, garbage))
            assert (failure.code.name, failure.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
        scan: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        scan = channel.unary_stream("/redan.kv.v1.KVService/ScanStream")
        failure = await failure_of(scan(garbage).read())
        assert (failure.code.name, failure.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


async def test_a_message_that_is_too_long_is_refused_before_it_is_read(node: Node) -> None:
    _, client = node
    failure = await failure_of(client.kv.Set(kv_pb2.SetRequest(key=b"k", value=b"v" * 70_000)))
    assert failure.code.name == "RESOURCE_EXHAUSTED"
    assert (await client.execute(b"PING")).status == "PONG"


async def test_a_reply_that_is_too_long_is_an_error_and_not_a_broken_call(node: Node) -> None:
    _, client = node
    keys = [b"%d" % number for number in range(40)]
    for key in keys:
        await client.kv.Set(kv_pb2.SetRequest(key=key, value=b"v" * 2000))
    for call in (client.kv.MultiGet(kv_pb2.MultiGetRequest(keys=keys)), client.execute(b"MGET", *keys)):
        failure = await failure_of(call)
        assert (failure.code.name, failure.reason) == ("RESOURCE_EXHAUSTED", "REPLY_TOO_LARGE")


async def test_requests_in_memory_are_bounded(node: Node) -> None:
    running, client = node
    running.api.gate.take(running.config.query_buffer_bytes_max)
    failure = await failure_of(client.kv.Set(kv_pb2.SetRequest(key=b"k")))
    assert (failure.code.name, failure.reason, failure.outcome) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "not_applied")
    running.api.gate.give_back(running.config.query_buffer_bytes_max)
    assert (await client.kv.Set(kv_pb2.SetRequest(key=b"k"))).applied


async def test_an_unknown_method_is_unimplemented(node: Node) -> None:
    running, _ = node
    async with running.channel() as channel:
        failure = await failure_of(unary_bytes(channel, "Nothing", b""))
    assert failure.code.name == "UNIMPLEMENTED"


async def test_a_defect_is_reported_and_answered_as_internal(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    running, client = node
    reported: list[str] = []
    monkeypatch.setattr(running.api.gate, "_on_defect", lambda method, _error: reported.append(method))
    monkeypatch.setattr(running.service, "submit", lambda *_: 1 // 0)
    failure = await failure_of(client.kv.Get(kv_pb2.GetRequest(key=b"k")))
    assert (failure.code.name, failure.reason, failure.outcome) == ("INTERNAL", "INTERNAL", "unknown")
    assert reported == ["Get"]


async def test_with_a_password_every_call_needs_it() -> None:
    async with serving(requirepass="sesame") as (running, client):
        failure = await failure_of(client.kv.Get(kv_pb2.GetRequest(key=b"k")))
        assert (failure.code.name, failure.reason) == ("UNAUTHENTICATED", "AUTHENTICATION_REQUIRED")
        wrong = client.kv.Get(kv_pb2.GetRequest(key=b"k"), metadata=(("authorization", "Bearer sesam"),))
        failure = await failure_of(wrong)
        assert (failure.code.name, failure.reason) == ("UNAUTHENTICATED", "WRONG_PASSWORD")
        failure = await failure_of(client.kv.Pipeline(iter([])).read())
        assert failure.code.name == "UNAUTHENTICATED"
        metadata = (("authorization", "bearer sesame"),)
        assert (await client.kv.Set(kv_pb2.SetRequest(key=b"k"), metadata=metadata)).applied
        assert running.machine.databases[0].key_count == 1


def test_a_field_error_names_the_field_in_its_text_too() -> None:
    assert str(InvalidField("page_size", "is too large")) == "page_size: is too large"
