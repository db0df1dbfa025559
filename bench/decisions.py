"""Run the measurements behind docs/decisions.md, one after the other; each is a program of its own.

Usage: python -m bench.decisions [--quick] [--only NAME …]. Each takes less than a minute, quickly some seconds.
Leaves to the caller: a machine that does nothing else, and ``python -m bench.render`` afterwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from time import monotonic
from typing import Final

from bench.report import ROOT

SCRIPT_SECONDS_MAX: Final = 600.0
QUICK: Final = ("--quick",)
SCRIPTS: Final[dict[str, tuple[str, ...]]] = {
    "shards": QUICK,
    "ttl_index": ("--keys", "20000"),
    "recovery": QUICK,
    "runtimes": QUICK,
    "protocols": QUICK,
    "fsync_modes": QUICK,
    "second_copy": QUICK,
    "eviction": ("--keys", "5000", "--reads", "20000"),
    "memory_or_disk": QUICK,
    "placement": QUICK,
}
"""Modules of bench, with the arguments that make each small, in the order of the decisions."""


def command_of(name: str, *, quick: bool) -> list[str]:
    """Return the command line of one measurement."""
    return [sys.executable, "-m", f"bench.{name}", *(SCRIPTS[name] if quick else ())]


def main(arguments: list[str]) -> int:
    """Run them; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; results stay apart")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    options = parser.parse_args(arguments)
    failed: list[str] = []
    for name in options.only:
        started = monotonic()
        print(f"\n== {name}\n", flush=True)
        ran = subprocess.run(command_of(name, quick=options.quick), cwd=ROOT, timeout=SCRIPT_SECONDS_MAX, check=False)
        print(f"{name}: {monotonic() - started:.0f} s", flush=True)
        if ran.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
