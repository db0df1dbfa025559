"""DEBUG on real nodes: digests that agree, keys made through any node, a keyspace reloaded under writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, Writer, missing
from tests.harness.process import TIMEOUT_S, NodeProcess


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path, 3, "--enable-debug-command", "local", "--fsync", "os") as running:
        yield running


def said(node: ClusterNode | NodeProcess, *command: str) -> Any:
    """Return the answer; again while nobody knows what became of a command because a leader has gone."""
    client: Any = node.client()
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return client.execute_command(*command)
        except redis.ResponseError as error:
            if not str(error).startswith("UNKNOWN") or time.monotonic() > deadline:
                raise


def test_every_member_has_the_digest_of_what_was_acknowledged_anywhere(cluster: ClusterProcesses) -> None:
    leader, followers = cluster.leader(), cluster.followers()
    digests = {said(node, "DEBUG", "DIGEST") for node in cluster.nodes.values()}
    assert digests == {b"0" * 40}
    assert said(followers[0], "DEBUG", "POPULATE", "3000", "k", "30") == b"OK"
    said(followers[1], "SET", "lasting", "1", "EX", "100000")
    for node in (*followers, leader):
        number = int(said(node, "INCR", "n"))
        # No wait: each waits by itself until it has what was committed.
        digests = {said(other, "DEBUG", "DIGEST") for other in cluster.nodes.values()}
        assert len(digests) == 1, number
    assert {said(node, "DEBUG", "DIGEST-VALUE", "k:7")[0] for node in cluster.nodes.values()} != {b"0" * 40}
    assert said(followers[0], "DBSIZE") == 3002
    assert b"encoding:embstr serializedlength:" in said(followers[1], "DEBUG", "OBJECT", "k:7")
    said(leader, "FLUSHALL")
    assert {said(node, "DEBUG", "DIGEST") for node in cluster.nodes.values()} == {b"0" * 40}


def test_members_are_reloaded_under_writes_and_nothing_acknowledged_is_missing(cluster: ClusterProcesses) -> None:
    said(cluster.leader(), "DEBUG", "POPULATE", "2000")
    with Writer(cluster) as writer:
        writer.wait_for(200)
        for node in cluster.nodes.values():
            assert said(node, "DEBUG", "RELOAD") == b"OK"
        writer.wait_for(400)
        keys = writer.stop()
    for node in cluster.nodes.values():
        assert node.has_said("keyspace_reloaded")
        assert missing(node, keys) == []
    cluster.until_all_applied()
    assert len({said(node, "DEBUG", "DIGEST") for node in cluster.nodes.values()}) == 1
    cluster.kill_all()
    for node in cluster.nodes.values():
        node.launch()
    cluster.wait_until_ready()
    assert missing(cluster.leader(), keys) == []


def test_debug_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, "--fsync", "os") as node:
        for line in ("DIGEST", "RELOAD", "POPULATE 1", "PAUSE-CRON 1"):
            with pytest.raises(redis.ResponseError, match="DEBUG command not allowed"):
                said(node, "DEBUG", *line.split())
        assert said(node, "DBSIZE") == 0
