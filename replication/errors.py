"""What a proposal, a read or a change of members may be told. The service translates these into the client's errors.

Tree, sorted by what the caller may conclude::

    ReplicationError
    ├── NotLeading       nothing was appended: this node does not lead (any more)
    ├── Overloaded       nothing was appended: too much waits for a majority already
    ├── Stopped          nothing was appended: this node stops
    ├── NotApplied       it was appended, but another entry took its place: it is certain that it was never applied
    └── OutcomeUnknown   it was appended, and may or may not be applied
"""

from __future__ import annotations


class ReplicationError(Exception):
    """Base of this package's errors."""


class NotLeading(ReplicationError):
    """This node does not lead; ``leader`` names who does, if known."""

    def __init__(self, leader: str | None) -> None:
        self.leader = leader
        super().__init__(f"not the leader (leader: {leader or 'unknown'})")


class Overloaded(ReplicationError):
    """More bytes than allowed were proposed and are not committed."""


class Stopped(ReplicationError):
    """The node is stopping or its disk has failed."""


class NotApplied(ReplicationError):
    """The entry lost its place in the log to one of another leader."""

    def __init__(self, index: int, term: int) -> None:
        super().__init__(f"the entry {index} of term {term} was replaced before it was committed")


class OutcomeUnknown(ReplicationError):
    """The entry's fate was not learnt: leadership was lost, and time or a snapshot went over it."""

    def __init__(self, index: int, term: int, reason: str) -> None:
        super().__init__(f"whether the entry {index} of term {term} was applied is unknown: {reason}")
