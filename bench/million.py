"""A million keys: what one takes in memory, how long a snapshot leaves clients waiting, how long a start takes.

Order, for each server in each round: start empty → fill → memory → snapshot under a probe (bench/probe) → clean stop →
start from the snapshot → kill. Then again with a log only: fill → kill -9 → start from the log.
Both servers fill without waiting for the disk. Redis finds its log in the page cache, which outlives a kill; Redan
reads segments that were full from the disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final
from urllib.request import urlopen

from bench.comparison import Figures
from bench.report import ROOT
from bench.servers import Redan, Redis, Server, Side, in_turn, make_server

BYTES_TARGET: Final = 1.5
START_TARGET: Final = 1.5
STALL_MS_LIMIT: Final = 10.0
PROBE_SECONDS_MAX: Final = 120.0
SETTLE_SECONDS_MAX: Final = 5.0
LAG_METRIC: Final = "redan_event_loop_lag_seconds_bucket"


@dataclass
class MillionPlan:
    """How many keys and rounds."""

    rounds: int
    keys: int = 1_000_000
    control_seconds: float = 2.0


def measure_million(plan: MillionPlan, figures: Figures, say: Callable[[str], None]) -> None:
    """Measure memory, stalls and starts."""
    for round_number in range(plan.rounds):
        for side in in_turn(round_number):
            with make_server(side, "os") as server:
                figures.add(side, server.start(), section="start-up", name="Start without keys", unit="s")
                _memory(plan, server, figures)
                _stall(plan, server, figures)
                server.stop()
                seconds = server.start(keys=plan.keys)
                _start_figure(plan, figures, side, seconds, "from a snapshot")
            seconds_from_log = _start_from_log(plan, side)
            _start_figure(plan, figures, side, seconds_from_log, "from the log, after kill -9")
            say(f"round {round_number + 1}: {side:5} start {seconds:.2f} s, from the log {seconds_from_log:.2f} s")


def _memory(plan: MillionPlan, server: Server, figures: Figures) -> None:
    with server.client() as client:
        before, used_before = settled_rss(server), int(client.info(b"memory")["used_memory"])
        client.fill(plan.keys)
        after, used_after = settled_rss(server), int(client.info(b"memory")["used_memory"])
    keys = f"{plan.keys:,} keys of 16 bytes, values of 64"
    growth, counted = (after - before) / plan.keys, (used_after - used_before) / plan.keys
    figures.add(
        server.side,
        growth,
        section="memory",
        name=f"{keys}: growth of the process",
        unit="bytes/key",
        target=BYTES_TARGET,
    )
    figures.add(server.side, counted, section="memory", name=f"{keys}: used_memory", unit="bytes/key")
    figures.add(server.side, before / 2**20, section="memory", name="Empty process", unit="MiB")


def settled_rss(server: Server) -> int:
    """Return the resident memory once it has not changed for half a second."""
    last, since = server.rss_bytes(), monotonic()
    deadline = monotonic() + SETTLE_SECONDS_MAX
    while monotonic() < min(since + 0.5, deadline):
        sleep(0.05)
        now = server.rss_bytes()
        if abs(now - last) > 1 << 18:
            last, since = now, monotonic()
    return server.rss_bytes()


def _stall(plan: MillionPlan, server: Server, figures: Figures) -> None:
    before = _lag_buckets(server)
    found = probed(server.port, plan.control_seconds, plan.keys)
    keys = f"{plan.keys:,} keys"
    for name, part, field, limit in (
        (f"Longest wait while {keys} are saved", "snapshot", "max_ms", STALL_MS_LIMIT),
        (f"99.9th percentile while {keys} are saved", "snapshot", "p999_ms", None),
        (f"99th percentile while {keys} are saved", "snapshot", "p99_ms", None),
        ("Longest wait without a snapshot (control)", "control", "max_ms", None),
        ("99th percentile without a snapshot (control)", "control", "p99_ms", None),
    ):
        figures.add(server.side, found[part][field], section="stall", name=name, unit="ms", limit=limit)
    name = f"A snapshot of {keys}, under this load"
    figures.add(server.side, found["snapshot_seconds"], section="stall", name=name, unit="s")
    if before is not None and (after := _lag_buckets(server)) is not None:
        lag_ms = largest_new_bucket(before, after) * 1e3
        name = "The node's own event-loop lag, upper bound of the largest sample"
        figures.add(server.side, lag_ms, section="stall", name=name, unit="ms")


def probed(port: int, control_seconds: float, keys: int) -> dict[str, Any]:
    """Run a probe in a process of its own; return what it prints."""
    command = [sys.executable, "-m", "bench.probe", str(port), str(control_seconds), str(keys)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROBE_SECONDS_MAX, check=False)
    if ran.returncode:
        raise RuntimeError(f"the probe failed:\n{ran.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _lag_buckets(server: Server) -> dict[float, float] | None:
    """Return the cumulated buckets of the event-loop lag, by upper bound in seconds; None for redis-server."""
    if not isinstance(server, Redan):
        return None
    with urlopen(f"http://127.0.0.1:{server.admin_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    buckets: dict[float, float] = {}
    for line in text.splitlines():
        if line.startswith(LAG_METRIC):
            labels, _, count = line.rpartition(" ")
            buckets[float(labels.split('le="')[1].split('"')[0])] = float(count)
    return buckets


def largest_new_bucket(before: dict[float, float], after: dict[float, float]) -> float:
    """Return the upper bound of the highest bucket that has grown; 0 if none has."""
    largest, below = 0.0, 0.0
    for bound in sorted(after):
        grown = after[bound] - before.get(bound, 0.0)
        if grown > below:
            largest = bound
        below = grown
    return largest


def _start_from_log(plan: MillionPlan, side: Side) -> float:
    # Redis may put off a write of its log while a sync runs; with "appendfsync no" it never does.
    with Redis("interval", ["--appendfsync", "no"]) if side == "redis" else Redan("os") as server:
        server.start()
        with server.client() as client:
            client.fill(plan.keys)
        server.kill()
        return server.start(keys=plan.keys)


def _start_figure(plan: MillionPlan, figures: Figures, side: Side, seconds: float, source: str) -> None:
    name = f"Start with {plan.keys:,} keys {source}"
    figures.add(side, seconds, section="start-up", name=name, unit="s", target=START_TARGET)
