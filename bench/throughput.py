"""SET and GET at several depths of pipelining, and with thousands of connections; both servers take turns.

Both servers of a round are up at the same time and the idle one does next to nothing; each load runs on one, then on
the other. How many requests a load has is found once, on redis-server, and is the same for both and for all rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from bench.comparison import Figures
from bench.load import KEYS, Command, Load, requests_for, run_load
from bench.servers import Durability, Server, Side, in_turn, make_server

RATE_TARGETS: Final[dict[tuple[Durability, Command, int], float]] = {
    ("always", "set", 1): 1.0,
    ("always", "set", 16): 1.0,
    ("always", "set", 64): 0.8,
    ("always", "get", 1): 0.9,
    ("always", "get", 16): 0.9,
    ("always", "get", 64): 0.65,
}
P99_TARGET: Final = 1.5
REQUESTS_A_CONNECTION_MIN: Final = 5
MODES: Final[dict[Durability, str]] = {"always": "durable", "os": "not waiting for the disk", "interval": "interval"}


@dataclass(frozen=True)
class Case:
    """One load."""

    section: str
    durability: Durability
    command: Command
    pipeline: int
    clients: int

    @property
    def name(self) -> str:
        """Return the case as a table shows it."""
        load = f"{self.clients:,} connections" if self.clients > 50 else f"pipeline {self.pipeline}"
        return f"{self.command.upper()}, {MODES[self.durability]}, {load}"


@dataclass
class Plan:
    """What is run, and for how long."""

    rounds: int
    seconds: float
    pipelines: tuple[int, ...] = (1, 16, 64)
    connections: tuple[int, ...] = (1000, 10_000)
    keys: int = KEYS
    requests: dict[Case, int] = field(default_factory=dict)
    """Requests of each case, found in the first round."""


def throughput_cases(plan: Plan, durability: Durability) -> list[Case]:
    """Return the loads of 50 clients."""
    commands: tuple[Command, Command] = ("set", "get")
    return [Case("throughput", durability, command, depth, 50) for command in commands for depth in plan.pipelines]


def connection_cases(plan: Plan) -> list[Case]:
    """Return the loads of many clients."""
    commands: tuple[Command, Command] = ("set", "get")
    return [Case("connections", "always", command, 1, count) for count in plan.connections for command in commands]


def measure_throughput(plan: Plan, figures: Figures, say: Callable[[str], None]) -> None:
    """Measure all loads of 50 clients."""
    for durability in ("always", "os"):
        for round_number in range(plan.rounds):
            _round(plan, throughput_cases(plan, durability), round_number, figures, say)


def measure_connections(plan: Plan, figures: Figures, say: Callable[[str], None]) -> None:
    """Measure all loads of many clients."""
    for round_number in range(plan.rounds):
        _round(plan, connection_cases(plan), round_number, figures, say)


def _round(plan: Plan, cases: list[Case], round_number: int, figures: Figures, say: Callable[[str], None]) -> None:
    with ExitStack() as stack:
        servers: dict[Side, Server] = {}
        for side in in_turn(round_number):
            servers[side] = server = stack.enter_context(make_server(side, cases[0].durability))
            server.start()
            with server.client() as client:
                client.fill(plan.keys)
        for case in cases:
            for side in in_turn(round_number):
                load = _run(plan, case, servers[side], servers["redis"])
                _record(case, side, load, figures)
                say(f"round {round_number + 1}: {side:5} {case.name}: {load.rate:,.0f}/s, p99 {load.p99_ms:.2f} ms")


def _run(plan: Plan, case: Case, server: Server, redis: Server) -> Load:
    if case not in plan.requests:
        # Some requests on each connection at least, or the latencies were those of the first burst alone.
        least = REQUESTS_A_CONNECTION_MIN * case.clients
        plan.requests[case] = requests_for(
            redis.port, case.command, plan.seconds, pipeline=case.pipeline, clients=case.clients, requests_min=least
        )
    return run_load(
        server.port,
        case.command,
        requests=plan.requests[case],
        pipeline=case.pipeline,
        clients=case.clients,
        keys=plan.keys,
    )


def _record(case: Case, side: Side, load: Load, figures: Figures) -> None:
    target = RATE_TARGETS.get((case.durability, case.command, case.pipeline)) if case.clients == 50 else None
    p99_target = P99_TARGET if target is not None else None
    name, section = case.name, case.section
    figures.add(side, load.rate, section=section, name=name, unit="requests/s", better="higher", target=target)
    figures.add(side, load.p50_ms, section=section, name=f"{name}: p50", unit="ms")
    figures.add(side, load.p99_ms, section=section, name=f"{name}: p99", unit="ms", target=p99_target)
    figures.add(side, load.p999_ms, section=section, name=f"{name}: p99.9", unit="ms")
