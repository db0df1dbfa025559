"""The command line as its users meet it: output, errors and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Semaphore

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvservice.cli import run_command
from kvservice.cli_inspect import ARGUMENT_BYTES_SHOWN, LoggedCommand, command_line, commands_of, quote, stamp
from kvservice.config import SETTINGS
from kvservice.gateway.resp import encode_commands
from persistence.data_dir import DataDir
from persistence.disk import RealDisk
from persistence.record import WalRecord
from persistence.wal import Wal, WalOptions
from replication.core.messages import Entry, EntryKind, HardState
from replication.storage import encode_entry, encode_hard_state

ROOT = Path(__file__).resolve().parents[2]
SALT = b"saltsalt"
DEADLINE_SECONDS = 60.0


def write_log(directory: Path, batches: list[list[WalRecord]]) -> None:
    """Write a data directory with a log of these batches, as a node does."""
    disk = RealDisk()
    with DataDir.open(directory, disk, identity=b"n1", make_salt=lambda: SALT) as data_dir:
        wal, _ = Wal.open(data_dir.wal, disk, WalOptions(segment_bytes=64 * 1024), salt=data_dir.salt)
        data_dir.mark_log_created()
        durable = Semaphore(0)
        wal.start(lambda _token: durable.release(), lambda _error: None)
        for token, records in enumerate(batches):
            wal.append(records, token)
            assert durable.acquire(timeout=DEADLINE_SECONDS)  # so that each batch is a frame of its own
        wal.close()


def commands_entry(index: int, *commands: list[bytes]) -> WalRecord:
    return encode_entry(Entry(1, index, EntryKind.COMMANDS, 1_700_000_000_123, encode_commands(commands)))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    write_log(
        directory,
        [
            [
                encode_hard_state(HardState(1, "n1"), 0),
                encode_entry(Entry(1, 1, EntryKind.NOOP, 1_700_000_000_000, b"")),
            ],
            [commands_entry(2, [b"SET", b"a", b"1"], [b"SELECT", b"3"], [b"SET", b'q"\n', b"\xff\\"])],
            [commands_entry(3, [b"SET", b"long", b"x" * 1000])],
        ],
    )
    return directory


@pytest.fixture
def redan_variables_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("REDAN_")]:
        monkeypatch.delenv(variable)


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvservice", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("REDAN_")}},
    )  # fmt: skip


def test_log_prints_commands_as_redis_cli_quotes_them(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["log", str(data_dir)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '0 term=1 hard-state - "n1"',
        "1 term=1 noop 2023-11-14T22:13:20.000Z",
        "2 term=1 commands 2023-11-14T22:13:20.123Z",
        '    [0] SET "a" "1"',
        '    [3] SET "q\\"\\n" "\\xff\\\\"',
        "3 term=1 commands 2023-11-14T22:13:20.123Z",
        f'    [0] SET "long" "{"x" * ARGUMENT_BYTES_SHOWN}"…(1000 bytes)',
    ]


def test_log_starts_at_the_index_that_was_asked_for(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["log", str(data_dir), "--from", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 term=1 commands")


def test_log_as_json_has_one_object_a_command_and_cuts_nothing(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["log", str(data_dir), "--json", "--from", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    head = {"term": 1, "kind": "commands", "stamp_ms": 1_700_000_000_123}
    assert lines == [
        {"index": 1, "term": 1, "kind": "noop", "stamp_ms": 1_700_000_000_000},
        {"index": 2, **head, "db": 0, "command": ["SET", "a", "1"]},
        {"index": 2, **head, "db": 3, "command": ["SET", 'q"\n', "\\xff\\\\"], "escaped": True},
        {"index": 3, **head, "db": 0, "command": ["SET", "long", "x" * 1000]},
    ]


def test_verify_finds_nothing_wrong_with_a_sealed_directory(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["verify", str(data_dir)]) == 0
    out = capsys.readouterr().out
    assert "META" in out
    assert "sealed" in out
    assert "entries 1 to 3" in out


def test_verify_and_log_end_with_3_when_a_byte_is_flipped(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (segment,) = (data_dir / "wal").glob("*.wal")
    content = bytearray(segment.read_bytes())
    content[content.index(b"long") + 1] ^= 1
    segment.write_bytes(content)
    assert run_command(["verify", str(data_dir)]) == 3
    captured = capsys.readouterr()
    assert f"{segment} is damaged at offset" in captured.out
    assert captured.err == "redan: the data directory is damaged\n"
    assert run_command(["log", str(data_dir)]) == 3
    captured = capsys.readouterr()
    assert '[0] SET "a" "1"' in captured.out
    assert "is damaged at offset" in captured.err


def test_verify_says_when_the_log_begins_too_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "late", [[commands_entry(7, [b"SET", b"a", b"1"])]])
    assert run_command(["verify", str(tmp_path / "late")]) == 3
    assert "the log begins at entry 7, and no sound snapshot is there" in capsys.readouterr().out


def test_verify_shows_a_damaged_snapshot_and_a_missing_meta(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data_dir / "snapshots" / f"{3:016x}-{1:016x}.snap").write_bytes(b"no snapshot")
    (data_dir / "META").unlink()
    assert run_command(["verify", str(data_dir)]) == 3
    out = capsys.readouterr().out
    assert out.count("damaged") >= 2
    assert "it is missing" in out


@pytest.mark.parametrize("command", ["verify", "log"])
def test_what_is_no_data_directory_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([command, str(tmp_path / "absent")]) == 2
    assert run_command([command, str(tmp_path)]) == 1
    assert "not a data directory" in capsys.readouterr().err


@pytest.mark.usefixtures("redan_variables_unset")
def test_config_print_shows_origins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDAN_TIMEOUT", "7")
    assert run_command(["config", "print", "--origin", "-o", "json", "--maxmemory", "1mb"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["maxmemory"] == {"value": 1 << 20, "origin": "flag --maxmemory"}
    assert printed["timeout"] == {"value": 7, "origin": "environment REDAN_TIMEOUT"}
    assert printed.keys() == SETTINGS.keys()


@pytest.mark.usefixtures("redan_variables_unset")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--maxmemroy", "1"], "--maxmemroy: no such setting; did you mean --maxmemory?"),
        (["--maxmemory"], "argument --maxmemory: expected one argument"),
        (["--fsync=never"], "--fsync: 'never' is refused; fsync takes one of always, interval, os"),
        (["--config", "/absent.toml"], "/absent.toml: cannot be read: No such file or directory"),
        (["now"], "unexpected argument 'now'"),
    ],
)
def test_bad_usage_of_serve_is_one_line_and_exit_code_2(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["serve", *arguments]) == 2
    assert capsys.readouterr().err == f"redan: {problem}\n"


def test_the_program_itself_ends_with_the_same_exit_codes() -> None:
    assert run_program("serve", "--fsync", "never").returncode == 2
    assert run_program("nonsense").returncode == 2
    assert run_program("verify", "/absent").returncode == 2
    version = run_program("version")
    assert (version.returncode, version.stdout.split()[0]) == (0, "redan")


def test_help_of_serve_names_every_setting() -> None:
    text = run_program("serve", "--help").stdout
    assert [setting.flag for setting in SETTINGS.values() if f"{setting.flag} " not in text] == []


def test_a_server_starts_without_the_libraries_of_the_command_line() -> None:
    code = "import sys, kvservice.__main__, kvservice.cli_settings; sys.exit('typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=30).returncode == 0


def test_a_reader_that_goes_away_ends_log_quietly(tmp_path: Path) -> None:
    entries = [commands_entry(index, [b"SET", b"k", b"v" * 100]) for index in range(1, 2000)]
    write_log(tmp_path / "data", [entries])
    ended = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -m kvservice log "$1" | head -1', sys.executable, str(tmp_path / "data")],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("1 term=1 commands")


@given(st.binary(max_size=64))
def test_a_quoted_argument_reads_back_as_itself(argument: bytes) -> None:
    text = quote(argument)
    assert text.isascii()
    assert text.isprintable()
    assert eval("b" + text) == argument  # redis-cli's escapes are those of a bytes literal


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=4), max_size=6))
def test_commands_of_a_payload_are_those_that_were_logged(commands: list[list[bytes]]) -> None:
    plain = [command for command in commands if command[0].upper() != b"SELECT"]
    assert list(commands_of(encode_commands(plain))) == [LoggedCommand(0, command) for command in plain]


def test_a_payload_that_is_no_commands_is_refused() -> None:
    for payload in (b"*1\r\n$3\r\nab\r\n", b"hello", b"*1\r\n"):
        with pytest.raises(ValueError, match="stored commands"):
            list(commands_of(payload))


def test_many_arguments_are_counted_and_not_printed() -> None:
    line = command_line(LoggedCommand(0, [b"DEL", *(b"%d" % number for number in range(1000))]))
    assert line.endswith("…(1000 arguments)")
    assert len(line) < 500


def test_a_record_without_a_stamp_shows_a_dash() -> None:
    assert stamp(0) == "-"
    assert stamp(1) == "1970-01-01T00:00:00.001Z"
