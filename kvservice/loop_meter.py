"""How often the event loop turned, and how long it worked: libuv's own counts, so that a turn pays nothing for them.

libuv counts its turns and, when asked to, the time it sleeps in its poll; what is left of the time that went by is
work. uvloop has no names for that and is asked through the symbols of libuv that its module exports.

Guarantees: 0 and 0 where there is no libuv (asyncio's own loop, or a uvloop built otherwise): nothing is invented.
Leaves to the caller: making it on the loop's thread, and reading it there only.
Reference: libuv, "Metrics operations".
"""

from __future__ import annotations

import asyncio
import ctypes
from time import perf_counter_ns
from typing import Any, Final

import uvloop

UV_METRICS_IDLE_TIME: Final = 1
"""The option of uv_loop_configure that makes libuv count its sleep."""


class _Counts(ctypes.Structure):
    """uv_metrics_t; the reserved part has room for what later versions may write."""

    _fields_ = (
        ("loop_count", ctypes.c_uint64),
        ("events", ctypes.c_uint64),
        ("events_waiting", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 64),
    )


class LoopMeter:
    """The counts of one loop since this object was made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = _address_of(loop)
        self._library: ctypes.CDLL | None = None
        if self._loop:
            self._library = _library()
        if self._library is not None and self._library.uv_loop_configure(self._loop, UV_METRICS_IDLE_TIME) != 0:
            self._library = None
        self._started_ns = perf_counter_ns()
        self._turns_before, self._slept_before_ns = self._read()

    def _read(self) -> tuple[int, int]:
        """Return libuv's counts: turns, and nanoseconds slept."""
        library = self._library
        if library is None:
            return 0, 0
        counts = _Counts()
        library.uv_metrics_info(self._loop, ctypes.byref(counts))
        return counts.loop_count, library.uv_metrics_idle_time(self._loop)

    def read(self) -> tuple[int, int]:
        """Return how often the loop has turned, and for how many nanoseconds it was not asleep."""
        if self._library is None:
            return 0, 0
        turns, slept_ns = self._read()
        worked_ns = perf_counter_ns() - self._started_ns - (slept_ns - self._slept_before_ns)
        return turns - self._turns_before, max(0, worked_ns)


def _address_of(loop: asyncio.AbstractEventLoop) -> ctypes.c_void_p | None:
    capsule_of: Any = getattr(uvloop.loop, "libuv_get_loop_t_ptr", None)
    if not isinstance(loop, uvloop.Loop) or capsule_of is None:
        return None
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.restype = ctypes.c_void_p
    address.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return ctypes.c_void_p(address(capsule_of(loop), None))


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(uvloop.loop.__file__)
        library.uv_metrics_idle_time.restype = ctypes.c_uint64
        library.uv_metrics_idle_time.argtypes = (ctypes.c_void_p,)
        library.uv_metrics_info.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        library.uv_loop_configure.argtypes = (ctypes.c_void_p, ctypes.c_int)
    except (AttributeError, OSError):
        return None
    return library
