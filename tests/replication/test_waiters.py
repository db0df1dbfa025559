"""What becomes of proposals whose leader is gone: certain where it can be, and told once."""

from __future__ import annotations

import random

from replication.core.messages import Entry, EntryKind, ReadReady
from replication.waiters import Proposals, Reads, Refusal


def entry(index: int, term: int) -> Entry:
    return Entry(term, index, EntryKind.COMMANDS, 0, b"")


def displaced(*proposals: tuple[int, int]) -> Proposals:
    """Return displaced proposals (index, term), each with its place as the batch."""
    waiting = Proposals()
    for term in sorted({term for _, term in proposals}):
        waiting.current.extend((index, term, 1, (index, term)) for index, of_term in proposals if of_term == term)
        waiting.displace(100)
    return waiting


def fates(refused: list[Refusal]) -> list[tuple[object, str]]:
    return [(refusal.batch, type(refusal.error).__name__) for refusal in refused]


def test_the_own_entry_is_given_back() -> None:
    waiting = displaced((5, 2), (6, 2))
    own, refused = waiting.settle(entry(5, 2))
    assert own is not None
    assert own[3] == (5, 2)
    assert refused == []
    assert len(waiting) == 1


def test_an_entry_before_them_of_the_same_leadership_says_nothing() -> None:
    waiting = displaced((5, 2), (6, 2))
    assert waiting.settle(entry(4, 2)) == (None, [])
    assert waiting.settle(entry(4, 1)) == (None, [])
    assert len(waiting) == 2


def test_another_entry_in_the_place_disproves_it_and_all_after_it_of_that_leadership() -> None:
    waiting = displaced((5, 2), (6, 2), (7, 2))
    own, refused = waiting.settle(entry(5, 3))
    assert own is None
    assert fates(refused) == [((5, 2), "NotApplied"), ((6, 2), "NotApplied"), ((7, 2), "NotApplied")]
    assert not waiting.are_displaced


def test_an_entry_of_a_later_term_before_them_disproves_them() -> None:
    waiting = displaced((5, 2), (6, 2), (4, 4))
    assert fates(waiting.settle(entry(3, 3))[1]) == [((5, 2), "NotApplied"), ((6, 2), "NotApplied")]
    own, refused = waiting.settle(entry(4, 4))
    assert own is not None
    assert refused == []


def test_an_older_entry_in_the_place_disproves_only_that_leadership() -> None:
    waiting = displaced((5, 2), (5, 4))
    own, refused = waiting.settle(entry(5, 2))
    assert own is not None
    assert own[3] == (5, 2)
    assert fates(refused) == [((5, 4), "NotApplied")]


def test_a_snapshot_leaves_the_outcome_open_up_to_its_index() -> None:
    waiting = displaced((5, 2), (8, 2), (9, 3))
    assert fates(waiting.passed_by_snapshot(7, 3)) == [((5, 2), "OutcomeUnknown"), ((8, 2), "NotApplied")]
    assert len(waiting) == 1


def test_time_leaves_the_outcome_open() -> None:
    waiting = displaced((5, 2))
    waiting.current.append((9, 4, 1, "later"))
    waiting.displace(200)
    assert waiting.expired(99) == []
    assert fates(waiting.expired(150)) == [((5, 2), "OutcomeUnknown")]
    assert fates(waiting.expired(200)) == [("later", "OutcomeUnknown")]


def test_whatever_log_is_applied_each_proposal_gets_the_fate_that_it_shows() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        log: list[Entry] = []
        term = 1
        for index in range(1, 30):
            term += chance.random() < 0.2
            log.append(entry(index, term))
        proposals = sorted(
            {(chance.randint(1, 32), chance.randint(1, term)) for _ in range(12)}, key=lambda place: place[::-1]
        )
        waiting = displaced(*proposals)
        outcome: dict[object, str] = {}
        for applied in log:
            if not waiting.are_displaced:
                break
            own, refused = waiting.settle(applied)
            assert own is None or own[:2] == (applied.index, applied.term)
            if own is not None:
                outcome[own[3]] = "applied"
            outcome |= dict(fates(refused))
        places = {(found.index, found.term) for found in log}
        for place in proposals:
            fate = outcome.get(place, "open")
            if place in places:
                assert fate == "applied", (seed, place)
            elif place[0] < len(log):
                assert fate == "NotApplied", (seed, place)
            else:
                assert fate in ("open", "NotApplied"), (seed, place)


def test_reads_come_in_order_each_when_its_index_is_applied() -> None:
    reads = Reads()
    numbers = [reads.add(name) for name in "abcd"]
    assert reads.take(100) == []
    reads.confirm([ReadReady(numbers[0], 5), ReadReady(numbers[1], 7)])
    assert reads.take(4) == []
    assert reads.take(5) == ["a"]
    assert reads.lose(numbers[2:]) == ["c", "d"]
    assert reads.take(7) == ["b"]
