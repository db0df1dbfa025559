"""Load by redis-benchmark, which is written in C and needs one core at most: the same client for both servers.

Reference: its text output, from which rate and latencies are read; its CSV output has no 99.9th percentile.
"""

from __future__ import annotations

import re
import subprocess
from typing import Final, Literal, NamedTuple

Command = Literal["set", "get", "ping_mbulk", "incr"]
KEYS: Final = 100_000
VALUE_BYTES: Final = 64
RUN_SECONDS_MAX: Final = 120.0

_RATE: Final = re.compile(r"throughput summary: ([\d.]+) requests per second")
_SUMMARY: Final = re.compile(r"avg\s+min\s+p50\s+p95\s+p99\s+max\s+([\d.\s]+)")
_PERCENTILE: Final = re.compile(r"^([\d.]+)% <= ([\d.]+) milliseconds", re.MULTILINE)


class Load(NamedTuple):
    """What one run of redis-benchmark found; latencies in ms."""

    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def run_load(
    port: int,
    command: Command,
    *,
    requests: int,
    pipeline: int = 1,
    clients: int = 50,
    keys: int = KEYS,
    value_bytes: int = VALUE_BYTES,
) -> Load:
    """Run one load; raises RuntimeError with the output if it cannot be read."""
    line = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-t", command, "--precision", "3"]
    line += ["-n", str(requests), "-P", str(pipeline), "-c", str(clients), "-r", str(keys), "-d", str(value_bytes)]
    ran = subprocess.run(line, capture_output=True, text=True, check=False, timeout=RUN_SECONDS_MAX)
    return read_output(ran.stdout, ran.stderr)


def read_output(text: str, errors: str = "") -> Load:
    """Read the output of a run."""
    rate, summary = _RATE.search(text), _SUMMARY.search(text)
    percentiles = [(float(percent), float(ms)) for percent, ms in _PERCENTILE.findall(text)]
    if rate is None or summary is None or not percentiles:
        raise RuntimeError(f"redis-benchmark said:\n{text[-2000:]}{errors[-2000:]}")
    _avg, _min, p50, _p95, p99, largest = map(float, summary[1].split()[:6])
    p999 = next((ms for percent, ms in percentiles if percent >= 99.9), largest)
    return Load(float(rate[1]), p50, p99, p999, largest)


def requests_for(
    port: int, command: Command, seconds: float, *, pipeline: int, clients: int, requests_min: int = 2000
) -> int:
    """Return how many requests take about so many seconds, found by a tenth of the run, rounded to two digits."""
    trial = max(requests_min, clients * pipeline * 2)
    rate = run_load(port, command, requests=trial, pipeline=pipeline, clients=clients).rate
    return max(requests_min, int(float(f"{rate * seconds:.2g}")))
