"""Real processes are talked to over TCP and answer as a real redis-server does: a node alone, and one that follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.harness.cluster_processes import ClusterProcesses
from tests.harness.oracle import REDIS_SERVER, Connection, Oracle
from tests.harness.process import NodeProcess
from tests.harness.scripts import SCRIPTS, replies_to, steps_of
from tests.kvservice.commands.comparison import Comparison
from tests.kvservice.commands.strategies import ARGUMENTS, pool_of, stores

CONVERSATIONS = 100
CALLS = 60
CALM = ("--fsync", "os", "--election-timeout-ms", "2000")
"""A machine that is busy with other tests brings about no election, which would make a write UNKNOWN."""


@pytest.fixture(scope="module", params=["alone", "follower"])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    folder = tmp_path_factory.mktemp("nodes")
    if request.param == "alone":
        with NodeProcess(folder, "--fsync", "os") as node, node.connect() as peer:
            yield Connection(peer)
        return
    with ClusterProcesses(folder, 3, *CALM) as cluster, cluster.followers()[0].connect() as peer:
        yield Connection(peer)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_node_follows_the_script(connection: Connection, path: Path) -> None:
    steps = steps_of(path.read_text())
    for step, reply in zip(steps, replies_to(steps, connection), strict=True):
        assert reply == step.expected, f"{path.name}:{step.line_number}"


def test_a_node_answers_pipelines_as_redis_does(connection: Connection) -> None:
    if REDIS_SERVER is None:
        pytest.skip("redis-server is not installed, so there is nothing to compare with")
    chance = Random(1)
    calls = [call for name in sorted(ARGUMENTS) for call in pool_of(name)]
    with Oracle() as oracle:
        comparison = Comparison(connection, oracle)
        for _ in range(CONVERSATIONS):
            conversation = [chance.choice(stores()) for _ in range(6)]
            conversation += [chance.choice(chance.choice((calls, calls, calls, stores()))) for _ in range(CALLS)]
            comparison.check(conversation)
