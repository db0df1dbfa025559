from __future__ import annotations

import pytest

from kvservice.config import Config
from kvservice.slowlog import ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, redacted, trimmed
from tests.harness.server_plane import Caller, FakeService


def watching(**settings: int) -> Caller:
    """Return a caller of a node that logs every command."""
    return Caller(FakeService(Config(**{"slowlog_log_slower_than": 0, **settings})))  # type: ignore[arg-type]


def note(caller: Caller, *args: bytes, microseconds: int = 50) -> None:
    caller.service.stats.slowlog.note(list(args), microseconds, caller.session)


def test_an_entry_tells_who_ran_what_for_how_long() -> None:
    caller = watching()
    caller.session.name = b"worker"
    note(caller, b"GET", b"k", microseconds=12_345)
    [entry] = caller.array("SLOWLOG GET")
    assert isinstance(entry, list)
    number, unix_s, microseconds, args, address, name = entry
    assert (number, microseconds, args, address, name) == (0, 12_345, [b"GET", b"k"], b"127.0.0.1:50000", b"worker")
    assert isinstance(unix_s, int)
    assert unix_s > 1_700_000_000


@pytest.mark.parametrize(("threshold_us", "kept"), [(10_000, [10_000]), (0, [10_000, 9_999]), (-1, [])])
def test_the_threshold_decides_what_is_kept(threshold_us: int, kept: list[int]) -> None:
    caller = watching(slowlog_log_slower_than=threshold_us)
    note(caller, b"GET", b"k", microseconds=9_999)
    note(caller, b"GET", b"k", microseconds=10_000)
    assert [entry.microseconds for entry in caller.service.stats.slowlog.newest(-1)] == kept


def test_the_newest_entries_come_first_and_old_ones_go() -> None:
    caller = watching(slowlog_max_len=20)
    for number in range(30):
        note(caller, b"GET", b"%d" % number)
    assert caller.say("SLOWLOG LEN") == 20
    numbers = [entry[0] for entry in caller.array("SLOWLOG GET") if isinstance(entry, list)]
    assert numbers == list(range(29, 19, -1))
    assert len(caller.array("SLOWLOG GET -1")) == 20
    assert caller.array("SLOWLOG GET 0") == []


def test_a_shorter_bound_holds_from_the_next_entry_on() -> None:
    caller = watching()
    for _ in range(10):
        note(caller, b"PING")
    caller.say("CONFIG SET slowlog-max-len 3")
    note(caller, b"PING")
    assert caller.say("SLOWLOG LEN") == 3


def test_reset_empties_the_log_and_numbers_go_on() -> None:
    caller = watching()
    note(caller, b"PING")
    assert caller.text("SLOWLOG RESET") == "OK"
    note(caller, b"PING")
    assert [entry.number for entry in caller.service.stats.slowlog.newest(-1)] == [1]


def test_long_arguments_and_long_commands_are_cut_with_what_is_left_out() -> None:
    long = b"x" * (ARGUMENT_BYTES_MAX + 7)
    cut = trimmed([b"MSET", long, *[b"a"] * 60])
    assert len(cut) == ARGUMENTS_MAX
    assert cut[1] == b"x" * ARGUMENT_BYTES_MAX + b"... (7 more bytes)"
    assert cut[-1] == b"... (31 more arguments)"
    assert trimmed([b"a"] * ARGUMENTS_MAX) == [b"a"] * ARGUMENTS_MAX


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("AUTH secret", "AUTH (redacted)"),
        ("auth user secret", "auth (redacted) (redacted)"),
        ("HELLO 3 AUTH user secret SETNAME a", "HELLO 3 AUTH (redacted) (redacted) SETNAME a"),
        ("HELLO 3 auth user", "HELLO 3 auth (redacted)"),
        ("CONFIG SET maxmemory 1 RequirePass secret", "CONFIG SET maxmemory 1 RequirePass (redacted)"),
        ("CONFIG GET requirepass", "CONFIG GET requirepass"),
        ("SET AUTH secret", "SET AUTH secret"),
    ],
)
def test_passwords_are_never_kept(command: str, shown: str) -> None:
    assert b" ".join(redacted(command.encode().split())) == shown.encode()
