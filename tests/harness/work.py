"""Work counted instead of timed, so that a test of cost says the same on a busy machine.

Guarantees: the same act on the same state gives the same number. What a loop in Python does is counted at each turn,
also inside comprehensions; a call into C counts as one, however long it takes there.
Leaves to the caller: what C does to many elements at once (a copy, a search). ``CountedBuffer`` counts it for the
buffer of a parser; elsewhere the elements themselves are to be counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps_of(act: Callable[[], object]) -> int:
    """Run ``act`` and return how many lines of Python it executes and how many functions written in C it calls."""
    steps = 0

    def on_trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return on_trace

    def on_profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event == "c_call"

    traced, profiled = sys.gettrace(), sys.getprofile()
    sys.setprofile(on_profile)
    sys.settrace(on_trace)
    try:
        act()
    finally:
        sys.settrace(traced)
        sys.setprofile(profiled)
    return steps


class CountedBuffer(bytearray):
    """A buffer that counts the bytes that are searched in it and copied out of it."""

    touched = 0

    def find(self, *args: Any) -> int:
        """Search, and count the bytes up to what was found."""
        found = super().find(*args)
        start = args[1] if len(args) > 1 else 0
        end = min(args[2], len(self)) if len(args) > 2 else len(self)
        self.touched += (end if found < 0 else found + 1) - start
        return found

    def __getitem__(self, where: Any) -> Any:
        """Return a byte or a copy of some, and count them."""
        part = super().__getitem__(where)
        self.touched += len(part) if isinstance(part, bytearray) else 1
        return part
