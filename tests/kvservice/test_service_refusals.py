"""What the service refuses, in which words, and that it keeps its place among the replies."""

from __future__ import annotations

import pytest

from kvservice.commands.options import BAD_BIT_OFFSET, TOO_LONG
from kvservice.commands.reply import OK, ErrorReply, Pending
from kvservice.errors import Loading
from tests.kvservice.fake_node import Bench, Peer, resp, texts


def test_refusals_are_answered_in_their_place() -> None:
    bench = Bench()
    peer = bench.peer()
    replies = bench.run(peer, "SET k 1", "NONSENSE a b", "GET", "INCR k", "CONFIG NONE", "SET k", "GET k")
    assert texts(replies) == [
        "OK",
        "ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b' ",
        "ERR wrong number of arguments for 'get' command",
        2,
        "ERR unknown subcommand 'NONE'. Try CONFIG HELP.",
        "ERR wrong number of arguments for 'set' command",
        b"2",
    ]
    assert bench.payloads() == [resp("SET k 1", "INCR k")]


def test_a_loading_node_answers_loading_and_nothing_is_proposed() -> None:
    bench = Bench()
    bench.service.refusal = Loading()
    peer = bench.peer()
    replies = texts(bench.run(peer, "SET k 1", "GET k", "PING"))
    assert [str(reply).split(" ")[0] for reply in replies] == ["LOADING"] * 3
    assert texts(bench.run(peer, "ECHO x", "CLIENT SETNAME me")) == [b"x", "OK"]
    assert bench.node.log == []


def test_a_draining_node_refuses_new_writes_and_finishes_those_proposed() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    bench.turn()
    bench.service.drain()
    bench.send(peer, "SET k 2")
    bench.commit()
    [first, second] = peer.taken()
    assert first == OK
    assert isinstance(second, ErrorReply)
    assert second.cause.reason == "SHUTTING_DOWN"
    assert len(bench.node.log) == 1


def test_a_stopped_node_refuses_what_it_did_not_take() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.node.is_stopped = True
    [first, second] = bench.run(peer, "SET k 1", "GET k")
    assert isinstance(first, ErrorReply)
    assert first.cause.reason == "SHUTTING_DOWN"
    assert second == first
    assert peer.pending == 0


def test_a_password_is_asked_for_before_anything_else_is_answered() -> None:
    bench = Bench(requirepass="secret")
    peer = bench.peer()
    asked = "NOAUTH Authentication required."
    assert texts(bench.run(peer, "GET k", "SET k 1", "PING", "CONFIG GET x")) == [asked] * 4
    assert bench.node.log == []
    [wrong] = texts(bench.run(peer, "AUTH wrong"))
    assert str(wrong).startswith("WRONGPASS ")
    assert texts(bench.run(peer, "GET k")) == [asked]
    assert texts(bench.run(peer, "AUTH secret", "SET k 1", "GET k")) == ["OK", "OK", b"1"]


def test_a_key_that_is_too_long_is_refused_and_a_long_value_is_not() -> None:
    bench = Bench(key_bytes_max=8)
    peer = bench.peer()
    long = "k" * 9
    refused = "ERR key is 9 bytes long, allowed are 0..8 (key-bytes-max)"
    assert texts(bench.run(peer, f"SET {long} v", f"GET {long}", f"SET k {long}", f"MSET a b {long} d")) == [
        refused, refused, "OK", refused,
    ]  # fmt: skip
    assert texts(bench.run(peer, f"SET {long} v")) == [refused]
    assert texts(bench.run(peer, f"SET k {long}")) == ["OK"]
    assert texts(bench.run(peer, "SET kkkkkkkk v")) == ["OK"]


@pytest.mark.parametrize(
    ("fits", "answer", "grows", "says"),
    [
        ("APPEND k 1234", 1024, "APPEND k x", TOO_LONG),
        ("SETRANGE k 1023 x", 1024, "SETRANGE k 1023 xy", TOO_LONG),
        ("SETRANGE k 0 x", 1020, "SETRANGE new 1024 x", TOO_LONG),
        ("SETBIT k 8191 1", 0, "SETBIT k 8192 1", BAD_BIT_OFFSET),
        ("BITFIELD k SET u8 #1023 1 GET u8 9000", [0, 0], "BITFIELD k SET u8 8185 1", BAD_BIT_OFFSET),
    ],
)
def test_a_value_does_not_grow_beyond_what_may_be_sent(fits: str, answer: object, grows: str, says: str) -> None:
    bench = Bench(value_bytes_max=1024, key_bytes_max=100)
    peer = bench.peer()
    bench.run(peer, "SET k " + "v" * 1020)
    assert bench.run(peer, fits) == [answer]
    proposed = bench.payloads()
    assert texts(bench.run(peer, grows)) == [f"ERR {says}"]
    assert bench.payloads() == proposed


def test_the_length_of_a_value_that_has_expired_does_not_count() -> None:
    bench = Bench(value_bytes_max=1024, key_bytes_max=100)
    peer = bench.peer()
    bench.run(peer, "SET k " + "v" * 1024 + " PX 5")
    bench.service.runner.wall_clock_ms = lambda: bench.service.runner.stamp_ms + 5
    bench.send(peer, "APPEND k x")
    bench.turn()
    assert bench.payloads()[1:] == [resp("APPEND k x")]


def test_too_much_that_waits_for_the_disk_refuses_writes_and_not_reads() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.node.bytes_pending = 1 << 40
    [refused, read] = bench.run(peer, "SET k 1", "GET k")
    assert isinstance(refused, ErrorReply)
    assert refused.cause.reason == "OVERLOADED"
    assert read is None
    bench.node.bytes_pending = 0
    assert bench.run(peer, "SET k 1") == [OK]


def test_a_held_caller_that_left_leaves_nothing_behind() -> None:
    bench = Bench()
    peer = bench.peer()
    bench.send(peer, "SET k 1", "CLIENT ID", "SET k 2")
    bench.turn()
    peer.close()
    bench.commit()
    bench.turn()
    assert len(bench.node.log) == 1


def test_a_defect_of_a_server_command_is_answered_and_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    seen: list[str] = []
    bench.machine.on_defect = lambda row, error: seen.append(f"{row.name}: {error}")

    def broken() -> Pending:
        raise ZeroDivisionError("oops")

    bench.service.start_save = broken
    peer: Peer = bench.peer()
    assert texts(bench.run(peer, "SAVE", "ECHO on")) == ["ERR internal error in 'save': ZeroDivisionError", b"on"]
    assert seen == ["save: oops"]


def test_settings_reach_those_who_listen() -> None:
    bench = Bench()
    told: list[frozenset[str]] = []
    bench.service.on_config_changed.append(told.append)
    assert bench.run(bench.peer(), "CONFIG SET maxmemory 1mb") == [OK]
    assert told == [frozenset({"maxmemory"})]


def test_quit_ends_the_session_behind_its_replies() -> None:
    bench = Bench()
    peer = bench.peer()
    assert texts(bench.run(peer, "SET k 1", "QUIT", "SET k 2")) == ["OK", "OK"]
    assert peer.is_closed
    assert len(bench.node.log) == 1


def test_shutdown_asks_the_process_to_stop() -> None:
    bench = Bench()
    asked: list[bool] = []
    bench.service.begin_shutdown = lambda: asked.append(True)
    bench.run(bench.peer(), "SHUTDOWN")
    assert asked == [True]
