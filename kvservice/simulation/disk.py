"""A disk in memory that a power cut leaves half written, that fails calls, and that rots: a `persistence.disk.Disk`.

Model, harsher than a real disk where that costs nothing:
- A power cut keeps, of the 512-byte sectors written since their last sync, any subset; each sector old or new.
- Names (create, rename, unlink) survive from `fsync_dir` of their directory on; of later ones a power cut keeps a
  prefix, in order, as a journal does. Directories themselves survive at once.
- `pwritev_durable` makes durable what it wrote and nothing else.
- A failed sync leaves the pages readable but clean: a later sync reports success without writing them, as Linux does.
- A write that fails has written half. A full disk refuses what makes a file longer.
Leaves to the caller: what fails and when, and which sectors survive (`Chance`, seeded).

How: a file is what reads see, and for each sector that is not durable the bytes that a power cut brings back. So a
durable write of the log costs one slice assignment, and a cut costs what was dirty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from persistence.disk import OpenMode
from persistence.errors import DiskFailed

SECTOR_BYTES: Final = 512
ENOENT: Final = 2
EIO: Final = 5
ENOSPC: Final = 28

KeepSector = Callable[[], bool]
"""Whether a power cut keeps the next sector that was written but not synced."""


class PowerCut(BaseException):
    """The power failed at a call, and all later calls fail like this."""


class SimulatedFile:
    """One file. cache: what reads see. old: of each dirty sector the durable bytes, shorter where the file ended.

    lost: the same for sectors whose sync failed: no sync writes them, a power cut brings the old bytes back.
    """

    __slots__ = ("cache", "durable_size", "lost", "old")

    def __init__(self, content: bytes = b"") -> None:
        self.cache = bytearray(content)
        self.durable_size = len(content)
        self.old: dict[int, bytes] = {}
        self.lost: dict[int, bytes] = {}

    def store(self, content: bytes, offset: int) -> None:
        """Write into the page cache."""
        cache, old, lost = self.cache, self.old, self.lost
        end = offset + len(content)
        for sector in range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            if sector not in old:
                start = sector * SECTOR_BYTES
                kept = lost.pop(sector, None)
                old[sector] = bytes(cache[start : start + SECTOR_BYTES]) if kept is None else kept
        if end > len(cache):
            cache.extend(bytes(end - len(cache)))
        cache[offset:end] = content

    def store_durably(self, content: bytes, offset: int) -> None:
        """Write and sync these sectors; hot."""
        end = offset + len(content)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
        self.cache[offset:end] = content
        self.sync_range(offset, end)

    def sync_range(self, start: int, end: int) -> None:
        """Make the sectors of a range durable."""
        if self.old or self.lost:
            for sector in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
                self.old.pop(sector, None)
                self.lost.pop(sector, None)
        self.durable_size = max(self.durable_size, end)

    def sync(self) -> None:
        """Make durable what is dirty."""
        self.old.clear()
        self.durable_size = len(self.cache)

    def sync_failed(self) -> None:
        """Forget that anything is dirty, without making it durable."""
        self.lost.update(self.old)
        self.old.clear()

    def cut(self, keep: KeepSector) -> None:
        """Become what a power cut leaves."""
        size = self.durable_size
        for sector, content in sorted({**self.lost, **self.old}.items()):
            start = sector * SECTOR_BYTES
            if sector in self.old and keep():
                size = max(size, min(start + SECTOR_BYTES, len(self.cache)))
            else:
                end = min(start + SECTOR_BYTES, len(self.cache))
                self.cache[start:end] = content.ljust(end - start, b"\0")
        del self.cache[size:]
        self.old.clear()
        self.lost.clear()
        self.durable_size = len(self.cache)


class SimulatedDisk:
    """Files in memory."""

    def __init__(self) -> None:
        self.calls = 0
        """Calls that change something, so far."""
        self.syncs = 0
        self.is_full = False
        self._names: dict[Path, SimulatedFile] = {}
        self._durable_names: dict[Path, SimulatedFile] = {}
        self._pending: list[tuple[Path, dict[Path, SimulatedFile | None]]] = []
        self._directories: set[Path] = set()
        self._handles: dict[int, tuple[Path, SimulatedFile]] = {}
        self._next_handle = 1000
        self._cut_at = 0
        self._cut_after = False
        self._is_off = False
        self._faults: dict[str, tuple[int, int]] = {}

    # ---- faults

    def fail(self, call: str, nth: int, errno: int) -> None:
        """Let the nth call of a kind from now on fail. Kinds: open create pread pwrite sync rename unlink fsync_dir."""
        self._faults[call] = nth, errno

    def mend(self) -> None:
        """Take back every fault that has not happened yet, and give the disk room again."""
        self._faults.clear()
        self._cut_at = 0
        self.is_full = False

    def cut_power_at(self, nth: int, *, after: bool) -> None:
        """Cut the power before or after the nth changing call from now on (1 is the next one)."""
        self._cut_at = self.calls + nth
        self._cut_after = after

    def power_returns(self, keep: KeepSector, names_kept: int = 0) -> None:
        """Become what a power cut leaves; names_kept of the unsynced name changes survived."""
        for _, changes in self._pending[:names_kept]:
            _apply(self._durable_names, changes)
        self._pending.clear()
        self._names = dict(self._durable_names)
        for path in sorted(self._names):
            self._names[path].cut(keep)
        self.close_all()

    def close_all(self) -> None:
        """Close all handles, as the end of a process does; nothing is lost, nothing becomes durable."""
        self._handles.clear()
        self._is_off = False
        self._cut_at = 0

    @property
    def names_pending(self) -> int:
        """How many changes of names are not durable."""
        return len(self._pending)

    # ---- content, for faults and for checks

    def paths(self) -> list[Path]:
        """Return the files, sorted."""
        return sorted(self._names)

    def content(self, path: Path) -> bytes:
        """Return what reads of a file see."""
        return bytes(self._names[path].cache)

    def rot(self, path: Path, offset: int, content: bytes) -> None:
        """Put other bytes into a file, on the platter."""
        file = self._names[path]
        file.cache[offset : offset + len(content)] = content

    def wipe(self) -> None:
        """Lose everything, as a new disk in the place of the old one."""
        is_full, calls, syncs = self.is_full, self.calls, self.syncs
        self.__init__()  # type: ignore[misc]
        self.is_full, self.calls, self.syncs = is_full, calls, syncs

    # ---- the Disk protocol

    def open(self, path: Path, mode: OpenMode) -> int:
        """Open a file and return a handle."""
        self._check("open", path)
        if mode == "create":
            self._begin("create", path)
            file = SimulatedFile()
            self._change_names(path.parent, {path: file})
            self._end()
        elif path in self._names:
            file = self._names[path]
        else:
            raise DiskFailed("open", str(path), ENOENT)
        self._next_handle += 1
        self._handles[self._next_handle] = path, file
        return self._next_handle

    def close(self, handle: int) -> None:
        """Close a handle."""
        self._handles.pop(handle, None)

    def size(self, handle: int) -> int:
        """Return the length of the file."""
        return len(self._file(handle)[1].cache)

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        """Read count bytes at offset; fewer only at the end of the file."""
        path, file = self._file(handle)
        if self._faults:
            self._check("pread", path)
        return bytes(file.cache[offset : offset + count])

    def pwritev(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write the buffers one after the other at offset, into the page cache."""
        path, file = self._file(handle)
        content = b"".join(buffers)
        try:
            self._begin("pwrite", path)
            if self.is_full and offset + len(content) > len(file.cache):
                raise DiskFailed("pwrite", str(path), ENOSPC)
        except DiskFailed:
            file.store(content[: len(content) // 2], offset)
            raise
        file.store(content, offset)
        self._end()

    def pwritev_durable(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write the buffers at offset, durably; hot."""
        if self._faults or self._cut_at or self.is_full or self._is_off:
            self.pwritev(handle, buffers, offset)
            self._sync(handle, offset, offset + sum(map(len, buffers)))
            return
        self.calls += 2
        self.syncs += 1
        self._file(handle)[1].store_durably(b"".join(buffers), offset)

    def fdatasync(self, handle: int) -> None:
        """Make the content and length of the file durable."""
        self._sync(handle, 0, None)

    def fsync(self, handle: int) -> None:
        """Make the file with all its metadata durable."""
        self._sync(handle, 0, None)

    def drop_cached(self, handle: int) -> None:
        """Nothing happens: what is in memory and what is durable are kept apart already."""
        self._file(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what had that name."""
        self._begin("rename", target)
        if source not in self._names:
            raise DiskFailed("rename", str(target), ENOENT)
        self._change_names(target.parent, {source: None, target: self._names[source]})
        for handle, (path, file) in self._handles.items():
            if path == source:
                self._handles[handle] = target, file
        self._end()

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        self._begin("unlink", path)
        if path not in self._names:
            raise DiskFailed("unlink", str(path), ENOENT)
        self._change_names(path.parent, {path: None})
        self._end()

    def listdir(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        self._check_power()
        if directory not in self._directories:
            raise DiskFailed("listdir", str(directory), ENOENT)
        return sorted(path.name for path in self._names if path.parent == directory)

    def make_dirs(self, directory: Path) -> None:
        """Create a directory and its parents where they do not exist yet."""
        self._check_power()
        self._directories |= {directory, *directory.parents}

    def fsync_dir(self, directory: Path) -> None:
        """Make the names of a directory durable."""
        self._begin("fsync_dir", directory)
        for changed, changes in self._pending:
            if changed == directory:
                _apply(self._durable_names, changes)
        self._pending = [change for change in self._pending if change[0] != directory]
        self._end()

    # ---- how it works

    def _file(self, handle: int) -> tuple[Path, SimulatedFile]:
        if self._is_off:
            raise PowerCut
        return self._handles[handle]

    def _sync(self, handle: int, start: int, end: int | None) -> None:
        path, file = self._file(handle)
        try:
            self._begin("sync", path)
        except DiskFailed:
            file.sync_failed()
            raise
        self.syncs += 1
        if end is None:
            file.sync()
        else:
            file.sync_range(start, end)
        self._end()

    def _change_names(self, directory: Path, changes: dict[Path, SimulatedFile | None]) -> None:
        _apply(self._names, changes)
        self._pending.append((directory, changes))

    def _check_power(self) -> None:
        if self._is_off:
            raise PowerCut

    def _check(self, call: str, path: Path) -> None:
        self._check_power()
        if call in self._faults:
            nth, errno = self._faults[call]
            if nth > 1:
                self._faults[call] = nth - 1, errno
                return
            del self._faults[call]
            raise DiskFailed(call, str(path), errno)

    def _begin(self, call: str, path: Path) -> None:
        """Count a changing call, and let it fail or cut the power before it when that was asked for."""
        self._check_power()
        self.calls += 1
        if self.calls == self._cut_at and not self._cut_after:
            self._is_off = True
            raise PowerCut
        self._check(call, path)

    def _end(self) -> None:
        if self.calls == self._cut_at and self._cut_after:
            self._is_off = True
            raise PowerCut


def _apply(names: dict[Path, SimulatedFile], changes: dict[Path, SimulatedFile | None]) -> None:
    for path, file in changes.items():
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file
