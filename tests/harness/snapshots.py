"""Snapshot files for tests of those who carry them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

from persistence.disk import Disk
from persistence.errors import DiskFailed
from persistence.snapshot import SnapshotMeta, SnapshotWriter
from replication.core import membership
from replication.core.membership import Configuration

MEMBERS: Final = Configuration(("n1", "n2"), addresses={"n1": "h1:1", "n2": "h2:2"})
_NOISE = Random(7)


def write_snapshot(
    directory: Path,
    disk: Disk,
    index: int = 100,
    term: int = 3,
    size: int = 2_000_000,
    configuration: bytes | None = None,
) -> Path:
    """Write a snapshot of about so many bytes; return its path."""
    disk.make_dirs(directory)
    encoded = membership.encode(MEMBERS) if configuration is None else configuration
    finished: list[Path] = []
    failed: list[DiskFailed] = []
    meta = SnapshotMeta(index, term, 1000, encoded)
    writer = SnapshotWriter(directory, disk, meta, finished.append, failed.append, threaded=False)
    for offset in range(0, size, 100_000):
        assert writer.put(_NOISE.randbytes(min(100_000, size - offset)))
    writer.finish(1, b"digest")
    writer.run()
    assert failed == []
    return finished[0]
