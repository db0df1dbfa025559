from __future__ import annotations

import time

import pytest

from kvservice.commands.reply import OK, Pending, Reply
from kvservice.config import Config
from tests.harness.server_plane import Caller, FakeService


def debugging(mode: str = "yes", address: str = "127.0.0.1:50000") -> Caller:
    return Caller(FakeService(Config(enable_debug_command=mode)), address)  # type: ignore[arg-type]


def replies_of(pending: Reply | Pending) -> list[Reply]:
    """Return a list that the late reply is put into."""
    assert isinstance(pending, Pending)
    replies: list[Reply] = []
    pending.then(replies.append)
    return replies


def test_save_answers_when_the_snapshot_is_on_disk() -> None:
    caller = Caller()
    replies = replies_of(caller.say("SAVE"))
    assert caller.text("BGSAVE") == "-ERR Background save already in progress"
    assert caller.text("SAVE") == "-ERR Background save already in progress"
    assert replies == []
    caller.service.finish_save()
    assert replies == [OK]


@pytest.mark.parametrize(
    ("line", "started"),
    [
        ("BGSAVE", "Background saving started"),
        ("BGSAVE schedule", "Background saving started"),
        ("BGREWRITEAOF", "Background append only file rewriting started"),
    ],
)
def test_saving_in_the_background_answers_at_once(line: str, started: str) -> None:
    caller = Caller()
    assert caller.text(line) == started
    assert caller.service.snapshots.in_progress


def test_a_rewrite_while_saving_is_refused() -> None:
    caller = Caller()
    caller.say("BGSAVE")
    refusal = "-ERR Background append only file rewriting already in progress"
    assert caller.text("BGREWRITEAOF") == refusal
    assert len(caller.service.saves) == 1


def test_lastsave_is_the_time_of_the_newest_snapshot() -> None:
    assert Caller().say("LASTSAVE") == 1_700_000_000


@pytest.mark.parametrize("line", ["SHUTDOWN", "SHUTDOWN NOSAVE", "SHUTDOWN save now force"])
def test_shutdown_stops_the_node_and_never_answers(line: str) -> None:
    caller = Caller()
    replies = replies_of(caller.say(line))
    assert caller.service.is_stopping
    assert replies == []


@pytest.mark.parametrize("line", ["SHUTDOWN ABORT", "SHUTDOWN ABORT NOW", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN LATER"])
def test_a_shutdown_that_is_wrong_stops_nothing(line: str) -> None:
    caller = Caller()
    assert caller.text(line).startswith("-ERR")
    assert caller.service.is_stopping is False


def test_role_is_master_at_the_position_of_the_log() -> None:
    assert Caller().array("ROLE") == [b"master", 10, []]


def test_a_node_that_was_removed_is_no_master() -> None:
    caller = Caller()
    caller.service.group.is_removed = True
    assert caller.array("ROLE") == [b"slave", b"", 0, b"connect", -1]
    assert caller.map("HELLO 3")[b"role"] == b"replica"
    told = caller.text("INFO replication")
    assert "role:slave\r\n" in told
    assert "master_link_status:down\r\n" in told
    assert "raft_voters:\r\n" in caller.text("INFO raft")


@pytest.mark.parametrize(("fsync", "local"), [("always", 1), ("interval", 0), ("os", 0)])
def test_waitaof_counts_the_own_disk_only_where_answers_wait_for_it(fsync: str, local: int) -> None:
    caller = Caller(FakeService(Config(fsync=fsync)))  # type: ignore[arg-type]
    assert caller.array("WAITAOF 1 0 100") == [local, 0]


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("WAITAOF 2 0 0", "value is out of range, value must between 0 and 1"),
        ("WAITAOF 1 -1 0", "value is out of range, must be positive"),
        ("WAITAOF 1 0 -1", "timeout is negative"),
        ("REPLICAOF 10.0.0.1 6379", "REPLICAOF is not supported: nodes copy each other through the consensus log"),
        ("failover", "FAILOVER is not supported: nodes copy each other through the consensus log"),
        ("MODULE LOAD x", "modules are not supported"),
        ("MODULE UNLOAD x", "modules are not supported"),
        ("CLUSTER FAILOVER FORCE", "This instance has cluster support disabled"),
    ],
)
def test_what_this_version_does_not_do_is_refused_by_name(line: str, refusal: str) -> None:
    assert Caller().text(line) == f"-ERR {refusal}"


def test_keyslot_needs_no_cluster() -> None:
    caller = Caller()
    assert caller.say("CLUSTER KEYSLOT foo") == 12182
    assert caller.say("CLUSTER KEYSLOT {foo}bar") == 12182


@pytest.mark.parametrize(
    ("mode", "address", "allowed"),
    [
        ("no", "127.0.0.1:1", False),
        ("local", "127.0.0.1:1", True),
        ("local", "[::1]:1", True),
        ("local", "10.0.0.1:1", False),
        ("local", "", False),
        ("yes", "10.0.0.1:1", True),
    ],
)
def test_debug_is_for_those_that_the_setting_names(mode: str, address: str, allowed: bool) -> None:
    caller = debugging(mode, address)
    assert (caller.text("DEBUG SET-ACTIVE-EXPIRE 1") == "OK") is allowed


def test_debug_sleep_holds_commands_and_answers_at_the_end() -> None:
    caller = debugging()
    before_ms = int(time.time() * 1000)
    replies = replies_of(caller.say("DEBUG SLEEP 1.5"))
    assert caller.service.paused is not None
    until_ms, writes_only = caller.service.paused
    assert before_ms + 1_499 <= until_ms <= int(time.time() * 1000) + 1_501, "but for rounding"
    assert not writes_only
    assert [seconds for seconds, _act in caller.service.timers] == [1.5]
    assert replies == []
    caller.service.run_timers()
    assert replies == [OK]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("x", 0.0), (".5", 0.5), ("2s", 2.0), ("-1", 0.0), ("1e9", 1.0), (".", 0.0)]
)
def test_debug_sleep_reads_a_number_as_far_as_it_goes(text: str, seconds: float) -> None:
    caller = debugging()
    caller.say(f"DEBUG SLEEP {text}")
    assert [slept for slept, _act in caller.service.timers] == [seconds]


def test_debug_sleep_has_a_bound() -> None:
    caller = debugging()
    caller.say("DEBUG SLEEP 99999999999999999999")
    assert [seconds for seconds, _act in caller.service.timers] == [3600]


def test_debug_can_stop_the_removal_of_expired_keys() -> None:
    caller = debugging()
    caller.say("DEBUG SET-ACTIVE-EXPIRE 0")
    assert caller.service.stats.is_expiring_actively is False
    caller.say("DEBUG SET-ACTIVE-EXPIRE 1")
    assert caller.service.stats.is_expiring_actively is True


def test_debug_protocol_answers_every_type_it_names() -> None:
    caller = debugging()
    types = caller.text("DEBUG PROTOCOL nonsense").rpartition(": ")[2].split("|")
    assert {"string", "integer", "double", "null", "array", "set", "map", "verbatim", "true", "false"} == set(types)
    for name in types:
        caller.say(f"DEBUG PROTOCOL {name}")
    assert caller.say("DEBUG PROTOCOL double") == 3.141
    assert caller.map("DEBUG PROTOCOL map") == {0: False, 1: True, 2: False}
