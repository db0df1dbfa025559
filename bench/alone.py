"""What less than three nodes of Redan make of the loads of ``bench.cluster``: how far these could get on this machine.

redis-server syncs its log before it answers, as Redan does, and sends it to nobody. An empty server of grpc.aio, of the
kind that Redan has, answers unary calls and does nothing else. A Redan node alone writes its log and replicates it to
nobody. Three bare nodes (bench/bare_node) copy SETs and can do nothing else.

Leaves to the caller: measuring the node alone, and etcd's figures of the same run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.cluster_loads import BATCH, CLIENTS, LOADS, PIPELINES, REQUESTS_PER_SECOND, TARGETS, Say, Values
from bench.experiment import Cell, Table
from bench.go_load import REDAN_TARGETS, run_grpc_load
from bench.grpc_rates import empty_server
from bench.load import run_load
from bench.report import ROOT, SCRATCH, median, significant
from bench.servers import Redis, free_port
from kvservice.grpc_poller import prefer_poller

NOT_REDAN: Final = ("bare", "redis", "empty")
"""Sides that stand in for nobody: three bare nodes, redis-server, and the empty gRPC server."""


@contextmanager
def bare_cluster() -> Iterator[tuple[int, int]]:
    """Run three bare nodes, with gRPC as nodes have it; give the ports of the leader for RESP and gRPC."""
    environment = dict(os.environ)
    prefer_poller(environment)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, ExitStack() as running:

        def start(*arguments: str) -> str:
            command = [sys.executable, "-m", "bench.bare_node", *arguments]
            process = running.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            )
            running.callback(process.kill)
            assert process.stdout is not None
            if not (said := process.stdout.readline().strip()):
                raise RuntimeError(f"the bare node {arguments} did not start")
            return said

        peers = [start("follower", f"{folder}/follower{number}") for number in range(2)]
        ports = free_port(), free_port()
        start("leader", *map(str, ports), f"{folder}/leader", *peers)
        yield ports


def measure_alone(program: Path, seconds: float, values: Values, say: Say) -> None:
    """Load three bare nodes, redis-server, then an empty gRPC server; add the requests a second of each load."""

    def note(name: str, rate: float) -> None:
        values[name].append(rate)
        say(f"{name}: {rate:,.0f}/s")

    def set_keys(side: str, port: int) -> None:
        for pipeline in PIPELINES:
            for clients in CLIENTS:
                requests = int(REQUESTS_PER_SECOND[pipeline] * seconds)
                load = run_load(port, "set", requests=requests, pipeline=pipeline, clients=clients)
                note(f"{side} set {pipeline} {clients}", load.rate)

    with bare_cluster() as (port, grpc_port):
        set_keys("bare", port)
        for clients in CLIENTS:
            for target in REDAN_TARGETS:
                endpoint = [f"127.0.0.1:{grpc_port}"]
                load = run_grpc_load(program, target, endpoint, clients=clients, seconds=seconds, batch=BATCH)
                note(f"bare {target} {clients}", load.rate)
    with Redis("always") as server:
        server.start()
        set_keys("redis", server.port)
    for clients in CLIENTS:
        with empty_server() as (_pid, grpc_port):
            calls = run_grpc_load(program, "redan", [f"127.0.0.1:{grpc_port}"], clients=clients, seconds=seconds)
            note(f"empty redan {clients}", calls.rate)


def alone_table(values: Values, single: Values, alone: Values) -> Table:
    """Return what each of them makes as multiples of what three nodes of etcd put, beside the targets."""
    rows: list[list[Cell]] = []
    for clients in CLIENTS:
        etcd = median(values[f"etcd etcd {clients}"])
        for load, words in LOADS.items():
            rates = (single[f"redan {load} {clients}"], *(alone.get(f"{who} {load} {clients}") for who in NOT_REDAN))
            ratios: list[Cell] = [significant(median(found) / etcd, 3) if found else None for found in rates]
            rows.append([f"{words}, {clients:,} clients", *ratios, f"≥ {TARGETS[load]:g}"])
    head = ["Load", "Redan, one node", "three bare nodes", "redis-server", "empty gRPC server", "Target"]
    return Table("Writes of those that do less, as multiples of what three nodes of etcd put", head, rows)
