"""Packages that only one measurement needs: installed when it runs, into a folder of the build, not into .venv."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType
from typing import Final

from bench.report import SCRATCH

PACKAGES: Final = SCRATCH / "packages"
INSTALL_SECONDS_MAX: Final = 120.0
PINNED: Final = {"rocksdict": "0.3.29"}


def module_on_demand(name: str) -> ModuleType | None:
    """Import a pinned package, after installing it if need be; None if it cannot be had here."""
    if str(PACKAGES) not in sys.path:
        sys.path.insert(0, str(PACKAGES))
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    PACKAGES.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    command = [*pip, "--only-binary", ":all:", "--target", str(PACKAGES), f"{name}=={PINNED[name]}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS_MAX)
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except (subprocess.SubprocessError, OSError, ImportError):
        return None
