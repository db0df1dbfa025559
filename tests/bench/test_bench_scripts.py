"""Every benchmark runs, small, and writes a result that the documents could be filled from. No times are asserted."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from bench.alone import bare_cluster
from bench.decisions import SCRIPTS, command_of
from bench.render import figures_of
from bench.report import ROOT
from bench.resp_client import RespClient
from redan.kv.v1 import kv_pb2, kv_pb2_grpc

NEEDS_REDIS = {"recovery", "runtimes", "protocols", "fsync_modes", "second_copy"}
SCRIPT_SECONDS_MAX = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def skip_without_redis() -> None:
    for program in ("redis-server", "redis-benchmark"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def ran(command: list[str], results: Path) -> dict[str, Any]:
    """Run a benchmark with its results in a folder of the test; return the one result."""
    # No test fetches anything: a package that is only wanted by one measurement is left out unless it is there.
    environment = {**os.environ, "BENCH_RESULTS": str(results), "PIP_NO_INDEX": "1"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'proto'}"
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SCRIPT_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = (results / "quick").glob("*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_measurement_behind_a_decision_runs_and_can_be_shown(name: str, tmp_path: Path) -> None:
    if name in NEEDS_REDIS:
        skip_without_redis()
    content = ran(command_of(name, quick=True), tmp_path)
    assert content["name"] == name
    assert content["environment"]["cores"] == os.cpu_count()
    shown = figures_of(name, tmp_path / "quick")
    assert shown.count("\n|") >= 3, "a head, a rule and a row"
    assert content["environment"]["date"] in shown


def numbers_of(figure: dict[str, Any]) -> list[float]:
    return [*figure["redis"]["values"], *figure["redan"]["values"]]


@pytest.mark.parametrize("section", ["throughput", "connections", "million", "grpc"])
def test_a_section_of_the_comparison_measures_both_servers_in_every_round(section: str, tmp_path: Path) -> None:
    skip_without_redis()
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--seconds", "0.05", "--only", section]
    figures = ran(command, tmp_path)["runs"][section]["figures"]
    assert figures
    for figure in figures:
        assert all(number >= 0 for number in numbers_of(figure))
        assert len(figure["redan"]["values"]) == 1, figure["name"]
        only_ours = section == "grpc" or "event-loop lag" in figure["name"]
        assert len(figure["redis"]["values"]) == (0 if only_ours else 1), figure["name"]


def test_two_trees_are_compared_by_loads_in_turn(tmp_path: Path) -> None:
    skip_without_redis()
    other = tmp_path / "other"
    other.symlink_to(ROOT)
    command = [sys.executable, "-m", "bench.pairs", "--rounds", "1", "--nodes", "1", "--load", "set 2 4 200"]
    done = subprocess.run(
        [*command, str(ROOT), str(other)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"},
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.splitlines()
    assert first.startswith(f"set 2 4 200                0 {ROOT.name}")
    assert "ratio 1.000 (1.00 to 1.00)" in first
    assert second.startswith("set 2 4 200                1 other")


def test_elections_are_timed_for_every_case_and_cost_less_in_a_hurry(tmp_path: Path) -> None:
    cases = ran([sys.executable, "-m", "bench.elections", "--trials", "200"], tmp_path)["cases"]
    assert len(cases) == 24
    for hurried, patient in pairwise(cases):
        if hurried["hurried"]:
            # Simulated time, and the same seeds on every machine.
            assert hurried["longest_timeout_ms"] == patient["longest_timeout_ms"]
            assert hurried["mean_ms"] < patient["mean_ms"]
            assert hurried["longest_ms"] < 2 * 400 + hurried["disk_ms"] * 10


def test_three_bare_nodes_acknowledge_what_clients_set() -> None:
    with bare_cluster() as (port, grpc_port), RespClient(port) as first, RespClient(port) as second:
        for number in range(50):
            for client in (first, second):
                assert client.call(b"SET", b"key:%d" % number, b"value") == b"OK"
        asyncio.run(set_through_grpc(grpc_port))


async def set_through_grpc(port: int) -> None:
    """Set keys one by one and in batches, and look at the answers."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        service = kv_pb2_grpc.KVServiceStub(channel)
        stream = service.Pipeline()
        for number in range(20):
            assert (await service.Set(kv_pb2.SetRequest(key=b"k", value=b"v"))).applied
            commands = [kv_pb2.Command(args=[b"SET", b"k", b"v"])] * 3
            await stream.write(kv_pb2.PipelineRequest(batch_id=number, commands=commands))
            response = cast(kv_pb2.PipelineResponse, await stream.read())
            assert (response.batch_id, [value.status for value in response.values]) == (number, ["OK"] * 3)
