"""Each client, and each language's bare stub, writes while the leader of three real nodes is killed or stands still."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from clients.tests.soaks import PIPED, Soak, skip_without, soaks
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses

SOME = 30
"""Writes of each kind before the kill, and after it."""


def assert_all_there(soak: Soak, node: ClusterNode) -> None:
    """Check that a node has what a client was told: no acknowledged write missing, no increment twice."""
    assert soak.failures() == []
    client = node.client()
    keys = soak.keys()
    assert client.mget(keys) == [key.rpartition(":")[2].encode() for key in keys]
    # Nobody else writes these counters: an increment that ran twice would leave a number out.
    for kind, counter, in_flight in (("incr", "counter", 1), ("pipe", "piped", PIPED)):
        values = soak.values(kind)
        assert values[0] == 1
        assert [(one, other) for one, other in pairwise(values) if other != one + 1] == []
        assert values[-1] <= int(client.get(f"{soak.name}:{counter}") or 0) <= values[-1] + in_flight


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("who", "how"), [("clients", "killed"), ("clients", "paused"), ("bare stubs", "killed")])
def test_no_acknowledged_write_is_missing_and_no_increment_runs_twice(tmp_path: Path, who: str, how: str) -> None:
    skip_without("go", "node")
    with ClusterProcesses(tmp_path, 3) as cluster:
        addresses = [node.grpc_endpoint for node in cluster.nodes.values()]
        with soaks(addresses, tmp_path, bare=who == "bare stubs") as running:
            for soak in running:
                soak.wait_for(SOME)
            leader = cluster.leader()
            if how == "killed":
                leader.kill()
            else:
                leader.pause()
            for soak in running:
                soak.wait_for(SOME)
        if how == "killed":
            leader.start()
        else:
            leader.resume()
        cluster.until_all_applied()
        for node in cluster.running():
            for soak in running:
                assert_all_there(soak, node)
