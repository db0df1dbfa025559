"""What goes into the consensus core and what comes out of it.

Guarantees: immutable values; no behaviour.
Reference: Raft thesis, figure 3.1; the Ready batch of the etcd raft library.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class EntryKind(IntEnum):
    """What an entry's payload is."""

    NOOP = 0
    """Empty: proposed at the start of a term, and to move time."""
    COMMANDS = 1
    """RESP arrays of commands; SELECT sets the database of those that follow, 0 at the start of an entry."""
    CONFIGURATION = 2
    """A membership change."""


class Entry(NamedTuple):
    """One record of the replicated log."""

    term: int
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    kind: int
    stamp_ms: int
    payload: bytes


class HardState(NamedTuple):
    """What must be durable before any message that depends on it: the term, and for whom this node voted in it."""

    term: int
    vote: str


class Ready(NamedTuple):
    """Work for the driver, in this order: make ``hard_state`` and ``entries`` durable, then call ``persisted``."""

    hard_state: HardState | None
    entries: list[Entry]
