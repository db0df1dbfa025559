"""A client that asks a thousand times a second and writes now and then: how long does a server leave it waiting?

Usage: python -m bench.probe PORT CONTROL_SECONDS KEYS. Probes for a while, then starts BGSAVE and probes until that is
over; prints JSON with both. It stands in a process of its own, so that what starts servers does not disturb it.

Guarantees: a stall of the server's event loop of n ms shows as one latency of at least n ms, less the time until the
next question, which is 1 ms at most. So does a stall of this process: the control says how large those are.
"""

from __future__ import annotations

import gc
import json
import random
import socket
import sys
from time import monotonic, perf_counter, sleep
from typing import Any, Final

from bench.report import percentile
from bench.resp_client import RespClient, encode, key_of, value_of

TICK_SECONDS: Final = 0.001
WRITES_PER_TICK: Final = 5
"""5,000 SETs a second: enough to make copy-on-write work, far from saturating either server."""
STATUS_EVERY_TICKS: Final = 100
SAVE_SECONDS_MAX: Final = 60.0
SAVE_SECONDS_MIN: Final = 0.2


class Probe:
    """The asking connection, the writing one, and one that starts the snapshot and watches it."""

    def __init__(self, port: int, keys: int) -> None:
        self._asking = RespClient(port)
        self._writing = RespClient(port)
        self._watching = RespClient(port)
        self._keys = keys
        self._chance = random.Random(1)
        self._writing.socket.setblocking(False)

    def tick(self) -> float:
        """Write a little, ask once, return the latency of the question in seconds."""
        number = self._chance.randrange
        writes = [encode(b"SET", key_of(key := number(self._keys)), value_of(key)) for _ in range(WRITES_PER_TICK)]
        question = encode(b"GET", key_of(number(self._keys)))
        self._drain()
        self._writing.socket.send(b"".join(writes))
        started = perf_counter()
        self._asking.socket.sendall(question)
        self._asking.reply()
        return perf_counter() - started

    def _drain(self) -> None:
        try:
            while self._writing.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            return
        raise ConnectionResetError("the server closed the connection")

    def run_for(self, seconds: float) -> list[float]:
        """Probe for so long; return the latencies."""
        latencies: list[float] = []
        end = monotonic() + seconds
        while (now := monotonic()) < end:
            latencies.append(self.tick())
            sleep(max(0.0, now + TICK_SECONDS - monotonic()))
        return latencies

    def run_during_save(self) -> list[float]:
        """Start a snapshot and probe until it is written; return the latencies."""
        latencies: list[float] = []
        # The reply to BGSAVE is part of the watching connection and may come late: Redis forks before it answers.
        self._watching.socket.sendall(encode(b"BGSAVE"))
        is_answered = False
        started = monotonic()
        while monotonic() < started + SAVE_SECONDS_MAX:
            latencies += self.run_for(STATUS_EVERY_TICKS * TICK_SECONDS)
            if not is_answered:
                self._watching.reply()
                is_answered = True
            is_saving = self._watching.info(b"persistence")["rdb_bgsave_in_progress"] == "1"
            if not is_saving and monotonic() > started + SAVE_SECONDS_MIN:
                return latencies
        raise TimeoutError("the snapshot takes too long")


def summary(latencies: list[float]) -> dict[str, Any]:
    """Return count, percentiles and maximum in ms."""
    ordered = sorted(latencies)
    points = {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9}
    return {
        "count": len(ordered),
        **{name: round(percentile(ordered, percent) * 1e3, 3) for name, percent in points.items()},
        "max_ms": round(ordered[-1] * 1e3, 3),
    }


def main(arguments: list[str]) -> None:
    """Probe and print."""
    port, control_seconds, keys = int(arguments[0]), float(arguments[1]), int(arguments[2])
    gc.disable()
    socket.setdefaulttimeout(SAVE_SECONDS_MAX)
    probe = Probe(port, keys)
    probe.run_for(0.1)
    control = summary(probe.run_for(control_seconds))
    started = perf_counter()
    during = summary(probe.run_during_save())
    print(json.dumps({"control": control, "snapshot": during, "snapshot_seconds": perf_counter() - started}))


if __name__ == "__main__":
    main(sys.argv[1:])
