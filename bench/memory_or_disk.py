"""Values in memory or on disk? What a read costs from a dict, from files that the system caches, and from the device.

Usage: python -m bench.memory_or_disk [--quick]. Values of 64 bytes; RocksDB comes from the package rocksdict, which is
installed for this measurement only; without it its row is left out.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from bench.experiment import Table, run
from bench.on_demand import module_on_demand
from bench.report import SCRATCH, percentile
from bench.resp_client import key_of, value_of

BLOCK_BYTES: Final = 4096
RECORD_BYTES: Final = 64
Read = Callable[[int], object]


def latencies_ns(read: Read, numbers: list[int]) -> tuple[float, float]:
    """Return median and 99th percentile of single reads."""
    spent: list[int] = []
    for number in numbers:
        started = perf_counter_ns()
        read(number)
        spent.append(perf_counter_ns() - started)
    spent.sort()
    return percentile(spent, 50), percentile(spent, 99)


def dict_read(count: int) -> Read:
    """Return a read from a dict."""
    values = {key_of(number): value_of(number) for number in range(count)}
    return lambda number: values[key_of(number)]


def sqlite_read(count: int, folder: Path) -> Read:
    """Return a read from an SQLite table that is in the page cache."""
    database = sqlite3.connect(folder / "values.sqlite")
    database.execute("create table entries (key blob primary key, value blob) without rowid")
    database.executemany("insert into entries values (?, ?)", ((key_of(n), value_of(n)) for n in range(count)))
    database.commit()
    query = "select value from entries where key = ?"
    return lambda number: database.execute(query, (key_of(number),)).fetchone()[0]


def file_read(count: int, folder: Path) -> Read:
    """Return a read from a file whose offsets are in a dict, as a log-structured store with an index in memory does."""
    path = folder / "values"
    path.write_bytes(b"".join(value_of(number) for number in range(count)))
    offsets = {key_of(number): number * RECORD_BYTES for number in range(count)}
    file = os.open(path, os.O_RDONLY)
    return lambda number: os.pread(file, RECORD_BYTES, offsets[key_of(number)])


def rocksdb_read(count: int, folder: Path) -> Read | None:
    """Return a read from RocksDB after a flush, or None if it cannot be had."""
    rocksdict = module_on_demand("rocksdict")
    if rocksdict is None:
        return None
    database = rocksdict.Rdict(str(folder / "rocksdb"), rocksdict.Options(raw_mode=True))
    batch = rocksdict.WriteBatch(raw_mode=True)
    for number in range(count):
        batch.put(key_of(number), value_of(number))
    database.write(batch)
    database.flush()

    def read(number: int) -> object:
        return database[key_of(number)]

    return read


def device_read(folder: Path, blocks: int) -> Read:
    """Return a read of a random block past the page cache (O_DIRECT), or with it where the file system refuses that."""
    path = folder / "blocks"
    with path.open("wb") as writing:
        for _ in range(blocks // 256):
            writing.write(os.urandom(256 * BLOCK_BYTES))
        writing.flush()
        os.fsync(writing.fileno())
    file = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    aligned = mmap.mmap(-1, BLOCK_BYTES)
    return lambda number: os.preadv(file, [aligned], (number * 7919 % blocks) * BLOCK_BYTES)


def measure(quick: bool) -> list[Table]:
    """Measure all ways to read."""
    count, reads, blocks = (5_000, 2_000, 2_560) if quick else (500_000, 50_000, 65_536)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reads-", dir=SCRATCH))
    try:
        ways: dict[str, Read | None] = {
            "dict in memory": dict_read(count),
            "file in the page cache, offsets in a dict": file_read(count, folder),
            "SQLite in the page cache": sqlite_read(count, folder),
            "RocksDB, in its own and the page cache": rocksdb_read(count, folder),
            "4 KiB from the device": device_read(folder, blocks),
        }
        chance = random.Random(1)
        rows: list[list[str | float]] = []
        for name, read in ways.items():
            if read is not None:
                numbers = [chance.randrange(count) for _ in range(reads // 10 if "device" in name else reads)]
                median_ns, p99_ns = latencies_ns(read, numbers)
                rows.append([name, median_ns / 1e3, p99_ns / 1e3, 1e9 / median_ns])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = ["Read of 64 bytes from", "p50, us", "p99, us", "reads/s of one thread at p50"]
    return [Table(f"Reads among {count:,} keys", head, rows)]


if __name__ == "__main__":
    run("memory_or_disk", measure)
