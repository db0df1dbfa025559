"""Three nodes of Redan beside three nodes of etcd, on this machine, in one run: writes a second, and failover.

Usage: python -m bench.cluster [--rounds N] [--seconds S] [--faults N] [--quick]. A full run takes about 35 minutes,
most of it faults. Every load goes to the leader alone, on both sides: redis-benchmark through RESP (Redan only, etcd
has no such plane), the Go client of ``bench/grpc_load`` through gRPC for both. Single processes get the same loads in
each round (``bench.alone``).

Guarantees: the clusters run one after the other in each round, and who goes first alternates; figures are medians of
the rounds. A load begins when the nodes have done what the one before has left them. Both sync each write to the disks
of a majority before they acknowledge it; etcd's peers speak HTTP.
Leaves to the caller: a machine that does nothing else. Six servers and a client share its cores, in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from time import monotonic
from typing import Any, Final

from bench.alone import alone_table, measure_alone
from bench.cluster_loads import BATCH, CLIENTS, LOADS, PIPELINES, REQUESTS_PER_SECOND, TARGETS, Say, Values
from bench.clusters import SIDES, Cluster, ClusterSide, RedanCluster, make_cluster
from bench.experiment import Cell, Table, table_text
from bench.failovers import FAULTS, Fault, Gaps, gap_rows, measure_faults
from bench.go_load import REDAN_TARGETS, Target, build, run_grpc_load
from bench.load import Command, run_load
from bench.report import RESULTS, environment, median, significant, write
from bench.servers import allow_many_connections

Environment = dict[str, Any]
LOAD_TABLES: Final = 3
PROGRAMS: Final = ("etcd", "redis-server", "redis-benchmark")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="Compare three nodes with etcd's.")
    parser.add_argument("--rounds", type=int, default=5, help="of all loads; 0 keeps those of the last run")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a load")
    parser.add_argument(
        "--faults", type=int, default=100, help="faults of each kind, on each side; 0 keeps those of the last run"
    )
    parser.add_argument("--quick", action="store_true", help="to see that it works; results stay apart")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.faults = 1, 0.5, 1
    return options


def measure_writes(program: Path, cluster: Cluster, seconds: float, values: Values, say: Say) -> None:
    """Load a cluster that runs; add the writes a second of each load."""
    leader = cluster.leader()
    assert leader is not None, "the cluster was whole a moment ago"
    endpoint = [cluster.endpoints[leader]]

    def note(name: str, rate: float) -> None:
        values[f"{cluster.side} {name}"].append(rate)
        say(f"{cluster.side} {name}: {rate:,.0f}/s")

    targets: tuple[Target, ...] = ("etcd",) if cluster.side == "etcd" else REDAN_TARGETS
    for clients in CLIENTS:
        for target in targets:
            cluster.rest()
            load = run_grpc_load(program, target, endpoint, clients=clients, seconds=seconds, batch=BATCH)
            note(f"{target} {clients}", load.rate)
    if isinstance(cluster, RedanCluster):
        for pipeline in PIPELINES:
            for clients in CLIENTS:
                for command in ("set", "get"):
                    requests = int(REQUESTS_PER_SECOND[pipeline] * seconds)
                    port = cluster.resp_ports[leader]
                    cluster.rest()
                    load_of = run_load(port, _command(command), requests=requests, pipeline=pipeline, clients=clients)
                    note(f"{command} {pipeline} {clients}", load_of.rate)


def _command(word: str) -> Command:
    return "set" if word == "set" else "get"


def writes_table(values: Values) -> Table:
    """Return the medians of writes beside etcd's and the targets."""
    middle = {name: median(rates) for name, rates in values.items()}
    rows: list[list[Cell]] = []
    for clients in CLIENTS:
        etcd = middle[f"etcd etcd {clients}"]
        for load, words in LOADS.items():
            rate, target = middle[f"redan {load} {clients}"], TARGETS[load]
            ratio = significant(rate / etcd, 3)
            said = "met" if ratio >= target else "missed"
            rows.append([f"{words}, {clients:,} clients", etcd, rate, ratio, f"≥ {target:g}", said])
    return Table("Writes a second, three nodes", ["Load", "etcd put", "Redan", "Ratio", "Target", ""], rows)


