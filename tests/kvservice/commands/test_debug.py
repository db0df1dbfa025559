"""DEBUG beside a redis-server that allows it: the same digests of the same data, the same texts, the same keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvservice.commands.debug import CATCH_UP_SECONDS, LOOK_SECONDS, SUBCOMMANDS
from kvservice.commands.reply import OK, ErrorReply, Pending, Reply, Status
from kvservice.config import Config
from kvservice.errors import OutOfMemory, RequestError
from tests.harness.oracle import REDIS_SERVER, Oracle
from tests.harness.resp2 import encode_reply
from tests.harness.server_plane import Caller, FakeService

SAME = """
DEBUG DIGEST
DEBUG POPULATE
DEBUG POPULATE x
DEBUG POPULATE -1
DEBUG POPULATE 9223372036854775808
DEBUG POPULATE 0
DEBUG POPULATE 3
DEBUG POPULATE 700 many
DEBUG POPULATE 2 sized 10
DEBUG POPULATE 12 cut 3
DEBUG POPULATE 2 wrong -1
DEBUG POPULATE 2 wrong x
DEBUG POPULATE 2 wrong 3 4
DBSIZE
GET key:2
GET sized:1
GET cut:11
SET key:1 other
DEBUG POPULATE 2
GET key:1
APPEND key:0 !
SETRANGE hole 5 x
SET number 12345
INCRBY number 1
SET lasting 1 EX 100000
SETBIT bits 100 1
DEBUG DIGEST
DEBUG DIGEST-VALUE
DEBUG DIGEST-VALUE key:0 missing hole number lasting bits
DEBUG OBJECT
DEBUG OBJECT missing
DEBUG OBJECT key:0 more
DEBUG RELOAD MAYBE
DEBUG QUICKLIST-PACKED-THRESHOLD
DEBUG QUICKLIST-PACKED-THRESHOLD 100b
DEBUG QUICKLIST-PACKED-THRESHOLD 0
DEBUG QUICKLIST-PACKED-THRESHOLD x
DEBUG QUICKLIST-PACKED-THRESHOLD 8gb
DEBUG QUICKLIST-PACKED-THRESHOLD 4293918720
DEBUG QUICKLIST-PACKED-THRESHOLD 4293918721
DEBUG PAUSE-CRON
DEBUG PAUSE-CRON 1
DEBUG PAUSE-CRON x
DEBUG SET-ACTIVE-EXPIRE 1
DEBUG SET-DISABLE-DENY-SCRIPTS
DEBUG SET-DISABLE-DENY-SCRIPTS 0
DEBUG DIGEST again
DEBUG NONSENSE
FLUSHALL
DEBUG DIGEST
""".strip().splitlines()


@pytest.fixture(scope="module")
def permissive() -> Iterator[Oracle]:
    """A real redis-server whose DEBUG may be used."""
    if REDIS_SERVER is None:
        pytest.skip("redis-server is not installed, so there is nothing to compare with")
    with Oracle("--enable-debug-command", "yes") as server:
        yield server


def caller(**settings_: object) -> Caller:
    made = Caller(FakeService(Config(enable_debug_command="yes", **settings_)))  # type: ignore[arg-type]
    made.service.machine.context.clock.now_ms = made.service.machine.context.clock.stamp_ms = 1_700_000_000_000
    return made


def answered(said: Reply | Pending) -> Reply:
    """Return a reply that must be there by now."""
    if not isinstance(said, Pending):
        return said
    replies: list[Reply] = []
    said.then(replies.append)
    assert replies, "nothing was answered"
    return replies[0]


def words_of(line: str) -> list[bytes]:
    return [word.encode() for word in line.split()]


def test_replies_are_those_of_a_real_server(permissive: Oracle) -> None:
    ours = caller()
    permissive.send([[b"FLUSHALL"]])
    for line in SAME:
        words = words_of(line)
        assert encode_reply(answered(ours.run(words))) == permissive.send([words])[0], line


VALUES = st.one_of(st.binary(max_size=70), st.integers(-(10**19), 10**19).map(lambda number: b"%d" % number))
DATASETS = st.dictionaries(
    st.tuples(st.sampled_from([0, 1, 9]), st.binary(max_size=20)), st.tuples(VALUES, st.booleans()), max_size=12
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(dataset=DATASETS, reverse=st.booleans())
def test_the_same_data_has_the_digest_that_redis_gives_it(
    permissive: Oracle, dataset: dict[tuple[int, bytes], tuple[bytes, bool]], reverse: bool
) -> None:
    ours = caller()
    permissive.send([[b"FLUSHALL"]])
    entries = list(dataset.items())
    for at, ((db, key), (value, has_deadline)) in enumerate(entries):
        command = [b"SET", key, value, *([b"EX", b"100000"] if has_deadline else [])]
        permissive.send([[b"SELECT", b"%d" % db], command])
        (db, key), (value, has_deadline) = entries[-at - 1] if reverse else entries[at]
        ours.service.machine.context.db = ours.service.machine.databases[db]
        ours.run([b"SET", key, value, *([b"EX", b"200000"] if has_deadline else [])])
    assert encode_reply(answered(ours.say("DEBUG DIGEST"))) == permissive.send([[b"DEBUG", b"DIGEST"]])[0]
    for db in (0, 1, 9):
        keys = [key for its_db, key in dataset if its_db == db]
        command = [b"DEBUG", b"DIGEST-VALUE", *keys]
        ours.session.db = db
        theirs = permissive.send([[b"SELECT", b"%d" % db], command])[1]
        assert encode_reply(answered(ours.run(command))) == theirs


def test_an_expired_key_is_in_no_digest_before_it_is_removed() -> None:
    ours = caller()
    ours.run(words_of("SET gone 1 PX 5"))
    clock = ours.service.machine.context.clock
    clock.stamp_ms = clock.now_ms = clock.now_ms + 10
    assert ours.say("DBSIZE") == 1
    assert answered(ours.say("DEBUG DIGEST")) == Status(b"0" * 40)
    assert answered(ours.say("DEBUG DIGEST-VALUE gone")) == [Status(b"0" * 40)]


def test_a_digest_waits_until_this_node_has_what_was_committed() -> None:
    ours = caller()
    ours.service.machine.context.index = 12
    ours.service.node.applied_index = 11
    pending = ours.say("DEBUG DIGEST")
    assert isinstance(pending, Pending)
    ours.service.run_timers()
    assert not pending.is_resolved
    ours.service.node.applied_index = 12
    ours.service.run_timers()
    assert answered(pending) == Status(b"0" * 40)


def test_a_digest_gives_up_on_a_node_that_stays_behind() -> None:
    ours = caller()
    ours.service.machine.context.index = 12
    ours.service.node.applied_index = 11
    pending = ours.say("DEBUG DIGEST")
    assert isinstance(pending, Pending)
    for _ in range(int(CATCH_UP_SECONDS / LOOK_SECONDS) + 1):
        ours.service.run_timers()
    assert isinstance(answered(pending), ErrorReply)


def test_object_shows_what_redis_shows(permissive: Oracle) -> None:
    ours = caller()
    for command in (b"SET short value", b"SET long %b" % (b"x" * 500), b"SET number 77", b"SET large 123456789012"):
        ours.run(command.split())
        permissive.send([command.split()])
    for key in (b"short", b"long", b"number", b"large"):
        line = answered(ours.run([b"DEBUG", b"OBJECT", key]))
        assert isinstance(line, Status)
        found = dict(word.split(b":", 1) for word in line.text.replace(b"Value at:", b"at:").split())
        theirs = permissive.send([[b"DEBUG", b"OBJECT", key]])[0].strip(b"+\r\n").replace(b"Value at:", b"at:")
        real = dict(word.split(b":", 1) for word in theirs.split())
        assert found.keys() == real.keys()
        for field in (b"refcount", b"encoding", b"serializedlength"):
            assert found[field] == real[field], (key, field)


def test_populate_cuts_the_names_that_redis_cuts(permissive: Oracle) -> None:
    ours = caller()
    permissive.send([[b"FLUSHALL"]])
    for command in ([b"DEBUG", b"POPULATE", b"3", b"p" * 200, b"20"], [b"KEYS", b"*"], [b"GET", b"p" * 127]):
        assert encode_reply(answered(ours.run(command))) == permissive.send([command])[0]


def test_populate_comes_in_entries_of_a_bounded_size() -> None:
    ours = caller()
    assert answered(ours.say("DEBUG POPULATE 1200 k")) is OK
    assert [len(commands) for commands in ours.service.asked] == [500, 500, 200]
    ours.service.asked.clear()
    assert answered(ours.say("DEBUG POPULATE 5 long 200000")) is OK
    assert [len(commands) for commands in ours.service.asked] == [1] * 5


def test_populate_ends_with_the_first_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = caller()
    refused: Reply = ErrorReply(OutOfMemory())
    asked: list[int] = []

    def ask(_db: int, commands: list[list[bytes]], told: object) -> None:
        asked.append(len(commands))
        told([refused] * len(commands))  # type: ignore[operator]

    monkeypatch.setattr(ours.service, "ask", ask)
    assert answered(ours.say("DEBUG POPULATE 2000")) is refused
    assert asked == [500]


def test_populate_stops_when_its_caller_is_gone() -> None:
    ours = caller()
    ours.session.is_closed = True
    answered(ours.say("DEBUG POPULATE 2000"))
    assert ours.service.asked == []


def test_populate_knows_how_long_a_value_may_be() -> None:
    ours = caller(value_bytes_max=1 << 17)
    assert answered(ours.say("DEBUG POPULATE 1 k 131072")) is OK
    assert ours.text("DEBUG POPULATE 1 k 131073").startswith("-ERR value is 131073 bytes long, allowed are 0..131072")


def test_reload_answers_when_the_keyspace_is_exchanged() -> None:
    ours = caller()
    pending = ours.say("DEBUG RELOAD")
    assert isinstance(pending, Pending)
    assert not pending.is_resolved
    ours.service.reloads[0].resolve(OK)
    assert answered(pending) is OK


@pytest.mark.parametrize("option", ["NOSAVE", "noflush", "MERGE"])
def test_reload_refuses_by_name_what_would_make_members_differ(option: str) -> None:
    ours = caller()
    assert ours.text(f"DEBUG RELOAD {option}").startswith(f"-ERR DEBUG RELOAD {option.upper()} is not supported")
    assert ours.service.reloads == []


def test_pause_cron_is_remembered() -> None:
    ours = caller()
    assert ours.say("DEBUG PAUSE-CRON 1") is OK
    assert ours.service.stats.is_cron_paused
    assert ours.say("DEBUG PAUSE-CRON 0") is OK
    assert not ours.service.stats.is_cron_paused


@pytest.mark.parametrize(
    "line", ["DIGEST", "POPULATE 1", "RELOAD", "OBJECT k", "DIGEST-VALUE k", "PAUSE-CRON 1", "HELP"]
)
def test_whoever_may_not_use_debug_is_told_so_by_every_subcommand(line: str, oracle: Oracle) -> None:
    ours = Caller(FakeService(Config()))
    words = words_of(f"DEBUG {line}")
    refused = ours.run(words)
    assert isinstance(refused, ErrorReply)
    assert isinstance(refused.cause, RequestError)
    assert encode_reply(refused) == oracle.send([words])[0]
    assert ours.service.asked == []


def test_commands_of_nodes_are_unknown_to_clients() -> None:
    for name in ("REDAN.POSITION", "REDAN.INSPECT", "REDAN.VALUEDIGESTS"):
        assert caller().text(f"{name} k").startswith("-ERR unknown command")


def test_help_names_every_subcommand() -> None:
    told = answered(caller().say("DEBUG HELP"))
    assert isinstance(told, list)
    lines = [line.text for line in told[1:] if isinstance(line, Status)]
    named = {line.split()[0] for line in lines if not line.startswith(b" ")}
    assert named == set(SUBCOMMANDS)
