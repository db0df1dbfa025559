from __future__ import annotations

import time

import pytest

from kvservice.commands.reply import Status
from tests.harness.server_plane import Caller, FakeSession

FIELDS_OF_7_2 = (
    "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll "
    "omem tot-mem events cmd user redir resp lib-name lib-ver"
)


def lines_of(caller: Caller, line: str) -> list[dict[str, str]]:
    """Return what CLIENT LIST or INFO says, a dict for each connection."""
    return [dict(field.split("=", 1) for field in described.split(" ")) for described in caller.text(line).splitlines()]


def with_others(*addresses: str) -> tuple[Caller, list[FakeSession]]:
    """Return a caller and other sessions on the same node."""
    caller = Caller()
    others = [FakeSession(number, address) for number, address in enumerate(addresses, start=2)]
    caller.service.sessions.update({session.id: session for session in others})
    return caller, others


def test_a_line_has_the_fields_of_redis_in_their_order() -> None:
    [described] = lines_of(Caller(), "CLIENT INFO")
    assert " ".join(described) == FIELDS_OF_7_2


def test_a_line_tells_what_is_known_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    caller, [other] = with_others("10.0.0.9:40000")
    now_s = time.monotonic()
    monkeypatch.setattr("kvservice.commands.client.time.monotonic", lambda: now_s)
    other.created_s, other.last_active_s = now_s - 100, now_s - 7
    other.query_bytes, other.output_bytes = 30, 500
    other.db, other.protocol, other.name, other.last_command = 4, 3, b"worker", "client|list"
    other.lib_name, other.lib_version, other.no_evict, other.no_touch = b"redis-py", b"8.1", True, True
    described = lines_of(caller, "CLIENT LIST ID 2")[0]
    expected = {
        "id": "2", "addr": "10.0.0.9:40000", "laddr": "127.0.0.1:6379", "name": "worker", "age": "100", "idle": "7",
        "flags": "eT", "db": "4", "qbuf": "30", "omem": "500", "tot-mem": "530", "cmd": "client|list", "resp": "3",
        "lib-name": "redis-py", "lib-ver": "8.1", "events": "rw", "oll": "1",
    }  # fmt: skip
    assert {name: described[name] for name in expected} == expected


def test_list_shows_every_connection_once() -> None:
    caller, _others = with_others("10.0.0.1:1", "10.0.0.2:2")
    assert [described["id"] for described in lines_of(caller, "CLIENT LIST")] == ["1", "2", "3"]
    assert [described["id"] for described in lines_of(caller, "CLIENT LIST TYPE normal")] == ["1", "2", "3"]
    assert [described["id"] for described in lines_of(caller, "CLIENT LIST ID 3 9 1")] == ["3", "1"]


def test_list_by_type_leaves_out_the_other_types() -> None:
    caller, [other] = with_others("10.0.0.1:1")
    other.kind = "pubsub"
    assert [described["id"] for described in lines_of(caller, "CLIENT LIST TYPE pubsub")] == ["2"]


@pytest.mark.parametrize("name", [b"two words", b"line\n", b"t\xc3\xa4g", b"\x7f"])
def test_a_name_that_would_break_the_list_is_refused(name: bytes) -> None:
    caller = Caller()
    caller.run([b"CLIENT", b"SETNAME", b"good"])
    caller.run([b"CLIENT", b"SETNAME", name])
    caller.run([b"CLIENT", b"SETINFO", b"LIB-NAME", name])
    assert caller.session.name == b"good"
    assert caller.session.lib_name == b""


def test_setinfo_records_the_library() -> None:
    caller = Caller()
    assert caller.text("CLIENT SETINFO lib-name redis-py") == "OK"
    assert caller.text("CLIENT SETINFO LIB-VER 8.1") == "OK"
    assert (caller.session.lib_name, caller.session.lib_version) == (b"redis-py", b"8.1")
    assert caller.text("CLIENT SETINFO LIB-AGE 8") == "-ERR Unrecognized option 'LIB-AGE'"
    assert caller.run([b"CLIENT", b"SETINFO", b"LIB-NAME", b""]) == caller.run([b"CLIENT", b"REPLY", b"ON"])
    assert caller.session.lib_name == b""


