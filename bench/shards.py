"""Shards, one dict, or locks? What finding a key, adding a key and sharing a keyspace between threads cost.

Usage: python -m bench.shards [--quick]. Keys of 16 bytes, values of 64; each layout in a process of its own.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable
from threading import Barrier, Lock, Thread
from time import perf_counter, thread_time_ns
from typing import Final

from bench.experiment import Table, apart, run
from bench.resp_client import key_of, value_of
from kvservice.keyspace.slots import SLOTS, SLOTS_PER_SHARD, slot_of

Dicts = list[dict[bytes, bytes]]
PROBES: Final = 200_000
LAYOUTS: Final = {"one dict": 1, "16 dicts": 16, "16,384 dicts": SLOTS}


def place_of(dicts: int) -> Callable[[bytes], int]:
    """Return the function from a key to its dict."""
    if dicts == 1:
        return lambda _key: 0
    if dicts == SLOTS:
        return slot_of
    return lambda key: slot_of(key) // SLOTS_PER_SHARD


def layout_row(name: str, keys: int) -> list[str | float]:
    """Measure one layout in this process: ns of a new key, ns of a read, longest insert in ms, bytes of dicts a key."""
    dicts: Dicts = [{} for _ in range(LAYOUTS[name])]
    place = place_of(len(dicts))
    names = [key_of(number) for number in range(keys)]
    value = value_of(1)
    random.Random(1).shuffle(names)
    gc.collect()
    gc.disable()
    begun = perf_counter()
    for key in names:
        dicts[place(key)][key] = value
    insert_ns = (perf_counter() - begun) / keys * 1e9
    probes = random.Random(2).choices(names, k=PROBES)
    begun = perf_counter()
    for key in probes:
        dicts[place(key)].get(key)
    get_ns = (perf_counter() - begun) / PROBES * 1e9
    dict_bytes = sum(map(sys.getsizeof, dicts)) / keys
    return [name, insert_ns, get_ns, longest_insert_ns(dicts, names, place) / 1e6, dict_bytes]


def longest_insert_ns(dicts: Dicts, names: list[bytes], place: Callable[[bytes], int]) -> int:
    """Fill the dicts anew; return the longest single insert in processor time, which other processes do not stretch."""
    for each in dicts:
        each.clear()
    longest = 0
    value = value_of(2)
    for key in names:
        started = thread_time_ns()
        dicts[place(key)][key] = value
        longest = max(longest, thread_time_ns() - started)
    return longest


def threads_rate(threads: int, locks: int, operations: int) -> float:
    """Return reads and writes a second of threads on 16 dicts; ``locks`` is 0, 1 for all, or 16."""
    dicts: Dicts = [{} for _ in range(16)]
    place = place_of(16)
    guards = [Lock() for _ in range(locks)]
    names = [key_of(number) for number in range(10_000)]
    value = value_of(1)
    gate = Barrier(threads)
    spans: list[tuple[float, float]] = []

    def worker(seed: int) -> None:
        chosen = random.Random(seed).choices(names, k=operations // threads)
        gate.wait()
        begun = perf_counter()
        if guards:
            for key in chosen:
                number = place(key)
                with guards[number % locks]:
                    shard = dicts[number]
                    shard[key] = value
                    shard.get(key)
        else:
            for key in chosen:
                shard = dicts[place(key)]
                shard[key] = value
                shard.get(key)
        spans.append((begun, perf_counter()))

    started = [Thread(target=worker, args=(seed,), daemon=True) for seed in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return 2 * operations / (max(end for _, end in spans) - min(begun for begun, _ in spans))


def processes_rate(operations: int) -> float:
    """Return reads and writes a second of two processes that have half of the keys each."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        rates = [pool.submit(threads_rate, 1, 0, operations) for _ in range(2)]
        return sum(rate.result() for rate in rates)


def measure(quick: bool) -> list[Table]:
    """Measure layouts and threads."""
    keys, operations = (20_000, 20_000) if quick else (1_000_000, 400_000)
    head = ["Layout", "new key, ns", "read, ns", "longest insert, ms", "bytes of dicts/key"]
    rows = [apart(layout_row, name, keys) for name in LAYOUTS]
    sharing: list[list[str | float]] = [
        ["one thread, no lock", threads_rate(1, 0, operations)],
        ["one thread, a lock for each of 16 shards", threads_rate(1, 16, operations)],
        ["two threads, a lock for each of 16 shards", threads_rate(2, 16, operations)],
        ["two threads, one lock", threads_rate(2, 1, operations)],
        ["two processes, half of the slots each", processes_rate(operations)],
    ]
    return [
        Table(f"Layouts at {keys:,} keys", head, rows),
        Table("Reads and writes of a small keyspace, all in Python", ["Sharing", "operations/s"], sharing),
    ]


if __name__ == "__main__":
    run("shards", measure)
