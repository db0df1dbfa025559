from __future__ import annotations

import pytest

from kvservice.commands.config_commands import FIXED, OF_THE_CLUSTER, WHY
from kvservice.commands.ports import MemberView
from kvservice.config import SETTINGS
from kvservice.config_redis import REDIS_SETTINGS
from tests.harness.oracle import Oracle
from tests.harness.resp2 import bulk_of, parts_of
from tests.harness.server_plane import Caller

POLICIES = ", ".join(SETTINGS["maxmemory_policy"].choices)
NAMES_THAT_TOOLS_SET = """
maxmemory maxmemory-policy maxmemory-samples notify-keyspace-events list-max-listpack-size list-max-ziplist-size
list-compress-depth hash-max-listpack-entries hash-max-listpack-value zset-max-listpack-entries zset-max-listpack-value
set-max-listpack-entries set-max-listpack-value set-max-intset-entries stream-node-max-entries stream-node-max-bytes
hll-sparse-max-bytes proto-max-bulk-len client-query-buffer-limit slowlog-log-slower-than slowlog-max-len
latency-tracking latency-tracking-info-percentiles latency-monitor-threshold lua-time-limit busy-reply-threshold
tracking-table-max-keys timeout tcp-keepalive maxclients databases save appendonly requirepass min-replicas-to-write
replica-serve-stale-data lfu-log-factor lfu-decay-time lazyfree-lazy-eviction lazyfree-lazy-expire
lazyfree-lazy-server-del lazyfree-lazy-user-del close-on-oom hz port bind dir
"""


@pytest.mark.parametrize("name", NAMES_THAT_TOOLS_SET.split())
def test_every_name_that_tools_ask_for_has_a_value(name: str) -> None:
    caller = Caller()
    [(key, value)] = caller.map(f"CONFIG GET {name}").items()
    assert key == name.encode()
    assert isinstance(value, bytes)


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_fixed_name_accepts_the_value_it_has_and_no_other(name: str) -> None:
    caller = Caller()
    assert caller.run([b"CONFIG", b"SET", name.encode(), FIXED[name].encode()]) == caller.say("CONFIG SET timeout 0")
    reason = WHY.get(name, "can't set immutable config")
    refused = f"-ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
    assert caller.text(f"CONFIG SET {name} another-value") == refused


@pytest.mark.parametrize("line", ["appendonly YES", "daemonize No", "hz 10", "stream-node-max-bytes 4kb", 'save ""'])
def test_a_fixed_name_accepts_its_value_however_it_is_spelled(line: str) -> None:
    assert Caller().text(f"CONFIG SET {line}") == "OK"


@pytest.mark.parametrize("line", ["save 3600", "notify-keyspace-events Egx", "appendonly no"])
def test_what_clients_set_at_their_start_is_refused_with_the_reason(line: str) -> None:
    assert WHY[line.split()[0]] in Caller().text(f"CONFIG SET {line}")


@pytest.mark.parametrize(("name", "value"), [("maxmemory", "2mb"), ("maxmemory-policy", "allkeys-lru")])
def test_what_the_leader_decides_for_all_is_not_set_on_one_of_several(name: str, value: str) -> None:
    caller = Caller()
    caller.service.group.all_members.append(MemberView("n2", True, "127.0.0.1:6380", "127.0.0.1:7501"))
    before = caller.map(f"CONFIG GET {name}")[name.encode()]
    assert isinstance(before, bytes)
    text = caller.text(f"CONFIG SET timeout 7 {name.upper()} {value}")
    assert text == f"-ERR CONFIG SET failed (possibly related to argument '{name}') - {OF_THE_CLUSTER}"
    assert (caller.service.config.timeout, caller.service.changed) == (0, [])
    assert caller.text(f"CONFIG SET {name} nonsense").endswith(("following: " + POLICIES, "a memory value"))
    assert caller.text(f"CONFIG SET {name} {before.decode()}") == "OK"
    assert caller.text("CONFIG SET maxmemory-samples 7") == "OK"


def test_names_stand_for_one_thing() -> None:
    assert FIXED.keys().isdisjoint(REDIS_SETTINGS)


def test_names_are_those_of_a_real_server(oracle: Oracle) -> None:
    answered = [bulk_of(part).decode() for part in parts_of(oracle.send([[b"CONFIG", b"GET", b"*"]])[0])[::2]]
    newer = {"close-on-oom", "set-max-listpack-entries", "set-max-listpack-value"}
    assert {*FIXED, *REDIS_SETTINGS} - set(answered) <= newer


def test_patterns_choose_settings_and_several_add_up() -> None:
    caller = Caller()
    chosen = caller.map("CONFIG GET maxmemory* slowlog-max-l?n tim[ae]out nonsense*")
    assert {b"maxmemory", b"maxmemory-policy", b"maxmemory-samples", b"slowlog-max-len"} <= set(chosen)
    assert len(caller.map("CONFIG GET *")) > 100


def test_durability_is_told_as_it_is() -> None:
    caller = Caller()
    told = caller.map("CONFIG GET save appendonly appendfsync")
    assert told == {b"save": b"", b"appendonly": b"yes", b"appendfsync": b"always"}


def test_set_changes_the_config_and_tells_the_service_what_changed() -> None:
    caller = Caller()
    assert caller.text("CONFIG SET maxmemory 2mb MAXMEMORY-POLICY allkeys-lru timeout 0") == "OK"
    config = caller.service.config
    assert (config.maxmemory, config.maxmemory_policy) == (2 * 1024 * 1024, "allkeys-lru")
    assert caller.service.changed == [frozenset({"maxmemory", "maxmemory_policy"})]


def test_a_set_that_changes_nothing_tells_nobody() -> None:
    caller = Caller()
    caller.say("CONFIG SET timeout 0 save nonsense")
    caller.say("CONFIG SET timeout 0 hz 10")
    assert caller.service.changed == []


@pytest.mark.parametrize(
    "refused",
    ["timeout x", "nonsense 1", "hz 11", "hz 10 hz 10", "latency-tracking-info-percentiles 101", "maxmemory 3mb"],
)
def test_a_set_with_one_wrong_value_changes_nothing(refused: str) -> None:
    caller = Caller()
    line = f"CONFIG SET maxmemory 2mb latency-tracking-info-percentiles 50 {refused}"
    assert caller.text(line).startswith("-ERR ")
    assert caller.service.config.maxmemory == 0
    assert caller.service.stats.percentiles == (50.0, 99.0, 99.9)
    assert caller.service.changed == []


def test_resetstat_sets_counts_and_hits_to_zero() -> None:
    caller = Caller()
    caller.service.machine.context.hits = 5
    caller.service.stats.expired_keys = 3
    assert caller.text("CONFIG RESETSTAT") == "OK"
    assert (caller.service.machine.context.hits, caller.service.stats.expired_keys) == (0, 0)


def test_rewrite_says_that_there_is_no_file_to_write() -> None:
    assert Caller().text("CONFIG REWRITE") == "-ERR The server is running without a config file"
