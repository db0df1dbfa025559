"""The data directory of a node: its layout, its lock, and the small file that says whose it is.

Guarantees:
- While a `DataDir` is open no other process has the directory open; the lock goes with the process, however it ends.
- META is written atomically and carries a checksum: it is as it was written, or `Damaged` is raised.
- A directory of an unknown format version is refused before anything in it is changed. Foreign files are left alone.
- `set_aside` deletes nothing: what is damaged is kept under another name.
- No two starts on one directory get the same number from `count_start`, and a later one gets a greater.
Leaves to the caller: what identity and charter mean and whether they fit, random bytes for the salt, and calling
`mark_log_created` once the log has its first segment, so that a log that vanished later is told from a new one.

Layout:

    META         JSON: format, identity (hex), salt (hex), log_created, charter (hex), incarnation,
                 crc32c over the others as compact JSON
    LOCK         flock; holds the pid of its holder as text
    wal/         persistence.segment
    snapshots/   persistence.snapshot_format
    damaged/     what `set_aside` has moved away

Format 1 has no charter; such a directory is read, and has format 2 once its META is written again. Early directories
of format 2 have no incarnation, which then is 0.
"""

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from google_crc32c import value

from persistence.disk import Disk, read_file, write_file_atomically
from persistence.errors import Damaged, DataDirIncompatible, DataDirInUse, DiskFailed
from persistence.segment import list_segments

FORMAT_VERSION = 2
FORMAT_VERSION_OLDEST = 1
SALT_BYTES = 8
META_BYTES_MAX = 64 * 1024

DAMAGED = "damaged"

_META = "META"
_LOCK = "LOCK"


class Meta(NamedTuple):
    """What META says."""

    identity: bytes
    """Whose directory it is; given when it was created."""
    salt: bytes
    """Random bytes of this directory, which no other has."""
    log_created: bool
    """Whether the log exists: from then on an empty `wal` is damage."""
    charter: bytes = b""
    """What the node has to know before its log can be read; empty until it was written."""
    incarnation: int = 0
    """The number of the last start that was counted."""


