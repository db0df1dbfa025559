"""The typed calls of KVService, over real gRPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from redan.cluster.v1 import cluster_pb2
from redan.kv.v1 import kv_pb2
from tests.kvservice.api.local_node import CLUSTER_ID, Client, LocalNode, failure_of, serving

Node = tuple[LocalNode, Client]


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with serving() as running:
        yield running


async def set_key(client: Client, key: bytes, value: bytes, **fields: object) -> kv_pb2.SetResponse:
    return await client.kv.Set(kv_pb2.SetRequest(key=key, value=value, **fields))  # type: ignore[arg-type]


async def get(client: Client, key: bytes, database: int = 0) -> bytes | None:
    response = await client.kv.Get(kv_pb2.GetRequest(key=key, database=database))
    return response.value if response.HasField("value") else None


async def test_get_returns_what_set_stored(node: Node) -> None:
    _, client = node
    assert (await set_key(client, b"\x00\xff", b"\xfe\x00")).applied
    assert await get(client, b"\x00\xff") == b"\xfe\x00"


async def test_an_empty_value_is_told_from_no_value(node: Node) -> None:
    _, client = node
    await set_key(client, b"", b"")
    assert await get(client, b"") == b""
    assert await get(client, b"absent") is None


async def test_every_response_says_which_node_and_state_it_speaks_of(node: Node) -> None:
    running, client = node
    first = (await set_key(client, b"k", b"1")).header
    second = (await set_key(client, b"k", b"2")).header
    assert (first.cluster_id, first.node, first.term) == (CLUSTER_ID, "n1", running.service.node.term)
    assert 0 < first.index < second.index == running.machine.index


async def test_databases_are_apart(node: Node) -> None:
    _, client = node
    await set_key(client, b"k", b"in five", database=5)
    assert await get(client, b"k") is None
    assert await get(client, b"k", database=5) == b"in five"


async def test_set_stores_only_under_its_condition(node: Node) -> None:
    _, client = node
    assert not (await set_key(client, b"k", b"1", condition=kv_pb2.SET_CONDITION_IF_PRESENT)).applied
    assert (await set_key(client, b"k", b"2", condition=kv_pb2.SET_CONDITION_IF_ABSENT)).applied
    assert not (await set_key(client, b"k", b"3", condition=kv_pb2.SET_CONDITION_IF_ABSENT)).applied
    assert (await set_key(client, b"k", b"4", condition=kv_pb2.SET_CONDITION_IF_PRESENT)).applied
    assert await get(client, b"k") == b"4"


async def test_set_returns_the_previous_value_and_whether_it_stored(node: Node) -> None:
    _, client = node
    conditions = (
        kv_pb2.SET_CONDITION_UNSPECIFIED,
        kv_pb2.SET_CONDITION_IF_ABSENT,
        kv_pb2.SET_CONDITION_IF_PRESENT,
    )
    for condition in conditions:
        for existed in (False, True):
            await client.kv.Delete(kv_pb2.DeleteRequest(keys=[b"k"]))
            if existed:
                await set_key(client, b"k", b"old")
            response = await set_key(client, b"k", b"new", condition=condition, return_previous=True)
            assert response.HasField("previous") == existed
            assert response.previous == (b"old" if existed else b"")
            assert response.applied == (await get(client, b"k") == b"new"), (condition, existed)


async def test_a_ttl_ends_up_as_a_deadline_and_keep_ttl_keeps_it(node: Node) -> None:
    _, client = node
    await set_key(client, b"k", b"1", ttl=Duration(seconds=100_000))
    await set_key(client, b"k", b"2", keep_ttl=True)
    left = (await client.kv.Ttl(kv_pb2.TtlRequest(key=b"k"))).ttl
    assert 90_000 < left.seconds <= 100_000
    await set_key(client, b"k", b"3")
    response = await client.kv.Ttl(kv_pb2.TtlRequest(key=b"k"))
    assert response.exists
    assert not response.HasField("ttl")


async def test_a_ttl_is_rounded_up_to_whole_milliseconds(node: Node) -> None:
    running, client = node
    await set_key(client, b"k", b"1", ttl=Duration(seconds=7, nanos=1))
    deadline = running.machine.databases[0].deadline_of(b"k")
    assert deadline == running.machine.clock.stamp_ms + 7001


async def test_a_deadline_that_has_passed_removes_the_key(node: Node) -> None:
    _, client = node
    await set_key(client, b"k", b"1")
    await set_key(client, b"k", b"2", expire_at=Timestamp(seconds=1))
    assert await get(client, b"k") is None


async def test_ttl_tells_a_missing_key_from_one_that_stays(node: Node) -> None:
    _, client = node
    assert not (await client.kv.Ttl(kv_pb2.TtlRequest(key=b"absent"))).exists


async def test_expire_sets_moves_and_removes_deadlines(node: Node) -> None:
    running, client = node
    at = int(time.time()) + 500

    async def expire(**fields: object) -> bool:
        return (await client.kv.Expire(kv_pb2.ExpireRequest(key=b"k", **fields))).applied  # type: ignore[arg-type]

    assert not await expire(ttl=Duration(seconds=5))
    await set_key(client, b"k", b"1")
    assert not await expire(persist=True)
    assert not await expire(expire_at=Timestamp(seconds=at), condition=kv_pb2.EXPIRE_CONDITION_IF_SOME)
    assert await expire(expire_at=Timestamp(seconds=at), condition=kv_pb2.EXPIRE_CONDITION_IF_NONE)
    assert running.machine.databases[0].deadline_of(b"k") == at * 1000
    assert not await expire(ttl=Duration(seconds=9), condition=kv_pb2.EXPIRE_CONDITION_IF_LATER)
    assert await expire(ttl=Duration(seconds=9), condition=kv_pb2.EXPIRE_CONDITION_IF_SOONER)
    assert await expire(persist=True)
    assert running.machine.databases[0].deadline_of(b"k") is None


async def test_delete_and_exists_count_keys(node: Node) -> None:
    _, client = node
    await client.kv.MultiSet(
        kv_pb2.MultiSetRequest(entries=[kv_pb2.KeyValue(key=b"a", value=b"1"), kv_pb2.KeyValue(key=b"b", value=b"2")])
    )
    exists = await client.kv.Exists(kv_pb2.ExistsRequest(keys=[b"a", b"a", b"b", b"c"]))
    assert exists.count == 3
    assert (await client.kv.Delete(kv_pb2.DeleteRequest(keys=[b"a", b"b", b"c"]))).deleted == 2
    assert (await client.kv.Exists(kv_pb2.ExistsRequest(keys=[b"a", b"b"]))).count == 0


async def test_increment_adds_one_unless_told_how_much(node: Node) -> None:
    _, client = node
    deltas: list[int | None] = [None, 5, -10, 0]
    values = [(await client.kv.Increment(kv_pb2.IncrementRequest(key=b"n", delta=delta))).value for delta in deltas]
    assert values == [1, 6, -4, -4]


async def test_increment_beyond_64_bits_is_refused(node: Node) -> None:
    _, client = node
    await client.kv.Increment(kv_pb2.IncrementRequest(key=b"n", delta=2**63 - 1))
    failure = await failure_of(client.kv.Increment(kv_pb2.IncrementRequest(key=b"n")))
    assert failure.code.name == "INVALID_ARGUMENT"
    assert failure.message == "increment or decrement would overflow"


async def test_multi_get_answers_in_the_order_asked(node: Node) -> None:
    _, client = node
    await set_key(client, b"a", b"1")
    await set_key(client, b"c", b"")
    response = await client.kv.MultiGet(kv_pb2.MultiGetRequest(keys=[b"c", b"b", b"a", b"a"]))
    found = [lookup.value if lookup.HasField("value") else None for lookup in response.lookups]
    assert found == [b"", None, b"1", b"1"]


async def test_multi_set_if_all_absent_writes_all_or_nothing(node: Node) -> None:
    _, client = node
    await set_key(client, b"b", b"old")
    entries = [kv_pb2.KeyValue(key=key, value=b"new") for key in (b"a", b"b")]
    response = await client.kv.MultiSet(kv_pb2.MultiSetRequest(entries=entries, if_all_absent=True))
    assert not response.applied
    assert await get(client, b"a") is None
    assert (await client.kv.MultiSet(kv_pb2.MultiSetRequest(entries=entries))).applied
    assert await get(client, b"b") == b"new"


async def test_execute_runs_any_command_and_types_its_reply(node: Node) -> None:
    _, client = node
    assert (await client.execute(b"SET", b"k", b"10")).status == "OK"
    assert (await client.execute(b"incrby", b"k", b"-11")).integer == -1
    assert (await client.execute(b"GET", b"k")).bulk == b"-1"
    assert (await client.execute(b"GET", b"absent")).WhichOneof("kind") == "null"
    array = (await client.execute(b"MGET", b"k", b"absent")).array
    assert [value.WhichOneof("kind") for value in array.values] == ["bulk", "null"]


async def test_execute_runs_server_commands(node: Node) -> None:
    _, client = node
    await set_key(client, b"k", b"1")
    assert (await client.execute(b"DBSIZE")).integer == 1
    listed = (await client.execute(b"CLIENT", b"LIST")).verbatim
    assert listed.format == "txt"


async def test_status_describes_the_node(node: Node) -> None:
    running, client = node
    status = await client.cluster.Status(cluster_pb2.StatusRequest())
    assert (status.node, status.leader, status.role) == ("n1", "n1", cluster_pb2.ROLE_LEADER)
    assert status.last_index == status.commit_index == status.applied_index == running.machine.index
    assert [(member.name, member.voter) for member in status.members] == [("n1", True)]
