"""Fills a keyspace in a process of its own and prints what was counted and by how much the process grew, in bytes.

Run as ``python -m tests.kvservice.keyspace.memory_probe WORKLOAD KEYS``.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from kvservice.keyspace.database import Clock, Database
from kvservice.keyspace.memory import MemoryMeter
from kvservice.keyspace.values import compact

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
DAY_MS = 86_400_000


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def small(db: Database, number: int) -> None:
    """Keys of 16 bytes, values of 64."""
    db.set(b"key:%012d" % number, b"%064d" % number)


def tiny(db: Database, number: int) -> None:
    """Short keys, values of 3 bytes."""
    db.set(b"%d" % number, b"v%02d" % (number % 100))


def counters(db: Database, number: int) -> None:
    """Integers."""
    db.set(b"counter:%d" % number, compact(b"%d" % (number * 7919 + 1_000_000)))


def large(db: Database, number: int) -> None:
    """Long keys, values of 1,000 bytes."""
    db.set(b"a:rather:long:name:of:a:key:%032d" % number, b"%01000d" % number)


def with_deadline(db: Database, number: int) -> None:
    """SET … EX: the key and its deadline come together."""
    key = b"session:%012d" % number
    db.set(key, b"%064d" % number)
    db.set_deadline(key, 1_700_000_000_000 + number * 7919 % DAY_MS)


def expired_later(db: Database, number: int) -> None:
    """SET, then EXPIRE as a command of its own, with its own copy of the key."""
    db.set(b"session:%012d" % number, b"%064d" % number)
    db.set_deadline(b"session:%012d" % number, 1_700_000_000_000 + number * 7919 % DAY_MS)


def soon(db: Database, number: int) -> None:
    """Deadlines that are near, and all alike."""
    key = b"soon:%012d" % number
    db.set(key, b"x")
    db.set_deadline(key, 1_700_000_000_000 + number % 1000)


def overwritten(db: Database, number: int) -> None:
    """Values that grow and shrink three times."""
    key = b"key:%012d" % (number % 50_000)
    db.set(key, bytes(100 + number * 31 % 400))


def appended(db: Database, number: int) -> None:
    """Strings that are changed in place."""
    db.set(b"log:%012d" % number, bytearray(b"%0100d" % number))


WORKLOADS: dict[str, Callable[[Database, int], None]] = {
    fill.__name__: fill
    for fill in (small, tiny, counters, large, with_deadline, expired_later, soon, overwritten, appended)
}


def main() -> None:
    """Fill, measure, print."""
    fill, count = WORKLOADS[sys.argv[1]], int(sys.argv[2])
    databases = [Database(index, Clock()) for index in range(16)]
    meter = MemoryMeter(databases)
    # The first keys make lists and dicts that every database has; they are counted, so they come after the start.
    gc.collect()
    before = resident_bytes()
    for number in range(count):
        fill(databases[0], number)
    gc.collect()
    meter.refresh()
    sys.stdout.write(f"{meter.used_bytes} {resident_bytes() - before}\n")


if __name__ == "__main__":
    main()
