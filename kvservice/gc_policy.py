"""Garbage collection of a process that holds millions of keys.

Strings, integers and the slots' dicts of them hold no reference that could form a cycle; CPython stops tracking such
dicts by itself. What remains is kept out of the collector's way, so that a full collection stays below a millisecond.

Each call of grpc.aio leaves a cycle, of a closure in its search for the handler that names itself. With a young
generation of 50,000 they were collected 36,000 objects at a time, every 12,000 calls, and that took 27 to 110 ms, on
all nodes of a cluster at once.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_THRESHOLD: Final = 4_000
"""Allocations between collections of the young generation. One turn of the loop makes thousands of short lists, which
are looked at in vain; what calls of gRPC leave, some thousand objects, takes a few ms."""
MIDDLE_THRESHOLD: Final = 20
"""Collections of the young between those of what survived one."""
FULL_THRESHOLD: Final = 100
"""The same of these, between full ones."""


def suspend() -> None:
    """Collect nothing while a data set is loaded: all of it is there to stay."""
    gc.disable()


def settle() -> None:
    """Leave everything that is alive now out of later collections; call when start-up is over."""
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, MIDDLE_THRESHOLD, FULL_THRESHOLD)
    gc.enable()
