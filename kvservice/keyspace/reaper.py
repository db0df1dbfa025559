"""Frees the memory of flushed databases in slices, so that FLUSHALL of a million keys does not stall the event loop.

Guarantees: a slice frees about as many keys as asked for. Dicts that a running snapshot still holds are left to it.
Leaves to the caller: calling it until nothing is left (housekeeping).
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getrefcount
from typing import Final

from kvservice.keyspace.database import Database
from kvservice.keyspace.expiry import ExpiryIndex, Rim

SOLE_REFERENCES: Final = 3
"""What getrefcount counts for a dict that only the retired list, one local name and its own argument refer to."""


def waiting_keys(databases: Sequence[Database]) -> int:
    """Return how many keys of flushed databases are not freed yet."""
    return sum(sum(map(len, values)) for db in databases for values, _expires, _expiry in db.retired)


def reap_slice(databases: Sequence[Database], budget_keys: int) -> bool:
    """Free about ``budget_keys`` keys of flushed databases; tell whether there is more to free."""
    for db in databases:
        while db.retired and budget_keys > 0:
            budget_keys = _reap(db, budget_keys)
    return any(db.retired for db in databases)


def _reap(db: Database, budget: int) -> int:
    values, expires, expiry = db.retired[0]
    while budget > 0 and values:
        keys = values[-1]
        if len(keys) > budget and getrefcount(keys) <= SOLE_REFERENCES:
            for _ in range(budget):
                keys.popitem()
            return 0
        budget -= 1 + len(keys)
        values.pop()
    while budget > 0 and expires:
        budget -= 1 + len(expires.pop() or ())
    budget = _reap_index(expiry, budget)
    if budget > 0:
        del db.retired[0]
    return budget


def _reap_index(expiry: ExpiryIndex, budget: int) -> int:
    for rim in (expiry.near, expiry.far):
        while budget > 0 and rim.buckets:
            budget -= _reap_bucket(rim)
    return budget


def _reap_bucket(rim: Rim) -> int:
    number = next(iter(rim.full), None)
    if number is None:
        return 1 + len(rim.buckets.popitem()[1])
    chunk = rim.full[number].pop()
    if not rim.full[number]:
        del rim.full[number]
    return 1 + len(chunk)
