"""Exceptions that nobody foresaw and that reach the event loop.

Guarantees: each is in the log with its trace. One that came through the consensus driver stops the node at once: its
order of persist, send, apply and answer was cut short, so what it would do next could be wrong, and the other nodes do
better without it.
A connection that ends by an error of the network is no defect, and is logged by the library that has it.
Leaves to the caller: what stopping means (kvservice/server). Defects of commands never come here: they are answered.
Reference: asyncio, ``loop.set_exception_handler``, for the keys of a context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from traceback import walk_tb
from typing import Any, Final

from kvservice.logs import Event, Log

CORE: Final = "replication."
"""Modules whose calls must not be cut short."""

log = Log("server")


def watch_loop(loop: asyncio.AbstractEventLoop, on_broken: Callable[[], None]) -> None:
    """Log whatever reaches the loop, and call ``on_broken`` if the node cannot be trusted any more."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and "transport" in context:
            loop.default_exception_handler(context)
            return
        is_broken = error is not None and "future" not in context and is_of_core(error)
        # A future that nobody asked for its exception has been dropped: whoever dropped it did not need it.
        log.error(Event.DEFECT_FOUND, text=context.get("message", ""), error=repr(error), exc_info=error)
        if is_broken:
            on_broken()

    loop.set_exception_handler(handle)


def is_of_core(error: BaseException) -> bool:
    """Tell whether an exception came through the consensus driver or core."""
    return any(str(frame.f_globals.get("__name__", "")).startswith(CORE) for frame, _ in walk_tb(error.__traceback__))
