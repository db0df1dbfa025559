"""How many operations a second a client gets through gRPC, call by call and in batches on one stream.

Redis has no gRPC, so there is nothing to compare with but our own Redis protocol. The client (bench/grpc_client) is
grpc.aio in one process of its own: it often costs more than the server, so both sides' processor time stands beside,
and what an empty server of grpc.aio makes of the same client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bench.comparison import Figures
from bench.report import ROOT
from bench.servers import Durability, Redan, cpu_seconds, free_port
from bench.throughput import MODES
from kvservice.grpc_poller import prefer_poller

KINDS: Final = (
    "unary-get",
    "unary-set",
    "pipeline-get-100",
    "pipeline-set-100",
    "pipeline-get-1000",
    "pipeline-set-1000",
)
KEYS: Final = 100_000


@dataclass
class GrpcPlan:
    """How often and how long."""

    rounds: int
    seconds: float
    kinds: tuple[str, ...] = KINDS


def measure_grpc(plan: GrpcPlan, figures: Figures, say: Callable[[str], None]) -> None:
    """Measure all kinds of calls on a durable node, and an empty server beside."""
    durability: Durability = "always"
    for round_number in range(plan.rounds):
        with empty_server() as (pid, port):
            rate = _measure(
                "An empty server of grpc.aio as a node has it, unary, 50 calls",
                pid,
                port,
                "unary-get",
                plan,
                figures,
            )
        say(f"round {round_number + 1}: empty gRPC server: {rate:,.0f}/s")
        with Redan(durability) as server:
            server.start()
            with server.client() as client:
                client.fill(KEYS)
            for kind in plan.kinds:
                name = f"{spelled_kind(kind)}, {MODES[durability]}"
                rate = _measure(name, server.pid, server.grpc_port, kind, plan, figures)
                say(f"round {round_number + 1}: redan gRPC {kind}: {rate:,.0f}/s")


@contextmanager
def empty_server() -> Iterator[tuple[int, int]]:
    """Run bench/grpc_echo, with gRPC as nodes have it; give its process id and port."""
    port = free_port()
    environment = dict(os.environ)
    prefer_poller(environment)
    command = [sys.executable, "-m", "bench.grpc_echo", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"serving\n":
                raise RuntimeError("the empty gRPC server did not start")
            yield process.pid, port
        finally:
            process.kill()


def _measure(name: str, pid: int, port: int, kind: str, plan: GrpcPlan, figures: Figures) -> float:
    used = cpu_seconds(pid)
    found = run_client(port, kind, plan.seconds)
    used = cpu_seconds(pid) - used
    figures.add("redan", found["rate"], section="grpc", name=name, unit="operations/s", better="higher")
    server_us = used / found["operations"] * 1e6
    figures.add("redan", server_us, section="grpc", name=f"{name}: the server's processor time", unit="us/operation")
    client_us = found["client_cpu_us"]
    figures.add("redan", client_us, section="grpc", name=f"{name}: the client's processor time", unit="us/operation")
    return found["rate"]


def run_client(port: int, kind: str, seconds: float) -> dict[str, float]:
    """Run bench/grpc_client in a process of its own; return what it prints."""
    command = [sys.executable, "-m", "bench.grpc_client", str(port), kind, str(seconds)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + seconds, check=False)
    if ran.returncode:
        raise RuntimeError(f"the gRPC client failed:\n{ran.stderr[-2000:]}")
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def spelled_kind(kind: str) -> str:
    """Return a kind of load as a table shows it."""
    words = kind.split("-")
    if words[0] == "unary":
        return f"Unary {words[1].capitalize()}, 50 calls in flight"
    return f"Pipeline of {words[1].upper()}, batches of {int(words[2]):,}"
