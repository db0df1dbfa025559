"""maxmemory on a real node: the limit holds under pipelined writes, and what was evicted is gone after a crash too."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.harness.process import NodeProcess

LIMIT = 16 * 1024 * 1024
BATCH = 2_000


def client_of(node: NodeProcess) -> redis.Redis:
    return redis.Redis(port=node.addresses["resp"][1])


def write(client: redis.Redis, first: int, count: int, keep_warm: list[str]) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(first, first + count):
        pipeline.set(f"key:{number}", bytes(100))
    for name in keep_warm:
        pipeline.get(name)
    pipeline.execute()


def test_the_limit_holds_hot_keys_stay_and_a_crash_changes_nothing(tmp_path: Path) -> None:
    options = ("--fsync", "os", "--maxmemory", str(LIMIT), "--maxmemory-policy", "allkeys-lru")
    hot = [f"hot:{number}" for number in range(200)]
    with NodeProcess(tmp_path, *options) as node:
        client = client_of(node)
        for name in hot:
            client.set(name, "value")
        used = []
        for batch in range(40):
            write(client, batch * BATCH, BATCH, hot)
            used.append(int(client.info("memory")["used_memory"]))
        # One chunk of writes may be proposed before the next looks at the limit.
        assert max(used) < 1.15 * LIMIT
        assert client.info("stats")["evicted_keys"] > 10_000
        assert client.exists(*hot) == len(hot)
        # A command of the log: evictions under way are applied before it.
        client.config_set("maxmemory-policy", "noeviction")
        client.delete("nothing")
        left = set(client.keys("*"))
        node.kill()
        node.start()
        # The node may evict again, with the policy that it was started with.
        found = set(client_of(node).keys("*"))
        assert found <= left
        assert len(found) > 0.8 * len(left)


def test_without_a_policy_writes_are_refused_and_reads_and_removals_are_not(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--fsync", "os", "--maxmemory", str(LIMIT)) as node:
        client = client_of(node)
        with pytest.raises(redis.ResponseError, match="used memory > 'maxmemory'"):
            write(client, 0, 60 * BATCH, [])
        assert client.get("key:0") == bytes(100)
        assert client.exists("key:1") == 1
        # Removing is allowed, and makes room.
        client.flushall()
        write(client, 0, 10, [])


def test_idle_time_and_frequency_are_told(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--fsync", "os", "--maxmemory-policy", "allkeys-lfu") as node:
        client = client_of(node)
        client.set("hot", "1")
        client.set("cold", "1")
        for _ in range(300):
            client.get("hot")
        frequencies = [client.object("freq", name) for name in ("hot", "cold", "cold", "cold", "cold")]
        assert frequencies[0] > frequencies[1]
        # Asking is not using.
        assert len(set(frequencies[1:])) == 1
        client.config_set("maxmemory-policy", "noeviction")
        assert client.object("idletime", "hot") == 0
