"""`redan simulate`: whole clusters on simulated time, disks and network, with faults, judged by what clients were told.

Guarantees: one line a run on standard output, and one for all if they are several. The first run that fails ends the
    command, with the newest events and the command that replays it on standard error; exit code 1.
Leaves to the caller: reading the flags (kvservice.cli).
"""

from __future__ import annotations

import sys
from secrets import randbelow
from typing import Final

from kvservice.cli_settings import EXIT_CLEAN, EXIT_FAILURE
from kvservice.simulation.report import HOUR_SECONDS, Failure, Report, simulate, total_line

SEED_MAX: Final = 1_000_000_000
"""Seeds chosen by chance are below this, short enough to be typed."""


def simulate_command(seed: int | None, hours: float, runs: int, trace_lines: int) -> int:
    """Run seeds from ``seed`` on, each for so many virtual hours; return the exit code."""
    first = randbelow(SEED_MAX) if seed is None else seed
    reports: list[Report] = []
    for number in range(first, first + runs):
        report = simulate(number, hours * HOUR_SECONDS)
        reports.append(report)
        print(report.line(), flush=True)
        if report.failure is not None:
            _explain(report.seed, hours, report.failure, trace_lines)
            return EXIT_FAILURE
    if runs > 1:
        print(total_line(reports))
    return EXIT_CLEAN


def _explain(seed: int, hours: float, failure: Failure, trace_lines: int) -> None:
    lines = [
        *failure.events[max(0, len(failure.events) - trace_lines) :],
        f"redan: seed {seed} failed after {failure.at_seconds:.3f} virtual seconds: {failure.reason}",
        *failure.detail.splitlines(),
        f"redan: replay it by: redan simulate --seed {seed} --hours {hours:g}",
    ]
    print("\n".join(lines), file=sys.stderr)
