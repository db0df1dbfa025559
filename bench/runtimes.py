"""Plain Python, uvloop and hiredis, or compiled code? The same small server on each, and a real one beside.

Usage: python -m bench.runtimes [--quick]. Each serves GET and SET of 64-byte values to 50 clients at pipeline 1 and 16.
The compiled parser is the Python one put through mypyc; without a C compiler its row is left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from bench.experiment import Table, run
from bench.load import requests_for, run_load
from bench.report import ROOT, SCRATCH, median
from bench.servers import Redan, Redis, Server, Side

COMPILE_SECONDS_MAX: Final = 180.0
VARIANTS: Final = (
    ("asyncio", "python"),
    ("asyncio", "hiredis"),
    ("uvloop", "python"),
    ("uvloop", "hiredis"),
    ("uvloop", "compiled"),
)
SHAPES: Final = (1, 16)


class MiniServer(Server):
    """bench/mini_server in one of its variants."""

    side: Side = "redan"

    def __init__(self, loop: str, parser: str, compiled: Path | None) -> None:
        super().__init__("os")
        self._variant = [loop, parser, *([str(compiled)] if compiled else [])]

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "bench.mini_server", str(self.port), *self._variant]

    def stop(self) -> None:
        """Kill it; it keeps nothing."""
        self.kill()


def compiled_parser() -> Path | None:
    """Compile bench/mini_parser unless that is done; return the folder of the module, or None if it cannot be done."""
    source = ROOT / "bench" / "mini_parser.py"
    folder = SCRATCH / f"compiled-{crc32(source.read_bytes()):08x}-{sys.implementation.cache_tag}"
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as making:
        shutil.copy(source, making)
        mypyc = [str(Path(sys.executable).parent / "mypyc"), source.name]
        # Without a C compiler, or when another process was faster, the measurement goes on with what there is.
        with suppress(subprocess.SubprocessError, OSError):
            if not folder.exists():
                subprocess.run(mypyc, cwd=making, check=True, capture_output=True, timeout=COMPILE_SECONDS_MAX)
                modules = Path(making) / "modules"
                modules.mkdir()
                for module in Path(making).glob("*.so"):
                    module.rename(modules / module.name)
                modules.rename(folder)
    return folder if any(folder.glob("mini_parser*.so")) else None


def row(name: str, server: Server, seconds: float, rounds: int) -> list[str | float]:
    """Measure a server that is started: rates, and its processor time for a command at the deeper pipeline."""
    with server.client() as client:
        client.fill(2000)
    cells: list[str | float] = [name]
    for pipeline in SHAPES:
        requests = requests_for(server.port, "get", seconds, pipeline=pipeline, clients=50)
        used = server.cpu_seconds()
        loads = [run_load(server.port, "get", requests=requests, pipeline=pipeline, keys=2000) for _ in range(rounds)]
        used = server.cpu_seconds() - used
        cells += [median(load.rate for load in loads), used / requests / rounds * 1e6]
    return cells


def measure(quick: bool) -> list[Table]:
    """Measure all variants."""
    seconds, rounds = (0.2, 1) if quick else (1.0, 3)
    compiled = compiled_parser()
    rows: list[list[str | float]] = []
    for loop, parser in VARIANTS:
        if parser == "compiled" and compiled is None:
            continue
        with MiniServer(loop, parser, compiled) as mini:
            mini.start()
            said = {"python": "parser in Python", "hiredis": "hiredis", "compiled": "Python compiled with mypyc"}[
                parser
            ]
            rows.append(row(f"{loop}, {said}", mini, seconds, rounds))
    with Redan("os") as redan:
        redan.start()
        rows.append(row("Redan, all of it", redan, seconds, rounds))
    with Redis("os") as redis:
        redis.start()
        rows.append(row("redis-server (C)", redis, seconds, rounds))
    head = ["Server"]
    for pipeline in SHAPES:
        head += [f"GET/s, pipeline {pipeline}", "processor time, us/GET"]
    return [Table("GET by 50 clients", head, rows)]


if __name__ == "__main__":
    run("runtimes", measure)
