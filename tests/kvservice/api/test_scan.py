"""Scan and ScanStream: pages, tokens, values, and the promise about keys that stay."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from kvservice.api.scan import PAGE_BYTES
from redan.kv.v1 import kv_pb2
from tests.kvservice.api.local_node import Client, LocalNode, failure_of, serving

Node = tuple[LocalNode, Client]


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    async with serving() as running:
        yield running


async def store(client: Client, keys: list[bytes], value: bytes = b"v") -> None:
    entries = [kv_pb2.KeyValue(key=key, value=value) for key in keys]
    await client.kv.MultiSet(kv_pb2.MultiSetRequest(entries=entries))


async def pages(client: Client, **fields: object) -> list[kv_pb2.ScanResponse]:
    found: list[kv_pb2.ScanResponse] = []
    token = ""
    for _ in range(1000):
        page = await client.kv.Scan(kv_pb2.ScanRequest(page_token=token, **fields))  # type: ignore[arg-type]
        found.append(page)
        token = page.next_page_token
        if not token:
            return found
    raise AssertionError("the scan has no end")


async def stream(client: Client, **fields: object) -> list[kv_pb2.ScanStreamResponse]:
    call = client.kv.ScanStream(kv_pb2.ScanStreamRequest(**fields))  # type: ignore[arg-type]
    return [response async for response in call]


KEYS = [b"user:%d" % number for number in range(500)]


async def test_pages_together_hold_every_key_once(node: Node) -> None:
    _, client = node
    await store(client, KEYS)
    found = await pages(client, page_size=7)
    keys = [entry.key for page in found for entry in page.entries]
    assert sorted(keys) == sorted(KEYS)
    assert max(len(page.entries) for page in found) <= 7


async def test_an_empty_database_is_one_empty_page(node: Node) -> None:
    _, client = node
    [page] = await pages(client)
    assert not page.entries
    [response] = await stream(client)
    assert not response.entries


async def test_a_pattern_selects_keys(node: Node) -> None:
    _, client = node
    await store(client, [*KEYS, b"other"])
    found = await pages(client, match=b"*1", page_size=50)
    keys = {entry.key for page in found for entry in page.entries}
    assert keys == {key for key in KEYS if key.endswith(b"1")}


async def test_values_come_with_the_keys_if_asked_for(node: Node) -> None:
    _, client = node
    await store(client, KEYS[:20], b"value")
    [page] = await pages(client, with_values=True)
    assert {entry.value for entry in page.entries} == {b"value"}
    [bare] = await pages(client)
    assert not any(entry.HasField("value") for entry in bare.entries)


async def test_values_that_do_not_fit_are_left_out_and_marked(node: Node) -> None:
    _, client = node
    large = b"x" * (PAGE_BYTES // 2 - 10)
    await store(client, [b"a", b"b", b"c"], large)
    [page] = await pages(client, with_values=True)
    assert sorted(entry.value_omitted for entry in page.entries) == [False, False, True]
    assert all(entry.HasField("value") != entry.value_omitted for entry in page.entries)


async def test_a_page_of_long_keys_stays_below_what_clients_take(node: Node) -> None:
    _, client = node
    keys = [b"%04d" % number + b"k" * 60_000 for number in range(100)]
    for start in range(0, 100, 25):
        await store(client, keys[start : start + 25])
    found = await pages(client)
    assert {entry.key for page in found for entry in page.entries} == set(keys)
    assert max(page.ByteSize() for page in found) <= PAGE_BYTES + 10_000


async def test_a_key_that_stays_is_found_whatever_comes_and_goes(node: Node) -> None:
    _, client = node
    await store(client, KEYS)
    seen: set[bytes] = set()
    token = ""
    for turn in range(1000):
        page = await client.kv.Scan(kv_pb2.ScanRequest(page_size=20, page_token=token))
        seen |= {entry.key for entry in page.entries}
        await store(client, [b"new:%d:%d" % (turn, number) for number in range(20)])
        await client.kv.Delete(kv_pb2.DeleteRequest(keys=[b"new:%d:%d" % (turn - 1, number) for number in range(20)]))
        token = page.next_page_token
        if not token:
            break
    assert seen >= set(KEYS)


async def test_a_token_is_good_for_its_own_scan_only(node: Node) -> None:
    _, client = node
    await store(client, KEYS)
    page = await client.kv.Scan(kv_pb2.ScanRequest(page_size=10))
    for other in (
        kv_pb2.ScanRequest(page_token=page.next_page_token, match=b"a*"),
        kv_pb2.ScanRequest(page_token=page.next_page_token, database=1),
    ):
        failure = await failure_of(client.kv.Scan(other))
        assert failure.fields == {"page_token": "belongs to a scan with another database or match"}


async def test_a_stream_holds_every_key_once(node: Node) -> None:
    _, client = node
    await store(client, KEYS)
    responses = await stream(client, page_size=33, with_values=True)
    entries = [entry for response in responses for entry in response.entries]
    assert sorted(entry.key for entry in entries) == sorted(KEYS)
    assert {entry.value for entry in entries} == {b"v"}
    assert [bool(response.next_page_token) for response in responses] == [True] * (len(responses) - 1) + [False]


async def test_a_stream_that_broke_is_resumed_where_it_was(node: Node) -> None:
    _, client = node
    await store(client, KEYS)
    call = client.kv.ScanStream(kv_pb2.ScanStreamRequest(page_size=100))
    first = await call.read()
    assert isinstance(first, kv_pb2.ScanStreamResponse)
    call.cancel()
    rest = await stream(client, page_size=100, page_token=first.next_page_token)
    keys = [entry.key for response in (first, *rest) for entry in response.entries]
    assert sorted(keys) == sorted(KEYS)


async def test_pages_without_a_match_are_not_sent(node: Node) -> None:
    _, client = node
    await store(client, [*KEYS, b"other"])
    responses = await stream(client, match=b"other", page_size=10)
    assert [entry.key for response in responses for entry in response.entries] == [b"other"]
    assert len(responses) <= 2


async def test_the_database_of_a_scan_is_its_own(node: Node) -> None:
    _, client = node
    await client.kv.Set(kv_pb2.SetRequest(database=3, key=b"k", value=b"three"))
    [page] = await pages(client, database=3, with_values=True)
    assert [(entry.key, entry.value) for entry in page.entries] == [(b"k", b"three")]
    assert not (await pages(client))[0].entries
