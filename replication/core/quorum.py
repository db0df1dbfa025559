"""Majorities, of one set of voters or of two at once while the membership changes.

Guarantees: pure functions of their arguments. A joint decision (``outgoing`` not empty) needs a majority of ``voters``
and a majority of ``outgoing``, each counted for itself: a node in both counts in both. No voters at all decide nothing:
index 0, no vote won.
Reference: Raft thesis, sections 3.5 (commitment) and 4.3 (joint consensus).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from enum import Enum


class VoteResult(Enum):
    """What the votes of an election say so far."""

    PENDING = "pending"
    """Neither enough granted nor enough refused."""
    WON = "won"
    LOST = "lost"
    """Some majority cannot be reached any more, whatever the missing voters say."""


def committed_index(voters: Iterable[str], match: Mapping[str, int], outgoing: Iterable[str] = ()) -> int:
    """Return the highest index that every majority needed holds durably; one missing in ``match`` holds nothing."""
    index = _index_of_majority(voters, match)
    members = tuple(outgoing)
    return min(index, _index_of_majority(members, match)) if members else index


def is_granted(voters: Iterable[str], granted: Container[str], outgoing: Iterable[str] = ()) -> bool:
    """Tell whether a majority of ``voters``, and of ``outgoing`` if there are any, is in ``granted``."""
    if not _has_majority(tuple(voters), granted):
        return False
    members = tuple(outgoing)
    return not members or _has_majority(members, granted)


def vote_result(voters: Iterable[str], votes: Mapping[str, bool], outgoing: Iterable[str] = ()) -> VoteResult:
    """Judge an election by the votes that have come in; one missing in ``votes`` has not answered."""
    results = [_result_of_majority(tuple(voters), votes)]
    if members := tuple(outgoing):
        results.append(_result_of_majority(members, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def _index_of_majority(voters: Iterable[str], match: Mapping[str, int]) -> int:
    indexes = sorted([match.get(voter, 0) for voter in voters], reverse=True)
    return indexes[len(indexes) // 2] if indexes else 0


def _has_majority(voters: Collection[str], granted: Container[str]) -> bool:
    return sum([voter in granted for voter in voters]) > len(voters) // 2


def _result_of_majority(voters: Collection[str], votes: Mapping[str, bool]) -> VoteResult:
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            continue
        if vote:
            granted += 1
        else:
            refused += 1
    needed = len(voters) // 2 + 1
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.LOST if len(voters) - refused < needed else VoteResult.PENDING
