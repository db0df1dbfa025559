"""Membership changes that somebody waits for: from the proposal to the end of the joint configuration, if there is one.

Guarantees: whoever waits is told once.
Leaves to the caller: proposing, and ending a joint configuration (the core does it by itself).
Reference: Raft thesis, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable

ChangeDone = Callable[[Exception | None], None]


class PendingChange:
    """A change that is in the log and not applied, in the place of a batch."""

    __slots__ = ("done",)

    def __init__(self, done: ChangeDone) -> None:
        self.done = done


class Changes:
    """Changes that are applied and have not come to their end."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[ChangeDone] = []

    def applied(self, batch: object | None, *, is_joint: bool) -> None:
        """Learn that a configuration was applied, with the change that was proposed here as it or None."""
        if isinstance(batch, PendingChange):
            self._waiting.append(batch.done)
        if not is_joint:
            ended, self._waiting = self._waiting, []
            for done in ended:
                done(None)