def reads_table(values: Values, single: Values) -> Table:
    """Return linearizable reads of the cluster beside those of a single node."""
    rows: list[list[Cell]] = []
    for pipeline in PIPELINES:
        for clients in CLIENTS:
            name = f"redan get {pipeline} {clients}"
            three, one = median(values[name]), median(single[name])
            rows.append([f"GET, pipeline {pipeline}, {clients:,} clients", one, three, significant(three / one, 3)])
    return Table("Linearizable reads a second", ["Load", "one node", "three nodes", "Ratio"], rows)


def measure_failovers(program: Path, count: int, machine: Environment, say: Say) -> tuple[Table, dict[str, Any]]:
    """Cause every kind of fault on both sides; return the table and what else the result says of that."""
    rows: list[list[Cell]] = []
    gaps: Values = {}
    for fault in FAULTS:
        for side in SIDES:
            found = _faults(program, side, fault, count)
            gaps[f"{side} {fault}"] = [round(gap, 1) for gap in found.milliseconds]
            rows += gap_rows(side, [found])
            say(f"{side} {fault}: p50 {rows[-1][3]:.0f} ms, p99 {rows[-1][5]:.0f} ms")
    title = f"Time without an acknowledged write, {machine['date']} at {machine['commit']}"
    head = ["Side", "Leader", "faults", "p50, ms", "p90, ms", "p99, ms", "longest, ms"]
    return Table(title, head, rows), {"faults_environment": machine, "gaps_ms": gaps}


def _faults(program: Path, side: ClusterSide, fault: Fault, count: int) -> Gaps:
    with make_cluster(side) as cluster:
        cluster.start()
        return measure_faults(program, cluster, fault, count)


def measure_loads(
    program: Path, rounds: int, seconds: float, machine: Environment, say: Say
) -> tuple[list[Table], dict[str, Any]]:
    """Run all loads on all sides; return the tables and what else the result says of that."""
    values: Values = defaultdict(list)
    single: Values = defaultdict(list)
    alone: Values = defaultdict(list)
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            with make_cluster(side) as cluster:
                cluster.start()
                measure_writes(program, cluster, seconds, values, say)
        with RedanCluster(nodes=1) as cluster:
            cluster.start()
            measure_writes(program, cluster, seconds, single, say)
        measure_alone(program, seconds, alone, say)
    tables = [writes_table(values), alone_table(values, single, alone), reads_table(values, single)]
    return tables, {
        "environment": machine,
        "values": values,
        "values_of_one_node": single,
        "values_of_others_alone": alone,
    }


def main(arguments: list[str]) -> int:
    """Measure, print, write bench/results/cluster.json."""
    options = parse(arguments)
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        print(f"{' and '.join(missing)} needed: make install, or your system's packages", file=sys.stderr)
        return 1
    allow_many_connections()
    started = monotonic()

    def say(text: str) -> None:
        print(f"{monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    program = build()
    earlier = {} if options.rounds and options.faults else json.loads((RESULTS / "cluster.json").read_text())
    found = {name: content for name, content in earlier.items() if name != "name"}
    # Those of the loads, and last that of the faults.
    tables = earlier.get("tables", [])
    if options.rounds:
        of_loads, rest = measure_loads(program, options.rounds, options.seconds, environment(), say)
        tables = [*(table.as_json() for table in of_loads), *tables[-1:]]
        found |= rest
    if options.faults:
        of_faults, rest = measure_failovers(program, options.faults, environment(), say)
        tables = [*tables[:LOAD_TABLES], of_faults.as_json()]
        found |= rest
    found["tables"] = tables
    path = write("cluster", found, quick=options.quick)
    print("\n\n".join(map(table_text, tables)))
    print(f"\nWritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
