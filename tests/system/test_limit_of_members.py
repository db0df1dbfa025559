"""maxmemory in a cluster: no member can be given another limit than the rest, and a new leader has the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, store

LIMIT = 6 * 1024 * 1024


def limit_of(node: ClusterNode) -> str:
    client: Any = node.client()
    return str(client.config_get("maxmemory")["maxmemory"])


def is_full_after(node: ClusterNode, writes_max: int) -> bool:
    """Tell whether a node refuses one of some writes of 100 KB for want of memory."""
    client = node.client()
    try:
        for number in range(writes_max):
            store(client, f"{node.name}:{number}", bytes(100_000))
    except redis.exceptions.OutOfMemoryError:
        return True
    return False


def test_the_limit_is_changed_by_the_settings_of_every_node_and_outlives_its_leader(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, "--fsync", "os") as cluster:
        for node in cluster.nodes.values():
            client: Any = node.client()
            with pytest.raises(redis.ResponseError, match="change the setting of every node"):
                client.config_set("maxmemory", LIMIT)
            with pytest.raises(redis.ResponseError, match="change the setting of every node"):
                client.config_set("maxmemory-policy", "allkeys-lru")
            assert client.config_set("maxmemory", 0)
        last = cluster.leader()
        for node in [*cluster.followers(), last]:
            assert node.stop() == 0
            node.environment["REDAN_MAXMEMORY"] = str(LIMIT)
            node.start()
            cluster.leader()
        assert {limit_of(node) for node in cluster.nodes.values()} == {str(LIMIT)}
        writer = cluster.followers()[0]
        assert is_full_after(writer, 100)
        cluster.until_all_applied()
        cluster.leader().kill()
        leader = cluster.leader()
        assert limit_of(leader) == str(LIMIT)
        assert [is_full_after(node, 10) for node in cluster.running()] == [True, True]
        assert leader.client().get(f"{writer.name}:0") == bytes(100_000)
