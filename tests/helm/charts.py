"""The chart as Helm renders it, and the tools that it is held against.

Guarantees: a tool that is not there skips the test that needs it, and says how to get it; a render is made once for
    each set of values. Nothing is sent to a cluster.
Leaves to the caller: asserting.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "helm" / "redan"
TOOLS: Final = ROOT / "build" / "chart-tools"
HELMS: Final = ("helm3", "helm4")
CI_FILES: Final = tuple(sorted(path.name for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE: Final = "keys"
NAMESPACE: Final = "shop"
KUBERNETES: Final = tuple(f"1.{minor}" for minor in range(29, 38))
OPERATOR_API: Final = "monitoring.coreos.com/v1"
TOOL_SECONDS_MAX: Final = 240.0

Manifest = dict[str, Any]


def tool(name: str) -> str:
    """Return the path of a tool in build/chart-tools; skips the test where it is not."""
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"{name} is not in build/chart-tools; .ci/install_chart_tools installs it where it can be had")
    return str(path)


def program(name: str) -> str:
    """Return the path of a program of this machine; skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on this machine")
    return found


def ran(*command: str, given: str = "", folder: Path | None = None) -> tuple[int, str]:
    """Run a program; return its exit code, and what it printed on both outputs."""
    # Nothing of the caller's settings for a cluster, and no proxy of his, reaches a tool.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ended = subprocess.run(
        command,
        input=given,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        timeout=TOOL_SECONDS_MAX,
        check=False,
    )
    return ended.returncode, ended.stdout


@functools.cache
def rendered(helm: str, *options: str) -> str:
    """Return what `helm template` makes of the chart with these options."""
    code, text = ran(tool(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *options)
    assert code == 0, text
    return text


def ci_options(name: str) -> tuple[str, str]:
    """Return the options that render one file of ci/."""
    return "--values", str(CHART / "ci" / name)


def manifests(*options: str, helm: str = "helm4") -> list[Manifest]:
    """Return the objects that the chart renders to."""
    return [found for found in yaml.safe_load_all(rendered(helm, *options)) if found is not None]


def one(kind: str, *options: str, ends: str = "") -> Manifest:
    """Return the only object of a kind whose name has this ending."""
    found = [
        manifest
        for manifest in manifests(*options)
        if manifest["kind"] == kind and manifest["metadata"]["name"].endswith(ends)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} *{ends}"
    return found[0]


def all_ci_manifests() -> list[Manifest]:
    """Return what all files of ci/ render to, equal ones once."""
    seen = {
        json.dumps(manifest, sort_keys=True): manifest for name in CI_FILES for manifest in manifests(*ci_options(name))
    }
    return list(seen.values())
