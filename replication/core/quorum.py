"""Majorities.

Reference: Raft thesis, section 3.5 (commitment).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def committed_index(voters: Iterable[str], match: Mapping[str, int]) -> int:
    """Return the highest index that a majority of ``voters`` holds durably; one missing in ``match`` holds nothing."""
    indexes = sorted((match.get(voter, 0) for voter in voters), reverse=True)
    return indexes[len(indexes) // 2]


def is_granted(voters: Iterable[str], granted: set[str]) -> bool:
    """Tell whether a majority of ``voters`` has granted its vote."""
    members = list(voters)
    return sum(voter in granted for voter in members) > len(members) // 2
