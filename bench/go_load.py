"""The Go client that loads etcd and Redan through gRPC alike (``bench/grpc_load``), built on first use.

Go because neither side's figure should be that of a Python client, and because etcd's own clients are written in it.

Guarantees: the stubs are generated from ``proto/`` as it is now; what is built stays below ``build/``.
Leaves to the caller: a Go tool chain, and module sources in reach on the first build.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bench.report import ROOT

Target = Literal["etcd", "redan", "redan-pipeline"]
REDAN_TARGETS: Final[tuple[Target, ...]] = ("redan", "redan-pipeline")
"""What it can load of Redan: unary calls and batches."""

SOURCE: Final = ROOT / "bench" / "grpc_load"
BUILD: Final = ROOT / "build" / "grpc_load"
MODULE: Final = "redan.bench/grpc_load"
PROTO: Final = "redan/kv/v1/kv.proto"
GENERATORS: Final = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.6",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
)
BUILD_SECONDS_MAX: Final = 600.0
SPARE_SECONDS: Final = 20.0


class GrpcLoad(NamedTuple):
    """What one run found; latencies are of requests, in ms; the rate counts writes."""

    writes: int
    errors: int
    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def go_program() -> str | None:
    """Return the Go tool, from PATH or where its own installer puts it; None if there is none."""
    usual = Path("/usr/local/go/bin/go")
    return shutil.which("go") or (str(usual) if usual.exists() else None)


def build() -> Path:
    """Build the client and return its path; raises RuntimeError with the output of the step that failed."""
    go = go_program()
    if go is None:
        raise RuntimeError("bench: no Go tool chain: install Go, the client of both clusters is written in it")
    shutil.rmtree(BUILD / "kvv1", ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("main.go", "go.mod", "go.sum"):
        shutil.copy(SOURCE / name, BUILD / name)
    tools = BUILD / "bin"
    environment = {**os.environ, "GOBIN": str(tools), "PATH": f"{tools}:{Path(go).parent}:{os.environ['PATH']}"}
    for generator in GENERATORS:
        if not (tools / generator.rpartition("/")[2].partition("@")[0]).exists():
            _step([go, "install", generator], environment)
    options = [
        f"--{kind}_{word}"
        for kind in ("go", "go-grpc")
        for word in (f"out={BUILD}", f"opt=module={MODULE}", f"opt=M{PROTO}={MODULE}/kvv1")
    ]
    _step([sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), *options, PROTO], environment)
    _step([go, "build", "-o", "grpc_load", "."], environment)
    return BUILD / "grpc_load"


def _step(command: Sequence[str], environment: dict[str, str]) -> None:
    ran = subprocess.run(
        command, cwd=BUILD, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS_MAX
    )
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")


def run_grpc_load(
    program: Path, target: Target, endpoints: Sequence[str], *, clients: int, seconds: float, batch: int = 100
) -> GrpcLoad:
    """Load some endpoints and return what was found; raises RuntimeError if not one write was acknowledged."""
    command = [str(program), "-target", target, "-endpoints", ",".join(endpoints), "-clients", str(clients)]
    command += ["-seconds", str(seconds), "-batch", str(batch)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + SPARE_SECONDS)
    found = json.loads(ran.stdout)
    if not found["writes"]:
        raise RuntimeError(f"no write to {target} was acknowledged; first error: {found.get('first_error')}")
    names = ("writes", "errors", "rate", "p50_ms", "p99_ms", "p999_ms")
    return GrpcLoad(*(found[name] for name in names))
