"""What a proposal may be told. The service translates these into the client's errors.

Tree::

    ReplicationError
    ├── NotLeading      this node does not lead: nothing was appended
    └── Stopped         the node stops: nothing was appended
"""

from __future__ import annotations


class ReplicationError(Exception):
    """Base of this package's errors; nothing was appended."""


class NotLeading(ReplicationError):
    """This node does not lead; ``leader`` names who does, if known."""

    def __init__(self, leader: str | None) -> None:
        self.leader = leader
        super().__init__(f"not the leader (leader: {leader or 'unknown'})")


class Stopped(ReplicationError):
    """The node is stopping or its disk has failed."""
