"""A node that follows serves as the leader does: whatever clients of both protocols do, on connections to it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from redan.kv.v1 import kv_pb2
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses
from tests.harness.oracle import Connection
from tests.harness.resp2 import encode_command
from tests.kvservice.api.local_node import Client, failure_of

PIPELINE = 10_000
CONNECTIONS = 1_000
OK = b"+OK\r\n"
NO_ELECTIONS = ("--election-timeout-ms", "2000")
"""On a machine that is busy with other tests, a write would be UNKNOWN for no fault of forwarding."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path_factory.mktemp("nodes"), 3, *NO_ELECTIONS) as running:
        yield running


@pytest.fixture
def follower(cluster: ClusterProcesses) -> ClusterNode:
    node = cluster.followers()[0]
    node.client().flushall()
    return node


@pytest.fixture
async def grpc_client(follower: ClusterNode) -> AsyncIterator[Client]:
    channel = grpc.aio.insecure_channel(follower.grpc_endpoint, options=[("grpc.use_local_subchannel_pool", 1)])
    async with channel:
        yield Client(channel)


def everything(peer: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    received = bytearray()
    while chunk := peer.recv(1 << 16):
        received += chunk
    return bytes(received)


def exactly(peer: socket.socket, expected: bytes) -> None:
    """Check what comes next."""
    received = bytearray()
    while len(received) < len(expected):
        chunk = peer.recv(1 << 16)
        assert chunk, bytes(received)
        received += chunk
    assert bytes(received) == expected


# -- RESP --------------------------------------------------------------------------------------------------------------


def test_ten_thousand_commands_of_one_pipeline_are_answered_in_their_order(follower: ClusterNode) -> None:
    commands, replies = [], []
    for number in range(1, PIPELINE // 4 + 1):
        commands += [[b"INCR", b"n"], [b"GET", b"n"], [b"PING"], [b"NOSUCH"]]
        replies += [b":%d\r\n" % number, b"$%d\r\n%d\r\n" % (len(str(number)), number), b"+PONG\r\n"]
        replies.append(b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n")
    with follower.connect() as peer:
        assert Connection(peer).send(commands) == replies


def test_a_thousand_connections_are_served_each_in_its_order(follower: ClusterNode, cluster: ClusterProcesses) -> None:
    peers = [follower.connect() for _ in range(CONNECTIONS)]
    try:
        for turn in range(3):
            for number, peer in enumerate(peers):
                key = b"k%d" % number
                peer.sendall(encode_command([b"INCR", key]) + encode_command([b"GET", key]))
            for peer in peers:
                exactly(peer, b":%d\r\n$1\r\n%d\r\n" % (turn + 1, turn + 1))
    finally:
        for peer in peers:
            peer.close()
    assert cluster.leader().client().dbsize() == CONNECTIONS


def test_values_of_megabytes_go_and_come_as_they_are(follower: ClusterNode, cluster: ClusterProcesses) -> None:
    long = bytes(range(256)) * 4096 * 15
    client, other = follower.client(), cluster.leader().client()
    assert client.set("long", long)
    assert other.get("long") == client.get("long") == long
    client.mset({f"part{number}": long[:2_000_000] for number in range(6)})
    assert client.mget([f"part{number}" for number in range(6)]) == [long[:2_000_000]] * 6


def test_replies_that_are_not_wanted_are_not_sent(follower: ClusterNode) -> None:
    words = ["CLIENT REPLY OFF", "SET k 1", "INCR k", "GET k", "NOSUCH", "CLIENT REPLY ON", "GET k"]
    words += ["CLIENT REPLY SKIP", "INCR k", "GET k"]
    with follower.connect() as peer:
        peer.sendall(b"".join(encode_command(line.encode().split()) for line in words))
        exactly(peer, OK + b"$1\r\n2\r\n" + b"$1\r\n3\r\n")


def test_inline_commands_are_answered(follower: ClusterNode) -> None:
    with follower.connect() as peer:
        peer.sendall(b'SET k "a b"\r\nGET k\r\nPING\r\nGET\r\n')
        exactly(peer, OK + b"$3\r\na b\r\n+PONG\r\n-ERR wrong number of arguments for 'get' command\r\n")


def test_the_types_of_resp3_survive_the_way(follower: ClusterNode) -> None:
    client: Any = follower.client()
    with follower.connect() as peer:
        peer.sendall(encode_command([b"HELLO", b"3"]))
        greeting = peer.recv(1 << 16)
        assert greeting.startswith(b"%7\r\n")
        assert b"$4\r\nrole\r\n$6\r\nmaster\r\n" in greeting
        peer.sendall(
            encode_command([b"GET", b"none"])
            + encode_command([b"MSET", b"a", b"ohmytext", b"b", b"mynewtext"])
            + encode_command([b"LCS", b"a", b"b", b"IDX"])
        )
        exactly(
            peer,
            b"_\r\n+OK\r\n%2\r\n$7\r\nmatches\r\n*2\r\n"
            b"*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n:1\r\n$3\r\nlen\r\n:6\r\n",
        )
    assert client.get("a") == b"ohmytext"


def test_who_closes_its_half_of_the_connection_still_gets_every_reply(follower: ClusterNode) -> None:
    with follower.connect() as peer:
        peer.sendall(encode_command([b"INCR", b"n"]) * 500 + encode_command([b"GET", b"n"]))
        peer.shutdown(socket.SHUT_WR)
        assert everything(peer) == b"".join(b":%d\r\n" % (number + 1) for number in range(500)) + b"$3\r\n500\r\n"


def test_who_leaves_without_waiting_is_forgotten_and_what_it_asked_is_done(
    follower: ClusterNode, cluster: ClusterProcesses
) -> None:
    peer = follower.connect()
    address = "{}:{}".format(*peer.getsockname())
    peer.sendall(encode_command([b"INCR", b"n"]) * 500 + b"*2\r\n$3\r\nGE")
    peer.close()
    leader: Any = cluster.leader().client()
    asked: Any = follower.client()
    cluster.until(lambda: leader.get("n") == b"500", "what was asked to be done")
    cluster.until(
        lambda: address not in {caller["addr"] for caller in asked.client_list()}, "the caller to be forgotten"
    )


def test_each_connection_has_its_own_database(follower: ClusterNode, cluster: ClusterProcesses) -> None:
    with follower.connect() as first, follower.connect() as second:
        one, two = Connection(first), Connection(second)
        assert one.send([[b"SELECT", b"3"], [b"SET", b"k", b"3"]]) == [OK, OK]
        assert two.send([[b"SET", b"k", b"0"], [b"GET", b"k"]]) == [OK, b"$1\r\n0\r\n"]
        assert one.send([[b"GET", b"k"], [b"MOVE", b"k", b"5"], [b"SELECT", b"5"], [b"GET", b"k"]]) == [
            b"$1\r\n3\r\n", b":1\r\n", OK, b"$1\r\n3\r\n",
        ]  # fmt: skip
        assert two.send([[b"SWAPDB", b"0", b"5"], [b"GET", b"k"]]) == [OK, b"$1\r\n3\r\n"]
        assert one.send([[b"GET", b"k"], [b"SELECT", b"16"]]) == [
            b"$1\r\n0\r\n",
            b"-ERR DB index is out of range\r\n",
        ]
    assert cluster.leader().client().get("k") == b"3"


# -- gRPC --------------------------------------------------------------------------------------------------------------


async def test_every_call_of_grpc_is_served(grpc_client: Client) -> None:
    kv = grpc_client.kv
    assert (await kv.Set(kv_pb2.SetRequest(key=b"k", value=b"1", request_id="s"))).applied
    assert (await kv.Get(kv_pb2.GetRequest(key=b"k"))).value == b"1"
    assert (await kv.Increment(kv_pb2.IncrementRequest(key=b"k", delta=4, request_id="i"))).value == 5
    assert (await kv.Increment(kv_pb2.IncrementRequest(key=b"k", delta=4, request_id="i"))).value == 5
    assert (await kv.Expire(kv_pb2.ExpireRequest(key=b"k", ttl={"seconds": 500}))).applied
    assert 400 < (await kv.Ttl(kv_pb2.TtlRequest(key=b"k"))).ttl.seconds <= 500
    entries = [kv_pb2.KeyValue(key=b"m%d" % number, value=b"%d" % number) for number in range(100)]
    assert (await kv.MultiSet(kv_pb2.MultiSetRequest(entries=entries))).applied
    lookups = (await kv.MultiGet(kv_pb2.MultiGetRequest(keys=[b"m7", b"none", b"m99"]))).lookups
    assert [(lookup.HasField("value"), lookup.value) for lookup in lookups] == [
        (True, b"7"),
        (False, b""),
        (True, b"99"),
    ]
    assert (await kv.Exists(kv_pb2.ExistsRequest(keys=[b"k", b"none"]))).count == 1
    assert (await grpc_client.execute(b"APPEND", b"k", b"0")).integer == 2
    assert (await kv.Delete(kv_pb2.DeleteRequest(keys=[b"k"]))).deleted == 1
    found: list[bytes] = []
    token = ""
    while True:
        page = await kv.Scan(kv_pb2.ScanRequest(page_size=7, page_token=token))
        found += [entry.key for entry in page.entries]
        if not (token := page.next_page_token):
            break
    assert sorted(found) == sorted(entry.key for entry in entries)
    streamed = {
        entry.key: entry.value
        async for page in kv.ScanStream(kv_pb2.ScanStreamRequest(with_values=True))
        for entry in page.entries
    }
    assert streamed == {entry.key: entry.value for entry in entries}


async def test_a_stream_of_pipelines_is_answered_in_its_order(grpc_client: Client) -> None:
    requests = [
        kv_pb2.PipelineRequest(
            batch_id=number, commands=[kv_pb2.Command(args=[b"INCR", b"n"]), kv_pb2.Command(args=[b"GET", b"n"])] * 50
        )
        for number in range(100)
    ]
    count = 0
    async for response in grpc_client.kv.Pipeline(iter(requests)):
        assert response.batch_id == count // 50
        for value in response.values[::2]:
            count += 1
            assert value.integer == count
        assert [int(value.bulk) for value in response.values[1::2]] == [value.integer for value in response.values[::2]]
    assert count == 5000


async def test_errors_of_commands_keep_their_class_on_the_way(grpc_client: Client) -> None:
    await grpc_client.execute(b"SET", b"k", b"text")
    failure = await failure_of(grpc_client.kv.Increment(kv_pb2.IncrementRequest(key=b"k")))
    assert (failure.code, failure.outcome) == (grpc.StatusCode.INVALID_ARGUMENT, "rejected")
    assert failure.message == "value is not an integer or out of range"
