"""fsync always, at intervals, or when the system likes? Rates and latencies of SET in each mode, on both servers.

Usage: python -m bench.fsync_modes [--quick]. 50 clients at pipeline 1 and 16, and one client alone, who sees the
latency of a single durable write. Beside it, what the disk itself takes for one fdatasync.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from bench.experiment import Table, run
from bench.load import Load, requests_for, run_load
from bench.report import SCRATCH, median, percentile
from bench.servers import SIDES, Durability, Server, make_server

MODES: Final[tuple[Durability, ...]] = ("always", "interval", "os")
REDIS_NAMES: Final[dict[Durability, str]] = {"always": "always", "interval": "everysec", "os": "no log at all"}
SHAPES: Final = ((1, 1), (50, 1), (50, 16))


def fdatasync_us(folder: Path, writes: int) -> tuple[float, float]:
    """Return median and 99th percentile in us of writing 1 KiB into a file of zeros and syncing it."""
    path = folder / "sync"
    record = os.urandom(1024)
    path.write_bytes(bytes(1024 * writes))
    file = os.open(path, os.O_RDWR)
    spent: list[float] = []
    try:
        os.fsync(file)
        for number in range(writes):
            started = perf_counter_ns()
            os.pwrite(file, record, 1024 * number)
            os.fdatasync(file)
            spent.append((perf_counter_ns() - started) / 1e3)
    finally:
        os.close(file)
        path.unlink()
    spent.sort()
    return percentile(spent, 50), percentile(spent, 99)


def loads_of(server: Server, seconds: float, rounds: int) -> list[float]:
    """Return rate and p99 for each shape of load, medians of some rounds."""
    cells: list[float] = []
    for clients, pipeline in SHAPES:
        requests = requests_for(server.port, "set", seconds, pipeline=pipeline, clients=clients, requests_min=200)
        found: list[Load] = [
            run_load(server.port, "set", requests=requests, pipeline=pipeline, clients=clients) for _ in range(rounds)
        ]
        cells += [median(load.rate for load in found), median(load.p99_ms for load in found)]
    return cells


def measure(quick: bool) -> list[Table]:
    """Measure all modes of both servers."""
    seconds, rounds, writes = (0.1, 1, 50) if quick else (0.7, 3, 2000)
    rows: list[list[str | float]] = []
    for mode in MODES:
        for side in SIDES:
            name = f"Redan, {mode}" if side == "redan" else f"Redis, {REDIS_NAMES[mode]}"
            with make_server(side, mode) as server:
                server.start()
                rows.append([name, *loads_of(server, seconds, rounds)])
    head = ["Mode"]
    for clients, pipeline in SHAPES:
        shape = f"{clients} client{'s' if clients > 1 else ''}, pipeline {pipeline}"
        head += [f"{shape}, SET/s", "p99, ms"]
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        p50_us, p99_us = fdatasync_us(Path(folder), writes)
    disk: list[list[str | float]] = [["1 KiB into zero-filled space, then fdatasync", p50_us, p99_us]]
    return [Table("SET in each mode", head, rows), Table("The disk itself", ["Write", "p50, us", "p99, us"], disk)]


if __name__ == "__main__":
    run("fsync_modes", measure)
