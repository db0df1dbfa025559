"""Real clusters under load, through one failover after another: no wrong answer, no acknowledged write lost, one state.

Clients write and read through all nodes all the time (tests/harness/history). Of every trial the histories are judged
for linearizability, what was acknowledged must be there once, and the nodes must end in the same state.
REDAN_FAILOVERS sets about how many failovers all trials together go through; without it, each goes through its list
once. A history that is wrong is kept in build/histories, and so are the logs of the nodes.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from random import Random
from typing import Final

import pytest

from kvservice.simulation.rules import RuleBroken
from tests.harness.cluster_processes import ClusterProcesses
from tests.harness.failovers import (
    SMALL,
    Fault,
    Trial,
    fill_disk,
    isolate,
    kill,
    lose_disk,
    pause,
    remove,
    stop_in_order,
)
from tests.harness.history import KEPT, Entries, Load
from tests.harness.links import NamespaceCluster, has_namespaces
from tests.harness.oracle import REDIS_SERVER, Oracle
from tests.harness.small_disk import needs_mount, small_disk

FAILOVERS_ONCE: Final = 14
"""Of all trials together, when each goes through its list once."""
ROUNDS: Final = max(1, round(int(os.environ.get("REDAN_FAILOVERS", "0")) / FAILOVERS_ONCE))
SEED: Final = int(os.environ.get("REDAN_FAILOVER_SEED", "1"))

pytestmark = pytest.mark.timeout(60 + 60 * ROUNDS)


def in_rounds(faults: dict[str, Fault]) -> list[tuple[str, Fault]]:
    """Return all faults, each once a round, in another order each round after the first."""
    random = Random(SEED)
    listed = list(faults.items())
    order = list(listed)
    for _ in range(ROUNDS - 1):
        random.shuffle(listed)
        order += listed
    return order


def test_three_nodes_outlive_leaders_that_die_stall_end_or_lose_their_disk(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path, 3, *SMALL)
    faults = {
        "killed": kill,
        "paused": pause,
        "killed again": kill,
        "disk lost": lose_disk(cluster),
        "stopped": stop_in_order,
    }
    with Trial("three", cluster, SEED) as trial:
        for fault in in_rounds(faults):
            trial.fail_over(*fault)
        trial.conclude()


@pytest.mark.skipif(not has_namespaces(), reason="needs root to make network namespaces")
def test_three_nodes_outlive_cut_links_both_ways_and_one_way(tmp_path: Path) -> None:
    cluster = NamespaceCluster(tmp_path, 3, *SMALL)
    faults = {
        "cut off": isolate(cluster.links, cluster),
        "mute": isolate(cluster.links, cluster, hears=True),
        "deaf": isolate(cluster.links, cluster, is_heard=True),
    }
    with Trial("links", cluster, SEED) as trial:
        for fault in in_rounds(faults):
            trial.fail_over(*fault)
        trial.conclude()


def test_five_nodes_outlive_two_at_a_time_and_change_their_members_meanwhile(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path, 5, *SMALL)
    with Trial("five", cluster, SEED) as trial:
        for number in range(ROUNDS):
            down = trial.followers()[0]
            down.kill()
            trial.fail_over("killed beside a dead follower", kill)
            trial.start(down)
            name = f"n{number + 6}"
            trial.start(trial.joining(name))
            cluster.ctl("promote", name)
            trial.fail_over("removed", remove(cluster))
            assert len(cluster.nodes) == 5
        trial.conclude()


@needs_mount
def test_three_nodes_outlive_a_leader_whose_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        cluster = ClusterProcesses(tmp_path, 3, *SMALL)
        cluster["n1"].data_dir = disk / "data"
        with Trial("full", cluster, SEED) as trial:
            for _ in range(ROUNDS):
                if trial.leader()[0].name != "n1":
                    cluster.ctl("transfer", "n1")
                trial.fail_over("disk full", fill_disk(disk))
            trial.conclude()


# -- those who judge are judged ---------------------------------------------------------------------------------------


class OneRedis:
    """A redis-server as a cluster of which the callers know nothing more."""

    def __init__(self, oracle: Oracle) -> None:
        self._path = str(Path(oracle.folder.name) / "redis.sock")

    def connect(self) -> socket.socket:
        """Return a connected socket."""
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self._path)
        return peer


needs_redis = pytest.mark.skipif(REDIS_SERVER is None, reason="needs redis-server")


@needs_redis
def test_a_server_that_keeps_everything_is_found_right() -> None:
    with Oracle() as oracle, Load("right", lambda: [OneRedis(oracle)], SEED) as load:
        load.wait_for(300)
        load.settle()
    assert load.ledger.judged > 10
    assert load.acknowledged >= 300


@needs_redis
def test_a_server_that_forgets_is_found_wrong_and_the_history_is_kept() -> None:
    with Oracle() as oracle, Load("forgets", lambda: [OneRedis(oracle)], SEED) as load:
        load.wait_for(100)
        oracle.send([[b"FLUSHALL"]])
        with pytest.raises(RuleBroken, match="build/histories/forgets-") as found:
            load.wait_for(1000)
    path = Path(str(found.value).partition("build/histories/")[2].split()[0])
    assert (KEPT / path).stat().st_size > 0


@needs_redis
def test_one_stale_answer_of_a_second_server_is_found_wrong() -> None:
    with Oracle() as oracle, Oracle() as stale, Load("stale", lambda: [OneRedis(oracle)], SEED) as load:
        load.wait_for(100)
        load.direct(lambda: [OneRedis(oracle), OneRedis(stale)])
        with pytest.raises(RuleBroken, match="build/histories/stale-"):
            load.wait_for(1000)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (b"1,2,4,", ""),
        (b"1,2,4,5,", ""),
        (b"1,5,2,4,", ""),
        (b"1,2,", "acknowledged and missing: [4]"),
        (b"1,2,2,4,", "repeated: [2]"),
        (b"1,2,3,4,", "refused and there all the same: [3]"),
        (b"2,1,4,", "out of order: [2, 1, 4]"),
    ],
)
def test_a_journal_tells_what_is_wrong_with_it(value: bytes, fault: str) -> None:
    assert Entries(acknowledged=[1, 2, 4], refused=[3]).fault_of(value, known=3) == fault
