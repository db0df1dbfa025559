"""Hash slots or consistent hashing? What finding a node costs, how even the nodes are, how many keys a new node moves.

Usage: python -m bench.placement [--quick]. All schemes hash by CRC, which Python has in C; those that need all bits of
the hash to be good mix it.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from bench.experiment import Table, ns_each, run
from kvservice.keyspace.slots import SLOTS, slot_of

Place = Callable[[bytes], int]
POINTS_A_NODE: Final = 160
"""The usual number of points on a ring (ketama)."""


def slots(nodes: int) -> Place:
    """Return placement by a table of slots in which each new node takes an even share from the others."""
    table = [0] * SLOTS
    for node in range(1, nodes):
        counts = Counter(table)
        share = SLOTS // (node + 1)
        for giver in range(node):
            give = counts[giver] - share - (giver < SLOTS % (node + 1))
            for slot, owner in enumerate(table):
                if give <= 0:
                    break
                if owner == giver:
                    table[slot] = node
                    give -= 1
    return lambda key: table[slot_of(key)]


def modulo(nodes: int) -> Place:
    """Return placement by the remainder of the hash."""
    return lambda key: crc32(key) % nodes


def ring(nodes: int) -> Place:
    """Return placement on a ring with POINTS_A_NODE points for each node."""
    points = sorted(
        (mixed(b"node-%d-%d" % (node, point)), node) for node in range(nodes) for point in range(POINTS_A_NODE)
    )
    hashes, owners = [point for point, _ in points], [node for _, node in points]
    return lambda key: owners[bisect(hashes, mixed(key)) % len(owners)]


def rendezvous(nodes: int) -> Place:
    """Return placement on the node whose hash together with the key is highest."""
    seeds = [crc32(b"node-%d" % node) for node in range(nodes)]

    def place(key: bytes) -> int:
        weights = [mixed(key, seed) for seed in seeds]
        return weights.index(max(weights))

    return place


def jump(nodes: int) -> Place:
    """Return placement by jump consistent hashing (Lamping and Veach, 2014)."""

    def place(key: bytes) -> int:
        state, bucket, following = mixed(key) << 32 | crc32(key), -1, 0
        while following < nodes:
            bucket = following
            state = (state * 2862933555777941757 + 1) & (1 << 64) - 1
            following = int((bucket + 1) * ((1 << 31) / ((state >> 33) + 1)))
        return bucket

    return place


def mixed(key: bytes, seed: int = 0) -> int:
    """Return a 32-bit hash whose bits depend on each other less simply than those of a CRC."""
    value = crc32(key, seed)
    value = (value ^ value >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


SCHEMES: Final[dict[str, Callable[[int], Place]]] = {
    "slots and a table": slots,
    "hash modulo nodes": modulo,
    f"ring, {POINTS_A_NODE} points a node": ring,
    "rendezvous": rendezvous,
    "jump": jump,
}


def imbalance(place: Place, keys: Sequence[bytes], nodes: int) -> float:
    """Return how much more than the mean the fullest node has, in percent."""
    return 100 * (max(Counter(map(place, keys)).values()) * nodes / len(keys) - 1)


def moved(make: Callable[[int], Place], keys: Sequence[bytes], nodes: int) -> float:
    """Return the share of the keys that move when one node joins, in percent."""
    before, after = make(nodes), make(nodes + 1)
    return 100 * sum(before(key) != after(key) for key in keys) / len(keys)


def row(name: str, keys: Sequence[bytes]) -> list[str | float]:
    """Measure one scheme."""
    make = SCHEMES[name]
    place = make(10)

    def place_all() -> None:
        for key in keys:
            place(key)

    return [
        name,
        ns_each(place_all, len(keys)),
        *(imbalance(make(nodes), keys, nodes) for nodes in (3, 10)),
        *(moved(make, keys, nodes) for nodes in (3, 10)),
    ]


def measure(quick: bool) -> list[Table]:
    """Measure all schemes on random keys."""
    chance = random.Random(1)
    keys = [b"user:%d" % chance.randrange(1 << 48) for _ in range(5_000 if quick else 200_000)]
    head = ["Scheme", "look-up among 10 nodes, ns", "fullest of 3, % above mean", "fullest of 10, % above mean"]
    head += ["moved 3 → 4 nodes, %", "moved 10 → 11 nodes, %"]
    rows: list[list[str | float]] = [row(name, keys) for name in SCHEMES]
    rows.append(["(the least that can move)", "", "", "", 100 / 4, 100 / 11])
    return [Table(f"Placement of {len(keys):,} keys", head, rows)]


if __name__ == "__main__":
    run("placement", measure)
