"""The programs of the clients that write over gRPC: how each is started, by the name of its language."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.helm.charts import ROOT

CLIENTS: Final = ROOT / "clients"


def programs() -> Mapping[str, tuple[Sequence[str], Path]]:
    """Return command and directory of each program."""
    python = CLIENTS / "python"
    return {"python": ((sys.executable, "tests/soak.py"), python)}
