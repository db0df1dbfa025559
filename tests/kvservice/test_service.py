"""The path of a command: who waits for whom, what becomes an entry, and what is refused."""

from __future__ import annotations

import random

import pytest

from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, Pending
from kvservice.keyspace.machine import Machine
from replication.core.messages import EntryKind
from tests.kvservice.fake_node import START_MS, Bench, resp, texts


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A wall clock in ms that a test sets, for reads and holds."""
    now = [START_MS]
    for module in ("kvservice.runner", "kvservice.holds", "kvservice.memory_limit"):
        monkeypatch.setattr(f"{module}.time_ns", lambda: now[0] * 1_000_000)
    return now


# -- order -------------------------------------------------------------------------------------------------------------


def test_a_write_is_answered_when_it_is_applied_and_not_before() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    assert bench.node.proposals_pending == 0
    bench.turn()
    assert peer.taken() == []
    assert peer.pending == 1
    bench.commit()
    assert peer.taken() == [OK]
    assert peer.pending == 0


def test_a_read_of_a_caller_with_nothing_pending_is_answered_at_once() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "GET k")
    assert peer.taken() == [None]
    assert bench.node.log == []


def test_a_read_behind_a_write_waits_for_it_and_sees_it() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    bench.send(peer, "GET k")
    bench.turn()
    bench.send(peer, "GET k")
    bench.send(peer, "INCR k")
    bench.send(peer, "GET k")
    bench.turn()
    assert peer.taken() == []
    bench.commit()
    assert peer.taken() == [OK, b"1", b"1"]
    bench.turn()
    bench.commit()
    assert peer.taken() == [2, b"2"]


def test_a_read_in_one_chunk_with_writes_is_answered_in_its_place_and_not_stored() -> None:
    bench = Bench()
    peer = bench.peer()
    assert bench.run(peer, "GET k", "SET k 1", "GET k", "INCR k", "STRLEN k", "DEL k", "GET k") == [
        None, OK, b"1", 2, 1, 1, None,
    ]  # fmt: skip
    assert bench.payloads() == [resp("SET k 1", "INCR k", "DEL k")]


def test_another_caller_does_not_wait_for_writes_that_are_not_its_own() -> None:
    bench = Bench()
    writer, reader = bench.peer(), bench.peer()
    bench.send(writer, "SET k 1")
    bench.turn()
    bench.send(reader, "GET k")
    assert reader.taken() == [None]
    bench.commit()
    bench.send(reader, "GET k")
    assert reader.taken() == [b"1"]


def test_writes_of_all_callers_in_one_turn_are_one_entry() -> None:
    bench = Bench()
    peers = [bench.peer() for _ in range(5)]
    for number, peer in enumerate(peers):
        bench.send(peer, f"SET k{number} v")
    bench.turn()
    [payload] = bench.payloads()
    assert payload == resp(*(f"SET k{number} v" for number in range(5)))
    bench.commit()
    assert [peer.taken() for peer in peers] == [[OK]] * 5


def test_entries_select_the_database_of_their_commands() -> None:
    bench = Bench()
    first, second = bench.peer(), bench.peer()
    bench.run(second, "SELECT 3")
    bench.send(first, "SET k 0")
    bench.send(second, "SET k 3")
    bench.send(first, "SET j 0")
    bench.turn()
    assert bench.payloads() == [resp("SET k 0", "SELECT 3", "SET k 3", "SELECT 0", "SET j 0")]
    bench.commit()
    assert [bench.machine.databases[index].key_count for index in (0, 3)] == [2, 1]


def test_an_entry_replays_to_the_state_that_it_made(wall_clock: list[int]) -> None:
    bench = Bench()
    first, second = bench.peer(), bench.peer()
    bench.run(second, "SELECT 5")
    bench.send(first, "SET a 1", "GET a", "INCR a", "LPUSHY a", "EXPIRE a 100")
    bench.send(second, "SET b 1", "APPEND b 2", "SETBIT c 7 1")
    bench.run(first, "SWAPDB 5 6", "COPY a b DB 7")
    again = Machine(TABLE, 16, random.Random)
    for entry in bench.node.log:
        again.begin_entry(entry.index, entry.term, entry.stamp_ms, entry.payload)
        again.replay(entry.payload)
        again.end_entry()
    for before, after in zip(bench.machine.databases, again.databases, strict=True):
        assert list(before.items()) == list(after.items())
        assert before.bytes_used == after.bytes_used
    assert bench.machine.databases[6].key_count == 2


def test_a_server_command_waits_for_what_its_caller_asked_before() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "SET k 1", "CLIENT SETNAME me", "GET k", "SELECT 1", "GET k", "CLIENT GETNAME")
    bench.turn()
    assert peer.taken() == []
    assert peer.held
    assert peer.name == b""
    bench.send(peer, "ECHO later")
    bench.commit()
    assert texts(peer.taken()) == ["OK", "OK", b"1", "OK", None, b"me", b"later"]
    assert (peer.held, peer.db) == (False, 1)


def test_what_arrives_while_a_caller_is_held_keeps_its_place() -> None:
    bench = Bench()
    peer = bench.peer()
    expected: list[object] = []
    for number in range(20):
        bench.send(peer, f"SET k {number}", f"CLIENT SETNAME n{number}", "CLIENT GETNAME", "GET k")
        expected += ["OK", "OK", f"n{number}".encode(), str(number).encode()]
    got = texts(bench.run(peer, "ECHO done"))
    assert got == [*expected, b"done"]


def test_a_late_reply_holds_back_what_follows() -> None:
    bench = Bench()
    saves: list[Pending] = []

    def start_save() -> Pending:
        saves.append(Pending())
        return saves[-1]

    bench.service.start_save = start_save
    peer, other = bench.peer(), bench.peer()
    bench.send(peer, "SAVE", "GET k")
    bench.send(peer, "SET k 1")
    bench.send(other, "SET j 1")
    bench.turn()
    bench.commit()
    assert peer.taken() == []
    assert other.taken() == [OK]
    saves[0].resolve(OK)
    assert peer.taken() == [OK]
    assert bench.run(peer, "GET k") == [None, OK, b"1"]


def test_a_late_reply_for_a_caller_that_left_is_dropped() -> None:
    bench = Bench()
    late = Pending()
    bench.service.start_save = lambda: late
    peer = bench.peer()
    bench.send(peer, "SAVE")
    peer.close()
    late.resolve(OK)
    bench.turn()
    assert peer.taken() == []


def test_random_conversations_are_answered_in_order() -> None:
    """Each reply names its own command, so that any exchange of two shows."""
    for seed in range(60):
        chance = random.Random(seed)
        bench = Bench()
        peers = [bench.peer() for _ in range(3)]
        expected: dict[int, list[object]] = {peer.id: [] for peer in peers}
        number = 0
        for _ in range(40):
            peer = chance.choice(peers)
            lines = []
            for _ in range(chance.randint(1, 4)):
                number += 1
                name = chance.choice(["CLIENT", "SET", "UNKNOWN"])
                key = f"p{peer.id}"
                if name == "CLIENT":
                    lines += [f"CLIENT SETNAME {number}", "CLIENT GETNAME"]
                    expected[peer.id] += ["OK", b"%d" % number]
                elif name == "UNKNOWN":
                    lines.append(f"NO{number}")
                    expected[peer.id].append(f"ERR unknown command 'NO{number}', with args beginning with: ")
                else:
                    lines += [f"SET {key} {number}", f"GET {key}"]
                    expected[peer.id] += ["OK", b"%d" % number]
            bench.send(peer, *lines)
            if chance.random() < 0.4:
                bench.turn()
            if chance.random() < 0.4 and bench.node.queued:
                bench.commit(1)
        for peer in peers:
            assert texts(bench.run(peer, "GET none")) == [*expected[peer.id], None], seed


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_read_of_a_key_that_is_due_waits_until_the_log_has_said_so(wall_clock: list[int]) -> None:
    bench = Bench()
    peer = bench.peer()
    bench.run(peer, "SET k v PX 500", "SET j w")
    wall_clock[0] += 499
    assert bench.run(peer, "GET k") == [b"v"]
    wall_clock[0] += 1
    bench.send(peer, "GET j", "GET k", "GET j")
    bench.turn()
    assert peer.taken() == [b"w"], "what is before it need not wait"
    assert bench.node.log[-1].kind == EntryKind.NOOP
    assert bench.node.log[-1].payload == b""
    bench.node.log.clear()
    entry, batch = bench.node.queued.popleft()
    bench.node.queued.append((entry._replace(stamp_ms=wall_clock[0]), batch))
    bench.commit()
    assert peer.taken() == [None, b"w"]


def test_a_read_that_waits_for_time_keeps_later_ones_behind_it(wall_clock: list[int]) -> None:
    bench = Bench()
    peer = bench.peer()
    bench.run(peer, "SET k v PX 500", "SET j w")
    wall_clock[0] = bench.node.now_ms = START_MS + 1000
    bench.send(peer, "GET k")
    bench.send(peer, "GET j")
    bench.send(peer, "ECHO end")
    bench.turn()
    assert peer.taken() == []
    bench.commit()
    assert peer.taken() == [None, b"w", b"end"]


def test_a_read_is_answered_by_the_log_when_the_wall_clock_stepped_back(wall_clock: list[int]) -> None:
    bench = Bench()
    peer = bench.peer()
    bench.run(peer, "SET k v PX 500")
    wall_clock[0] = bench.node.now_ms = START_MS + 1000
    assert bench.run(peer, "GET k") == [None]
    wall_clock[0] = START_MS - 100_000
    assert bench.run(peer, "GET k", "EXISTS k", "PTTL k") == [None, 0, -2]


def test_time_moves_once_a_turn() -> None:
    bench = Bench()
    bench.service.move_time()
    bench.service.move_time()
    bench.send(bench.peer(), "SET k v")
    bench.turn()
    assert [entry.kind for entry in bench.node.log] == [EntryKind.COMMANDS]


# -- pausing -----------------------------------------------------------------------------------------------------------


def test_a_pause_of_writes_holds_writes_and_lets_reads_pass(wall_clock: list[int]) -> None:
    bench = Bench()
    writer, reader, admin = bench.peer(), bench.peer(), bench.peer()
    bench.run(reader, "SET k 1")
    assert bench.run(admin, "CLIENT PAUSE 1000 WRITE") == [OK]
    assert bench.run(writer, "GET k", "SET k 2", "GET k") == [b"1"]
    assert bench.run(reader, "GET k") == [b"1"]
    assert bench.run(admin, "CLIENT UNPAUSE") == [OK]
    bench.turn()
    bench.commit()
    assert writer.taken() == [OK, b"2"]


def test_a_pause_of_all_holds_reads_and_ends_by_itself(wall_clock: list[int]) -> None:
    bench = Bench()
    peer, admin = bench.peer(), bench.peer()
    bench.service.pause(wall_clock[0] + 1000, False)
    assert bench.run(peer, "GET k") == []
    assert bench.run(peer, "SET k 1", "GET k") == []
    wall_clock[0] += 400
    bench.fire_timers()
    assert bench.run(admin, "CLIENT ID") == [admin.id]
    assert peer.taken() == []
    wall_clock[0] += 600
    bench.fire_timers()
    bench.turn()
    bench.commit()
    assert peer.taken() == [None, OK, b"1"]


def test_writes_proposed_before_a_pause_are_answered_and_later_ones_wait(wall_clock: list[int]) -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    bench.turn()
    bench.service.pause(wall_clock[0] + 1000, True)
    bench.send(peer, "INCR k")
    bench.commit()
    assert peer.taken() == [OK]
    assert peer.held
    bench.service.unpause()
    assert bench.run(peer, "ECHO end") == [2, b"end"]
