"""The names of snapshots in their directory: list them, drop what was not finished, keep the newest.

Guarantees: only names that snapshots have are touched; the newest snapshots are never removed.
Leaves to the caller: whether the content of a file is whole (`persistence.snapshot`).
"""

from pathlib import Path
from typing import NamedTuple

from persistence.disk import Disk

TEMPORARY_SUFFIX = ".snap.tmp"
_SUFFIX = ".snap"


class SnapshotFile(NamedTuple):
    """A snapshot as its name tells it."""

    path: Path
    last_index: int
    last_term: int


def snapshot_path(directory: Path, last_index: int, last_term: int) -> Path:
    """Return the path of a snapshot."""
    return directory / f"{last_index:016x}-{last_term:016x}{_SUFFIX}"


def list_snapshots(directory: Path, disk: Disk) -> list[SnapshotFile]:
    """Return the snapshots of a directory by their names, the newest first; other names are left alone."""
    found = []
    for name in disk.listdir(directory):
        stem = name.removesuffix(_SUFFIX)
        last_index, _, last_term = stem.partition("-")
        if stem != name and len(last_index) == len(last_term) == 16 and not stem.strip("0123456789abcdef-"):
            found.append(SnapshotFile(directory / name, int(last_index, 16), int(last_term, 16)))
    return sorted(found, key=lambda snapshot: (snapshot.last_index, snapshot.last_term), reverse=True)


def remove_temporaries(directory: Path, disk: Disk) -> int:
    """Remove what unfinished snapshots left behind; returns how many. Raises `DiskFailed`."""
    leftovers = [name for name in disk.listdir(directory) if name.endswith(TEMPORARY_SUFFIX)]
    for name in leftovers:
        disk.unlink(directory / name)
    return len(leftovers)


def purge_snapshots(directory: Path, disk: Disk, *, keep: int = 2) -> list[SnapshotFile]:
    """Remove all but the newest snapshots and return those kept, the newest first. Raises `DiskFailed`."""
    assert keep >= 1, "the last snapshot may be all there is"
    snapshots = list_snapshots(directory, disk)
    for snapshot in reversed(snapshots[keep:]):
        disk.unlink(snapshot.path)
    if len(snapshots) > keep:
        disk.fsync_dir(directory)
    return snapshots[:keep]
