"""A disk in memory that fails calls, loses what was not synced, and flips bits: a `persistence.disk.Disk` for tests.

Model, harsher than a real disk where that costs nothing:
- A power cut keeps, of the 512-byte sectors written since their last sync, any subset; each sector old or new.
- Names (create, rename, unlink) survive from `fsync_dir` of their directory on; a power cut keeps a prefix of the later
  ones, in order, as a journal does. Directories themselves survive at once.
- `pwritev_durable` makes durable what it wrote and nothing else.
- A failed sync leaves the pages readable but clean: a later sync reports success without writing them, as Linux does.
- A write that fails has written half.
Leaves to the caller: choosing the subset (`keep`), so that tests enumerate and simulations draw.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import RLock

from persistence.disk import OpenMode
from persistence.errors import DiskFailed

SECTOR_BYTES = 512
CHANGING_CALLS = frozenset({"create", "pwrite", "fdatasync", "fsync", "rename", "unlink", "fsync_dir"})

KeepSector = Callable[[Path, int], bool]
"""(path, sector number) -> whether a power cut keeps a sector that was written but not synced."""


def keep_all(_path: Path, _sector: int) -> bool:
    return True


def keep_none(_path: Path, _sector: int) -> bool:
    return False


class PowerCutError(BaseException):
    """The power failed at a call, and all later calls fail like this. No code under test catches it."""


class _File:
    """cache: what reads see. durable: what a power cut leaves. dirty: sectors that differ and the next sync writes."""

    def __init__(self, content: bytes = b"") -> None:
        self.cache = bytearray(content)
        self.durable = bytes(content)
        self.dirty: set[int] = set()

    def sync(self, start: int = 0, end: int | None = None) -> None:
        """Make dirty sectors durable: all, or those in [start, end) bytes."""
        first, last = start // SECTOR_BYTES, -(-(len(self.cache) if end is None else end) // SECTOR_BYTES)
        chosen = self.dirty if end is None else {sector for sector in self.dirty if first <= sector < last}
        if not chosen and len(self.durable) == len(self.cache):
            return
        size = len(self.cache) if end is None else max(len(self.durable), end)
        self.durable = self._merged(chosen, size)
        self.dirty -= set(chosen)

    def after_power_cut(self, path: Path, keep: KeepSector) -> bytes:
        """Return what is left with the chosen dirty sectors."""
        kept = {sector for sector in sorted(self.dirty) if keep(path, sector)}
        ends = [min((sector + 1) * SECTOR_BYTES, len(self.cache)) for sector in kept]
        return self._merged(kept, max([len(self.durable), *ends]))

    def _merged(self, sectors: set[int], size: int) -> bytes:
        merged = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector in sectors:
            start = sector * SECTOR_BYTES
            merged[start : start + SECTOR_BYTES] = self.cache[start : start + SECTOR_BYTES]
        return bytes(merged[:size])


class FaultyDisk:
    """Files in memory. calls: every call that changes something, with its file, in order. Safe for several threads."""

    def __init__(self, files: Mapping[Path, bytes] | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self._names: dict[Path, _File] = {path: _File(content) for path, content in (files or {}).items()}
        self._durable_names = dict(self._names)
        self._pending: list[tuple[Path, dict[Path, _File | None]]] = []
        self._directories: set[Path] = {path.parent for path in self._names}
        self._handles: dict[int, tuple[Path, _File]] = {}
        self._next_handle = 1000
        self._counts: Counter[str] = Counter()
        self._faults: dict[tuple[str, int], int] = {}
        self._cut_before: int | None = None
        self._cut_after: int | None = None
        self._is_off = False
        self._lock = RLock()

    # ---- faults

    def fail(self, call: str, nth: int, errno: int) -> None:
        """Let the nth call of a kind from now on fail (1 is the next one). Kinds: CHANGING_CALLS, pread, open."""
        self._faults[call, self._counts[call] + nth] = errno

    def cut_power_at(self, nth: int, *, after: bool) -> None:
        """Cut the power before or after the nth changing call from now on (1 is the next one)."""
        position = len(self.calls) + nth
        self._cut_before, self._cut_after = (None, position) if after else (position, None)

    def after_power_cut(self, keep: KeepSector = keep_none, names_kept: int = 0) -> "FaultyDisk":
        """Return the disk as it is when the power is back; names_kept of the unsynced name changes survived."""
        names = dict(self._durable_names)
        for _, changes in self._pending[:names_kept]:
            _apply(names, changes)
        disk = FaultyDisk({path: file.after_power_cut(path, keep) for path, file in names.items()})
        disk._directories |= self._directories
        return disk

    @property
    def names_pending(self) -> int:
        """How many changes of names are not durable."""
        return len(self._pending)

    @property
    def reads(self) -> int:
        """How many reads were made."""
        return self._counts["pread"]

    def after_kill(self) -> "FaultyDisk":
        """Return the disk as a new process finds it: nothing is lost from the cache, nothing became durable."""
        disk = FaultyDisk()
        disk._names, disk._durable_names, disk._pending = self._names, self._durable_names, self._pending
        disk._directories = self._directories
        return disk

    def dirty_sectors(self, path: Path) -> list[int]:
        """Return the sectors of a file that are written but not synced."""
        return sorted(self._names[path].dirty)

    # ---- content

    def files(self) -> dict[Path, bytes]:
        """Return every file as reads see it."""
        return {path: bytes(file.cache) for path, file in self._names.items()}

    def content(self, path: Path) -> bytes:
        return bytes(self._names[path].cache)

    def put(self, path: Path, content: bytes) -> None:
        """Place a file, durably, without a call."""
        self._names[path] = self._durable_names[path] = _File(content)
        self._directories.add(path.parent)

    def remove(self, path: Path) -> None:
        """Take a file away, durably, without a call."""
        del self._names[path]
        self._durable_names.pop(path, None)

    def flip(self, path: Path, offset: int, mask: int = 1) -> None:
        """Flip bits of one byte, in the cache and on the platter."""
        content = bytearray(self.content(path))
        content[offset] ^= mask
        self.put(path, bytes(content))

    # ---- the Disk protocol

    def open(self, path: Path, mode: OpenMode) -> int:
        with self._lock:
            self._check_fault("open", str(path))
            if mode == "create":
                with _Changing(self, "create", str(path)):
                    file = _File()
                    self._change_names(path.parent, {path: file})
            elif path in self._names:
                file = self._names[path]
            else:
                raise DiskFailed("open", str(path), 2)
            self._next_handle += 1
            self._handles[self._next_handle] = path, file
            return self._next_handle

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)

    def size(self, handle: int) -> int:
        return len(self._file(handle)[1].cache)

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        with self._lock:
            path, file = self._file(handle)
            self._check_fault("pread", str(path))
            with memoryview(file.cache) as view:
                return bytes(view[offset : offset + count])

    def pwritev(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        with self._lock:
            path, file = self._file(handle)
            content = b"".join(buffers)
            try:
                with _Changing(self, "pwrite", str(path)):
                    self._store(file, content, offset)
            except DiskFailed:
                self._store(file, content[: len(content) // 2], offset)
                raise

    def pwritev_durable(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        self.pwritev(handle, buffers, offset)
        self._sync("fdatasync", handle, offset, offset + sum(map(len, buffers)))

    def fdatasync(self, handle: int) -> None:
        self._sync("fdatasync", handle, 0, None)

    def fsync(self, handle: int) -> None:
        self._sync("fsync", handle, 0, None)

    def drop_cached(self, handle: int) -> None:
        self._file(handle)

    def rename(self, source: Path, target: Path) -> None:
        with self._lock, _Changing(self, "rename", str(target)):
            if source not in self._names:
                raise DiskFailed("rename", str(target), 2)
            self._change_names(target.parent, {source: None, target: self._names[source]})
            for handle, (path, file) in self._handles.items():
                if path == source:
                    self._handles[handle] = target, file

    def unlink(self, path: Path) -> None:
        with self._lock, _Changing(self, "unlink", str(path)):
            if path not in self._names:
                raise DiskFailed("unlink", str(path), 2)
            self._change_names(path.parent, {path: None})

    def listdir(self, directory: Path) -> list[str]:
        with self._lock:
            self._check_power()
            if directory not in self._directories:
                raise DiskFailed("listdir", str(directory), 2)
            return sorted(path.name for path in self._names if path.parent == directory)

    def make_dirs(self, directory: Path) -> None:
        self._check_power()
        self._directories |= {directory, *directory.parents}

    def fsync_dir(self, directory: Path) -> None:
        with self._lock, _Changing(self, "fsync_dir", str(directory)):
            for changed, changes in self._pending:
                if changed == directory:
                    _apply(self._durable_names, changes)
            self._pending = [change for change in self._pending if change[0] != directory]

    # ---- how it works

    def _file(self, handle: int) -> tuple[Path, _File]:
        self._check_power()
        assert handle in self._handles, f"handle {handle} is not open"
        return self._handles[handle]

    def _store(self, file: _File, content: bytes, offset: int) -> None:
        end = offset + len(content)
        if end > len(file.cache):
            file.cache.extend(bytes(end - len(file.cache)))
        file.cache[offset:end] = content
        file.dirty.update(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)))

    def _sync(self, call: str, handle: int, start: int, end: int | None) -> None:
        with self._lock:
            path, file = self._file(handle)
            try:
                with _Changing(self, call, str(path)):
                    file.sync(start, end)
            except DiskFailed:
                file.dirty.clear()
                raise

    def _change_names(self, directory: Path, changes: dict[Path, _File | None]) -> None:
        _apply(self._names, changes)
        self._pending.append((directory, changes))

    def _check_power(self) -> None:
        if self._is_off:
            raise PowerCutError

    def _check_fault(self, call: str, file: str) -> None:
        self._check_power()
        self._counts[call] += 1
        errno = self._faults.pop((call, self._counts[call]), None)
        if errno is not None:
            raise DiskFailed(call, file, errno)

    def cut_power(self) -> None:
        """Cut the power now."""
        self._is_off = True
        raise PowerCutError

    def begin_change(self, call: str, file: str) -> None:
        """Count a changing call, and let it fail or cut the power before it when that was asked for."""
        self._check_power()
        self.calls.append((call, file))
        if self._cut_before == len(self.calls):
            self.cut_power()
        self._check_fault(call, file)

    def end_change(self) -> None:
        """Cut the power after a changing call when that was asked for."""
        if self._cut_after == len(self.calls):
            self.cut_power()


class _Changing:
    """Surround one changing call with its faults."""

    def __init__(self, disk: FaultyDisk, call: str, file: str) -> None:
        self._disk, self._call, self._file = disk, call, file

    def __enter__(self) -> None:
        self._disk.begin_change(self._call, self._file)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._disk.end_change()


def _apply(names: dict[Path, _File], changes: dict[Path, _File | None]) -> None:
    for path, file in changes.items():
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file
