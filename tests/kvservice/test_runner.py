"""What running commands leaves in the statistics, and what entries of other origin do."""

from __future__ import annotations

import pytest

from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, ErrorReply
from kvservice.commands.table import Args
from replication.core.messages import Entry, EntryKind
from tests.kvservice.fake_node import START_MS, Bench, resp


def counted(bench: Bench, name: str) -> tuple[int, int, int]:
    """Return calls, rejections and failures of a command."""
    stats = bench.stats.commands.get(TABLE.by_name[name.upper().encode()])
    return (stats.calls, stats.rejected, stats.failed) if stats is not None else (0, 0, 0)


def test_every_command_is_counted_once_wherever_it_ran() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.run(peer, *(["SET k 1"] * 50))
    bench.run(peer, "SET k 1", "GET k", "INCR k", "GET k", "STRLEN k")
    bench.run(peer, *(["GET k"] * 10))
    bench.run(peer, "GET", "APPEND k", "SET k x", "INCR k", "INCR k")
    assert counted(bench, "set") == (52, 0, 0)
    assert counted(bench, "get") == (12, 1, 0)
    assert counted(bench, "incr") == (3, 0, 2)
    assert counted(bench, "append") == (0, 1, 0)


@pytest.mark.parametrize("last", ["SET c 3", "SET c 3 EX 100", "SET c 3 GET", "GETSET c 3", "APPEND c 3", "GET c"])
def test_callers_of_one_entry_get_their_own_replies_in_order(last: str) -> None:
    bench = Bench()
    first, second, third = peers = [bench.peer() for _ in range(3)]
    bench.run(first, "SET a 0")
    bench.send(first, "SET a 1", "SET b 1")
    bench.send(second, "SET a 2")
    bench.send(third, last)
    bench.send(first, "SET b 4")
    bench.turn()
    bench.commit()
    replies = {"GETSET c 3": [None], "SET c 3 GET": [None], "APPEND c 3": [1], "GET c": [None]}.get(last, [OK])
    assert [peer.taken() for peer in peers] == [[OK] * 3, [OK], replies]
    assert bench.run(first, "MGET a b c") == [[b"2", b"4", None if last == "GET c" else b"3"]]
    assert counted(bench, "set") == (6 if last.startswith("SET") else 5, 0, 0)
    assert len(bench.payloads()) == 2


def test_callers_of_one_entry_write_to_their_own_databases() -> None:
    bench = Bench()
    first, second = bench.peer(), bench.peer()
    bench.run(second, "SELECT 1")
    bench.send(first, "SET k 1")
    bench.send(second, "SET k 2")
    bench.turn()
    bench.commit()
    assert (first.taken(), second.taken()) == ([OK], [OK])
    assert bench.run(first, "GET k") == [b"1"]
    assert bench.run(second, "GET k") == [b"2"]


def test_entries_of_earlier_runs_answer_nobody_and_are_not_counted() -> None:
    bench = Bench()
    payload = resp("SET k 1", "APPEND k x", "INCR k", "SELECT 2", "SET j 2")
    bench.service.runner.apply(Entry(3, 9, EntryKind.COMMANDS, START_MS, payload), None)
    bench.service.runner.apply(Entry(3, 10, EntryKind.NOOP, START_MS + 5, b""), None)
    assert [database.key_count for database in bench.machine.databases[:3]] == [1, 0, 1]
    assert (bench.machine.index, bench.machine.term) == (10, 3)
    assert bench.service.runner.stamp_ms == START_MS + 5
    assert counted(bench, "set") == (0, 0, 0)
    assert bench.machine.failures == []
    assert not bench.machine.context.applying


def test_an_entry_with_an_earlier_stamp_does_not_move_time_back() -> None:
    bench = Bench()
    bench.service.runner.apply(Entry(1, 1, EntryKind.NOOP, START_MS, b""), None)
    bench.service.runner.apply(Entry(1, 2, EntryKind.NOOP, START_MS - 1000, b""), None)
    assert bench.service.runner.stamp_ms == START_MS


def test_a_slow_log_of_everything_names_each_command_of_a_group() -> None:
    bench = Bench(slowlog_log_slower_than=0)
    peer = bench.peer()
    bench.run(peer, "SET a 1", "SET b 2", "SET c 3")
    bench.run(peer, "GET a", "GET b")
    [reply] = bench.run(peer, "SLOWLOG LEN")
    assert reply == 5


QUICK = (
    "GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX STRLEN INCR DECR INCRBY DECRBY INCRBYFLOAT EXPIRE PEXPIRE TTL PTTL "
    "PERSIST TYPE RENAME RENAMENX MOVE PING ECHO TIME"
)
LONG = "MGET MSET MSETNX DEL UNLINK EXISTS TOUCH APPEND GETRANGE SUBSTR SETRANGE SETBIT BITFIELD BITFIELD_RO SCAN KEYS"


@pytest.mark.parametrize(("names", "is_quick"), [(QUICK, True), (LONG, False)], ids=["quick", "long"])
def test_what_is_timed_as_a_group_does_not_depend_on_the_size_of_what_it_meets(names: str, is_quick: bool) -> None:
    assert {name: TABLE.by_name[name.encode()].is_quick for name in names.split()} == dict.fromkeys(
        names.split(), is_quick
    )


def test_no_command_whose_cost_grows_is_timed_as_a_group() -> None:
    rows = [row for row in TABLE.rows if row.is_data and row.is_quick]
    assert len(rows) > 20
    assert {row.name for row in rows if row.complexity != "O(1)"} == set()


def test_a_long_command_within_a_group_of_quick_ones_is_named_in_the_slow_log() -> None:
    bench = Bench(slowlog_log_slower_than=1000)
    peer = bench.peer()
    bench.run(peer, f"SETRANGE k {16 * 1024 * 1024 - 1} x")
    bench.run(peer, "SLOWLOG RESET")
    bench.run(peer, "GET a", "BITCOUNT k", "GET b", "GET c")
    [entries] = bench.run(peer, "SLOWLOG GET")
    assert isinstance(entries, list)
    assert [b"BITCOUNT", b"k"] in [entry[3] for entry in entries if isinstance(entry, list)]


def test_a_slow_log_that_is_off_notes_nothing() -> None:
    bench = Bench(slowlog_log_slower_than=-1)
    peer = bench.peer()
    bench.run(peer, "SET a 1", "GET a")
    assert bench.run(peer, "SLOWLOG LEN") == [0]


def test_a_defect_in_a_command_is_one_error_among_the_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    seen: list[str] = []
    bench.machine.on_defect = lambda row, error: seen.append(f"{row.name}: {error!r}")
    peer = bench.peer()

    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("kvservice.keyspace.database.Database.deadline_of", broken)
        replies = bench.run(peer, "SET k 1", "PEXPIRETIME k", "GET k")
    assert replies[0] == OK
    assert isinstance(replies[1], ErrorReply)
    assert replies[1].text == b"ERR internal error in 'pexpiretime': ZeroDivisionError"
    assert replies[2] == b"1"
    assert seen == ["pexpiretime: ZeroDivisionError()"]
    assert counted(bench, "pexpiretime") == (1, 0, 1)


def test_what_ran_is_told_to_who_tracks_use() -> None:
    bench = Bench()
    peer = bench.peer()
    touched: list[Args] = []
    bench.service.runner.touch = lambda call: touched.extend(call.commands)
    bench.run(peer, "SET a 1", "GET a")
    bench.run(peer, "GET a")
    assert [command[0] for command in touched] == [b"SET", b"GET", b"GET"]
