"""Faults that take bytes which were durable: they happen, are found, and nothing is lost by them. Partitions end."""

from __future__ import annotations

from itertools import permutations

import pytest

from kvservice.simulation.faults import partition
from kvservice.simulation.world import Conditions, World

PARTITION_US_MAX = 10_000_000
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


def test_the_end_of_a_partition_opens_no_link_that_was_cut_since() -> None:
    world = World(1, Conditions(3))
    names = sorted(world.hosts)
    links = [world.network.connection(one, other) for one, other in permutations(names, 2)]
    for heals in (False, True):
        assert partition(world)
        if heals:
            world.network.heal()
        for link in links:
            world.network.cut(link.sender, link.receiver)
        world.clock.run_until(world.clock.now_us + PARTITION_US_MAX)
        assert all(link.cut for link in links) is heals
