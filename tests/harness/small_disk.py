"""A disk so small that a test fills it: a file system in memory, where that is allowed.

Guarantees: leaving the context unmounts it, also while a process still has files on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

SMALL_DISK_BYTES: Final = 6 * 1024 * 1024


@contextmanager
def small_disk(folder: Path, size: int = SMALL_DISK_BYTES) -> Iterator[Path]:
    """Mount a small file system in memory; skip where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


needs_mount = pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root to mount")
