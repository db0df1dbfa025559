"""Packages that only one measurement needs: installed when it runs, into a folder of the build, not into .venv.

Guarantees: a folder is complete or absent, also when two measurements install at the same time.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final

from bench.report import SCRATCH

INSTALL_SECONDS_MAX: Final = 120.0
PINNED: Final = {"rocksdict": "0.3.29"}


def module_on_demand(name: str) -> ModuleType | None:
    """Import a pinned package, after installing it if need be; None if it cannot be had here."""
    folder = SCRATCH / f"{name}-{PINNED[name]}"
    if not folder.exists():
        _install(f"{name}=={PINNED[name]}", folder)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _install(requirement: str, folder: Path) -> None:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "install", "-q", "--no-deps"]
    with tempfile.TemporaryDirectory(dir=SCRATCH) as making:
        target = Path(making) / "packages"
        command = [*pip, "--only-binary", ":all:", "--target", str(target), requirement]
        # Without network, or when another process was faster, the measurement goes on with what there is.
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS_MAX)
            target.rename(folder)
