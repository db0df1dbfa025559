"""The loads of ``bench.cluster``, what they are called, and what three nodes are to make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CLIENTS: Final = (50, 1000)
PIPELINES: Final = (1, 16)
BATCH: Final = 100
REQUESTS_PER_SECOND: Final = {1: 20_000, 16: 100_000}
"""So many requests a second of load are asked of redis-benchmark, whose runs are bounded by their number."""
LOADS: Final = {
    "set 1": "SET through RESP, pipeline 1",
    "set 16": "SET through RESP, pipeline 16",
    "redan": "gRPC unary Set",
    "redan-pipeline": f"gRPC Pipeline, batches of {BATCH}",
}
"""Loads of writes, and how a table spells them."""
TARGETS: Final = {"set 1": 8.0, "set 16": 20.0, "redan": 1.0, "redan-pipeline": 20.0}
"""Writes a second of three nodes, as multiples of what three of etcd put."""

Values = dict[str, list[float]]
"""Rates of all rounds, by side, load and number of clients."""
Say = Callable[[str], None]
