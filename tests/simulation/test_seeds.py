"""Whole clusters under faults of every kind: seeds that never change, those that failed once, and what a seed means."""

from __future__ import annotations

from pathlib import Path

import pytest

import replication.node
from kvservice.simulation import process
from kvservice.simulation.report import simulate, total_line
from kvservice.simulation.world import ANY, DRIFT, Conditions, World
from replication.leased_node import LeasedNode
from tests.simulation.planted_bugs import CROWD, LEASED

SEEDS = range(1, 31)
SECONDS = 120.0
GROUPS = 6


def failed_seeds() -> list[tuple[int, float, str]]:
    lines = (Path(__file__).parent / "failed_seeds.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(maxsplit=2) for line in lines if line and not line.startswith("#")]
    return [(int(seed), float(seconds), why) for seed, seconds, why in rows]


@pytest.mark.parametrize("group", range(GROUPS))
def test_nothing_goes_wrong_whatever_fails(group: int) -> None:
    reports = [simulate(seed, SECONDS) for seed in SEEDS if seed % GROUPS == group]
    for report in reports:
        assert report.failure is None, f"{report.line()}\n{report.failure.reason}\n{report.failure.detail}"
        assert report.undecided == 0
    assert sum(report.acknowledged for report in reports) > 100, total_line(reports)
    assert sum(sum(report.faults.values()) for report in reports) > 50, total_line(reports)


@pytest.mark.parametrize(("seed", "seconds", "why"), failed_seeds(), ids=lambda value: str(value)[:40])
def test_a_seed_that_failed_once_does_not_fail_again(seed: int, seconds: float, why: str) -> None:
    report = simulate(seed, seconds)
    assert report.failure is None, f"{why}, once. Now: {report.failure.reason}\n{report.failure.detail}"


def trace_of(seed: int, conditions: Conditions = ANY) -> tuple[list[str], int, int]:
    world = World(seed, conditions)
    world.run(40)
    return world.events(), world.network.sent, world.ledger.acknowledged


def test_a_seed_says_all_that_happens() -> None:
    assert trace_of(3) == trace_of(3)
    assert trace_of(3) != trace_of(4)


@pytest.mark.parametrize("conditions", [CROWD, LEASED], ids=["crowd", "leased"])
def test_ticks_that_are_slept_through_change_nothing(conditions: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = [trace_of(seed, conditions) for seed in range(3)]
    monkeypatch.setattr(process, "idle_ticks", lambda _node: 0)
    assert [trace_of(seed, conditions) for seed in range(3)] == slept


def test_followers_acknowledge_before_they_apply_in_some_runs_and_never_in_others() -> None:
    assert min(World(seed).large_bytes for seed in SEEDS) == 0
    assert max(World(seed).large_bytes for seed in SEEDS) == replication.node.LARGE_BYTES


def test_reads_rest_on_leases_in_some_runs_and_on_rounds_in_the_others() -> None:
    assert {World(seed).settings.read_lease for seed in range(60)} == {True, False}
    world = World(1, LEASED)
    world.run(20)
    assert {type(host.process.node) for host in world.hosts.values() if host.process is not None} == {LeasedNode}
    assert max(abs(host.drift - 1.0) for host in world.hosts.values()) > DRIFT
