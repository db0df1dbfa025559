"""Which clients are built and tested where their tools are missing, too old, or there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.process import ROOT

TOOLS = ("bash", "sort", "dirname", "mkdir", "flock", "rm")
WAIT_S = 120


def path_with(folder: Path, **versions: str) -> dict[str, str]:
    """Return an environment in whose PATH are programs that name a version, and little else."""
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is not on this machine"))
    for name, version in versions.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\necho {version}\n")
        (folder / name).chmod(0o755)
    # Not the one in /usr/local/go, which this machine may have.
    return {"PATH": str(folder), "GO": str(folder / "go")}


@pytest.mark.parametrize(
    ("versions", "lacks"),
    [
        ({"go": "go1.26.0", "node": "v20.0.0", "npm": "10"}, ["", ""]),
        ({"go": "go1.30", "node": "v100.1.2", "npm": "10"}, ["", ""]),
        ({"go": "go1.9.8", "node": "v18.20.1", "npm": "10"}, ["go1.9.8 is too old", "node v18.20.1 is too old"]),
        ({"node": "v20.0.0"}, ["there is no go here", "there is no node with npm here"]),
        ({}, ["there is no go here", "there is no node with npm here"]),
    ],
)
def test_what_is_missing_or_too_old_is_named(tmp_path: Path, versions: dict[str, str], lacks: list[str]) -> None:
    said = subprocess.run(
        ["bash", "-euc", '. "$0"; echo "$GO_LACKS"; echo "$NODE_LACKS"', str(ROOT / ".ci" / "client_tools")],
        env=path_with(tmp_path / "bin", **versions),
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    assert [line.partition(";")[0] for line in said.stdout.splitlines()] == lacks


def test_without_tools_nothing_is_built_and_nothing_has_failed(tmp_path: Path) -> None:
    for name in ("build_clients", "client_tools"):
        (tmp_path / ".ci").mkdir(exist_ok=True)
        shutil.copy(ROOT / ".ci" / name, tmp_path / ".ci" / name)
    said = subprocess.run(
        ["bash", str(tmp_path / ".ci" / "build_clients")],
        env=path_with(tmp_path / "bin"),
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    go, node = said.stdout.splitlines()
    assert "tests of the Go client are skipped" in go
    assert "tests of the Node client are skipped" in node
