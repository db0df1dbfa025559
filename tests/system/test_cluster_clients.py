"""What clients conclude about a cluster of real processes: cluster clients, waiting for copies, writes sent again."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.cluster import LoadBalancingStrategy, RedisCluster

from redan.kv.v1 import kv_pb2, kv_pb2_grpc
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, store
from tests.harness.process import TIMEOUT_S


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path, 3) as running:
        yield running


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    """A cluster that many tests leave as whole as they found it."""
    with ClusterProcesses(tmp_path_factory.mktemp("nodes"), 3) as running:
        yield running


def raft_of(node: ClusterNode) -> dict[str, str]:
    """Return INFO raft, as text."""
    client: Any = node.client()
    return {str(name): str(value) for name, value in client.info("raft").items()}


def increment(node: ClusterNode, key: bytes, request_id: str) -> int:
    """Add one through gRPC, once for the id."""
    with grpc.insecure_channel(node.grpc_endpoint) as channel:
        call: Any = channel.unary_unary(
            "/redan.kv.v1.KVService/Increment",
            request_serializer=kv_pb2.IncrementRequest.SerializeToString,
            response_deserializer=kv_pb2.IncrementResponse.FromString,
        )
        return int(call(kv_pb2.IncrementRequest(key=key, request_id=request_id), timeout=TIMEOUT_S).value)


def test_a_cluster_client_finds_the_leader_and_follows_it_after_a_failover(cluster: ClusterProcesses) -> None:
    host, port = cluster.followers()[0].addresses["resp"]
    client: Any = RedisCluster(host=host, port=port, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)
    leader = cluster.leader()
    assert [node.port for node in client.get_primaries()] == [leader.addresses["resp"][1]]
    assert len(client.get_replicas()) == 2
    for number in range(100):
        assert client.set(f"k{number}", number)
    assert [client.get(f"k{number}") for number in range(100)] == [b"%d" % number for number in range(100)]
    leader.kill()
    cluster.until(lambda: bool(client.set("after", "failover")), "a write after the failover")
    assert client.get("after") == b"failover"
    assert [node.port for node in client.get_primaries()] != [leader.addresses["resp"][1]]


def test_redis_cli_in_cluster_mode_writes_and_checks_anywhere(lasting: ClusterProcesses) -> None:
    for node in lasting.nodes.values():
        host, port = node.addresses["resp"]
        said = subprocess.run(
            ["redis-cli", "-c", "-h", host, "-p", str(port), "SET", "k", node.name],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
        assert said.stdout == "OK\n"
    check = subprocess.run(
        ["redis-cli", "--cluster", "check", f"{host}:{port}"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert "[OK] All 16384 slots covered." in check.stdout
    assert "2 additional replica(s)" in check.stdout


def test_every_node_says_master_and_waits_for_copies(lasting: ClusterProcesses) -> None:
    for node in lasting.nodes.values():
        client: Any = node.client()
        store(client, "k", node.name)
        assert client.wait(2, 5000) == 2
        assert client.execute_command("WAITAOF", 1, 2, 5000) == [1, 2]
        role = client.execute_command("ROLE")
        assert role[0] == b"master"
        assert len(role[2]) == (2 if node is lasting.leader() else 0)


def test_waiting_ends_with_the_time_or_with_the_member_that_comes_back(lasting: ClusterProcesses) -> None:
    stopped, other = lasting.followers()
    stopped.pause()
    try:
        for node in (lasting.nodes[raft_of(other)["raft_leader"]], other):
            client = node.client()
            store(client, "k", node.name)
            assert client.wait(1, 0) == 1, "a majority is known at once"
            started = time.monotonic()
            assert client.wait(2, 300) == 1
            assert time.monotonic() - started > 0.25
        answers: list[object] = []
        waiting = threading.Thread(target=lambda: answers.append(other.client().wait(2, 0)), daemon=True)
        waiting.start()
    finally:
        stopped.resume()
    waiting.join(TIMEOUT_S)
    assert answers == [2]


def test_waiting_goes_on_where_leadership_has_moved_to(lasting: ClusterProcesses) -> None:
    follower, other = lasting.followers()
    leader = lasting.leader()
    follower.client().set("k", "v")
    leader.pause()
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(follower.client().wait(2, 0)), daemon=True)
    waiting.start()
    lasting.until(
        lambda: raft_of(other)["raft_leader"] not in ("", leader.name), "another leader while the first is stopped"
    )
    leader.resume()
    waiting.join(TIMEOUT_S)
    assert answers == [2]


def test_a_write_with_a_request_id_runs_once_on_whatever_node_it_comes_again(cluster: ClusterProcesses) -> None:
    for node in cluster.nodes.values():
        assert increment(node, b"n", "first") == 1
    leader = cluster.leader()
    leader.kill()
    survivors = cluster.running()
    cluster.until(lambda: increment(survivors[0], b"n", "first") == 1, "the first answer of a new leader")
    assert increment(survivors[1], b"n", "second") == 2
    cluster.kill_all()
    for node in survivors:
        node.launch()
    for node in survivors:
        node.wait_until_ready()
        assert increment(node, b"n", "first") == 1
        assert increment(node, b"n", "second") == 2
    assert survivors[0].client().get("n") == b"2"


def test_a_write_whose_answer_died_with_the_leader_is_counted_once(cluster: ClusterProcesses) -> None:
    client: Any = cluster.leader().client()
    assert client.set("n", 0)
    leader, (one, other) = cluster.leader(), cluster.followers()
    sent = int(raft_of(leader)["raft_last_index"])
    with grpc.insecure_channel(leader.grpc_endpoint) as channel:
        call: Any = channel.unary_unary(
            "/redan.kv.v1.KVService/Increment",
            request_serializer=kv_pb2.IncrementRequest.SerializeToString,
            response_deserializer=kv_pb2.IncrementResponse.FromString,
        )
        # Nobody acknowledges what the leader sends, so it answers nothing; what it sent waits at the others.
        one.pause()
        other.pause()
        answer = call.future(kv_pb2.IncrementRequest(key=b"n", request_id="only"), timeout=TIMEOUT_S)
        cluster.until(lambda: int(raft_of(leader)["raft_last_index"]) > sent, "the leader to send the write")
        leader.kill()
        with pytest.raises(grpc.RpcError) as failed:
            answer.result()
        assert failed.value.code() == grpc.StatusCode.UNAVAILABLE, "the connection broke"
    one.resume()
    other.resume()
    cluster.until(lambda: one.client().get("n") is not None, "another leader")
    assert one.client().get("n") == b"1", "the write outlived the leader that had not answered it"
    assert increment(one, b"n", "only") == 1
    assert increment(other, b"n", "only") == 1
    leader.start()
    assert increment(leader, b"n", "only") == 1
    assert leader.client().get("n") == b"1"


async def test_a_stream_through_a_follower_outlives_the_leader_and_nothing_is_counted_twice(
    cluster: ClusterProcesses,
) -> None:
    leader, node = cluster.leader(), cluster.followers()[0]
    answers: dict[str, int] = {}
    open_ids = {f"write {number}" for number in range(2000)}
    async with grpc.aio.insecure_channel(node.grpc_endpoint) as channel:
        stream: Any = kv_pb2_grpc.KVServiceStub(channel).Pipeline()
        tries = 0
        while open_ids:
            tries += 1
            assert tries < 100
            batches = [sorted(open_ids)[start : start + 20] for start in range(0, len(open_ids), 20)]
            writing = asyncio.ensure_future(write_all(stream, batches))
            for number, batch in enumerate(batches):
                response = await asyncio.wait_for(stream.read(), TIMEOUT_S)
                assert response.batch_id == number
                for request_id, value in zip(batch, response.values, strict=True):
                    if value.WhichOneof("kind") == "integer":
                        answers[request_id] = value.integer
                        open_ids.discard(request_id)
                    else:
                        assert value.error.outcome in {kv_pb2.OUTCOME_NOT_APPLIED, kv_pb2.OUTCOME_UNKNOWN}
                if tries == 1 and number == 3:
                    leader.kill()
            await writing
        await stream.done_writing()
        assert await stream.read() == grpc.aio.EOF
    assert sorted(answers.values()) == list(range(1, 2001))
    assert node.client().get("n") == b"2000"


async def write_all(stream: Any, batches: list[list[str]]) -> None:
    """Send increments with their ids."""
    for number, batch in enumerate(batches):
        commands = [kv_pb2.Command(args=[b"INCR", b"n"], request_id=request_id) for request_id in batch]
        await stream.write(kv_pb2.PipelineRequest(batch_id=number, commands=commands))


def test_answers_are_remembered_in_snapshots(cluster: ClusterProcesses) -> None:
    leader = cluster.leader()
    assert increment(leader, b"n", "first") == 1
    for node in cluster.nodes.values():
        node.client().save()
    for node in cluster.nodes.values():
        node.stop()
    for node in cluster.nodes.values():
        node.launch()
    cluster.wait_until_ready()
    for node in cluster.nodes.values():
        assert increment(node, b"n", "first") == 1


def test_the_states_of_all_members_are_compared(lasting: ClusterProcesses) -> None:
    client = lasting["n1"].client()

    def all_agree() -> bool:
        client.incr("n")
        told = [raft_of(node) for node in lasting.nodes.values()]
        return all(fields["raft_digest_state"] == "equal" for fields in told)

    lasting.until(all_agree, "every node to agree with the others")
    peers = lasting.leader().status().peers
    assert [peer.lag_entries for peer in peers] == [0, 0]
