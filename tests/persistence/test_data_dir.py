"""The data directory: one holder, one identity, one format, and nothing half made."""

import json
import os
import subprocess
import sys
from errno import EIO
from pathlib import Path

import pytest

from persistence.data_dir import DataDir, Meta, _checksum, read_meta
from persistence.disk import RealDisk
from persistence.errors import Damaged, DataDirIncompatible, DataDirInUse, DiskFailed
from tests.harness.disk import FaultyDisk, PowerCutError, keep_all

PATH = Path("/node/data")
SALT = b"12345678"


def open_dir(disk: FaultyDisk, identity: bytes = b"n1", salt: bytes = SALT) -> DataDir:
    return DataDir.open(PATH, disk, identity=identity, make_salt=lambda: salt, lock=False)


def open_real(path: Path) -> DataDir:
    return DataDir.open(path, RealDisk(), identity=b"n1", make_salt=lambda: SALT)


def test_a_new_directory_keeps_the_identity_and_salt_it_was_created_with() -> None:
    disk = FaultyDisk()
    open_dir(disk, b"first").close()
    again = open_dir(disk.after_power_cut(), b"second", b"otherone")
    assert (again.identity, again.salt, again.log_created) == (b"first", SALT, False)
    assert (again.wal, again.snapshots) == (PATH / "wal", PATH / "snapshots")


def test_that_the_log_exists_is_remembered_durably() -> None:
    disk = FaultyDisk()
    data_dir = open_dir(disk)
    data_dir.mark_log_created()
    calls = len(disk.calls)
    data_dir.mark_log_created()
    assert len(disk.calls) == calls
    assert open_dir(disk.after_power_cut()).log_created


def test_the_charter_is_durable_and_whether_the_log_exists_is_said_with_it() -> None:
    disk = FaultyDisk()
    data_dir = open_dir(disk)
    assert data_dir.charter == b""
    data_dir.mark_log_created()
    data_dir.write_charter(b"first")
    again = open_dir(disk.after_power_cut())
    assert (again.charter, again.log_created) == (b"first", True)
    again.write_charter(b"second", log_created=False)
    assert (again.charter, again.log_created) == (b"second", False)


def test_a_directory_of_the_first_format_is_read_and_keeps_what_it_has() -> None:
    disk = FaultyDisk()
    open_dir(disk)
    fields = json.loads(disk.content(PATH / "META"))
    del fields["charter"], fields["incarnation"], fields["crc32c"]
    fields["format"] = 1
    old = {**fields, "crc32c": _checksum(fields)}
    data_dir = open_dir(FaultyDisk({PATH / "META": json.dumps(old).encode()}), b"other", b"otherone")
    assert data_dir.meta == Meta(b"n1", SALT, False, b"")


def test_what_is_set_aside_is_kept_and_the_directories_are_there_anew(tmp_path: Path) -> None:
    with open_real(tmp_path / "data") as data_dir:
        (data_dir.wal / "x.wal").write_bytes(b"content")
        (moved,) = data_dir.set_aside(["wal", "absent"], "7")
        assert moved == tmp_path / "data" / "damaged" / "7-wal"
        assert (moved / "x.wal").read_bytes() == b"content"
        assert list(data_dir.wal.iterdir()) == []


def test_one_file_of_a_directory_can_be_set_aside(tmp_path: Path) -> None:
    with open_real(tmp_path / "data") as data_dir:
        for name in ("a.snap", "b.snap"):
            (data_dir.snapshots / name).write_bytes(name.encode())
        (moved,) = data_dir.set_aside(["snapshots/b.snap"], "7")
        assert moved == tmp_path / "data" / "damaged" / "7-b.snap"
        assert moved.read_bytes() == b"b.snap"
        assert [path.name for path in data_dir.snapshots.iterdir()] == ["a.snap"]


def test_every_start_has_a_greater_number_also_when_the_clock_was_set_back() -> None:
    disk = FaultyDisk()
    numbers = [open_dir(disk).count_start(least) for least in (1000, 2000, 500)]
    numbers.append(open_dir(disk.after_power_cut()).count_start(0))
    assert numbers == [1000, 2000, 2001, 2002]


def test_a_second_holder_is_refused_by_name_until_the_first_lets_go(tmp_path: Path) -> None:
    with open_real(tmp_path / "data"):
        with pytest.raises(DataDirInUse, match=f"in use by process {os.getpid()}") as caught:
            open_real(tmp_path / "data")
        assert caught.value.pid == str(os.getpid())
    open_real(tmp_path / "data").close()


def test_the_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from persistence.data_dir import DataDir;"
        "from persistence.disk import RealDisk;"
        "DataDir.open(Path(sys.argv[1]), RealDisk(), identity=b'n1', make_salt=lambda: b'12345678');"
        "print('held', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirInUse) as caught:
            open_real(tmp_path)
        assert caught.value.pid == str(holder.pid)
        holder.kill()
    open_real(tmp_path).close()


