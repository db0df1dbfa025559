from __future__ import annotations

import pytest

from kvservice.commands.reply import ErrorReply, Status
from kvservice.config import Config
from kvservice.errors import NoAuthentication, WrongPassword
from tests.harness.server_plane import Caller, FakeService

PASSWORD = "correct horse"


def guarded() -> Caller:
    """Return a caller of a node with a password, not authenticated yet."""
    caller = Caller(FakeService(Config(requirepass=PASSWORD)))
    caller.session.authenticated = False
    return caller


def refusal(reply: object) -> type[BaseException]:
    assert isinstance(reply, ErrorReply), reply
    return type(reply.cause)


def test_auth_with_the_password_lets_the_caller_in() -> None:
    caller = guarded()
    assert caller.run([b"AUTH", PASSWORD.encode()]) == Status(b"OK")
    assert caller.session.authenticated


@pytest.mark.parametrize("password", [b"", b"correct", b"correct horse ", b"\xff\xfe"])
def test_auth_with_another_password_does_not(password: bytes) -> None:
    caller = guarded()
    assert refusal(caller.run([b"AUTH", b"default", password])) is WrongPassword
    assert not caller.session.authenticated


def test_a_password_of_another_user_is_refused() -> None:
    caller = guarded()
    assert refusal(caller.run([b"AUTH", b"root", PASSWORD.encode()])) is WrongPassword


def test_hello_wants_authentication_and_can_bring_it() -> None:
    caller = guarded()
    assert refusal(caller.run([b"HELLO", b"3"])) is NoAuthentication
    assert caller.session.protocol == 2
    assert isinstance(caller.run([b"HELLO", b"3", b"AUTH", b"default", PASSWORD.encode()]), dict)
    assert caller.session.authenticated
    assert caller.session.protocol == 3


def test_a_hello_that_fails_changes_nothing() -> None:
    caller = guarded()
    caller.run([b"HELLO", b"3", b"AUTH", b"default", b"wrong", b"SETNAME", b"worker"])
    assert (caller.session.protocol, caller.session.name, caller.session.authenticated) == (2, b"", False)


def test_hello_answers_who_serves() -> None:
    caller = Caller()
    reply = caller.map("HELLO 3 SETNAME worker")
    assert reply[b"server"] == b"redis"
    assert reply[b"version"] == b"7.2.5"
    assert reply[b"proto"] == 3
    assert reply[b"id"] == caller.session.id
    assert (reply[b"mode"], reply[b"role"], reply[b"modules"]) == (b"standalone", b"master", [])
    assert caller.session.name == b"worker"


def test_hello_without_a_version_keeps_the_protocol() -> None:
    caller = Caller()
    caller.say("HELLO 3")
    assert caller.map("HELLO")[b"proto"] == 3


def test_select_moves_the_connection_to_a_database() -> None:
    caller = Caller(FakeService(Config(databases=4)))
    assert caller.text("SELECT 3") == "OK"
    assert caller.session.db == 3
    assert caller.text("SELECT 4") == "-ERR DB index is out of range"
    assert caller.session.db == 3


def test_reset_makes_the_connection_as_new() -> None:
    caller = guarded()
    caller.run([b"AUTH", PASSWORD.encode()])
    for line in ("HELLO 3 SETNAME worker", "SELECT 5", "CLIENT NO-EVICT on", "CLIENT NO-TOUCH on", "CLIENT REPLY off"):
        caller.say(line)
    assert caller.text("RESET") == "RESET"
    session = caller.session
    assert (session.db, session.protocol, session.name, session.reply_mode) == (0, 2, b"", "on")
    assert not session.no_evict
    assert not session.no_touch
    assert not session.authenticated


def test_quit_answers_before_it_closes() -> None:
    caller = Caller()
    assert caller.text("QUIT") == "OK"
    assert caller.ends_session


def test_time_is_the_time_of_the_log() -> None:
    caller = Caller()
    caller.service.machine.context.clock.now_ms = 1_700_000_000_123
    assert caller.array("TIME") == [b"1700000000", b"123000"]
