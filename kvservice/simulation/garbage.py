"""When the interpreter looks for garbage: after so many lives of nodes, and not by the number of objects made.

A run makes tens of thousands of objects for each node that starts, nearly all of which live as long as it does: to go
through them again and again costs a twentieth of a run. What an ended process holds most of is let go by
`Process.end`; what is left, since it refers to itself, waits here.

Guarantees: within `collecting_rarely` there is no collection but by `Garbage.after`; behind it all is as it was before.
Leaves to the caller: saying how many lives have ended, now and then.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LIVES_MAX: Final = 100
"""Lives after which garbage is collected: some 30 MiB, and a hundredth of the time that they took."""


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Let the interpreter collect nothing by itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Garbage:
    """Counts what one run leaves behind."""

    def __init__(self) -> None:
        self._collected = 0
        """Lives begun before the last collection."""

    def after(self, lives: int) -> None:
        """Collect what is left of so many lives since the run began, if that is much."""
        if lives - self._collected >= LIVES_MAX and not gc.isenabled():
            self._collected = lives
            gc.collect()
