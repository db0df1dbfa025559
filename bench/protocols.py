"""RESP, HTTP or gRPC? One node asked in each language: rates, and the processor time of an operation on both sides.

Usage: python -m bench.protocols [--quick]. 50 clients or calls in flight, keys of 16 bytes, values of 64; the node does
not wait for the disk, so that what differs is the protocol. The clients differ too: redis-benchmark is C, grpc.aio is
Python over C, the HTTP client is a few lines of Python over uvloop. The server's time is the fair figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final

from bench.experiment import Table, run
from bench.grpc_rates import run_client
from bench.load import Command, requests_for, run_load
from bench.report import ROOT, median
from bench.servers import Redan, free_port

Run = Callable[[], tuple[float, float, float | None]]
"""Returns rate, operations, and the client's processor time for one in us, if it is known."""
HTTP_START_SECONDS_MAX: Final = 10.0
COMMANDS: Final[tuple[Command, ...]] = ("get", "set")


class HttpRedan(Redan):
    """A node that speaks HTTP too (bench/http_node)."""

    def __init__(self) -> None:
        super().__init__("os")
        self.http_port = free_port()

    def command(self) -> list[str]:
        """Return the command line."""
        words = super().command()
        return [sys.executable, "-m", "bench.http_node", str(self.http_port), *words[words.index("serve") + 1 :]]


def resp(server: Redan, command: Command, pipeline: int, seconds: float) -> Run:
    """Return a run of redis-benchmark."""
    requests = requests_for(server.port, command, seconds, pipeline=pipeline, clients=50)

    def act() -> tuple[float, float, float | None]:
        return run_load(server.port, command, requests=requests, pipeline=pipeline).rate, requests, None

    return act


def grpc(server: Redan, kind: str, seconds: float) -> Run:
    """Return a run of the gRPC client."""

    def act() -> tuple[float, float, float | None]:
        found = run_client(server.grpc_port, kind, seconds)
        return found["rate"], found["operations"], found["client_cpu_us"]

    return act


def http(server: HttpRedan, kind: str, seconds: float) -> Run:
    """Return a run of the HTTP client."""

    def act() -> tuple[float, float, float | None]:
        command = [sys.executable, "-m", "bench.http_client", str(server.http_port), kind, str(seconds)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + seconds, check=False)
        if ran.returncode:
            raise RuntimeError(f"the HTTP client failed:\n{ran.stderr[-2000:]}")
        found = json.loads(ran.stdout)
        return found["rate"], found["operations"], found["client_cpu_us"]

    return act


def row(name: str, server: Redan, act: Run, rounds: int) -> list[str | float | None]:
    """Measure one way in."""
    rates: list[float] = []
    server_us: list[float] = []
    client_us: list[float] = []
    for _ in range(rounds):
        used = server.cpu_seconds()
        rate, operations, client = act()
        server_us.append((server.cpu_seconds() - used) / operations * 1e6)
        rates.append(rate)
        if client is not None:
            client_us.append(client)
    return [name, median(rates), median(server_us), median(client_us) if client_us else None]


def await_http(port: int) -> None:
    """Wait until the HTTP port answers: it is opened after the node is ready."""
    from http.client import HTTPConnection

    deadline = monotonic() + HTTP_START_SECONDS_MAX
    while monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/keys/none")
            connection.getresponse().read()
            return
        except OSError:
            sleep(0.01)
        finally:
            connection.close()
    raise TimeoutError("the HTTP port does not answer")


def measure(quick: bool) -> list[Table]:
    """Measure all ways in, for reads and for writes."""
    seconds, rounds = (0.3, 1) if quick else (1.5, 3)
    tables: list[Table] = []
    with HttpRedan() as server:
        server.start()
        await_http(server.http_port)
        with server.client() as client:
            client.fill(100_000)
        for command in COMMANDS:
            ways: dict[str, Run] = {
                "RESP, one at a time": resp(server, command, 1, seconds),
                "RESP, pipeline 16": resp(server, command, 16, seconds),
                "HTTP, one at a time": http(server, "get" if command == "get" else "put", seconds),
                "gRPC, unary": grpc(server, f"unary-{command}", seconds),
                "gRPC Pipeline, batches of 100": grpc(server, f"pipeline-{command}-100", seconds),
                "gRPC Pipeline, batches of 1,000": grpc(server, f"pipeline-{command}-1000", seconds),
            }
            rows = [row(name, server, act, rounds) for name, act in ways.items()]
            head = ["Way in", "operations/s", "server, us/operation", "client, us/operation"]
            tables.append(Table(command.upper(), head, rows))
    return tables


if __name__ == "__main__":
    run("protocols", measure)
