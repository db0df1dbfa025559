"""Log and snapshot, log only, snapshot only, or an LSM tree? What each writes, keeps, and takes to come back.

Usage: python -m bench.recovery [--quick]. The same SETs of 64-byte values on random keys, pipelined; then kill -9 and a
start (snapshot only: a clean stop, for after a kill it has lost what came after the last snapshot). Write
amplification is what the process wrote, zeros written ahead and replies to the client included, divided by the bytes of
keys and values.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from bench.experiment import Table, run
from bench.on_demand import module_on_demand
from bench.report import ROOT, SCRATCH
from bench.resp_client import encode, key_of, value_of
from bench.servers import Redan, Redis, Server, written_bytes

SAVE_SECONDS_MAX = 60.0
LSM_SECONDS_MAX = 120.0


@dataclass(frozen=True)
class Workload:
    """How many keys, SETs and bytes of log between two snapshots."""

    keys: int
    writes: int
    snapshot_bytes: int

    @property
    def user_bytes(self) -> int:
        """Bytes of keys and values written."""
        return self.writes * (len(key_of(0)) + len(value_of(0)))

    def apply(self, server: Server) -> None:
        """Run it on a server."""
        chance = random.Random(1)
        with server.client() as client:
            client.run_many(
                self.writes, lambda number: encode(b"SET", key_of(chance.randrange(self.keys)), value_of(number))
            )
            _await_snapshot(server)


def _await_snapshot(server: Server) -> None:
    """Wait until no snapshot is being written."""
    deadline = monotonic() + SAVE_SECONDS_MAX
    with server.client() as client:
        while client.info(b"persistence")["rdb_bgsave_in_progress"] == "1" and monotonic() < deadline:
            sleep(0.01)


def log_row(name: str, server: Server, work: Workload) -> tuple[list[str | float], float]:
    """Measure a server that is killed; return its row, and the bytes it has written."""
    with server:
        server.start()
        work.apply(server)
        written = float(written_bytes(server.pid))
        with server.client() as client:
            count = client.call(b"DBSIZE")
        server.kill()
        kept = server.disk_bytes()
        seconds = server.start(keys=count)
    return [name, written / work.user_bytes, kept / 2**20, seconds, "nothing"], written


def snapshot_row(work: Workload, snapshot_bytes_written: float) -> list[str | float]:
    """Measure a start from a snapshot alone; what taking them costs is the difference of two nodes with a log."""
    with Redan("os") as server:
        server.start()
        work.apply(server)
        with server.client() as client:
            count = client.call(b"DBSIZE")
        server.stop()
        newest = max((server.folder / "data" / "snapshots").glob("*.snap")).stat().st_size
        seconds = server.start(keys=count)
    cost = max(0.0, snapshot_bytes_written) / work.user_bytes
    return ["Redan, snapshots only", cost, newest / 2**20, seconds, "all since the last snapshot"]


def lsm_row(work: Workload) -> list[str | float] | None:
    """Measure RocksDB; None if it cannot be had."""
    if module_on_demand("rocksdict") is None:
        return None
    folder = tempfile.mkdtemp(prefix="lsm-", dir=SCRATCH)
    try:
        written = _lsm("write", folder, work.keys, work.writes)["written"]
        kept = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        seconds = _lsm("read", folder)["seconds"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ["RocksDB (LSM), until the first read", written / work.user_bytes, kept / 2**20, seconds, "nothing"]


def _lsm(act: str, folder: str, *numbers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.lsm_store", act, folder, *map(str, numbers)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LSM_SECONDS_MAX, check=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def measure(quick: bool) -> list[Table]:
    """Measure all ways to keep data."""
    work = Workload(2_000, 20_000, 1 << 20) if quick else Workload(200_000, 1_000_000, 32 << 20)
    both, both_written = log_row("Redan, log and snapshots", Redan("os", _snapshots_every(work)), work)
    only, only_written = log_row("Redan, log only", Redan("os"), work)
    redis, _ = log_row("Redis, log only (AOF)", Redis("interval", ["--appendfsync", "no"]), work)
    rows: list[list[str | float]] = [both, only, snapshot_row(work, both_written - only_written)]
    if (lsm := lsm_row(work)) is not None:
        rows.append(lsm)
    rows.append(redis)
    title = f"{work.writes:,} SETs on {work.keys:,} keys; a snapshot every {work.snapshot_bytes >> 20} MiB of log"
    head = ["Kept as", "written / user bytes", "on disk at the end, MiB", "start, s", "lost by a kill -9"]
    return [Table(title, head, rows)]


def _snapshots_every(work: Workload) -> list[str]:
    return ["--snapshot-every-bytes", str(work.snapshot_bytes)]


if __name__ == "__main__":
    run("recovery", measure)
