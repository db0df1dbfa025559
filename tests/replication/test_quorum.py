"""Majorities, against a definition that tries every possible subset."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from replication.core.quorum import committed_index, is_granted

NAMES = "abcdefg"
ROUNDS = 3000


def majorities(voters: list[str]) -> list[set[str]]:
    """Return every set of voters that is more than half of them."""
    return [
        set(chosen) for count in range(len(voters) // 2 + 1, len(voters) + 1) for chosen in combinations(voters, count)
    ]


def naive_committed_index(voters: list[str], match: dict[str, int]) -> int:
    """Return the highest index that all members of some majority hold."""
    return max(min(match.get(voter, 0) for voter in majority) for majority in majorities(voters))


def test_the_committed_index_is_what_some_majority_holds_whole() -> None:
    chance = random.Random(7)
    for _ in range(ROUNDS):
        voters = chance.sample(NAMES, chance.randint(1, len(NAMES)))
        known = chance.sample(NAMES, chance.randint(0, len(NAMES)))
        match = {name: chance.randint(0, 6) for name in known}
        assert committed_index(voters, match) == naive_committed_index(voters, match), (voters, match)


def test_an_election_is_won_when_some_majority_granted_it() -> None:
    chance = random.Random(8)
    for _ in range(ROUNDS):
        voters = chance.sample(NAMES, chance.randint(1, len(NAMES)))
        granted = set(chance.sample(NAMES, chance.randint(0, len(NAMES))))
        naive = any(majority <= granted for majority in majorities(voters))
        assert is_granted(voters, granted) is naive, (voters, granted)


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_majority_is_more_than_half(count: int, needed: int) -> None:
    voters = list(NAMES[:count])
    assert not is_granted(voters, set(voters[: needed - 1]))
    assert is_granted(voters, set(voters[:needed]))
    assert committed_index(voters, dict.fromkeys(voters[: needed - 1], 9)) == 0
    assert committed_index(voters, dict.fromkeys(voters[:needed], 9)) == 9
