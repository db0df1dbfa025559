"""What single processes make of the loads of ``bench.cluster``: how far three nodes could get on this machine.

redis-server syncs its log before it answers, as Redan does, and sends it to nobody. An empty server of grpc.aio, of the
kind that Redan has, answers unary calls and does nothing else. A Redan node alone writes its log and replicates it to
nobody.

Leaves to the caller: measuring the node alone, and etcd's figures of the same run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.cluster_loads import CLIENTS, LOADS, PIPELINES, REQUESTS_PER_SECOND, TARGETS, Say, Values
from bench.experiment import Cell, Table
from bench.go_load import run_grpc_load
from bench.grpc_rates import empty_server
from bench.load import run_load
from bench.report import median, significant
from bench.servers import Redis

NOT_REDAN: Final = ("redis", "empty")
"""Sides that stand in for nobody: redis-server, and the empty gRPC server."""


def measure_alone(program: Path, seconds: float, values: Values, say: Say) -> None:
    """Load redis-server, then an empty gRPC server; add the requests a second of each load."""

    def note(name: str, rate: float) -> None:
        values[name].append(rate)
        say(f"{name}: {rate:,.0f}/s")

    with Redis("always") as server:
        server.start()
        for pipeline in PIPELINES:
            for clients in CLIENTS:
                requests = int(REQUESTS_PER_SECOND[pipeline] * seconds)
                load = run_load(server.port, "set", requests=requests, pipeline=pipeline, clients=clients)
                note(f"redis set {pipeline} {clients}", load.rate)
    for clients in CLIENTS:
        with empty_server() as (_pid, port):
            calls = run_grpc_load(program, "redan", [f"127.0.0.1:{port}"], clients=clients, seconds=seconds)
            note(f"empty redan {clients}", calls.rate)


def alone_table(values: Values, single: Values, alone: Values) -> Table:
    """Return what each process alone makes as multiples of what three nodes of etcd put, beside the targets."""
    rows: list[list[Cell]] = []
    for clients in CLIENTS:
        etcd = median(values[f"etcd etcd {clients}"])
        for load, words in LOADS.items():
            rates = (single[f"redan {load} {clients}"], *(alone.get(f"{who} {load} {clients}") for who in NOT_REDAN))
            ratios: list[Cell] = [significant(median(found) / etcd, 3) if found else None for found in rates]
            rows.append([f"{words}, {clients:,} clients", *ratios, f"≥ {TARGETS[load]:g}"])
    head = ["Load", "Redan, one node", "redis-server", "empty gRPC server", "Target"]
    return Table("Writes of one process alone, as multiples of what three nodes of etcd put", head, rows)
