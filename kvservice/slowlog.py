"""The slow log: the last commands that ran longer than a threshold.

Guarantees: bounded by ``slowlog_max_len`` entries of at most 32 arguments of at most 128 bytes; no password is
    kept.
Leaves to the caller: measuring the time a command ran (not the time it waited for the disk), in microseconds.
Reference: Redis `slowlog.c`.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from kvservice.commands.table import Args
from kvservice.config import Config
from kvservice.session import Session

ARGUMENTS_MAX: Final = 32
ARGUMENT_BYTES_MAX: Final = 128
REDACTED: Final = b"(redacted)"


class SlowCommand(NamedTuple):
    """One entry."""

    number: int
    unix_s: int
    microseconds: int
    args: Args
    address: str
    name: bytes


class SlowLog:
    """The entries, newest first."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._entries: deque[SlowCommand] = deque()
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, args: Args, microseconds: int, session: Session | None) -> None:
        """Keep a command if it ran for ``slowlog_log_slower_than`` or more; ``session`` None is the node itself."""
        threshold_us = self._config.slowlog_log_slower_than
        if threshold_us < 0 or microseconds < threshold_us:
            return
        address, name = (session.address, session.name) if session is not None else ("", b"")
        entry = SlowCommand(self._next_number, int(time.time()), microseconds, trimmed(redacted(args)), address, name)
        self._next_number += 1
        self._entries.appendleft(entry)
        while len(self._entries) > self._config.slowlog_max_len:
            self._entries.pop()

    def newest(self, count: int) -> list[SlowCommand]:
        """Return up to ``count`` entries, newest first; all for -1."""
        return list(self._entries) if count < 0 else list(islice(self._entries, count))

    def clear(self) -> None:
        """Forget all entries; numbers go on, as in Redis."""
        self._entries.clear()


def redacted(args: Args) -> Args:
    """Return a command with its passwords replaced."""
    name = args[0].upper()
    if name == b"AUTH":
        return [args[0], *[REDACTED] * (len(args) - 1)]
    kept = list(args)
    upper = [arg.upper() if len(arg) < 16 else arg for arg in args]
    if name == b"HELLO" and b"AUTH" in upper:
        first = upper.index(b"AUTH") + 1
        kept[first : first + 2] = [REDACTED] * len(kept[first : first + 2])
    if name == b"CONFIG" and upper[1:2] == [b"SET"]:
        for at in range(2, len(args) - 1, 2):
            if upper[at] in (b"REQUIREPASS", b"MASTERAUTH"):
                kept[at + 1] = REDACTED
    return kept


def trimmed(args: Args) -> Args:
    """Return a command cut to the size of an entry, with the number of what is left out."""
    kept = args if len(args) <= ARGUMENTS_MAX else args[: ARGUMENTS_MAX - 1]
    cut = [
        arg
        if len(arg) <= ARGUMENT_BYTES_MAX
        else b"%b... (%d more bytes)" % (arg[:ARGUMENT_BYTES_MAX], len(arg) - ARGUMENT_BYTES_MAX)
        for arg in kept
    ]
    if len(kept) < len(args):
        cut.append(b"... (%d more arguments)" % (len(args) - len(kept)))
    return cut
