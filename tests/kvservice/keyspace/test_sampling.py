"""Draws are fair, and what is drawn is there."""

from __future__ import annotations

import random
from collections import Counter

from kvservice.keyspace.sampling import WALK_MAX, Sampler, draw_key
from tests.harness.inprocess import InProcess

DRAWS = 20_000


def test_every_key_is_drawn_as_often_whether_its_slot_is_full_or_not(ours: InProcess) -> None:
    for number in range(300):
        ours.run(b"SET", b"{tag}%d" % number, b"1")
        ours.run(b"SET", b"key:%d" % number, b"1")
    sampler = Sampler(random.Random(1).random)
    drawn = Counter(sampler.draw(ours.databases[0].values) for _ in range(DRAWS))
    tagged = sum(count for key, count in drawn.items() if key is not None and key.startswith(b"{tag}"))
    assert len(drawn) == 600
    assert 0.47 < tagged / DRAWS < 0.53


def test_only_keys_that_are_still_there_are_drawn(ours: InProcess) -> None:
    values = ours.databases[0].values
    sampler, chance = Sampler(random.Random(2).random), random.Random(3)
    assert sampler.draw(values) is None
    keys = [b"key:%d" % number for number in range(500)]
    for key in keys:
        ours.run(b"SET", key, b"1")
    values = ours.databases[0].values
    while keys:
        for _ in range(5):
            assert sampler.draw(values) in keys
            assert draw_key(values, chance.randrange) in keys
        ours.run(b"DEL", keys.pop(chance.randrange(len(keys))))
    assert sampler.draw(values) is None
    assert draw_key(values, chance.randrange) is None


def test_a_slot_of_very_many_keys_is_drawn_from_at_both_ends(ours: InProcess) -> None:
    count = 3 * WALK_MAX
    for number in range(count):
        ours.databases[0].set(b"{tag}%d" % number, 1)
    sampler = Sampler(random.Random(4).random)
    drawn = [int((sampler.draw(ours.databases[0].values) or b"")[5:]) for _ in range(DRAWS)]
    assert min(drawn) < 100
    assert max(drawn) > count - 100
    assert not any(WALK_MAX <= number < count - WALK_MAX for number in drawn)
