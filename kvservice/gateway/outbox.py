"""Replies of one turn of the event loop, written together: behind a batch of calls, or at its end as Redis does.

A write to a loopback or local client wakes it. Writing at once, for each connection in the middle of a turn, makes the
client and this process take turns on the processors; writing behind the turn wakes a client once for many replies.

Guarantees: what is put in leaves with the next turn at the latest, in order for each connection.
Leaves to the caller: flushing when nothing more is to come, writing large replies at once, and whatever must precede a
close.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol


class Writer(Protocol):
    """A connection that holds encoded replies."""

    def flush(self) -> None:
        """Hand them to the transport; harmless if there are none."""


class Outbox:
    """The connections that have something to write, at the end of this turn at the latest."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Let ``writer`` be flushed, at the end of the turn at the latest."""
        if not self._writers:
            self._call_soon(self.flush)
        self._writers.append(writer)

    def flush(self) -> None:
        """Write what is there."""
        writers, self._writers = self._writers, []
        for writer in writers:
            try:
                writer.flush()
            except Exception as error:
                # The event loop reports it. Whoever flushes has other work, which is not at fault, as have the others.
                self._call_soon(partial(_raise, error))


def _raise(error: Exception) -> None:
    raise error
