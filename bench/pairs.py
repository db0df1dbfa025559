"""Checkouts of Redan against each other: a cluster of each runs all the time, and short loads go to them in turn.

Usage: python -m bench.pairs [--rounds N] [--nodes N] [--load "KIND CLIENTS PIPELINE AMOUNT"]… TREE TREE…. A tree is a
checkout; the interpreter is the one of its .venv if it has one. KIND is set or get (redis-benchmark, AMOUNT requests),
or redan or redan-pipeline (the Go client: Set, or batches of 100; AMOUNT seconds).

What a host does to a machine of its own lasts for minutes and changes rates by a quarter, so medians of runs that
follow each other differ by 5 to 10 % where nothing has changed. Here a round takes seconds, every tree has its turn in
it, and what counts is the ratio within a round: two clusters of one tree differed by 1 to 3 % in the median of 8, with
1,000 streams by 8 %; the quartiles say how little is known.

Prints, for each load and tree: the median rate; of its ratios to the first tree the median and both quartiles;
microseconds of processor for one command until the client has its answers, on the leader and on all others, in which
followers may still have something to apply; the median of the ratios of their sum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles
from typing import Final, NamedTuple, cast

from bench.clusters import RedanCluster
from bench.go_load import Target, build, run_grpc_load
from bench.load import Command, run_load
from bench.servers import allow_many_connections, cpu_seconds

LOADS: Final = ("set 50 16 150000", "set 50 1 30000", "get 50 1 40000", "redan 50 1 1.2", "redan-pipeline 50 1 1.2")
WARM_UP: Final = "set 50 16 1200000"
"""Twelve draws for each of the 100,000 keys, so that every one exists."""
MICROSECONDS: Final = 1_000_000


class Run(NamedTuple):
    """What one load found."""

    rate: float
    leader_us: float
    others_us: float


class Member:
    """A tree's cluster, in a process of its own that imports that tree's code."""

    def __init__(self, tree: Path, program: Path | None, nodes: int) -> None:
        self._tree = tree
        python = tree / ".venv" / "bin" / "python"
        self._process = subprocess.Popen(
            [python if python.exists() else sys.executable, "-P", __file__, "member", str(program), str(nodes)],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": f"{tree}:{tree / 'proto'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear()

    def run(self, load: str) -> Run:
        """Run a load, and wait until the nodes are at rest."""
        assert self._process.stdin is not None
        self._process.stdin.write(load + "\n")
        self._process.stdin.flush()
        return Run(*self._hear())

    def _hear(self) -> list[float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster of {self._tree} has ended with {self._process.wait()}")
        return cast("list[float]", json.loads(line))

    def close(self) -> None:
        """End the cluster."""
        self._process.communicate()


def serve(program: Path, nodes: int) -> None:
    """Be the process of a member: run the loads that are read, one a line."""
    allow_many_connections()
    with RedanCluster(nodes=nodes) as cluster:
        cluster.start()
        leader = cluster.leader()
        assert leader is not None, "the cluster was whole a moment ago"
        # A tree of some age has no method for this.
        pids = [vars(cluster)["_processes"][number].pid for number in cluster.numbers]
        say([])
        for line in sys.stdin:
            before = list(map(cpu_seconds, pids))
            rate, count = run_one(cluster, leader, program, line)
            used = [after - earlier for after, earlier in zip(map(cpu_seconds, pids), before, strict=True)]
            cluster.rest()
            if cluster.leader() != leader:
                raise RuntimeError("another node leads: the load went through a follower")
            leader_us = MICROSECONDS * used[leader] / count
            say([rate, leader_us, MICROSECONDS * sum(used) / count - leader_us])


def run_one(cluster: RedanCluster, leader: int, program: Path, load: str) -> tuple[float, int]:
    """Load the leader; return the rate, and how many commands it were."""
    kind, clients, pipeline, amount = load.split()
    if kind in ("set", "get"):
        requests = int(amount)
        found = run_load(
            cluster.resp_ports[leader],
            cast(Command, kind),
            requests=requests,
            pipeline=int(pipeline),
            clients=int(clients),
        )
        return found.rate, requests
    endpoint = [cluster.endpoints[leader]]
    written = run_grpc_load(program, cast(Target, kind), endpoint, clients=int(clients), seconds=float(amount))
    return written.rate, written.writes


def say(numbers: list[float]) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(numbers) + "\n")
    sys.stdout.flush()


def compare(members: dict[str, Member], load: str, rounds: int) -> list[str]:
    """Run a load on all, in turn; return a line for each."""
    names = list(members)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(members[name].run(load))
    return [line_of(load, name, runs[name], runs[names[0]]) for name in names]


def line_of(load: str, name: str, runs: list[Run], base: list[Run]) -> str:
    """Return what is printed of one tree."""
    ratios = [run.rate / other.rate for run, other in zip(runs, base, strict=True)]
    costs = [
        (run.leader_us + run.others_us) / ((other.leader_us + other.others_us) or 1)
        for run, other in zip(runs, base, strict=True)
    ]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    rate, leader_us, others_us = (median(column) for column in zip(*runs, strict=True))
    return (
        f"{load:26} {name:20} {rate:9,.0f}/s  ratio {median(ratios):.3f} ({low:.2f} to {high:.2f})  "
        f"leader {leader_us:.2f} us, others {others_us:.2f} us, ratio {median(costs):.3f}"
    )


def main(arguments: list[str]) -> None:
    """Compare, or be a member."""
    if arguments[:1] == ["member"]:
        serve(Path(arguments[1]), int(arguments[2]))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.pairs", description="Compare checkouts of Redan.")
    parser.add_argument("trees", nargs="+", type=Path, metavar="TREE")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--load", action="append", dest="loads", help=f"one of {', '.join(LOADS)} or like these")
    options = parser.parse_args(arguments)
    loads = options.loads or LOADS
    program = build() if any("redan" in load for load in loads) else None
    members: dict[str, Member] = {}
    try:
        for number, tree in enumerate(options.trees):
            members[f"{number} {tree.name}"] = Member(tree.resolve(), program, options.nodes)
        for member in members.values():
            member.run(WARM_UP)
        for load in loads:
            for line in compare(members, load, options.rounds):
                sys.stdout.write(line + "\n")
    finally:
        for member in members.values():
            member.close()


if __name__ == "__main__":
    main(sys.argv[1:])
