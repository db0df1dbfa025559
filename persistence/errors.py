"""Errors of the storage layer, sorted by what the node must do about them.

    StorageError
    ├── DiskFailed            a call of the operating system failed: stop at once, acknowledge nothing more
    ├── Damaged               bytes on disk are not what was written: use what is whole or stop, never skip
    ├── DataDirInUse          another process holds the directory: do not start
    └── DataDirIncompatible   the directory was written in a format this version cannot read: do not start

Guarantees: each message names the file, and says what an operator can do next.
Leaves to the caller: exit codes, log lines and the choice of what is whole.
"""

# ruff: noqa: N818 -- the names say what happened; the base class says that they are errors.

import os

REMEDY_DAMAGED = (
    "a node with peers fetches from them what it lost; one that is alone needs a sound snapshot or a backup "
    "(docs/operations.md); `redan verify DIR` shows the extent"
)


class StorageError(Exception):
    """Base of everything that this package raises on purpose."""


class DiskFailed(StorageError):
    """A disk call failed. What reached the disk is unknown from here on, so the node must stop."""

    def __init__(self, call: str, file: str, errno: int, detail: str = "") -> None:
        self.call = call
        self.file = file
        self.errno = errno
        reason = detail or os.strerror(errno)
        super().__init__(f"{call} failed on {file}: {reason} (errno {errno})")

    def __reduce__(self) -> tuple[type["DiskFailed"], tuple[str, str, int]]:
        return (DiskFailed, (self.call, self.file, self.errno))


class Damaged(StorageError):
    """A file holds bytes that were not written there. Offset in bytes from the start of the file."""

    def __init__(self, file: str, offset: int, reason: str, remedy: str = REMEDY_DAMAGED) -> None:
        self.file = file
        self.offset = offset
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{file} is damaged at offset {offset}: {reason}; {remedy}")

    def __reduce__(self) -> tuple[type["Damaged"], tuple[str, int, str, str]]:
        return (Damaged, (self.file, self.offset, self.reason, self.remedy))


class DataDirInUse(StorageError):
    """Another process holds the lock of the data directory. The pid is as it wrote it, perhaps empty."""

    def __init__(self, directory: str, pid: str) -> None:
        self.directory = directory
        self.pid = pid
        super().__init__(
            f"{directory} is in use by process {pid or 'unknown'}; stop it first, or choose another --data-dir"
        )

    def __reduce__(self) -> tuple[type["DataDirInUse"], tuple[str, str]]:
        return (DataDirInUse, (self.directory, self.pid))


class DataDirIncompatible(StorageError):
    """The directory or one of its files has a format version that this program does not know."""

    def __init__(self, file: str, found: int, known: int) -> None:
        self.file = file
        self.found = found
        self.known = known
        super().__init__(
            f"{file} has format version {found}, this program reads {known}; start the version that wrote it"
        )

    def __reduce__(self) -> tuple[type["DataDirIncompatible"], tuple[str, int, int]]:
        return (DataDirIncompatible, (self.file, self.found, self.known))