def test_a_refused_directory_is_not_left_locked(tmp_path: Path) -> None:
    open_real(tmp_path).close()
    (tmp_path / "META").write_bytes(b"{}")
    for _ in range(2):
        with pytest.raises(Damaged):
            open_real(tmp_path)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes").write_text("mine")
    open_real(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "LOCK", "META", "lost+found", "notes", "snapshots", "wal",
    ]  # fmt: skip
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_flipped_bit_anywhere_in_meta_is_damage_or_changes_nothing() -> None:
    disk = FaultyDisk()
    open_dir(disk)
    content = disk.content(PATH / "META")
    expected = read_meta(PATH, disk)
    for offset in range(len(content)):
        for bit in range(8):
            flipped = FaultyDisk({PATH / "META": content})
            flipped.flip(PATH / "META", offset, 1 << bit)
            try:
                found = read_meta(PATH, flipped)
            except Damaged:
                continue
            assert found == expected


NO_META = "it is no JSON object with format and crc32c"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"[]", NO_META),
        (b"3", NO_META),
        (b'{"identity": "' + b"x" * 60_000 + b"\xff", "'utf-8' codec can't decode byte 0xff in position 60014"),
        (b"{", "Expecting property name enclosed in double quotes"),
        (b"{}", NO_META),
        (b'{"crc32c": 0}', NO_META),
        (b"[" * 60_000, "maximum recursion depth exceeded"),
    ],
)
def test_a_meta_that_is_none_is_damage_and_one_line_says_why(content: bytes, reason: str) -> None:
    disk = FaultyDisk({PATH / "META": content})
    with pytest.raises(Damaged) as damaged:
        open_dir(disk)
    assert str(damaged.value).startswith(f"{PATH / 'META'} is damaged at offset 0: it cannot be read: {reason}")
    assert len(str(damaged.value)) < 400
    assert "\n" not in str(damaged.value)


def test_a_meta_of_impossible_size_is_damage() -> None:
    with pytest.raises(Damaged, match="at most"):
        open_dir(FaultyDisk({PATH / "META": b" " * 100_000}))


def test_an_unknown_format_version_is_refused_and_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistence.data_dir.FORMAT_VERSION", 3)
    disk = FaultyDisk()
    open_dir(disk)
    monkeypatch.undo()
    assert json.loads(disk.content(PATH / "META"))["format"] == 3
    before = disk.files()
    with pytest.raises(DataDirIncompatible, match="has format version 3, this program reads 2"):
        open_dir(disk)
    assert disk.files() == before


def test_a_log_without_meta_is_damage_and_not_a_new_directory() -> None:
    disk = FaultyDisk({PATH / "wal" / "0000000000000001-0000000000000001.wal": b"something"})
    with pytest.raises(Damaged, match="it is missing, but there is a log"):
        open_dir(disk)


def test_a_power_cut_at_every_call_of_creation_leaves_a_directory_that_opens() -> None:
    probe = FaultyDisk()
    open_dir(probe).mark_log_created()
    for nth in range(1, len(probe.calls) + 1):
        for after in (False, True):
            disk = FaultyDisk()
            disk.cut_power_at(nth, after=after)
            with pytest.raises(PowerCutError):
                open_dir(disk).mark_log_created()
            for survivor in (disk.after_power_cut(), disk.after_power_cut(keep_all, disk.names_pending)):
                again = open_dir(survivor, b"again", b"87654321")
                assert (again.identity, again.salt) in ((b"n1", SALT), (b"again", b"87654321"))


def test_every_failing_call_of_creation_is_reported() -> None:
    probe = FaultyDisk()
    open_dir(probe)
    kinds = [call for call, _ in probe.calls]
    for position, kind in enumerate(kinds):
        disk = FaultyDisk()
        disk.fail(kind, kinds[: position + 1].count(kind), EIO)
        with pytest.raises(DiskFailed, match="Input/output error"):
            open_dir(disk)


def test_a_directory_that_cannot_be_made_or_locked_is_a_disk_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFailed, match="mkdir failed"):
        open_real(tmp_path / "file" / "data")
    (tmp_path / "data" / "LOCK").mkdir(parents=True)
    with pytest.raises(DiskFailed, match=r"open failed on .*LOCK"):
        open_real(tmp_path / "data")


def test_a_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        open_dir(FaultyDisk(), salt=b"short")


def test_the_names_of_the_directories_are_durable_before_meta_says_that_they_exist() -> None:
    """The faulty disk keeps directories at once, so the order of the calls is what shows it."""
    disk = FaultyDisk()
    open_dir(disk)
    begun = disk.calls.index(("create", str(PATH / "META.tmp")))
    assert {("fsync_dir", str(PATH)), ("fsync_dir", str(PATH.parent))} <= set(disk.calls[:begun])
