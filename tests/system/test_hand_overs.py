"""A hand-over is no error for anybody, moves nothing out of its order and lets nobody read what is old."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.harness.cluster_processes import ClusterProcesses
from tests.harness.hand_overs import leadership_going_round
from tests.harness.oracle import REDIS_SERVER, Connection, Oracle
from tests.kvservice.commands.comparison import Comparison
from tests.kvservice.commands.strategies import ARGUMENTS, pool_of, stores

HAND_OVERS = 9
CALLS = 60
PATIENCE_S = 60
CALM = ("--fsync", "os", "--election-timeout-ms", "2000")
"""A machine that is busy with other tests brings about no election, which would make a write UNKNOWN."""


def unfinished(had_it: list[str]) -> bool:
    """Tell whether leadership has to go on going round."""
    return len(had_it) < HAND_OVERS


@pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed, so there is nothing to compare with")
def test_a_node_answers_as_redis_does_while_leadership_comes_and_goes(tmp_path: Path) -> None:
    chance = Random(2)
    calls = [call for name in sorted(ARGUMENTS) for call in pool_of(name)]
    with (
        ClusterProcesses(tmp_path, 3, *CALM) as cluster,
        Oracle() as oracle,
        cluster["n1"].connect() as peer,
        leadership_going_round(cluster) as had_it,
    ):
        comparison = Comparison(Connection(peer), oracle)
        deadline = time.monotonic() + PATIENCE_S
        while unfinished(had_it) and time.monotonic() < deadline:
            comparison.check([chance.choice(chance.choice((calls, calls, stores()))) for _ in range(CALLS)])
    assert set(had_it) == set(cluster.nodes)


@pytest.mark.parametrize("mode", ["linearizable", "lease"])
def test_a_read_on_any_node_sees_what_was_written_on_another(tmp_path: Path, mode: str) -> None:
    with ClusterProcesses(tmp_path, 3, *CALM, "--read-mode", mode) as cluster:
        clients = [node.client() for node in cluster.nodes.values()]
        with leadership_going_round(cluster) as had_it:
            deadline = time.monotonic() + PATIENCE_S
            number = 0
            while unfinished(had_it) and time.monotonic() < deadline:
                number += 1
                first = number % 3
                clients[first].set("k", number)
                seen = [clients[first - other].get("k") for other in (1, 2)]
                assert seen == [b"%d" % number] * 2
    assert set(had_it) == set(cluster.nodes)
