"""Faults that take bytes which were durable: they happen, are found, and nothing is lost by them."""

from __future__ import annotations

import pytest

from kvservice.simulation.world import Conditions, World

SPOILING = ("rot", "lost write", "misdirected write", "wipe")


@pytest.mark.parametrize("kind", SPOILING)
def test_what_a_disk_has_lost_is_found_and_comes_back_from_the_others(kind: str) -> None:
    happened = quarantines = 0
    for seed in range(3):
        world = World(seed, Conditions(3, (kind,), 1_000_000, 200_000))
        world.run(120)
        happened += world.counts[kind]
        quarantines += world.counts["quarantines"]
    assert happened > 10
    assert quarantines > 10
