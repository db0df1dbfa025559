"""Against three real nodes: every method of the clients, what their READMEs show, and `buf curl` by reflection."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from clients.tests.soaks import BUILT, NEEDED, skip_without
from kvservice.commands.registry import TABLE
from tests.harness.cluster_processes import ClusterProcesses
from tests.harness.process import ROOT

RUN_S: Final = 300
"""A loaded machine may take long to build the example."""
pytestmark = pytest.mark.timeout(600)
ADDRESS = re.compile(r"127\.0\.0\.1:710[1-3]")
BUF = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "buf"
GO = os.environ.get("GO") or shutil.which("go") or "/usr/local/go/bin/go"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path_factory.mktemp("cluster"), 3) as running:
        yield running


def blocks(language: str, fence: str) -> list[str]:
    """Return the programs in the README of a client."""
    text = (ROOT / "clients" / language / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{fence}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def at_cluster(program: str, cluster: ClusterProcesses) -> str:
    """Return a program with the addresses of the nodes in the place of those that it names."""
    endpoints = [node.grpc_endpoint for node in cluster.nodes.values()]
    assert ADDRESS.search(program)
    return ADDRESS.sub(lambda found: endpoints[int(found[0][-1]) - 1], program)


def run(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Run a program that must succeed; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python"), **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forget(cluster: ClusterProcesses) -> None:
    """Empty the cluster, as the examples expect it."""
    cluster.leader().client().flushall()


def test_the_examples_for_python_run(tmp_path: Path, cluster: ClusterProcesses) -> None:
    forget(cluster)
    waiting, awaited = (at_cluster(program, cluster) for program in blocks("python", "python"))
    (tmp_path / "waiting.py").write_text(waiting)
    said = run([sys.executable, "waiting.py"], tmp_path)
    assert said.splitlines() == ["b'hello'", "1", "[True, 3, b'3']", "[b'greeting', b'visits']", "6"]
    (tmp_path / "awaited.py").write_text(awaited)
    assert "b'visits' b'101'" in run([sys.executable, "awaited.py"], tmp_path)


def test_the_example_for_go_runs(cluster: ClusterProcesses) -> None:
    forget(cluster)
    skip_without("go")
    (program,) = blocks("go", "go")
    source = (ROOT / "clients" / "go" / "tests" / "example" / "main.go").read_text(encoding="utf-8")
    assert source.endswith(program)
    # Below the module, so that its go.mod is found; not in the tree.
    overlaid = BUILT / "go" / "example.go"
    overlaid.write_text(at_cluster(source, cluster))
    replaced = {"Replace": {str(ROOT / "clients/go/tests/example/main.go"): str(overlaid)}}
    (BUILT / "go" / "overlay.json").write_text(json.dumps(replaced))
    overlay = f"-overlay={BUILT / 'go' / 'overlay.json'}"
    said = run([GO, "run", overlay, "./tests/example"], ROOT / "clients" / "go").splitlines()
    assert said[:3] == ["hello true <nil>", "1 <nil>", "3 <nil>"]
    assert sorted(said[3:5]) == ["greeting <nil>", "visits <nil>"]
    assert said[5:] == ["6 <nil>"]


def test_the_example_for_node_runs(cluster: ClusterProcesses) -> None:
    forget(cluster)
    skip_without("node")
    (program,) = blocks("node", "js")
    # In the package itself, which may name itself.
    (BUILT / "node" / "example.mjs").write_text(at_cluster(program, cluster))
    said = run(["node", "example.mjs"], BUILT / "node").splitlines()
    assert said[:3] == ["hello", "1n", "[ true, 3n, <Buffer 33> ]"]
    assert sorted(said[3:5]) == ["greeting", "visits"]
    assert said[5:] == ["6n"]


@pytest.mark.parametrize(
    ("language", "folder", "command", "passed"),
    [
        (
            "python",
            ROOT / "clients" / "python",
            [sys.executable, "-m", "pytest", "tests/test_real_nodes.py"],
            "6 passed",
        ),
        ("go", ROOT / "clients" / "go", [GO, "test", "-count=1", "-v", "-run", "RealNodes", "."], "\nok"),
        ("node", BUILT / "node", ["node", "--test", "dist/tests/real.test.js"], "# pass 3"),
    ],
    ids=["python", "go", "node"],
)
def test_every_method_does_what_it_says(
    language: str, folder: Path, command: Sequence[str], passed: str, cluster: ClusterProcesses
) -> None:
    if language in NEEDED:
        skip_without(language)
    addresses = ",".join(node.grpc_endpoint for node in cluster.nodes.values())
    said = run(command, folder, REDAN_ADDRESSES=addresses)
    assert passed in said
    assert "skip" not in said.lower().replace("# skipped 0", "")


def test_buf_curl_finds_methods_and_types_by_reflection(tmp_path: Path, cluster: ClusterProcesses) -> None:
    def curl(path: str, request: dict[str, object], node: str) -> dict[str, object]:
        url = f"http://{cluster[node].grpc_endpoint}/{path}"
        command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", json.dumps(request), url]
        answered: dict[str, object] = json.loads(run(command, tmp_path))
        return answered

    key, value = (b64encode(text).decode() for text in (b"from curl", b"\x00\xff"))
    assert curl("redan.kv.v1.KVService/Set", {"key": key, "value": value}, "n1")["applied"] is True
    for node in cluster.nodes:
        answered = curl("redan.kv.v1.KVService/Get", {"key": key}, node)
        assert (answered["value"], answered["header"]) == (value, {**dict(answered["header"]), "node": node})  # type: ignore[call-overload]
        assert curl("redan.cluster.v1.ClusterService/Status", {}, node)["node"] == node


def test_all_clients_know_which_commands_may_be_repeated() -> None:
    # A command that a request id makes run once, or that reads; what is about a node must not be among them.
    data = {row.name.upper() for row in TABLE.rows if row.is_data and not row.name.upper().startswith("REDAN.")}
    for source, begin, end in (
        ("python/redan_client/requests.py", "DATA_COMMANDS", ".split()"),
        ("go/commands.go", "const names = `", "`\n"),
        ("node/src/values.ts", "new Set(\n  `", "`.split"),
    ):
        text = (ROOT / "clients" / source).read_text(encoding="utf-8")
        listed = text.partition(begin)[2].partition(end)[0]
        assert set(re.findall(r"\b[A-Z]{3,}(?:_RO)?\b", listed)) == data, source
