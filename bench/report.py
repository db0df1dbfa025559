"""Results as JSON, each with the machine, the versions and the settings that made it.

Guarantees: a result file is replaced as a whole; figures in it are medians of the values that stand beside them.
Leaves to the caller: measuring. Results of a quick run go to a folder of their own, which no document reads.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = Path(os.environ.get("BENCH_RESULTS", ROOT / "bench" / "results"))
QUICK_RESULTS: Final = RESULTS / "quick"
SCRATCH: Final = ROOT / "build" / "bench"
"""Data directories of measured servers: beside the source, because /tmp is memory on some machines."""
PACKAGES: Final = ("uvloop", "hiredis", "grpcio", "google-crc32c", "zstandard", "msgspec")
TIMEOUT_SECONDS: Final = 10.0


def environment(data_directory: Path = ROOT) -> dict[str, Any]:
    """Return what a figure depends on besides the program: machine, system, versions, date."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": file_system(data_directory),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            "redan": _package_version("redan"),
            "redis-server": _program_version("redis-server", r"v=(\S+)"),
            "etcd": _program_version("etcd", r"Version: (\S+)"),
            **{name: _package_version(name) for name in PACKAGES},
        },
    }


def write(name: str, content: dict[str, Any], *, quick: bool) -> Path:
    """Write a result with its environment to ``NAME.json``; return the path."""
    folder = QUICK_RESULTS if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps({"name": name, "environment": environment(), **content}, indent=1) + "\n")
    temporary.replace(path)
    return path


def median(values: Iterable[float]) -> float:
    """Return the median, rounded to four significant digits: more would feign an accuracy that there is not."""
    return significant(statistics.median(values))


def significant(value: float, digits: int = 4) -> float:
    """Return a number rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least of values in rising order that so many percent of them, at least, do not exceed (nearest rank).

    There must be one value at least.
    """
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned, so that it reads well on a terminal too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def spelled(value: float) -> str:
    """Return a figure as people read it: three significant digits, thousands separated."""
    if value == 0:
        return "0"
    rounded = significant(value, 3)
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    return (
        f"{rounded:.{2 if abs(rounded) >= 1 else 3}f}".rstrip("0").rstrip(".")
        if abs(rounded) >= 0.01
        else f"{rounded:g}"
    )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    found, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, mount, mount_kind, *_rest = line.split()
        if str(path).startswith(mount) and len(mount) >= len(found):
            found, kind = mount, mount_kind
    return kind


def _cpu_model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.processor()


def _program_version(name: str, pattern: str) -> str:
    found = re.search(pattern, _output(name, "--version"))
    return found[1] if found else "not installed"


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except OSError:
        return ""
    return ran.stdout.strip()
