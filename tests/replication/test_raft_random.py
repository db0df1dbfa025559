"""The core under random schedules: safety while anything may fail, agreement once nothing fails any more."""

from __future__ import annotations

import pytest

from tests.harness.raft_schedule import SETTINGS, Schedule

STEPS = 1500
SEEDS = range(10)
"""Some seconds in all; the simulator has the hours."""


@pytest.mark.parametrize("seed", SEEDS)
def test_three_voters_agree_whatever_is_lost_and_whoever_crashes(seed: int) -> None:
    schedule = Schedule(seed, 3)
    schedule.run(STEPS)
    schedule.heal()


@pytest.mark.parametrize("seed", SEEDS)
def test_five_voters_agree_whatever_is_lost_and_whoever_crashes(seed: int) -> None:
    schedule = Schedule(seed, 5)
    schedule.run(STEPS)
    schedule.heal()


@pytest.mark.parametrize("seed", SEEDS)
def test_members_that_come_and_go_change_nothing_that_is_committed(seed: int) -> None:
    schedule = Schedule(seed, 3, changes=True)
    schedule.run(STEPS)
    schedule.heal()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("voters", [3, 5])
def test_a_lost_disk_loses_nothing_that_is_committed(seed: int, voters: int) -> None:
    schedule = Schedule(seed, voters, losses=True)
    schedule.run(STEPS)
    schedule.heal()


@pytest.mark.parametrize("seed", SEEDS)
def test_safety_rests_on_neither_pre_vote_nor_check_quorum(seed: int) -> None:
    schedule = Schedule(seed, 3, settings=SETTINGS._replace(pre_vote=False, check_quorum=False))
    schedule.run(STEPS)
    schedule.heal()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_single_voter_grows_into_a_group(seed: int) -> None:
    schedule = Schedule(seed, 1, changes=True)
    schedule.run(STEPS)
    schedule.heal()
