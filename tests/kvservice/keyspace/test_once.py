"""A write with a request id runs once, however often, on whatever node and in whatever order of restarts it comes."""

from __future__ import annotations

import random

import pytest

from kvservice.commands.once import GROWING, ONCE, wrapped
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, ErrorReply, Reply
from kvservice.errors import RedanError
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace import once
from kvservice.keyspace.machine import Machine
from kvservice.keyspace.once import Answer, OnceTable

START_MS = 1_700_000_000_000


class Replica:
    """A machine that runs one command an entry."""

    def __init__(self) -> None:
        self.machine = Machine(TABLE, 4, random.Random)

    def run(self, line: str, request_id: str, db: int = 0) -> Reply:
        """Run a write as the node that proposed it; an error is an ErrorReply."""
        command = line.encode().split()
        row = TABLE.find(command[0])
        assert row is not None
        args = wrapped(request_id.encode(), row, command)
        its_row = TABLE.find_any(args[0])
        assert its_row is not None
        self._begin(b"")
        [reply] = self.machine.execute_alike(db, its_row, [args])
        self.machine.end_entry()
        return reply

    def replay(self, line: str, request_id: str, db: int = 0) -> None:
        """Run a write as a node that reads it from the log."""
        command = line.encode().split()
        row = TABLE.find(command[0])
        assert row is not None
        self._begin(b"")
        selected = [[b"SELECT", b"%d" % db]] if db else []
        self.machine.replay(encode_commands([*selected, wrapped(request_id.encode(), row, command)]))
        self.machine.end_entry()

    def _begin(self, payload: bytes) -> None:
        self.machine.begin_entry(self.machine.index + 1, 1, START_MS, payload)

    def get(self, key: bytes, db: int = 0) -> object:
        """Return what is stored."""
        return self.machine.databases[db].get(key)


@pytest.fixture
def replica() -> Replica:
    return Replica()


def test_a_write_that_comes_again_gets_its_first_answer_and_changes_nothing(replica: Replica) -> None:
    assert [replica.run("INCR k", "a"), replica.run("INCR k", "a"), replica.run("INCR k", "b")] == [1, 1, 2]
    assert replica.run("INCR k", "a") == 1
    assert replica.get(b"k") == 2


def test_an_answer_of_every_shape_comes_back_as_it_was(replica: Replica) -> None:
    lines = ("SET k v", "SET k w GET", "SET k v NX", "DEL none", "GETDEL k", "BITFIELD b INCRBY u8 0 1 GET u4 0")
    first = [replica.run(line, line[:20]) for line in lines]
    assert first == [OK, b"v", None, 0, b"w", [1, 0]]
    assert [replica.run(line, line[:20]) for line in lines] == first


def test_an_error_is_an_answer_too(replica: Replica) -> None:
    replica.run("SET k text", "a")
    first = replica.run("INCR k", "b")
    assert isinstance(first, ErrorReply)
    replica.run("SET k 5", "c")
    assert replica.run("INCR k", "b") == first
    assert replica.get(b"k") == 5


@pytest.mark.parametrize(("line", "db"), [("INCR j", 0), ("INCRBY k 1", 0), ("INCR k", 1)])
def test_an_id_that_comes_with_another_command_is_refused(replica: Replica, line: str, db: int) -> None:
    replica.run("INCR k", "a")
    reply = replica.run(line, "a", db)
    assert isinstance(reply, ErrorReply)
    assert (reply.cause.reason, reply.cause.grpc_status) == ("REQUEST_ID_REUSED", "INVALID_ARGUMENT")
    assert replica.run("INCR k", "a") == 1
    assert replica.get(b"k") == 1


def test_nodes_that_replay_remember_what_the_proposer_does() -> None:
    proposer, follower = Replica(), Replica()
    for line, request_id in (("INCR k", "a"), ("INCR k", "a"), ("APPEND k x", "b"), ("INCR k", "c"), ("INCR k", "c")):
        proposer.run(line, request_id)
        follower.replay(line, request_id)
    assert follower.machine.once.answers() == proposer.machine.once.answers()
    assert follower.machine.digests.value == proposer.machine.digests.value
    assert follower.run("APPEND k x", "b") == 2, "the first answer, after a failover"


