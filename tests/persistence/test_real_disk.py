"""The operating system's disk: every error becomes `DiskFailed` with call, file and errno; short writes go on."""

import ctypes
import mmap
import os
import pickle
import subprocess
from collections.abc import Callable, Sequence
from errno import EBADF, EISDIR, ENOENT, ENOSPC, ENOTDIR
from pathlib import Path

import pytest

from persistence.disk import RealDisk, read_file, write_file_atomically, write_zeros
from persistence.errors import Damaged, DataDirIncompatible, DataDirInUse, DiskFailed, StorageError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    disk = RealDisk()
    handle = disk.open(tmp_path / "file", "create")
    disk.pwritev(handle, (b"abc", b"", b"def"), 10)
    disk.pwritev_durable(handle, (b"xyz",), 13)
    disk.fdatasync(handle)
    disk.fsync(handle)
    assert disk.size(handle) == 16
    assert disk.pread(handle, 100, 8) == b"\0\0abcxyz"
    assert disk.pread(handle, 10, 100) == b""
    disk.close(handle)
    disk.rename(tmp_path / "file", tmp_path / "other")
    disk.fsync_dir(tmp_path)
    assert disk.listdir(tmp_path) == ["other"]
    disk.unlink(tmp_path / "other")
    disk.make_dirs(tmp_path / "a" / "b")
    assert disk.listdir(tmp_path) == ["a"]


def resident_pages(handle: int, size: int) -> int:
    """Return how many pages of a file the system holds in memory: mincore(2), which reads none."""
    with mmap.mmap(handle, size) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        result = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), found
        )
        del start
    assert result == 0, os.strerror(ctypes.get_errno())
    return sum([byte & 1 for byte in found])


def test_what_is_dropped_from_memory_is_read_from_the_disk_again(tmp_path: Path) -> None:
    if subprocess.check_output(["stat", "-f", "-c", "%T", tmp_path], text=True).strip() == "tmpfs":
        pytest.skip("a file system in memory has no other place for it")
    disk = RealDisk()
    content = bytes(range(256)) * 1024
    handle = disk.open(tmp_path / "file", "create")
    disk.pwritev_durable(handle, (content,), 0)
    assert resident_pages(handle, len(content)) == len(content) // mmap.PAGESIZE
    disk.drop_cached(handle)
    assert resident_pages(handle, len(content)) == 0
    assert disk.pread(handle, len(content), 0) == content
    disk.close(handle)
    disk.drop_cached(handle)


def test_a_write_that_the_system_cuts_short_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk()
    handle = disk.open(tmp_path / "file", "create")
    real = os.pwrite

    def short_pwritev(descriptor: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        return real(descriptor, b"".join(buffers)[:5], offset)

    monkeypatch.setattr(os, "pwritev", short_pwritev)
    monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: real(fd, bytes(content)[:2], offset))
    disk.pwritev(handle, (b"0123", b"456789"), 0)
    disk.pwritev_durable(handle, (b"abcd", b"efghij"), 10)
    assert disk.pread(handle, 100, 0) == b"0123456789abcdefghij"
    disk.close(handle)


def test_a_read_that_the_system_cuts_short_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk()
    (tmp_path / "file").write_bytes(b"0123456789")
    handle = disk.open(tmp_path / "file", "read")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: real(fd, min(count, 3), offset))
    assert disk.pread(handle, 8, 1) == b"12345678"
    assert disk.pread(handle, 100, 5) == b"56789"
    disk.close(handle)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    disk = RealDisk()
    handle = disk.open(Path("/dev/full"), "write")
    with pytest.raises(DiskFailed, match=r"pwrite failed on /dev/full: No space left on device \(errno 28\)") as caught:
        disk.pwritev(handle, (b"x",), 0)
    assert caught.value.errno == ENOSPC
    with pytest.raises(DiskFailed, match="pwrite"):
        disk.pwritev_durable(handle, (b"x",), 0)
    disk.close(handle)


MISSING = Path("/nonexistent/file")
UNOPENED = 1_000_000


@pytest.mark.parametrize(
    ("call", "errno", "file"),
    [
        (lambda disk: disk.open(MISSING, "read"), ENOENT, str(MISSING)),
        (lambda disk: disk.open(Path("/tmp"), "write"), EISDIR, "/tmp"),
        (lambda disk: disk.rename(MISSING, MISSING), ENOENT, str(MISSING)),
        (lambda disk: disk.unlink(MISSING), ENOENT, str(MISSING)),
        (lambda disk: disk.listdir(MISSING), ENOENT, str(MISSING)),
        (lambda disk: disk.fsync_dir(MISSING), ENOENT, str(MISSING)),
        (lambda disk: disk.make_dirs(Path("/dev/null/x")), ENOTDIR, "/dev/null/x"),
        (lambda disk: disk.size(UNOPENED), EBADF, f"descriptor {UNOPENED}"),
        (lambda disk: disk.pread(UNOPENED, 1, 0), EBADF, f"descriptor {UNOPENED}"),
        (lambda disk: disk.pwritev(UNOPENED, (b"x",), 0), EBADF, f"descriptor {UNOPENED}"),
        (lambda disk: disk.pwritev_durable(UNOPENED, (b"x",), 0), EBADF, f"descriptor {UNOPENED}"),
        (lambda disk: disk.fdatasync(UNOPENED), EBADF, f"descriptor {UNOPENED}"),
        (lambda disk: disk.fsync(UNOPENED), EBADF, f"descriptor {UNOPENED}"),
        (lambda disk: disk.close(UNOPENED), EBADF, "?"),
    ],
)
def test_every_failing_call_names_its_file_and_errno(call: Callable[[RealDisk], object], errno: int, file: str) -> None:
    with pytest.raises(DiskFailed) as caught:
        call(RealDisk())
    assert (caught.value.errno, caught.value.file) == (errno, file)


def test_an_error_after_a_rename_names_the_file_as_it_is_called_now(tmp_path: Path) -> None:
    disk = RealDisk()
    handle = disk.open(tmp_path / "old", "create")
    disk.rename(tmp_path / "old", tmp_path / "new")
    os.close(handle)
    with pytest.raises(DiskFailed, match=r"fsync failed on .*/new"):
        disk.fsync(handle)


def test_zeros_fill_exactly_the_range(tmp_path: Path) -> None:
    disk = RealDisk()
    handle = disk.open(tmp_path / "file", "create")
    disk.pwritev(handle, (b"x" * 1_500_000,), 0)
    write_zeros(disk, handle, 100, 1_400_000)
    content = disk.pread(handle, 2_000_000, 0)
    assert content == b"x" * 100 + bytes(1_399_900) + b"x" * 100_000
    disk.close(handle)


def test_a_small_file_is_replaced_and_read_with_a_bound(tmp_path: Path) -> None:
    disk = RealDisk()
    write_file_atomically(disk, tmp_path / "file", b"one")
    write_file_atomically(disk, tmp_path / "file", b"two")
    assert read_file(disk, tmp_path / "file", 3) == b"two"
    assert disk.listdir(tmp_path) == ["file"]
    with pytest.raises(ValueError, match="at most 2"):
        read_file(disk, tmp_path / "file", 2)


@pytest.mark.parametrize(
    "error",
    [
        DiskFailed("fsync", "/file", 5),
        Damaged("/file", 12, "why"),
        DataDirInUse("/data", "77"),
        DataDirIncompatible("/data/META", 2, 1),
    ],
)
def test_storage_errors_say_the_file_and_survive_the_way_between_processes(error: StorageError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert "/" in str(error)
