"""Calls with a request id run once, by whatever call they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from redan.kv.v1 import kv_pb2
from tests.kvservice.api.local_node import Client, LocalNode, failure_of, serving

Node = tuple[LocalNode, Client]


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with serving() as running:
        yield running


CALLS: dict[str, Callable[[Client, str], Awaitable[object]]] = {
    "Set": lambda client, request_id: client.kv.Set(
        kv_pb2.SetRequest(key=b"k", value=b"new", return_previous=True, request_id=request_id)
    ),
    "Delete": lambda client, request_id: client.kv.Delete(kv_pb2.DeleteRequest(keys=[b"k"], request_id=request_id)),
    "Expire": lambda client, request_id: client.kv.Expire(
        kv_pb2.ExpireRequest(key=b"k", persist=True, request_id=request_id)
    ),
    "Increment": lambda client, request_id: client.kv.Increment(
        kv_pb2.IncrementRequest(key=b"n", request_id=request_id)
    ),
    "MultiSet": lambda client, request_id: client.kv.MultiSet(
        kv_pb2.MultiSetRequest(
            entries=[kv_pb2.KeyValue(key=b"a", value=b"1")], if_all_absent=True, request_id=request_id
        )
    ),
    "Execute": lambda client, request_id: client.kv.Execute(
        kv_pb2.ExecuteRequest(args=[b"APPEND", b"a", b"x"], request_id=request_id)
    ),
}


def without_header(response: object) -> str:
    assert isinstance(
        response,
        (
            kv_pb2.SetResponse,
            kv_pb2.DeleteResponse,
            kv_pb2.ExpireResponse,
            kv_pb2.IncrementResponse,
            kv_pb2.MultiSetResponse,
            kv_pb2.ExecuteResponse,
        ),
    )
    response.ClearField("header")
    return str(response)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_comes_again_is_answered_as_before(node: Node, name: str) -> None:
    _, client = node
    await client.kv.Set(kv_pb2.SetRequest(key=b"k", value=b"old", ttl=Duration(seconds=100)))
    first, second, other = [
        without_header(await CALLS[name](client, request_id)) for request_id in ("one", "one", "two")
    ]
    assert first == second
    assert first != other, "another id is another write"


async def test_each_command_of_a_batch_may_have_an_id(node: Node) -> None:
    _, client = node
    commands = [
        kv_pb2.Command(args=[b"INCR", b"n"], request_id=request_id) for request_id in ("a", "", "b", "a", "", "b")
    ]
    call = client.kv.Pipeline(iter([kv_pb2.PipelineRequest(batch_id=number, commands=commands) for number in (1, 2)]))
    values = [[value.integer for value in response.values] async for response in call]
    assert values == [[1, 2, 3, 1, 4, 3], [1, 5, 3, 1, 6, 3]]


async def test_an_id_that_comes_with_another_command_is_refused(node: Node) -> None:
    _, client = node
    await client.kv.Increment(kv_pb2.IncrementRequest(key=b"n", request_id="a"))
    failure = await failure_of(client.kv.Increment(kv_pb2.IncrementRequest(key=b"n", delta=2, request_id="a")))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_an_error_is_remembered_with_its_details(node: Node) -> None:
    _, client = node
    await client.execute(b"SET", b"n", b"text")
    for _ in range(2):
        failure = await failure_of(client.kv.Increment(kv_pb2.IncrementRequest(key=b"n", request_id="a")))
        assert failure.code == grpc.StatusCode.INVALID_ARGUMENT
        await client.execute(b"SET", b"n", b"1")


async def test_what_needs_no_id_passes_as_it_is(node: Node) -> None:
    local, client = node
    await client.execute(b"SET", b"k", b"1")
    for value in (b"1", b"2"):
        await client.execute(b"SET", b"k", value)
        read = await client.kv.Execute(kv_pb2.ExecuteRequest(args=[b"GET", b"k"], request_id="read"))
        assert read.value.bulk == value
    for args in ([b"NOTHING", b"k"], [b"SET", b"k"], [b"OBJECT", b"NOTHING"], [b"DBSIZE"]):
        plain = await _outcome(client, args, "")
        assert await _outcome(client, args, "some") == plain
    assert len(local.machine.once) == 0


async def _outcome(client: Client, args: list[bytes], request_id: str) -> str:
    try:
        response = await client.kv.Execute(kv_pb2.ExecuteRequest(args=args, request_id=request_id))
    except grpc.aio.AioRpcError as error:
        return str(error.details())
    return str(response.value)


async def test_an_id_that_is_too_long_is_refused_by_name(node: Node) -> None:
    _, client = node
    failure = await failure_of(client.kv.Increment(kv_pb2.IncrementRequest(key=b"n", request_id="x" * 65)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    request = kv_pb2.PipelineRequest(commands=[kv_pb2.Command(args=[b"INCR", b"n"], request_id="x" * 65)])
    call = client.kv.Pipeline(iter([request]))
    with pytest.raises(grpc.aio.AioRpcError, match=r"commands\[0\].request_id"):
        await call.read()


async def test_no_call_may_name_what_the_log_stores(node: Node) -> None:
    _, client = node
    for name in (b"REDAN.ONCE", b"redan.once.growing", b"REDAN.POSITION", b"redan.inspect", b"REDAN.VALUEDIGESTS"):
        failure = await failure_of(client.kv.Execute(kv_pb2.ExecuteRequest(args=[name, b"a", b"INCR", b"n"])))
        assert "unknown command" in failure.message
        request = kv_pb2.PipelineRequest(commands=[kv_pb2.Command(args=[name, b"a", b"INCR", b"n"])])
        [response] = [response async for response in client.kv.Pipeline(iter([request]))]
        assert response.values[0].error.message.startswith("unknown command")
