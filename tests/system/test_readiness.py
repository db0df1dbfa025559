"""A real node that comes back far behind: clients are sent to it only once it is near its leader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvservice.cluster.readiness import LAG_ENTRIES_MAX
from tests.harness.cluster_processes import ClusterProcesses, missing, store
from tests.harness.process import readyz


@pytest.mark.timeout(300)
def test_a_node_that_was_away_for_long_is_ready_when_it_is_near_its_leader_and_not_before(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, "--fsync", "os") as cluster:
        away = cluster.followers()[0]
        away.kill()
        leader = cluster.leader()
        before = leader.status().commit_index
        keys = [f"k{number}" for number in range(LAG_ENTRIES_MAX + 200)]
        client = leader.client()
        for key in keys:
            store(client, key, "1")
        # Whoever leads from here on knows that all of it is committed.
        cluster.until_all_applied()
        committed = cluster.leader().status().commit_index
        assert committed - before >= len(keys), "each write is an entry of its own"

        away.launch()
        seen: list[Any] = []

        def is_ready() -> bool:
            away.read_addresses()
            if "grpc" not in away.addresses:
                return False
            seen.append(away.status())
            return not seen[-1].not_ready

        cluster.until(is_ready, "the node to be ready")
        # Nothing was written since: it had to come that near by itself, and nobody waits for it to come nearer.
        assert seen[-1].applied_index >= committed - LAG_ENTRIES_MAX
        for state in seen:
            assert set(state.not_ready) <= {"loading", "no leader", "catching up", "loading a snapshot"}
        away.wait_until_ready()
        cluster.until_all_applied()
        assert readyz(away)[0] == 200
        assert missing(away, keys) == []
