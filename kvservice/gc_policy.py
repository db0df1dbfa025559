"""Garbage collection of a process that holds millions of keys.

Strings, integers and the slots' dicts of them hold no reference that could form a cycle; CPython stops tracking such
dicts by itself. What remains is kept out of the collector's way, so that a full collection stays below a millisecond.

Calls of grpc.aio are another matter: each leaves a cycle, of a closure in its search for the handler that names itself.
Left to the thresholds they were collected 36,000 objects at a time, every 12,000 calls, and that took 27 to 110 ms, on
all nodes of a cluster at once. So who serves calls says how many, and they are collected a few thousand at a time.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_THRESHOLD: Final = 50_000
"""Allocations between collections of the young generation: one turn of the loop makes thousands of short lists."""
MIDDLE_THRESHOLD: Final = 10
"""Collections of the young between those of what survived one; that is the calls which were running."""
FULL_THRESHOLD: Final = 500
CALLS: Final = 256
"""Calls of gRPC between collections of what they leave, a millisecond or two."""
CALLS_FOR_EACH_RUNNING: Final = 4
"""So many more for each that is running: those survive, and are looked at in vain."""


def suspend() -> None:
    """Collect nothing while a data set is loaded: all of it is there to stay."""
    gc.disable()


def settle() -> None:
    """Leave everything that is alive now out of later collections; call when start-up is over."""
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, MIDDLE_THRESHOLD, FULL_THRESHOLD)
    gc.enable()


class CallSweep:
    """Collects what calls of grpc.aio leave behind."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = CALLS

    def count(self, running: int) -> None:
        """Count a call that has begun, one of ``running``; collect after enough of them, but not during a load."""
        self._left -= 1
        if self._left <= 0:
            self._left = CALLS + CALLS_FOR_EACH_RUNNING * running
            if gc.isenabled():
                gc.collect(0)
