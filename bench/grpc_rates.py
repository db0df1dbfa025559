"""How many operations a second a client gets through gRPC, call by call and in batches on one stream.

Redis has no gRPC, so there is nothing to compare with but our own Redis protocol. The client (bench/grpc_client) is
grpc.aio in one process of its own: it often costs more than the server, so both sides' processor time stands beside.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.comparison import Figures
from bench.report import ROOT
from bench.servers import Durability, Redan
from bench.throughput import MODES

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
    """Measure all kinds of calls on a durable node."""
    durability: Durability = "always"
    for round_number in range(plan.rounds):
        with Redan(durability) as server:
            server.start()
            with server.client() as client:
                client.fill(KEYS)
            for kind in plan.kinds:
                rate = _measure(plan, server, kind, figures)
                say(f"round {round_number + 1}: redan gRPC {kind}: {rate:,.0f}/s")


def _measure(plan: GrpcPlan, server: Redan, kind: str, figures: Figures) -> float:
    used = server.cpu_seconds()
    found = run_client(server.grpc_port, kind, plan.seconds)
    used = server.cpu_seconds() - used
    name = f"{spelled_kind(kind)}, {MODES[server.durability]}"
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
