"""Majorities, against a second definition that counts thresholds, and one that tries every possible subset."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from replication.core.quorum import VoteResult, committed_index, is_granted, vote_result

NAMES = "abcdefghi"
ROUNDS = 50_000
SUBSET_ROUNDS = 1_000


def chosen(chance: random.Random, count_min: int) -> list[str]:
    """Return random voters in random order."""
    return chance.sample(NAMES, chance.randint(count_min, len(NAMES)))


def counted_committed_index(voters: list[str], match: dict[str, int]) -> int:
    """Return the highest index found by going down from the top and counting who holds it."""
    for index in range(max(match.values(), default=0), 0, -1):
        if sum(match.get(voter, 0) >= index for voter in voters) * 2 > len(voters):
            return index
    return 0


def counted_result(voters: list[str], votes: dict[str, bool]) -> VoteResult:
    """Judge by asking what the best and the worst end of the election would be."""
    at_best = sum(votes.get(voter, True) for voter in voters) * 2 > len(voters)
    at_worst = sum(votes.get(voter, False) for voter in voters) * 2 > len(voters)
    if at_best != at_worst:
        return VoteResult.PENDING
    return VoteResult.WON if at_best else VoteResult.LOST


def majorities(voters: list[str]) -> list[set[str]]:
    """Return every set of voters that is more than half of them."""
    return [set(some) for count in range(len(voters) // 2 + 1, len(voters) + 1) for some in combinations(voters, count)]


def test_the_committed_index_is_the_one_found_by_counting_from_the_top() -> None:
    chance = random.Random(7)
    for _ in range(ROUNDS):
        voters, outgoing = chosen(chance, 1), chosen(chance, 0) if chance.random() < 0.5 else []
        match = {name: chance.randint(0, 6) for name in chosen(chance, 0)}
        expected = counted_committed_index(voters, match)
        if outgoing:
            expected = min(expected, counted_committed_index(outgoing, match))
        assert committed_index(voters, match, outgoing) == expected, (voters, outgoing, match)


def test_an_election_is_judged_as_its_best_and_worst_end_say() -> None:
    chance = random.Random(8)
    seen = set()
    for _ in range(ROUNDS):
        voters, outgoing = chosen(chance, 1), chosen(chance, 0) if chance.random() < 0.5 else []
        votes = {name: chance.random() < 0.6 for name in chosen(chance, 0)}
        results = {counted_result(voters, votes)} | ({counted_result(outgoing, votes)} if outgoing else set())
        expected = next(result for result in (VoteResult.LOST, VoteResult.PENDING, VoteResult.WON) if result in results)
        granted = {name for name, vote in votes.items() if vote}
        assert vote_result(voters, votes, outgoing) is expected, (voters, outgoing, votes)
        assert is_granted(voters, granted, outgoing) is (expected is VoteResult.WON), (voters, outgoing, votes)
        seen.add(expected)
    assert seen == set(VoteResult)


def test_the_committed_index_is_what_some_majority_holds_whole() -> None:
    chance = random.Random(9)
    for _ in range(SUBSET_ROUNDS):
        voters = chosen(chance, 1)
        match = {name: chance.randint(0, 6) for name in chosen(chance, 0)}
        expected = max(min(match.get(voter, 0) for voter in majority) for majority in majorities(voters))
        assert committed_index(voters, match) == expected, (voters, match)


def test_an_election_is_won_when_some_majority_granted_it() -> None:
    chance = random.Random(10)
    for _ in range(SUBSET_ROUNDS):
        voters, granted = chosen(chance, 1), set(chosen(chance, 0))
        assert is_granted(voters, granted) is any(some <= granted for some in majorities(voters)), (voters, granted)


def test_two_joint_decisions_always_share_a_voter_of_both_sets() -> None:
    chance = random.Random(11)
    for _ in range(SUBSET_ROUNDS):
        voters, outgoing = chosen(chance, 1), chosen(chance, 1)
        first, second = set(chosen(chance, 1)), set(chosen(chance, 1))
        if is_granted(voters, first, outgoing) and is_granted(voters, second, outgoing):
            assert first & second & set(voters)
            assert first & second & set(outgoing)


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_majority_is_more_than_half(count: int, needed: int) -> None:
    voters = list(NAMES[:count])
    assert not is_granted(voters, set(voters[: needed - 1]))
    assert is_granted(voters, set(voters[:needed]))
    assert committed_index(voters, dict.fromkeys(voters[: needed - 1], 9)) == 0
    assert committed_index(voters, dict.fromkeys(voters[:needed], 9)) == 9


def test_no_voters_decide_nothing() -> None:
    assert committed_index((), {"a": 9}) == 0
    assert not is_granted((), {"a"})
    assert vote_result((), {"a": True}) is not VoteResult.WON
