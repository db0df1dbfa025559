"""Redan beside redis-server: everything that the targets speak of, in one run.

Usage: python -m bench [--rounds N] [--seconds S] [--only SECTION …] [--quick]. A full run takes 10 to 15 minutes.
Sections: throughput, connections, million (memory, stall, start-up), grpc.

Guarantees: the two servers alternate in every round, and who goes first alternates too; figures are medians of the
rounds. The result goes to bench/results/compare.json (--quick: bench/results/quick/), sections that were not run stay
there from an earlier run, each with the date and machine of its own run.
Leaves to the caller: a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from bench.comparison import Figures, figure_table
from bench.grpc_rates import GrpcPlan, measure_grpc
from bench.million import MillionPlan, measure_million
from bench.report import QUICK_RESULTS, RESULTS, environment, write
from bench.servers import allow_many_connections
from bench.throughput import Plan, measure_connections, measure_throughput

SECTIONS: Final = ("throughput", "connections", "million", "grpc")
TITLES: Final = {
    "throughput": "50 clients, 100,000 random keys, values of 64 bytes",
    "connections": "Many connections",
    "memory": "Memory",
    "stall": "Snapshot under a probe",
    "start-up": "Start",
    "grpc": "gRPC",
}
FULL_ROUNDS: Final = 5
FULL_SECONDS: Final = 1.5


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options; exits with 2 if they make no sense."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare Redan with redis-server.")
    parser.add_argument("--rounds", type=int, default=None, help=f"alternating rounds (default {FULL_ROUNDS})")
    parser.add_argument("--seconds", type=float, default=None, help=f"length of a load (default {FULL_SECONDS})")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; results stay apart")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else FULL_ROUNDS)
    options.seconds = options.seconds or (0.2 if options.quick else FULL_SECONDS)
    return options


def measure(section: str, options: argparse.Namespace, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run one section; return its figures."""
    figures = Figures()
    rounds, seconds, quick = options.rounds, options.seconds, options.quick
    match section:
        case "throughput":
            plan = Plan(rounds, seconds, pipelines=(1, 16), keys=2000) if quick else Plan(rounds, seconds)
            measure_throughput(plan, figures, say)
        case "connections":
            plan = Plan(rounds, seconds, connections=(100,), keys=2000) if quick else Plan(rounds, seconds)
            measure_connections(plan, figures, say)
        case "million":
            million = MillionPlan(rounds, keys=20_000, control_seconds=0.3) if quick else MillionPlan(rounds)
            measure_million(million, figures, say)
        case "grpc":
            measure_grpc(GrpcPlan(rounds, seconds), figures, say)
    return figures.as_json()


def earlier_runs(*, quick: bool) -> dict[str, Any]:
    """Return what the sections were when they were run last."""
    path = (QUICK_RESULTS if quick else RESULTS) / "compare.json"
    try:
        runs: dict[str, Any] = json.loads(path.read_text())["runs"]
    except (OSError, KeyError, ValueError):
        return {}
    return runs


def tables(runs: dict[str, Any]) -> str:
    """Return all figures as tables, one for each part of a section."""
    parts: list[str] = []
    for section in SECTIONS:
        figures = runs.get(section, {}).get("figures", [])
        for part in dict.fromkeys(figure["section"] for figure in figures):
            of_part = [figure for figure in figures if figure["section"] == part]
            parts.append(f"{TITLES[part]}\n\n{figure_table(of_part)}")
    return "\n\n".join(parts)


def main(arguments: list[str]) -> int:
    """Run the sections that are asked for; return the exit code."""
    options = parse(arguments)
    if shutil.which("redis-server") is None or shutil.which("redis-benchmark") is None:
        print("redis-server and redis-benchmark are needed: make install, or your system's packages", file=sys.stderr)
        return 1
    files_max = allow_many_connections()
    started = monotonic()

    def say(text: str) -> None:
        print(f"{monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    runs = earlier_runs(quick=options.quick)
    for section in [name for name in SECTIONS if name in options.only]:
        begun = monotonic()
        settings = {"rounds": options.rounds, "seconds": options.seconds, "open_files_max": files_max}
        machine = environment()
        figures = measure(section, options, say)
        took = round(monotonic() - begun, 1)
        runs[section] = {"environment": machine, "settings": settings, "took_seconds": took, "figures": figures}
        path = write("compare", {"runs": runs}, quick=options.quick)
    print(tables({section: runs[section] for section in options.only}))
    print(f"\nWritten: {path}")
    return 0
