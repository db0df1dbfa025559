"""Real clusters under load, through one failover after another: no wrong answer, no acknowledged write lost, one state.

Clients write and read through all nodes all the time (tests/harness/history). Of every trial the histories are judged
for linearizability, what was acknowledged must be there once, and the nodes must end in the same state.
TEST_FAILOVERS sets how many failovers all trials together go through at least; without it, each goes through its list
once. A history that is wrong is kept in build/histories, and so are the logs of the nodes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from kvservice.simulation.rules import RuleBroken
from tests.harness.cluster_processes import ClusterProcesses
from tests.harness.failovers import (
    SMALL,
    Trial,
    damage_log,
    fill_disk,
    isolate,
    kill,
    kill_in_promotion,
    lose_disk,
    pause,
    remove,
    split,
    stop_in_order,
    transfer,
)
from tests.harness.history import KEPT, Entries, Load
from tests.harness.links import NamespaceCluster, has_namespaces
from tests.harness.oracle import REDIS_SERVER, Oracle
from tests.harness.relays import RelayCluster
from tests.harness.small_disk import needs_mount, small_disk
from tests.harness.storm import Storm

IN_A_ROUND: Final = {"three": 6, "links": 3, "relays": 3, "five": 4, "storm": 1, "full": 1}
"""Failovers of each trial when it goes through its list once."""
STORM_STEPS: Final = 6
"""In a round; nobody counts the failovers that they bring."""
ROUNDS: Final = max(1, -(-int(os.environ.get("TEST_FAILOVERS", "0")) // sum(IN_A_ROUND.values())))
SEED: Final = int(os.environ.get("TEST_FAILOVER_SEED", "1"))

pytestmark = pytest.mark.timeout(60 + 60 * ROUNDS)


Step = Callable[[], object]


def in_rounds(*steps: Step) -> Iterator[Step]:
    """Yield all steps, each once a round, in another order each round after the first."""
    random = Random(SEED)
    for number in range(ROUNDS):
        yield from random.sample(steps, len(steps)) if number else steps


def test_three_nodes_outlive_leaders_that_die_stall_end_or_lose_their_disk(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path, 3, *SMALL)
    with Trial("three", cluster, SEED) as trial:
        for step in in_rounds(
            lambda: trial.fail_over("killed", kill),
            lambda: trial.disturb("killed", kill),
            lambda: trial.fail_over("paused", pause),
            lambda: trial.disturb("paused", pause),
            lambda: trial.fail_over("log damaged", damage_log(trial)),
            lambda: trial.fail_over("disk lost", lose_disk(cluster)),
            lambda: trial.fail_over("stopped", stop_in_order),
            lambda: trial.fail_over("handed over", transfer(cluster)),
        ):
            step()
        trial.conclude(ROUNDS * IN_A_ROUND["three"])


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="needs root and ip(8) to make network namespaces")


@needs_namespaces
def test_three_nodes_outlive_cut_links_both_ways_and_one_way(tmp_path: Path) -> None:
    go_through_cut_links("links", NamespaceCluster(tmp_path, 3, *SMALL))


def test_three_nodes_that_read_by_lease_outlive_relays_that_pass_nothing_on_for_a_while(tmp_path: Path) -> None:
    go_through_cut_links("relays", RelayCluster(tmp_path, 3, *SMALL, "--read-mode", "lease"))


def go_through_cut_links(name: str, cluster: NamespaceCluster | RelayCluster) -> None:
    with Trial(name, cluster, SEED) as trial:
        for step in in_rounds(
            lambda: trial.fail_over("cut off", isolate(cluster.links, cluster)),
            lambda: trial.disturb("cut off", isolate(cluster.links, cluster)),
            lambda: trial.fail_over("mute", isolate(cluster.links, cluster, hears=True)),
            lambda: trial.fail_over("deaf", isolate(cluster.links, cluster, is_heard=True)),
        ):
            step()
        trial.conclude(ROUNDS * IN_A_ROUND[name])


def test_five_nodes_outlive_two_at_a_time_and_change_their_members_meanwhile(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path, 5, *SMALL)
    random = Random(SEED)
    with Trial("five", cluster, SEED) as trial:
        for number in range(ROUNDS):
            down = trial.followers()[0]
            down.kill()
            trial.fail_over("killed beside a dead follower", kill)
            trial.start(down)
            name = f"n{number + 6}"
            trial.start(trial.joining(name))
            trial.fail_over("killed while it promotes", kill_in_promotion(name, random))
            cluster.ctl("promote", name)
            trial.fail_over("removed", remove(cluster))
            trial.fail_over("paused", pause)
            assert len(cluster.nodes) == 5
        trial.conclude(ROUNDS * IN_A_ROUND["five"])


@needs_namespaces
def test_five_nodes_outlive_a_leader_with_a_minority_and_faults_that_begin_and_end_at_any_time(tmp_path: Path) -> None:
    cluster = NamespaceCluster(tmp_path, 5, *SMALL)
    faults = {
        "killed": kill,
        "paused": pause,
        "without its disk": lose_disk(cluster),
        "cut off": isolate(cluster.links, cluster),
        "mute": isolate(cluster.links, cluster, hears=True),
        "deaf": isolate(cluster.links, cluster, is_heard=True),
    }
    with Trial("storm", cluster, SEED) as trial:
        storm = Storm(trial, faults, Random(SEED))
        for _ in range(ROUNDS):
            trial.fail_over("split", split(cluster.links, trial))
            for _ in range(STORM_STEPS):
                storm.step()
            storm.calm()
        print(storm)
        trial.conclude(ROUNDS * IN_A_ROUND["storm"])


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
            trial.conclude(ROUNDS * IN_A_ROUND["full"])


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
