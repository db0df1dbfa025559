"""Pipeline: order, errors in their places, databases, and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from kvservice.api.pipeline import BATCH_BYTES, BATCHES_MAX
from kvservice.errors import Loading
from redan.kv.v1 import kv_pb2
from tests.kvservice.api.local_node import Client, LocalNode, failure_of, serving, until

Node = tuple[LocalNode, Client]
Call = grpc.aio.StreamStreamCall[kv_pb2.PipelineRequest, kv_pb2.PipelineResponse]


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with serving() as running:
        yield running


def batch(batch_id: int, *lines: str | list[bytes], database: int = 0) -> kv_pb2.PipelineRequest:
    commands = [kv_pb2.Command(args=line.encode().split() if isinstance(line, str) else line) for line in lines]
    return kv_pb2.PipelineRequest(batch_id=batch_id, database=database, commands=commands)


async def converse(client: Client, *requests: kv_pb2.PipelineRequest) -> list[kv_pb2.PipelineResponse]:
    call = client.kv.Pipeline(iter(requests))
    return [response async for response in call]


def shown(response: kv_pb2.PipelineResponse) -> list[object]:
    """Return the values of a response as plain objects; an error as its text."""
    plain: list[object] = []
    for value in response.values:
        kind = value.WhichOneof("kind")
        assert kind is not None
        plain.append(value.error.message if kind == "error" else None if kind == "null" else getattr(value, kind))
    return plain


async def next_of(call: Call) -> kv_pb2.PipelineResponse:
    response = await call.read()
    assert isinstance(response, kv_pb2.PipelineResponse)
    return response


async def test_every_batch_is_answered_once_and_in_order(node: Node) -> None:
    _, client = node
    requests = [batch(number, f"INCR n{number % 3}", "INCR total", f"GET n{number % 3}") for number in range(300)]
    responses = await converse(client, *requests)
    assert [response.batch_id for response in responses] == list(range(300))
    assert [shown(response)[1] for response in responses] == list(range(1, 301))
    for number, response in enumerate(responses):
        count = number // 3 + 1
        assert shown(response) == [count, number + 1, b"%d" % count]


async def test_reads_see_the_writes_before_them(node: Node) -> None:
    _, client = node
    [first, second] = await converse(client, batch(1, "GET k", "SET k 1", "GET k"), batch(2, "GET k", "DEL k", "GET k"))
    assert shown(first) == [None, "OK", b"1"]
    assert shown(second) == [b"1", 1, None]


async def test_a_failing_command_leaves_the_others_alone(node: Node) -> None:
    _, client = node
    [response] = await converse(client, batch(7, "SET k abc", "INCR k", "NOSUCH", "GET", "GET k"))
    assert shown(response) == [
        "OK",
        "value is not an integer or out of range",
        "unknown command 'NOSUCH', with args beginning with: ",
        "wrong number of arguments for 'get' command",
        b"abc",
    ]
    assert response.values[1].error.outcome == kv_pb2.OUTCOME_REJECTED


async def test_commands_about_a_connection_are_refused_in_their_places(node: Node) -> None:
    _, client = node
    request = batch(1, "SELECT 3", "SET k 1", [], "quit", "CLIENT REPLY OFF", "GET k")
    [response] = await converse(client, request)
    kinds = [value.WhichOneof("kind") for value in response.values]
    assert kinds == ["error", "status", "error", "error", "error", "bulk"]
    assert response.values[0].error.message.endswith("set the field database")
    assert response.values[2].error.message == "empty command"


async def test_batches_of_nothing_and_of_refused_commands_only_are_answered(node: Node) -> None:
    _, client = node
    responses = await converse(client, batch(1), batch(2, "QUIT", "MULTI"), batch(3, "PING"))
    assert [len(response.values) for response in responses] == [0, 2, 1]


async def test_each_batch_names_its_database(node: Node) -> None:
    _, client = node
    responses = await converse(
        client,
        batch(1, "SET k zero"),
        batch(2, "SET k five", "GET k", database=5),
        batch(3, "GET k"),
        batch(4, "DBSIZE", database=5),
        batch(5, "GET k", database=6),
    )
    assert [shown(response)[-1] for response in responses] == ["OK", b"five", b"zero", 1, None]


async def test_databases_stay_apart_while_the_stream_is_held_back(node: Node) -> None:
    running, client = node
    call = client.kv.Pipeline()
    await call.write(batch(1, "PING"))
    await next_of(call)
    running.service.pause(2**62, writes_only=False)
    for number in range(6):
        await call.write(batch(number, f"SET k {number}", "GET k", database=number % 3))
    [session] = running.service.sessions.values()
    await until(lambda: len(session.backlog) == 6)
    running.service.unpause()
    assert [shown(await next_of(call)) for _ in range(6)] == [["OK", b"%d" % number] for number in range(6)]
    stored = [running.machine.databases[number].get(b"k") for number in range(4)]
    assert stored == [3, 4, 5, None]
    call.cancel()


async def test_batches_do_not_wait_for_the_commits_of_each_other(node: Node) -> None:
    running, client = node
    running.log.is_held = True
    call = client.kv.Pipeline()
    for number in range(50):
        await call.write(batch(number, f"SET k{number} v"))
    await until(lambda: len(running.service.sessions) == 1)
    [session] = running.service.sessions.values()
    await until(lambda: session.pending == 50)
    running.log.release()
    assert [(await next_of(call)).batch_id for _ in range(50)] == list(range(50))
    call.cancel()


async def test_a_server_command_between_writes_waits_its_turn(node: Node) -> None:
    _, client = node
    [response] = await converse(client, batch(1, "SET a 1", "DBSIZE", "SET b 1", "DBSIZE", "DEL a b", "DBSIZE"))
    assert shown(response) == ["OK", 1, "OK", 2, 2, 0]


async def test_a_loading_node_answers_every_command(node: Node) -> None:
    running, client = node
    running.service.refusal = Loading()
    [response] = await converse(client, batch(1, "SET k 1", "GET k"))
    assert [value.error.outcome for value in response.values] == [kv_pb2.OUTCOME_NOT_APPLIED] * 2


async def test_what_is_wrong_with_the_stream_is_said_after_earlier_responses(node: Node) -> None:
    _, client = node
    call = client.kv.Pipeline(iter([batch(1, "SET k 1"), batch(2, "GET k"), batch(3, "GET k", database=99)]))
    assert shown(await next_of(call)) == ["OK"]
    assert shown(await next_of(call)) == [b"1"]
    failure = await failure_of(call.read())
    assert failure.code.name == "INVALID_ARGUMENT"
    assert list(failure.fields) == ["database"]


async def test_bytes_that_are_no_batch_end_the_stream(node: Node) -> None:
    running, client = node
    async with running.channel() as channel:
        pipeline: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        pipeline = channel.stream_stream("/redan.kv.v1.KVService/Pipeline")
        failure = await failure_of(pipeline(iter([b"\xff\xff\xff\xff\xff\x01"])).read())
    assert (failure.code.name, failure.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert (await client.execute(b"PING")).status == "PONG"


async def test_too_many_commands_in_a_batch_are_refused(node: Node) -> None:
    _, client = node
    request = kv_pb2.PipelineRequest(commands=[kv_pb2.Command(args=[b"PING"])] * 10_001)
    failure = await failure_of(client.kv.Pipeline(iter([request])).read())
    assert list(failure.fields) == ["commands"]


async def test_a_client_that_does_not_read_is_not_read_from(node: Node) -> None:
    running, client = node
    await client.kv.Set(kv_pb2.SetRequest(key=b"large", value=b"x" * 1_000_000))
    call = client.kv.Pipeline()

    async def send() -> None:
        for number in range(1000):
            await call.write(batch(number, *["GET large"] * 4))

    sender = asyncio.create_task(send())
    gate = running.api.gate
    size = batch(0, *["GET large"] * 4).ByteSize()
    await until(lambda: gate.request_bytes >= BATCHES_MAX * size)
    # The server goes on for others, and takes no further batch of this client, which has hundreds to send.
    size = batch(999, *["GET large"] * 4).ByteSize()
    for _ in range(50):
        assert (await client.execute(b"PING")).status == "PONG"
        assert gate.request_bytes <= (BATCHES_MAX + 2) * size
    for number in range(20):
        response = await next_of(call)
        assert response.batch_id == number
        assert [len(value.bulk) for value in response.values] == [1_000_000] * 4
    sender.cancel()
    call.cancel()
    await until(lambda: gate.request_bytes == 0)
    assert not running.service.sessions


async def test_bytes_of_waiting_batches_are_bounded(node: Node) -> None:
    running, client = node
    running.log.is_held = True
    call = client.kv.Pipeline()
    value = b"x" * (BATCH_BYTES // 8)

    async def send() -> None:
        for number in range(30):
            await call.write(batch(number, [b"SET", b"k", value]))

    sender = asyncio.create_task(send())
    gate = running.api.gate
    await until(lambda: gate.request_bytes > BATCH_BYTES // 2)
    for _ in range(50):
        assert (await client.execute(b"PING")).status == "PONG"
        assert gate.request_bytes <= BATCH_BYTES
    running.log.release()
    for number in range(30):
        assert (await next_of(call)).batch_id == number
    await sender
    call.cancel()


async def test_a_reply_that_does_not_fit_is_an_error_in_its_place() -> None:
    async with serving(grpc_max_message_bytes=65536, value_bytes_max=40_000, key_bytes_max=100) as (_, client):
        await client.kv.Set(kv_pb2.SetRequest(key=b"k", value=b"x" * 40_000))
        [response] = await converse(client, batch(1, "GET k", "GET k", "PING"))
    assert [value.WhichOneof("kind") for value in response.values] == ["bulk", "error", "status"]
    assert response.values[1].error.reason == "REPLY_TOO_LARGE"


async def test_an_argument_longer_than_allowed_is_refused_in_its_place() -> None:
    async with serving(value_bytes_max=2000, key_bytes_max=100) as (_, client):
        [response] = await converse(client, batch(1, [b"SET", b"k", b"v" * 2001], [b"SET", b"k" * 101, b"v"], "GET k"))
    assert [value.WhichOneof("kind") for value in response.values] == ["error", "error", "null"]


async def test_a_stream_is_listed_and_can_be_killed(node: Node) -> None:
    running, client = node
    call = client.kv.Pipeline()
    await call.write(batch(1, "PING"))
    await next_of(call)
    [session] = running.service.sessions.values()
    assert b"id=%d addr=127.0.0.1:" % session.id in (await client.execute(b"CLIENT", b"LIST")).verbatim.text
    assert (await client.execute(b"CLIENT", b"KILL", b"ID", b"%d" % session.id)).integer == 1
    failure = await failure_of(call.read())
    assert (failure.code.name, failure.reason, failure.outcome) == ("ABORTED", "SESSION_ENDED", "unknown")
    await until(lambda: not running.service.sessions)


@pytest.mark.parametrize("answered", [0, 1], ids=["the first response", "a later response"])
async def test_a_killed_stream_ends_while_its_client_does_not_read(node: Node, answered: int) -> None:
    running, client = node
    await client.kv.Set(kv_pb2.SetRequest(key=b"large", value=b"x" * 1_000_000))
    async with running.channel(max_receive_message_length=-1) as channel:
        call = Client(channel).kv.Pipeline()
        if answered:
            await call.write(batch(0, "PING"))
            await next_of(call)
        await call.write(batch(1, *["GET large"] * 10))
        await until(lambda: bool(running.service.sessions))
        [session] = running.service.sessions.values()
        # A later batch is answered by the service, and its response waits for the first one to be read.
        await call.write(batch(2, "SET k v"))
        await until(lambda: running.machine.databases[0].get(b"k") == b"v")
        assert (await client.execute(b"CLIENT", b"KILL", b"ID", b"%d" % session.id)).integer == 1
        await until(lambda: not running.service.sessions and running.api.gate.request_bytes == 0)
        assert [value.bulk for value in (await next_of(call)).values] == [b"x" * 1_000_000] * 10
        failure = await failure_of(call.read())
    assert (failure.code.name, failure.reason) == ("ABORTED", "SESSION_ENDED")


async def test_a_killed_stream_with_writes_in_flight_has_an_unknown_outcome(node: Node) -> None:
    running, client = node
    running.log.is_held = True
    call = client.kv.Pipeline()
    await call.write(batch(1, "SET k v"))
    await until(lambda: len(running.service.sessions) == 1)
    [session] = running.service.sessions.values()
    await until(lambda: session.pending == 1)
    session.close()
    failure = await failure_of(call.read())
    assert (failure.code.name, failure.outcome) == ("ABORTED", "unknown")
    running.log.release()
    await until(lambda: running.machine.databases[0].get(b"k") == b"v")


async def test_a_client_that_goes_away_leaves_nothing_behind(node: Node) -> None:
    running, client = node
    running.log.is_held = True
    call = client.kv.Pipeline()
    await call.write(batch(1, "SET k v"))
    await until(lambda: running.api.gate.request_bytes > 0)
    call.cancel()
    await until(lambda: running.api.gate.request_bytes == 0 and not running.service.sessions)
    running.log.release()
    await until(lambda: running.machine.databases[0].get(b"k") == b"v")


async def test_the_end_of_the_client_is_answered_after_all_batches(node: Node) -> None:
    _, client = node
    call = client.kv.Pipeline()
    for number in range(10):
        await call.write(batch(number, f"SET k {number}"))
    await call.done_writing()
    responses = [response async for response in call]
    assert len(responses) == 10
    assert await call.code() is grpc.StatusCode.OK
