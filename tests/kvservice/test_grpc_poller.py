"""The choice of gRPC's poller is one that this gRPC knows; what the environment says stays."""

from __future__ import annotations

import subprocess
import sys

from kvservice.grpc_poller import VARIABLE, VERBOSITY_VARIABLE, WITHOUT_ENGINE, keep_quiet, prefer_poller

PROGRAM = """
import os
from kvservice.grpc_poller import prefer_poller
prefer_poller(os.environ)
import grpc
grpc.insecure_channel("127.0.0.1:1").close()
"""


def complaints(environ: dict[str, str]) -> str:
    """Return what gRPC says on standard error when it starts."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, check=True, capture_output=True, text=True, timeout=60
    )
    return run.stderr


def test_grpc_knows_what_it_is_told() -> None:
    assert complaints({}) == ""
    assert "Unknown experiment" in complaints({VARIABLE: "-no_such_thing"})


def test_the_environment_has_the_last_word() -> None:
    environ: dict[str, str] = {}
    prefer_poller(environ)
    keep_quiet(environ)
    assert environ == {VARIABLE: WITHOUT_ENGINE, VERBOSITY_VARIABLE: "NONE"}
    chosen = {VARIABLE: "", VERBOSITY_VARIABLE: "DEBUG"}
    prefer_poller(chosen)
    keep_quiet(chosen)
    assert chosen == {VARIABLE: "", VERBOSITY_VARIABLE: "DEBUG"}
