"""The gRPC plane of a real process, beside Redis clients, through stops and kills."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from redan.cluster.v1 import cluster_pb2
from redan.kv.v1 import kv_pb2
from tests.harness.process import NodeProcess
from tests.kvservice.api.local_node import Client, failure_of


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path) as running:
        yield running


def client_of(node: NodeProcess) -> Client:
    host, port = node.addresses["grpc"]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return Client(grpc.aio.insecure_channel(f"{host}:{port}", options=options))


def batch(batch_id: int, commands: list[list[bytes]], database: int = 0) -> kv_pb2.PipelineRequest:
    args = [kv_pb2.Command(args=command) for command in commands]
    return kv_pb2.PipelineRequest(batch_id=batch_id, commands=args, database=database)


async def test_redis_and_grpc_clients_see_one_keyspace(node: NodeProcess) -> None:
    client = client_of(node)
    with node.client() as redis:
        redis.set("from redis", "1", ex=100_000)
        assert (await client.kv.Get(kv_pb2.GetRequest(key=b"from redis"))).value == b"1"
        ttl = (await client.kv.Ttl(kv_pb2.TtlRequest(key=b"from redis"))).ttl
        assert 90_000 < ttl.seconds <= 100_000
        await client.kv.Set(kv_pb2.SetRequest(database=2, key=b"from grpc", value=b"2"))
        redis.select(2)
        assert redis.get("from grpc") == b"2"
    await client.channel.close()


async def test_what_was_acknowledged_is_there_after_a_kill(node: NodeProcess) -> None:
    client = client_of(node)
    requests = [
        batch(number, [[b"SET", b"key:%d:%d" % (number, at), b"%d" % number] for at in range(100)], database=number % 3)
        for number in range(100)
    ]
    call = client.kv.Pipeline(iter(requests))
    answered = 0
    async for response in call:
        assert [value.status for value in response.values] == ["OK"] * 100
        answered += 1
        if answered == 50:
            break
    identity = response.header.cluster_id
    node.kill()
    await client.channel.close()
    node.start()
    client = client_of(node)
    for number in range(answered):
        keys = [b"key:%d:%d" % (number, at) for at in range(100)]
        found = await client.kv.MultiGet(kv_pb2.MultiGetRequest(database=number % 3, keys=keys))
        assert [lookup.value for lookup in found.lookups] == [b"%d" % number] * 100
    assert found.header.cluster_id == identity != ""
    await client.channel.close()


async def test_a_stop_ends_an_idle_stream_and_the_process(node: NodeProcess) -> None:
    client = client_of(node)
    call = client.kv.Pipeline()
    await call.write(batch(1, [[b"SET", b"k", b"v"]]))
    await call.read()
    assert node.stop() == 0
    failure = await failure_of(call.read())
    assert (failure.code.name, failure.outcome) == ("ABORTED", "unknown")
    await client.channel.close()


async def test_a_second_node_on_the_same_grpc_port_says_so(node: NodeProcess, tmp_path: Path) -> None:
    port = node.addresses["grpc"][1]
    folder = tmp_path / "second"
    folder.mkdir()
    with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port} for gRPC clients"):
        NodeProcess(folder, "--grpc-addr", f"127.0.0.1:{port}").start()


async def test_status_health_and_metrics_tell_the_truth(node: NodeProcess) -> None:
    client = client_of(node)
    status = await client.cluster.Status(cluster_pb2.StatusRequest())
    assert (status.role, status.leader, status.node) == (cluster_pb2.ROLE_LEADER, "n1", "n1")
    assert status.version
    health = health_pb2_grpc.HealthStub(client.channel)
    checked = await health.Check(health_pb2.HealthCheckRequest(service="leader"))
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    host, port = node.addresses["admin"]
    async with httpx.AsyncClient() as browser:
        text = (await browser.get(f"http://{host}:{port}/metrics")).text
    assert 'redan_grpc_calls_total{code="OK",method="redan.cluster.v1.ClusterService/Status"} 1.0' in text
    await client.channel.close()


async def test_a_scan_of_many_keys_streams_all_of_them(node: NodeProcess) -> None:
    client = client_of(node)
    keys = [b"key:%05d" % number for number in range(20_000)]
    requests = [
        batch(0, [[b"SET", key, key] for key in keys[start : start + 1000]]) for start in range(0, 20_000, 1000)
    ]
    assert len([response async for response in client.kv.Pipeline(iter(requests))]) == 20
    found: list[bytes] = []
    async for response in client.kv.ScanStream(kv_pb2.ScanStreamRequest(with_values=True)):
        assert all(entry.key == entry.value for entry in response.entries)
        found += [entry.key for entry in response.entries]
    assert sorted(found) == keys
    await client.channel.close()


async def test_a_client_that_never_reads_costs_bounded_memory(node: NodeProcess) -> None:
    client = client_of(node)
    await client.kv.Set(kv_pb2.SetRequest(key=b"large", value=b"x" * 4_000_000))
    before = node.resident_bytes
    call = client.kv.Pipeline()
    request = batch(1, [[b"GET", b"large"]] * 10)
    written = 0
    try:
        while written < 2000:
            await grpc_write(call, request)
            written += 1
    except TimeoutError:
        pass  # the server takes no more
    grown = node.resident_bytes - before
    # One response of 40 MB is being sent, and gRPC holds it twice; 2,000 of them would be 80 GB.
    assert grown < 400_000_000
    assert (await client.execute(b"PING")).status == "PONG"
    call.cancel()
    await client.channel.close()


async def grpc_write(
    call: grpc.aio.StreamStreamCall[kv_pb2.PipelineRequest, kv_pb2.PipelineResponse], request: kv_pb2.PipelineRequest
) -> None:
    """Write to a stream, or raise TimeoutError when it does not go on."""
    async with asyncio.timeout(2):
        await call.write(request)
