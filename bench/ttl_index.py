"""Three ways to know which deadlines come next, measured side by side: heap, slot minima and the wheel that we ship.

Run ``python -m bench.ttl_index [--keys 1000000]``; prints JSON and writes it to bench/results/ttl_index.json.

Workloads: new keys (deadlines over a day, as SETEX gives them); renewals (sessions: the same keys again and again, each
time discard and add); due (time passes, everything is taken in slices of 200). Memory is what the index adds for each
key, next to the key and the deadline themselves, which the keyspace holds anyway.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from heapq import heapify, heappop, heappush
from multiprocessing import get_context
from time import thread_time_ns
from typing import Any, Protocol

from bench.report import write
from kvservice.keyspace.expiry import ExpiryIndex
from kvservice.keyspace.slots import SLOTS, slot_of

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
SLICE = 200
ROUNDS_MAX = 10_000_000


def clock_ns() -> int:
    """Return what reading the clock costs."""
    readings = sorted(-thread_time_ns() + thread_time_ns() for _ in range(1001))
    return readings[500]


CLOCK_NS = clock_ns()


class Index(Protocol):
    """What is compared."""

    def add(self, key: bytes, deadline_ms: int, /) -> None: ...

    def discard(self, key: bytes, deadline_ms: int, /) -> None: ...

    def due(self, now_ms: int, limit: int, /) -> list[tuple[int, bytes]]: ...


class LazyHeap:
    """A heap of (deadline, key) whose stale entries stay until they are due, or until they are more than half."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, bytes]] = []
        self.deadlines: dict[bytes, int] = {}
        """Stands for the keyspace's own deadlines; not counted as memory of the index."""

    def add(self, key: bytes, deadline_ms: int) -> None:
        self.deadlines[key] = deadline_ms
        heappush(self.heap, (deadline_ms, key))
        if len(self.heap) > 2 * len(self.deadlines) + 1000:
            self.heap = [(due, name) for name, due in self.deadlines.items()]
            heapify(self.heap)

    def discard(self, key: bytes, deadline_ms: int) -> None:
        self.deadlines.pop(key, None)

    def due(self, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        taken: list[tuple[int, bytes]] = []
        while self.heap and self.heap[0][0] <= now_ms and len(taken) < limit:
            deadline_ms, key = heappop(self.heap)
            if self.deadlines.get(key) == deadline_ms:
                del self.deadlines[key]
                taken.append((deadline_ms, key))
        return taken


class SlotMinima:
    """No entry for a key: only the earliest deadline of each slot, whose own dict is searched when that comes."""

    def __init__(self) -> None:
        self.slots: list[dict[bytes, int]] = [{} for _ in range(SLOTS)]
        """Stands for the keyspace's own deadlines; not counted as memory of the index."""
        self.earliest = [1 << 62] * SLOTS
        self.heap: list[tuple[int, int]] = []

    def add(self, key: bytes, deadline_ms: int) -> None:
        slot = slot_of(key)
        self.slots[slot][key] = deadline_ms
        if deadline_ms < self.earliest[slot]:
            self.earliest[slot] = deadline_ms
            heappush(self.heap, (deadline_ms, slot))

    def discard(self, key: bytes, deadline_ms: int) -> None:
        self.slots[slot_of(key)].pop(key, None)

    def due(self, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        taken: list[tuple[int, bytes]] = []
        while self.heap and self.heap[0][0] <= now_ms and len(taken) < limit:
            deadline_ms, slot = heappop(self.heap)
            if self.earliest[slot] != deadline_ms:
                continue
            keys = self.slots[slot]
            found = [(due, key) for key, due in keys.items() if due <= now_ms]
            for _due, key in found:
                del keys[key]
            taken += found
            self.earliest[slot] = min(keys.values(), default=1 << 62)
            if keys:
                heappush(self.heap, (self.earliest[slot], slot))
        return taken


class Spent:
    """Processor time of single calls, in ns, so that a busy machine does not count."""

    def __init__(self) -> None:
        self.total = 0
        self.longest = 0
        self.calls = 0

    def call(self, act: Callable[..., object], *args: object) -> object:
        started = thread_time_ns()
        result = act(*args)
        spent = thread_time_ns() - started - CLOCK_NS
        self.total += spent
        self.calls += 1
        self.longest = max(self.longest, spent)
        return result

    def figures(self, work: int) -> dict[str, float]:
        return {"ns": round(self.total / max(1, work)), "longest_ms": round(self.longest / 1e6, 3)}


def dict_bytes(index: Index) -> int:
    """Return the bytes of what the index holds beside keys and deadlines."""
    size = sys.getsizeof
    if isinstance(index, LazyHeap):
        return size(index.heap) + sum(map(size, index.heap))
    if isinstance(index, SlotMinima):
        return size(index.earliest) + size(index.heap) + sum(map(size, index.heap))
    assert isinstance(index, ExpiryIndex)
    return sum(
        size(rim.buckets)
        + size(rim.numbers)
        + sum(map(size, rim.buckets.values()))
        + sum(size(c) for full in rim.full.values() for c in full)
        for rim in (index.near, index.far)
    )


KINDS: dict[str, Callable[[], Index]] = {"heap": LazyHeap, "slot minima": SlotMinima, "wheel": ExpiryIndex}


def measure(name: str, count: int) -> dict[str, object]:
    """Run all workloads on one kind of index."""
    make = KINDS[name]
    chance = random.Random(1)
    keys = [b"session:%012d" % number for number in range(count)]
    deadlines = [START_MS + chance.randrange(DAY_MS) for _ in keys]
    index = make()
    # A full collection is no matter of the index; the service keeps keys out of it (kvservice/gc_policy).
    gc.collect()
    gc.disable()
    new = Spent()
    for key, deadline_ms in zip(keys, deadlines, strict=True):
        new.call(index.add, key, deadline_ms)
    per_key = dict_bytes(index) / count
    renew = Spent()
    for turn in range(count):
        number = chance.randrange(count)
        renewed_ms = deadlines[number] + 1000 + turn % 777
        renew.call(index.discard, keys[number], deadlines[number])
        renew.call(index.add, keys[number], renewed_ms)
        deadlines[number] = renewed_ms
    after = dict_bytes(index) / count
    due, taken, now_ms = Spent(), 0, START_MS
    for _ in range(ROUNDS_MAX):
        if taken == count:
            break
        found = due.call(index.due, now_ms, SLICE)
        assert isinstance(found, list)
        taken += len(found)
        if not found:
            now_ms += 100_000
    assert taken == count
    one = make()
    one.add(b"one", START_MS)
    for turn in range(count):
        one.discard(b"one", START_MS + turn)
        one.add(b"one", START_MS + turn + 1)
    return {
        "new_key": new.figures(count),
        "renewal": renew.figures(count),
        "due": due.figures(count),
        "bytes_per_key": round(per_key, 1),
        "bytes_per_key_after_renewals": round(after, 1),
        "bytes_after_renewing_one_key": dict_bytes(one),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    count = parser.parse_args().keys
    figures: dict[str, Any] = {"keys": count}
    for name in KINDS:
        # A process each, so that none inherits the memory that another has left.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            figures[name] = pool.submit(measure, name, count).result()
    write("ttl_index", figures, quick=count < 1_000_000)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
