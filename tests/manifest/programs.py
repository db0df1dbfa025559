"""The programs of the clients that write over gRPC: how each is started, by the name of its language."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.helm.charts import ROOT

CLIENTS: Final = ROOT / "clients"
BUILT: Final = ROOT / "build" / "clients"


def programs() -> Mapping[str, tuple[Sequence[str], Path]]:
    """Return command and directory of each program; skips the test where one is not built."""
    go, node = BUILT / "go" / "soak", BUILT / "node" / "dist" / "tests" / "soak.js"
    for program in (go, node):
        if not program.exists():
            pytest.skip(f"{program.relative_to(ROOT)} is not there; .ci/build_clients builds it where go and node are")
    return {
        "python": ((sys.executable, "tests/soak.py"), CLIENTS / "python"),
        "go": ((str(go),), BUILT / "go"),
        "node": ((shutil.which("node") or "node", str(node)), BUILT / "node"),
    }
