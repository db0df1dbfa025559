"""What clients of both protocols may conclude from an error: not applied, or unknown; and that they can go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import redis

from redan.kv.v1 import kv_pb2
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses
from tests.harness.oracle import Connection
from tests.harness.process import TIMEOUT_S
from tests.harness.resp2 import encode_command
from tests.kvservice.api.local_node import Client, Failure, failure_of

IMPATIENT = ("--leader-wait-ms", "500", "--outcome-timeout-ms", "1500", "--election-timeout-ms", "3000")
"""Nobody stands for election while a test still asks the paused leader, however slow the machine is."""
OK = b"+OK\r\n"
LOST = b"-UNKNOWN outcome: leadership moved while the write was in flight\r\n"
NO_LEADER = b"-CLUSTERDOWN The cluster has no leader\r\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path, 3, *IMPATIENT) as running:
        yield running


@asynccontextmanager
async def both_protocols(node: ClusterNode) -> AsyncIterator[tuple[Connection, Client]]:
    """Yield a connection of each kind, on which a command was answered."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with node.connect() as peer:
        async with grpc.aio.insecure_channel(node.grpc_endpoint, options=options) as channel:
            resp, client = Connection(peer), Client(channel)
            assert resp.send([[b"SET", b"k", b"0"]]) == [OK]
            assert (await client.kv.Get(kv_pb2.GetRequest(key=b"k"))).value == b"0"
            yield resp, client


def increment(client: Client, key: bytes) -> asyncio.Task[Failure]:
    """Have it fail."""
    return asyncio.ensure_future(failure_of(client.kv.Increment(kv_pb2.IncrementRequest(key=key), timeout=TIMEOUT_S)))


async def next_of(resp: Connection) -> bytes:
    """Wait for a reply without keeping this thread from other calls."""
    return await asyncio.to_thread(resp.receive)


async def until_sent(node: ClusterNode, calls: int) -> None:
    """Wait until a follower has passed on what it was asked: that it did is all that can be seen of it."""
    async with asyncio.timeout(TIMEOUT_S):
        while forwarded(node) < calls:
            await asyncio.sleep(0.01)


def forwarded(node: ClusterNode) -> int:
    """Return how many calls a node has passed on to a leader."""
    host, port = node.addresses["admin"]
    text = httpx.get(f"http://{host}:{port}/metrics", timeout=TIMEOUT_S).text
    [line] = [line for line in text.splitlines() if line.startswith("redan_forwarded_calls_total ")]
    return int(float(line.split()[-1]))


def test_clients_that_give_up_an_answer_and_repeat_hear_of_the_outcome_before_that(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as running:
        leader, (follower, other) = running.leader(), running.followers()
        host, port = leader.addresses["resp"]
        with redis.Redis(host, port) as client:
            assert client.get("count") is None
            follower.kill()
            other.kill()
            # As it is without settings: after 5 s without an answer it sends the command once more.
            lost, refused = client.pipeline(transaction=False).incr("count").get("other").execute(raise_on_error=False)
            assert str(lost).startswith("UNKNOWN")
            assert isinstance(refused, redis.exceptions.ClusterDownError)
            with pytest.raises(redis.exceptions.ClusterDownError):
                client.incr("count")
            follower.start()
            running.until(lambda: follower.client().set("k", "v") is True, "writes to be taken again")
            assert int(follower.client().get("count") or 0) <= 1


async def test_a_follower_that_loses_its_leader_tells_writes_that_may_have_happened_from_those_that_have_not(
    cluster: ClusterProcesses,
) -> None:
    leader, (node, other) = cluster.leader(), cluster.followers()
    async with both_protocols(node) as (resp, client):
        before = forwarded(node)
        leader.pause()
        other.pause()
        resp.socket.sendall(encode_command([b"INCR", b"by resp"]))
        failing = increment(client, b"by grpc")
        await until_sent(node, before + 2)
        leader.kill()
        resp.socket.sendall(encode_command([b"INCR", b"k"]))
        assert await next_of(resp) == LOST, "of what was sent to the leader"
        failure = await failing
        assert (failure.code, failure.reason, failure.outcome) == (
            grpc.StatusCode.ABORTED, "LEADERSHIP_LOST", "unknown",
        )  # fmt: skip
        assert await next_of(resp) == NO_LEADER, "of what could not be sent"
        failure = await increment(client, b"k")
        assert (failure.code, failure.reason, failure.outcome) == (
            grpc.StatusCode.UNAVAILABLE, "NO_LEADER", "not_applied",
        )  # fmt: skip
        other.resume()
        cluster.until(lambda: resp.send([[b"GET", b"k"]]) == [b"$1\r\n0\r\n"], "an answer on the same connection")
        assert (await client.kv.Increment(kv_pb2.IncrementRequest(key=b"k"))).value == 1
        assert resp.send([[b"GET", b"by resp"], [b"GET", b"by grpc"]]) == [b"$-1\r\n"] * 2, "they died with the leader"


async def test_a_leader_that_loses_the_others_says_so_of_writes_that_it_proposed_and_of_what_came_later(
    cluster: ClusterProcesses,
) -> None:
    leader, others = cluster.leader(), cluster.followers()
    async with both_protocols(leader) as (resp, client):
        for node in others:
            node.pause()
        resp.socket.sendall(encode_command([b"INCR", b"by resp"]))
        failing = increment(client, b"by grpc")
        assert await next_of(resp) == LOST
        failure = await failing
        assert (failure.code, failure.outcome) == (grpc.StatusCode.ABORTED, "unknown")
        resp.socket.sendall(encode_command([b"GET", b"k"]))
        assert await next_of(resp) == NO_LEADER
        failure = await increment(client, b"k")
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_LEADER")
        for node in others:
            node.resume()
        cluster.until(lambda: resp.send([[b"GET", b"k"]]) == [b"$1\r\n0\r\n"], "an answer on the same connection")
        # Whoever leads now has the writes or not; once is the most.
        assert set(resp.send([[b"GET", b"by resp"], [b"GET", b"by grpc"]])) <= {b"$-1\r\n", b"$1\r\n1\r\n"}