def test_a_replayed_write_goes_to_its_database() -> None:
    proposer, follower = Replica(), Replica()
    proposer.run("SET k v", "a", 2)
    follower.replay("SET k v", "a", 2)
    assert follower.get(b"k", 2) == b"v"
    assert follower.machine.once.answers() == proposer.machine.once.answers()


def test_the_oldest_answers_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "REQUESTS_MAX", 3)
    table = OnceTable()
    for number in range(5):
        table.remember(b"%d" % number, b"", number)
    assert [answer.request_id for answer in table.answers()] == [b"2", b"3", b"4"]
    assert table.first_reply(b"1", b"") is None
    assert table.first_reply(b"2", b"") == (2,)
    check(table)


def test_the_oldest_answers_go_when_they_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "BYTES_MAX", 10_000)
    table = OnceTable()
    for number in range(8):
        table.remember(b"%d" % number, b"", bytes(2_000))
        assert table.bytes_used <= 10_000
    assert len(table) == 4
    check(table)


def check(table: OnceTable) -> None:
    """Raise AssertionError unless the sums agree with the answers."""
    assert table.bytes_used == sum(answer.cost for answer in table.answers())
    assert table.digest == sum(answer.digest for answer in table.answers())


def test_an_answer_that_is_too_long_to_keep_is_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "REPLY_BYTES_MAX", 100)
    replica = Replica()
    replica.run(f"SET k {'x' * 200}", "a")
    assert replica.run("GETDEL k", "b") == b"x" * 200
    reply = replica.run("GETDEL k", "b")
    assert isinstance(reply, ErrorReply)
    assert reply.cause.reason == "REPLY_NOT_KEPT"


def test_an_answer_is_kept_with_all_that_makes_it_different() -> None:
    digests = {
        Answer(*parts).digest
        for parts in ((b"a", b"b", b"c"), (b"x", b"b", b"c"), (b"a", b"x", b"c"), (b"a", b"b", b"x"))
    }
    assert len(digests) == 4
    assert once.digest_of(0, [b"SET", b"ab", b"c"]) != once.digest_of(0, [b"SET", b"a", b"bc"])


def test_no_client_can_name_the_commands_and_no_list_shows_them() -> None:
    for name in (ONCE, GROWING):
        assert TABLE.find(name) is None
        assert TABLE.find(name.lower()) is None
        row = TABLE.find_any(name)
        assert row is not None
        assert row not in TABLE.rows
    assert TABLE.find_any(b"get") is TABLE.find(b"GET")
    assert TABLE.find_any(b"nothing") is None


@pytest.mark.parametrize(("line", "name"), [("SET k v", GROWING), ("DEL k", ONCE)])
def test_only_what_may_need_memory_is_refused_for_lack_of_it(line: str, name: bytes) -> None:
    command = line.encode().split()
    row = TABLE.find(command[0])
    assert row is not None
    args = wrapped(b"a", row, command)
    assert args[0] == name
    its_row = TABLE.find_any(name)
    assert its_row is not None
    assert its_row.deny_oom == row.deny_oom
    assert list(its_row.keys_of(args)) == [b"k"]


def test_a_running_snapshot_saves_the_slots_that_the_command_inside_changes(replica: Replica) -> None:
    saved: list[int] = []

    class Saver:
        def save_before(self, slot: int) -> None:
            saved.append(slot)

    replica.machine.snapshot = Saver()
    replica.run("MSET a 1 b 2", "x")
    assert len(saved) == 2


def test_what_the_reply_was_is_raised_as_the_error_it_was() -> None:
    table = OnceTable()

    class OddError(RedanError):
        reason = "ODD"

    table.remember(b"a", b"", ErrorReply(OddError("odd")))
    with pytest.raises(RedanError, match="odd") as caught:
        table.first_reply(b"a", b"")
    assert caught.value.reason == "ODD"
