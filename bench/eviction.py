"""Exact LRU against sampling: how many reads find their key, and what each way costs.

Run ``python -m bench.eviction [--keys 100000] [--reads 500000]``; prints JSON and writes bench/results/eviction.json.

Workload: reads by a Zipf law (exponent 1.0) over ten times as many keys as fit; a miss stores the key, and the least
worthy goes. ``exact`` is one dict in order of use, moved at each read; ``dict`` is sampling with a dict of times, what
a wrapper around each value would amount to; ``redan`` is what we ship: sampling with a table of cells
(keyspace/access). ``random`` is the floor, ``belady`` (the key that is needed latest goes) the ceiling.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import sys
from array import array
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from time import process_time
from typing import Any

from bench.report import write
from kvservice.keyspace.database import Clock, Database
from kvservice.keyspace.eviction import Evictor
from kvservice.keyspace.memory import MemoryMeter

STEP_MS = 5
"""Time between two reads: slow enough that a step of the table holds a dozen of them."""
VALUE = bytes(64)

Figures = dict[str, float]


def zipf_reads(keys: int, reads: int) -> list[int]:
    """Return the numbers of the keys that are read, by a Zipf law; popularity is not in the order of the numbers."""
    chance = random.Random(3)
    sums = list(accumulate(1 / rank for rank in range(1, keys + 1)))
    names = list(range(keys))
    chance.shuffle(names)
    return [names[bisect(sums, chance.random() * sums[-1])] for _ in range(reads)]


def exact(reads: list[int], room: int) -> Figures:
    """Exact LRU: every read moves its key to the end of one order."""
    order: OrderedDict[bytes, bytes] = OrderedDict()
    names = [b"key:%012d" % number for number in range(max(reads) + 1)]
    hits = 0
    started = process_time()
    for number in reads:
        key = names[number]
        if key in order:
            order.move_to_end(key)
            hits += 1
            continue
        order[key] = VALUE
        if len(order) > room:
            order.popitem(last=False)
    spent = process_time() - started
    # An OrderedDict keeps a node of its list for each key: 56 bytes and an entry of a second table.
    links = (sys.getsizeof(order) - sys.getsizeof(dict(order))) / len(order)
    return {"hit_ratio": hits / len(reads), "us_per_read": spent / len(reads) * 1e6, "bytes_per_key": links}


def belady(reads: list[int], room: int) -> Figures:
    """The best that any policy could do, knowing the future."""
    later = array("q", [len(reads)]) * len(reads)
    last: dict[int, int] = {}
    for position in range(len(reads) - 1, -1, -1):
        later[position] = last.get(reads[position], len(reads))
        last[reads[position]] = position
    needed: dict[int, int] = {}
    heap: list[tuple[int, int]] = []
    hits = 0
    for position, number in enumerate(reads):
        hits += number in needed
        needed[number] = later[position]
        heapq.heappush(heap, (-later[position], number))
        while len(needed) > room:
            due, victim = heapq.heappop(heap)
            if needed.get(victim) == -due:
                del needed[victim]
    return {"hit_ratio": hits / len(reads)}


def redan(reads: list[int], room: int, policy: str, samples: int) -> Figures:
    """Run our keyspace and evictor; evict whenever there is a key too many."""
    clock = Clock()
    databases = [Database(0, clock)]
    db = databases[0]
    names = [b"key:%012d" % number for number in range(max(reads) + 1)]
    evictor = Evictor(databases, random.Random(5).random)
    evictor.configure(policy, samples, 1)
    hits, choosing = 0, 0.0
    started = process_time()
    for position, number in enumerate(reads):
        key, now_ms = names[number], position * STEP_MS
        if db.get(key) is not None:
            hits += 1
        else:
            db.set(key, VALUE)
            if db.key_count > room:
                before = process_time()
                victims = evictor.victims(1, now_ms)
                for _db, victim in victims:
                    db.delete(victim)
                evictor.settled(victims)
                choosing += process_time() - before
        evictor.touch(0, (key,), now_ms)
    spent = process_time() - started
    meter = MemoryMeter(databases)
    figures = {"hit_ratio": hits / len(reads), "us_per_read": spent / len(reads) * 1e6}
    figures["us_per_victim"] = choosing / max(1, len(reads) - hits - room) * 1e6
    figures["bytes_per_key"] = (meter.overhead_bytes if db.access is not None else 0) / db.key_count
    return figures


def sampled_dict(reads: list[int], room: int, samples: int) -> Figures:
    """Sampling without a pool, with a dict of times: the plain form."""
    chance = random.Random(5)
    used: dict[bytes, int] = {}
    present: list[bytes] = []
    names = [b"key:%012d" % number for number in range(max(reads) + 1)]
    hits = 0
    started = process_time()
    for position, number in enumerate(reads):
        key = names[number]
        if key in used:
            hits += 1
        else:
            present.append(key)
            if len(present) > room:
                places = [chance.randrange(0, len(present) - 1) for _ in range(samples)]
                place = min(places, key=lambda where: used[present[where]])
                del used[present[place]]
                present[place] = present.pop()
        used[key] = position
    spent = process_time() - started
    size = sys.getsizeof(used) / len(used) + 32
    return {"hit_ratio": hits / len(reads), "us_per_read": spent / len(reads) * 1e6, "bytes_per_key": size}


def rounded(figures: Figures) -> Figures:
    """Return figures with as many digits as they are worth."""
    return {name: round(figure, 4 if name == "hit_ratio" else 2) for name, figure in figures.items()}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=500_000)
    options = parser.parse_args()
    room = options.keys // 10
    reads = zipf_reads(options.keys, options.reads)
    ways: dict[str, Callable[[], Figures]] = {
        "belady": lambda: belady(reads, room),
        "exact": lambda: exact(reads, room),
        "dict, 5 samples": lambda: sampled_dict(reads, room, 5),
        "redan lru, 3 samples": lambda: redan(reads, room, "allkeys-lru", 3),
        "redan lru, 5 samples": lambda: redan(reads, room, "allkeys-lru", 5),
        "redan lru, 10 samples": lambda: redan(reads, room, "allkeys-lru", 10),
        "redan lfu, 5 samples": lambda: redan(reads, room, "allkeys-lfu", 5),
        "random": lambda: redan(reads, room, "allkeys-random", 5),
    }
    figures: dict[str, Any] = {"keys": options.keys, "room": room, "reads": options.reads}
    gc.disable()
    for name, run in ways.items():
        figures[name] = rounded(run())
    write("eviction", figures, quick=options.keys < 100_000)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