class DataDir:
    """An open data directory."""

    def __init__(self, path: Path, disk: Disk, meta: Meta, lock: int | None) -> None:
        self.path = path
        self.meta = meta
        self._disk = disk
        self._lock = lock

    @classmethod
    def open(
        cls, path: Path, disk: Disk, *, identity: bytes, make_salt: Callable[[], bytes], lock: bool = True
    ) -> Self:
        """Open the directory, or create it with this identity; one that exists keeps the identity it has.

        make_salt gives 8 random bytes. lock=False is for disks that are not the operating system's.
        Raises `DataDirInUse`, `DataDirIncompatible`, `Damaged`, `DiskFailed`.
        """
        disk.make_dirs(path)
        handle = _take_lock(path) if lock else None
        try:
            found = read_meta(path, disk)
            if found is None:
                found = Meta(identity, make_salt(), False)
                _create(path, disk, found)
            return cls(path, disk, found, handle)
        except BaseException:
            if handle is not None:
                os.close(handle)
            raise

    @property
    def wal(self) -> Path:
        """Directory of the log."""
        return self.path / "wal"

    @property
    def snapshots(self) -> Path:
        """Directory of the snapshots."""
        return self.path / "snapshots"

    @property
    def identity(self) -> bytes:
        """Whose directory it is."""
        return self.meta.identity

    @property
    def salt(self) -> bytes:
        """Random bytes of this directory."""
        return self.meta.salt

    @property
    def log_created(self) -> bool:
        """Whether the log exists."""
        return self.meta.log_created

    @property
    def charter(self) -> bytes:
        """What was last written with `write_charter`."""
        return self.meta.charter

    def mark_log_created(self) -> None:
        """Remember durably that the log exists; from now on an empty `wal` is damage. Raises `DiskFailed`."""
        if not self.log_created:
            self._write(self.meta._replace(log_created=True))

    def write_charter(self, charter: bytes, *, log_created: bool | None = None) -> None:
        """Replace the charter, and say whether the log exists unless that stays. Raises `DiskFailed`."""
        created = self.meta.log_created if log_created is None else log_created
        self._write(self.meta._replace(charter=charter, log_created=created))

    def count_start(self, least: int) -> int:
        """Return a number greater than that of any earlier start, at least ``least``; durable. Raises `DiskFailed`.

        With a clock for ``least``, the numbers grow also over the loss of the directory, if the clock does.
        """
        incarnation = max(least, self.meta.incarnation + 1)
        self._write(self.meta._replace(incarnation=incarnation))
        return incarnation

    def set_aside(self, names: Sequence[str], label: str) -> list[Path]:
        """Move files and directories of these relative paths into `damaged`, and make the directories anew.

        Returns where they are now. `label` goes in front of each name. Raises `DiskFailed`.
        """
        moved = set_aside(self.path, self._disk, names, label)
        for directory in (self.wal, self.snapshots):
            self._disk.make_dirs(directory)
        self._disk.fsync_dir(self.path)
        return moved

    def _write(self, meta: Meta) -> None:
        _write_meta(self.path, self._disk, meta)
        self.meta = meta

    def close(self) -> None:
        """Give the lock back. The LOCK file stays: removing it would let two processes lock two files."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def set_aside(path: Path, disk: Disk, names: Sequence[str], label: str) -> list[Path]:
    """Move files and directories of a data directory into its `damaged`; return where they are now.

    ``names`` are relative paths. What is not there is passed over. Raises `DiskFailed`.
    """
    target = path / DAMAGED
    disk.make_dirs(target)
    moved = []
    for name in names:
        source = path / name
        if source.name in disk.listdir(source.parent):
            place = target / f"{label}-{source.name}"
            disk.rename(source, place)
            moved.append(place)
    disk.fsync_dir(target)
    for parent in dict.fromkeys([path, *((path / name).parent for name in names)]):
        disk.fsync_dir(parent)
    return moved


def _take_lock(path: Path) -> int:
    file = path / _LOCK
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskFailed("open", str(file), error.errno or 0) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        os.close(handle)
        raise DataDirInUse(str(path), pid) from error
    except OSError as error:
        os.close(handle)
        raise DiskFailed("flock", str(file), error.errno or 0) from error
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(handle)
        raise DiskFailed("pwrite", str(file), error.errno or 0) from error
    return handle


def _create(path: Path, disk: Disk, meta: Meta) -> None:
    """Make the directories, then META last: a directory with META is complete, one without is begun again."""
    if len(meta.salt) != SALT_BYTES:
        raise ValueError(f"the salt must have {SALT_BYTES} bytes")
    for directory in (path / "wal", path / "snapshots"):
        disk.make_dirs(directory)
    if list_segments(path / "wal", disk)[0]:
        raise Damaged(str(path / _META), 0, "it is missing, but there is a log")
    disk.fsync_dir(path)
    disk.fsync_dir(path.parent)
    _write_meta(path, disk, meta)


def _fields(meta: Meta) -> dict[str, object]:
    return {
        "format": FORMAT_VERSION,
        "identity": meta.identity.hex(),
        "salt": meta.salt.hex(),
        "log_created": meta.log_created,
        "charter": meta.charter.hex(),
        "incarnation": meta.incarnation,
    }


def _checksum(fields: dict[str, object]) -> int:
    crc: int = value(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
    return crc


def _write_meta(path: Path, disk: Disk, meta: Meta) -> None:
    fields = _fields(meta)
    text = json.dumps({**fields, "crc32c": _checksum(fields)}, indent=2) + "\n"
    write_file_atomically(disk, path / _META, text.encode())


def read_meta(path: Path, disk: Disk) -> Meta | None:
    """Return what META says, None when there is none. Takes no lock.

    Raises `DataDirIncompatible`, `Damaged`, `DiskFailed`.
    """
    file = path / _META
    if _META not in disk.listdir(path):
        return None
    try:
        fields = json.loads(read_file(disk, file, META_BYTES_MAX))
        if not isinstance(fields, dict) or not {"crc32c", "format"} <= fields.keys():
            raise ValueError("it is no JSON object with format and crc32c")
        crc, version = fields.pop("crc32c"), fields["format"]
        holds = _checksum(fields) == crc
    except (ValueError, RecursionError) as error:
        # The text of these errors is one short line; their repr may hold the whole file.
        raise Damaged(str(file), 0, f"it cannot be read: {error}") from error
    if not holds or not isinstance(version, int):
        raise Damaged(str(file), 0, "its checksum does not match")
    if not FORMAT_VERSION_OLDEST <= version <= FORMAT_VERSION:
        raise DataDirIncompatible(str(file), version, FORMAT_VERSION)
    return Meta(
        bytes.fromhex(fields["identity"]),
        bytes.fromhex(fields["salt"]),
        bool(fields["log_created"]),
        bytes.fromhex(fields.get("charter", "")),
        int(fields.get("incarnation", 0)),
    )
