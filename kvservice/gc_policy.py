"""Garbage collection of a process that holds millions of keys.

Strings, integers and the slots' dicts of them hold no reference that could form a cycle; CPython stops tracking such
dicts by itself. What remains is kept out of the collector's way, so that a full collection stays below a millisecond.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_THRESHOLD: Final = 50_000
"""Allocations between collections of the young generation: one turn of the loop makes thousands of short lists."""


def suspend() -> None:
    """Collect nothing while a data set is loaded: all of it is there to stay."""
    gc.disable()


def settle() -> None:
    """Leave everything that is alive now out of later collections; call when start-up is over."""
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD, 50, 100)
    gc.enable()
