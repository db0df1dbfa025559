"""The server around the calls: health, reflection, ports, counts, and bytes that are no gRPC."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from kvservice.config_values import HostPort
from redan.kv.v1 import kv_pb2
from redan.kv.v1.kv_pb2_grpc import KVServiceStub
from tests.kvservice.api.local_node import Client, LocalNode, failure_of, serving, until

Node = tuple[LocalNode, Client]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "redan.cluster.v1.ClusterService",
    "redan.kv.v1.KVService",
]
BUF = shutil.which("buf") or shutil.which("buf", path=str(Path(sys.executable).parent))
needs_buf = pytest.mark.skipif(BUF is None, reason="buf is not installed")


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with serving() as running:
        yield running


async def health_of(client: Client, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(client.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_a_ready_leader_serves_under_every_name(node: Node) -> None:
    _, client = node
    for name in ("", "readiness", "leader", "liveness", "redan.kv.v1.KVService", "redan.cluster.v1.ClusterService"):
        assert await health_of(client, name) == SERVING, name


async def test_a_node_that_is_not_ready_is_alive_and_serves_nothing_else(node: Node) -> None:
    running, client = node
    running.health.reasons = ["loading"]
    for name in ("", "readiness", "leader", "redan.kv.v1.KVService"):
        assert await health_of(client, name) == NOT_SERVING, name
    for name in ("liveness", "redan.cluster.v1.ClusterService"):
        assert await health_of(client, name) == SERVING, name


async def test_the_health_of_a_service_that_does_not_exist_is_not_found(node: Node) -> None:
    _, client = node
    failure = await failure_of(health_of(client, "nothing"))
    assert failure.code.name == "NOT_FOUND"


async def test_a_watcher_hears_of_changes_and_of_the_end(node: Node) -> None:
    running, client = node
    stub = health_pb2_grpc.HealthStub(client.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="leader"))
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
    assert (await watch.read()).status == SERVING
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    running.health.reasons = ["no leader"]
    assert (await watch.read()).status == NOT_SERVING
    running.health.reasons = []
    assert (await watch.read()).status == SERVING
    # A read that begins after the status of the call has arrived would not see the message before it.
    last = asyncio.ensure_future(watch.read())
    await running.api.stop()
    assert (await last).status == NOT_SERVING
    assert await watch.code() is grpc.StatusCode.OK


async def test_a_second_server_on_the_same_port_is_refused(node: Node) -> None:
    running, _ = node
    port = running.api.address.port
    other = LocalNode()
    object.__setattr__(other.config, "grpc_addr", HostPort("127.0.0.1", port))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port} for gRPC clients"):
        await other.api.start()


async def test_the_server_may_be_stopped_twice_and_without_a_start() -> None:
    async with serving() as (running, _):
        await running.api.stop()
        await running.api.stop()
        await LocalNode().api.stop()


async def test_calls_are_counted_by_method_and_code(node: Node) -> None:
    running, client = node
    await client.execute(b"SET", b"k", b"v")
    await client.execute(b"GET", b"k")
    await failure_of(client.execute(b"INCR", b"k"))
    stats = running.api.gate.methods["redan.kv.v1.KVService/Execute"]
    # A client may hear of an error a moment before the call is counted.
    await until(lambda: stats.running == 0)
    assert stats.by_code == {"OK": 2, "INVALID_ARGUMENT": 1}
    assert sum(stats.buckets) == 3
    assert running.api.gate.methods["redan.kv.v1.KVService/Get"].by_code == {}


async def three_of_six_are_refused(running: LocalNode, calls: list[Any]) -> None:
    await until(lambda: sum(call.done() for call in calls) == 3)
    refused = [call for call in calls if call.done()]
    for call in refused:
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    running.log.release()
    for call in calls:
        if call not in refused:
            assert (await call).applied


async def test_calls_at_one_time_are_bounded() -> None:
    async with serving(maxclients=3) as (running, client):
        running.log.is_held = True
        requests = [kv_pb2.SetRequest(key=b"k%d" % number, value=b"v") for number in range(6)]
        calls = [client.kv.Set(request) for request in requests]
        await three_of_six_are_refused(running, calls)


async def test_calls_over_many_connections_are_bounded_together() -> None:
    async with serving(maxclients=3) as (running, _):
        running.log.is_held = True
        async with AsyncExitStack() as stack:
            calls = []
            for number in range(6):
                channel = await stack.enter_async_context(
                    grpc.aio.insecure_channel(str(running.api.address), [("grpc.use_local_subchannel_pool", 1)])
                )
                calls.append(KVServiceStub(channel).Set(kv_pb2.SetRequest(key=b"k%d" % number, value=b"v")))
            await three_of_six_are_refused(running, calls)


async def test_streams_over_many_connections_are_all_served() -> None:
    async with serving() as (running, _), AsyncExitStack() as stack:
        streams = []
        for _number in range(64):
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(str(running.api.address), [("grpc.use_local_subchannel_pool", 1)])
            )
            streams.append(KVServiceStub(channel).Pipeline())
        request = kv_pb2.PipelineRequest(commands=[kv_pb2.Command(args=[b"INCR", b"k"])])
        for stream in streams:
            await stream.write(request)
        answers = []
        for stream in streams:
            response = await stream.read()
            assert isinstance(response, kv_pb2.PipelineResponse)
            answers.append(response.values[0].integer)
        assert sorted(answers) == list(range(1, 65))


async def test_clients_that_ping_often_stay_connected(node: Node) -> None:
    running, _ = node
    options = {"keepalive_time_ms": 10_000, "keepalive_timeout_ms": 1000, "keepalive_permit_without_calls": 1}
    async with running.channel(**options) as channel:
        assert (await Client(channel).execute(b"PING")).status == "PONG"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        bytes(range(256)) * 16,
    ],
    ids=["tls", "http1", "resp", "bad-frames", "noise"],
)
async def test_bytes_that_are_no_grpc_close_their_connection_only(node: Node, garbage: bytes) -> None:
    running, client = node
    reader, writer = await asyncio.open_connection("127.0.0.1", running.api.address.port)
    writer.write(garbage)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert len(answer) < 1000
    assert (await client.execute(b"PING")).status == "PONG"


async def test_a_connection_that_says_nothing_disturbs_nobody(node: Node) -> None:
    running, client = node
    writers = [(await asyncio.open_connection("127.0.0.1", running.api.address.port))[1] for _ in range(50)]
    assert (await client.execute(b"PING")).status == "PONG"
    for writer in writers:
        writer.close()


async def buf_curl(node: LocalNode, *arguments: str) -> str:
    assert BUF is not None
    base = f"http://{node.api.address}"
    command = [BUF, "curl", "--http2-prior-knowledge", *arguments[:-1], f"{base}{arguments[-1]}"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@needs_buf
@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
async def test_a_tool_without_the_sources_finds_and_calls_everything(node: Node, protocol: str) -> None:
    running, client = node
    await client.execute(b"SET", b"greeting", b"hello")
    reflected = ("--protocol", "grpc", "--reflect-protocol", protocol)
    listed = await buf_curl(running, *reflected, "--list-services", "")
    assert sorted(listed.split()) == SERVICES
    methods = await buf_curl(running, *reflected, "--list-methods", "")
    assert "redan.kv.v1.KVService/Pipeline" in methods
    answer = await buf_curl(running, *reflected, "--data", '{"key": "Z3JlZXRpbmc="}', "/redan.kv.v1.KVService/Get")
    assert json.loads(answer)["value"] == "aGVsbG8="


async def test_reflection_can_be_turned_off() -> None:
    async with serving(grpc_reflection=False) as (_, client):
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = client.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )
        # Nothing is written: a write into a stream that is being refused may end as INTERNAL (1 of 250).
        failure = await failure_of(call().read())
        assert failure.code.name == "UNIMPLEMENTED"


async def test_a_stopping_server_ends_idle_streams_by_itself(node: Node) -> None:
    running, client = node
    call = client.kv.Pipeline()
    await call.write(kv_pb2.PipelineRequest(commands=[kv_pb2.Command(args=[b"PING"])]))
    await call.read()
    await running.api.stop()
    # A stream that the end of the grace period cuts off is CANCELLED.
    failure = await failure_of(call.read())
    assert failure.code.name == "ABORTED"
    await until(lambda: not running.service.sessions)


async def test_a_stream_ended_while_its_first_response_is_sent_is_told_so() -> None:
    async with (
        serving(grpc_max_message_bytes=20_000_000) as (running, _),
        running.channel(max_receive_message_length=20_000_000) as channel,
    ):
        call = Client(channel).kv.Pipeline()
        # What is long is under way for some turns of the loop.
        await call.write(kv_pb2.PipelineRequest(commands=[kv_pb2.Command(args=[b"ECHO", bytes(16_000_000)])]))
        sessions = running.service.sessions
        await until(lambda: any(session.last_command == "echo" for session in sessions.values()))
        for session in list(sessions.values()):
            session.close()

        async def read_to_the_end() -> None:
            while await call.read() is not grpc.aio.EOF:
                pass

        # Whether the response came first is a matter of moments.
        failure = await failure_of(asyncio.wait_for(read_to_the_end(), 60))
        assert failure.code.name == "ABORTED"
        await until(lambda: not sessions)
