"""The simulator finds every bug that is planted; how soon is printed, and written to build/planted_bugs.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvservice.simulation.report import simulate
from kvservice.simulation.world import ANY
from tests.simulation.planted_bugs import FIRST_SEED, PLANTED_BUGS, WHERE, catch, line_of, summary

SEEDS_MAX = 60
SECONDS = 30.0
REPORT = Path("build/planted_bugs.txt")


def seeds_for(name: str) -> range:
    first = FIRST_SEED.get(name, 0)
    return range(first, first + SEEDS_MAX)


@pytest.mark.timeout(600)
def test_the_simulator_finds_every_planted_bug() -> None:
    all_caught = [catch(name, seeds_for(name), SECONDS) for name in PLANTED_BUGS]
    lines = [*map(line_of, all_caught), summary(all_caught)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines))
    assert len(PLANTED_BUGS) >= 25
    assert [caught.name for caught in all_caught if caught.failure is None] == []
    for seed, conditions in dict.fromkeys((caught.seed, WHERE.get(caught.name, ANY)) for caught in all_caught):
        report = simulate(seed, SECONDS, conditions)
        assert report.failure is None, f"without a bug, seed {seed}, {conditions}: {report.failure.reason}"


def test_conditions_are_of_bugs_that_there_are() -> None:
    assert set(WHERE) | set(FIRST_SEED) <= set(PLANTED_BUGS)
