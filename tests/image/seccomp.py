"""The system calls that a container gets where its security context says RuntimeDefault.

The profile is the one that podman and buildah use, as Debian's golang-github-containers-common installs it; those of
Docker and containerd differ in a few calls. It is written for all machines and all sets of capabilities: here it is
made the one for this machine and for none.

Reference: seccomp.json of containers/common; the OCI runtime specification, "Seccomp".
"""

from __future__ import annotations

import functools
import json
import platform
from pathlib import Path
from typing import Any, Final

import pytest

PROFILE: Final = Path("/usr/share/containers/seccomp.json")
_GO_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def _holds(row: dict[str, Any], machine: str) -> bool:
    """Tell whether a row is for this machine and for a process without capabilities."""
    wanted, unwanted = row.get("includes") or {}, row.get("excludes") or {}
    if wanted.get("caps") or machine in (unwanted.get("arches") or ()):
        return False
    return not wanted.get("arches") or machine in wanted["arches"]


@functools.cache
def runtime_default() -> dict[str, Any]:
    """Return the profile in the form of the OCI runtime specification; skips the test where there is none."""
    if not PROFILE.exists():
        pytest.skip(f"there is no {PROFILE}; Debian's golang-github-containers-common has it")
    profile = json.loads(PROFILE.read_text())
    machine = _GO_NAMES.get(platform.machine(), platform.machine())
    calls = []
    for row in profile["syscalls"]:
        if _holds(row, machine):
            call: dict[str, Any] = {"names": row["names"], "action": row["action"]}
            if row.get("args"):
                call["args"] = row["args"]
            if row.get("errnoRet") is not None:
                call["errnoRet"] = row["errnoRet"]
            calls.append(call)
    architecture = next(row for row in profile["archMap"] if row["architecture"].endswith(platform.machine().upper()))
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [architecture["architecture"], *(architecture["subArchitectures"] or ())],
        "syscalls": calls,
    }