def test_kill_by_address_closes_that_connection_at_once() -> None:
    caller, [first, second] = with_others("10.0.0.1:1", "10.0.0.2:2")
    assert caller.text("CLIENT KILL 10.0.0.2:2") == "OK"
    assert second.closed_after_replies is False
    assert first.closed_after_replies is None


def test_kill_of_the_own_address_answers_first() -> None:
    caller = Caller(address="10.0.0.5:5")
    assert caller.text("CLIENT KILL 10.0.0.5:5") == "OK"
    assert caller.ends_session
    assert caller.service.sessions[1] is caller.session
    assert caller.service.sessions[1].is_closed is False


def test_kill_with_filters_closes_what_matches_all_of_them() -> None:
    caller, others = with_others("10.0.0.1:1", "10.0.0.1:1", "10.0.0.3:3")
    others[1].kind = "pubsub"
    assert caller.say("CLIENT KILL ADDR 10.0.0.1:1 TYPE normal LADDR 127.0.0.1:6379 USER default") == 1
    assert [session.is_closed for session in others] == [True, False, False]


def test_kill_by_id_counts_one_or_none() -> None:
    caller, [other] = with_others("10.0.0.1:1")
    assert caller.say("CLIENT KILL ID 2") == 1
    assert other.is_closed
    assert caller.say("CLIENT KILL ID 77") == 0


def test_kill_spares_the_caller_unless_told_otherwise() -> None:
    caller, [other] = with_others("10.0.0.1:1")
    assert caller.say("CLIENT KILL TYPE normal SKIPME yes") == 1
    spared = caller.ends_session
    assert caller.say("CLIENT KILL TYPE normal SKIPME no") == 2
    assert (spared, caller.ends_session) == (False, True)
    assert other.is_closed


def test_kill_by_age_closes_old_connections_only() -> None:
    caller, [young, old] = with_others("10.0.0.1:1", "10.0.0.2:2")
    young.created_s, old.created_s = time.monotonic() - 10, time.monotonic() - 1000
    assert caller.say("CLIENT KILL MAXAGE 500") == 1
    assert [session.is_closed for session in (young, old)] == [False, True]
    assert caller.text("CLIENT KILL MAXAGE 0") == "-ERR maxage should be greater than 0"


def test_a_filter_that_is_wrong_closes_nobody() -> None:
    caller, [other] = with_others("10.0.0.1:1")
    assert caller.text("CLIENT KILL ADDR 10.0.0.1:1 TYPE nonsense") == "-ERR Unknown client type 'nonsense'"
    assert not other.is_closed


def test_reply_modes_follow_each_other_as_in_redis() -> None:
    caller = Caller()
    for line, mode in [
        ("CLIENT REPLY skip", "skip-next"),
        ("CLIENT REPLY off", "off"),
        ("CLIENT REPLY skip", "off"),
        ("CLIENT REPLY on", "on"),
    ]:
        caller.say(line)
        assert caller.session.reply_mode == mode


def test_pause_holds_until_a_time_and_unpause_ends_it() -> None:
    caller = Caller()
    before_ms = int(time.time() * 1000)
    caller.say("CLIENT PAUSE 5000 write")
    assert caller.service.paused is not None
    until_ms, writes_only = caller.service.paused
    assert before_ms + 5000 <= until_ms <= int(time.time() * 1000) + 5000
    assert writes_only
    caller.say("CLIENT PAUSE 1000")
    assert caller.service.paused[1] is False
    caller.say("CLIENT UNPAUSE")
    assert caller.service.paused is None


def test_tracking_cannot_be_turned_on() -> None:
    assert caller_text("CLIENT TRACKING on").startswith("-ERR client-side caching")


def caller_text(line: str) -> str:
    return Caller().text(line)


def test_unknown_subcommands_leave_the_connection_alive() -> None:
    text = caller_text("CLIENT MAINT_NOTIFICATIONS ON")
    assert text == "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP."


def test_help_names_every_subcommand() -> None:
    caller = Caller()
    for container in ("client", "config", "command", "slowlog", "latency", "memory"):
        row = caller.service.table.find(container.encode())
        assert row is not None
        lines = caller.array(f"{container} help")
        words = {line.text.split()[0].decode() for line in lines if isinstance(line, Status) and line.text.strip()}
        assert {name.decode() for name in row.subcommands} <= words, container
