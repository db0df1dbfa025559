"""Every method against a real cluster, whose addresses are in REDAN_ADDRESSES; left out without."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from redan_client import NEVER, AsyncClient, Client, RequestError

ADDRESSES = os.environ.get("REDAN_ADDRESSES", "")
pytestmark = pytest.mark.skipif(not ADDRESSES, reason="REDAN_ADDRESSES names no nodes")


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(ADDRESSES, database=1) as one:
        one.execute("FLUSHDB")
        yield one


def test_strings_conditions_and_counters(client: Client) -> None:
    assert client.get("k") is None
    assert client.set("k", "v")
    assert client.get(b"k") == b"v"
    assert not client.set("k", "w", condition="if_absent")
    assert client.set("k", b"\x00\xff", condition="if_present")
    assert client.swap("k", 1.5) == b"\x00\xff"
    assert client.swap("new", 1) is None
    assert client.get("k") == b"1.5"
    assert client.increment("n") == 1
    assert client.increment("n", -(2**62)) == 1 - 2**62
    assert client.exists("k", "k", "none") == 2
    assert client.delete("k", "n", "none") == 2
    client.set("text", "a")
    with pytest.raises(RequestError) as raised:
        client.increment("text")
    assert raised.value.metadata["outcome"] == "rejected"


def test_deadlines_are_set_kept_and_taken_away(client: Client) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert client.ttl("k") is None
    client.set("k", "v", ttl=1000.5)
    assert 900 < (client.ttl("k") or 0) <= 1000.5
    client.set("k", "w", keep_ttl=True)
    assert 900 < (client.ttl("k") or 0) <= 1000.5
    client.set("k", "w", expire_at=tomorrow)
    assert 80_000 < (client.ttl("k") or 0) <= 86_400
    assert client.persist("k")
    assert client.ttl("k") == NEVER == math.inf
    assert not client.persist("k")
    assert client.expire("k", ttl=100, condition="if_none")
    assert not client.expire("k", ttl=200, condition="if_sooner")
    assert client.expire("k", at=tomorrow)
    assert not client.expire("none", ttl=1)
    assert client.expire("k", at=datetime(1980, 1, 1, tzinfo=UTC))
    assert client.get("k") is None


def test_many_keys_and_scans_of_several_pages(client: Client) -> None:
    entries = {f"key:{number}": number for number in range(300)}
    assert client.set_many(entries)
    assert not client.set_many({"key:1": 0, "other": 0}, if_all_absent=True)
    assert client.get_many("key:7", "none", "key:8") == [b"7", None, b"8"]
    found = list(client.scan("key:*", with_values=True, page_size=20))
    assert {entry.key.decode(): int(entry.value or b"") for entry in found} == entries
    assert list(client.scan("other")) == []


def test_commands_and_pipelines_have_the_same_results(client: Client) -> None:
    client.set_many({"a": 1, "b": 2})
    assert client.execute("MGET", "a", b"b", "none") == [b"1", b"2", None]
    assert client.execute("SET", "c", 3) == "OK"
    assert isinstance(client.execute("PING"), str)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    pipeline = client.pipeline().set("p", "v", ttl=100).ttl("p").persist("p").ttl("p").ttl("none")
    pipeline.expire("p", at=tomorrow, condition="if_none").expire("p", ttl=5, condition="if_later").exists("p", "a")
    pipeline.get_many("p", "none").set_many({"x": 1}).delete("x").command("STRLEN", "p").set("q", 1, expire_at=tomorrow)
    first, ttl, *rest = pipeline.execute()
    assert first is True
    assert 90 < ttl <= 100
    assert rest == [True, NEVER, None, True, False, 2, [b"v", None], True, 1, 1, True]
    results = client.pipeline().set("text", "a").increment("text").get("text").execute(raise_errors=False)
    assert isinstance(results.pop(1), RequestError)
    assert results == [True, b"a"]
    big = client.pipeline()
    for number in range(11_000):
        big.increment("sum", number)
    assert big.execute()[-1] == sum(range(11_000))


def test_status_names_the_leader(client: Client) -> None:
    status = client.status()
    assert status.leader in {member.name for member in status.members}


async def test_the_client_for_asyncio_has_the_same_methods() -> None:
    async with AsyncClient(ADDRESSES.split(","), database=2) as client:
        await client.execute("FLUSHDB")
        assert await client.set("k", "v", ttl=10)
        assert await client.get_many("k", "none") == [b"v", None]
        assert [entry.key async for entry in client.scan()] == [b"k"]
        assert await client.pipeline().increment("n").get("k").execute() == [1, b"v"]
        assert (await client.status()).leader
        assert {name for name in dir(Client) if name[0] != "_"} == {name for name in dir(client) if name[0] != "_"}
