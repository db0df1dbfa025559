from __future__ import annotations

import os
import re
import time

import pytest

from kvservice.commands.info import SECTIONS, TTL_SAMPLES, average_ttl_ms
from kvservice.commands.info_storage import human_size
from kvservice.config import Config
from kvservice.errors import RequestError, WrongPassword, WrongType
from kvservice.keyspace.reaper import reap_slice
from kvservice.stats import PeerTraffic
from tests.harness.oracle import Oracle
from tests.harness.resp2 import bulk_of
from tests.harness.server_plane import Caller, FakeService

# What redis_exporter, RedisInsight, Sidekiq, arq and ioredis read.
FIELDS_THAT_PROGRAMS_READ = """
redis_version redis_mode arch_bits os process_id run_id tcp_port uptime_in_seconds uptime_in_days connected_clients
blocked_clients maxclients tracking_clients total_blocking_keys used_memory used_memory_human used_memory_rss
used_memory_peak maxmemory maxmemory_policy mem_fragmentation_ratio mem_allocator used_memory_lua loading
rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status aof_enabled
total_connections_received total_commands_processed instantaneous_ops_per_sec instantaneous_input_kbps
instantaneous_output_kbps rejected_connections expired_keys evicted_keys keyspace_hits keyspace_misses pubsub_channels
pubsub_patterns total_error_replies tracking_total_keys lazyfreed_objects role connected_slaves master_repl_offset
used_cpu_sys used_cpu_user cluster_enabled
"""
NOT_HERE = {"gcc_version", "atomicvar_api"}
"""Fields of Redis about how it was compiled."""


def sections(text: str) -> dict[str, dict[str, str]]:
    """Return INFO's text as fields by section."""
    found: dict[str, dict[str, str]] = {}
    for line in text.split("\r\n"):
        if line.startswith("# "):
            fields = found[line[2:]] = {}
        elif line:
            name, value = line.split(":", 1)
            fields[name] = value
    return found


def fields(caller: Caller, line: str = "INFO everything") -> dict[str, str]:
    """Return all fields of INFO."""
    return {name: value for section in sections(caller.text(line)).values() for name, value in section.items()}


def test_all_fields_that_programs_read_are_there() -> None:
    assert set(FIELDS_THAT_PROGRAMS_READ.split()) - set(fields(Caller())) == set()


def test_every_field_of_a_real_server_is_in_the_same_section(oracle: Oracle) -> None:
    theirs = sections(bulk_of(oracle.send([[b"INFO", b"everything"]])[0]).decode())
    ours = sections(Caller().text("INFO everything"))
    for name in ("Commandstats", "Errorstats", "Latencystats", "Keyspace"):
        theirs.pop(name, None)
    missing = {name: set(theirs[name]) - set(ours.get(name, ())) - NOT_HERE for name in theirs}
    assert {name: gone for name, gone in missing.items() if gone} == {}


def test_sections_come_in_the_order_of_a_real_server(oracle: Oracle) -> None:
    theirs = list(sections(bulk_of(oracle.send([[b"INFO", b"everything"]])[0]).decode()))
    ours = [name for name in sections(Caller().text("INFO everything")) if name in theirs]
    assert ours == [name for name in theirs if name in ours]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("INFO", set(SECTIONS) - {"Commandstats", "Latencystats"}),
        ("INFO default", set(SECTIONS) - {"Commandstats", "Latencystats"}),
        ("INFO all", set(SECTIONS)),
        ("INFO EVERYTHING", set(SECTIONS)),
        ("INFO raft", {"Raft"}),
        ("INFO cpu Server cpu", {"Server", "CPU"}),
        ("INFO nonsense", set()),
        ("INFO nonsense keyspace", {"Keyspace"}),
        ("INFO default commandstats", set(SECTIONS) - {"Latencystats"}),
    ],
)
def test_sections_are_chosen_by_name(line: str, shown: set[str]) -> None:
    assert set(sections(Caller().text(line))) == shown


def test_the_server_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(FakeService(Config(name="n7", resp_addr="127.0.0.1:7001")))  # type: ignore[arg-type]
    now_s = time.time()
    monkeypatch.setattr("kvservice.commands.info.time.time", lambda: now_s)
    caller.service.started_s = now_s - 90_000
    told = fields(caller)
    assert told["redis_version"].startswith("7.2.")
    assert re.fullmatch(r"\d+\.\d+.*|unknown", told["redan_version"])
    assert (told["process_id"], told["tcp_port"], told["run_id"]) == (str(os.getpid()), "7001", "ab" * 20)
    assert told["uptime_in_seconds"] == "90000"
    assert told["uptime_in_days"] == "1"


def test_raft_tells_where_the_log_is() -> None:
    assert sections(Caller().text("INFO raft"))["Raft"] == {
        "raft_role": "leader",
        "raft_node": "n1",
        "raft_leader": "n1",
        "raft_term": "3",
        "raft_last_index": "12",
        "raft_commit_index": "11",
        "raft_applied_index": "10",
        "raft_voters": "n1",
        "raft_learners": "",
        "raft_quarantined": "0",
        "raft_read_mode": "linearizable",
        "raft_requests_remembered": "0",
        "raft_digest_state": "unknown",
        "raft_digest_index": "0",
        "raft_digest": "",
    }


@pytest.mark.parametrize("role", ["follower", "candidate", "learner"])
def test_a_node_says_what_it_is_and_that_it_knows_no_leader(role: str) -> None:
    caller = Caller()
    caller.service.group.role = role
    caller.service.node.leader_id = None
    assert fields(caller)["raft_role"] == role
    assert fields(caller)["raft_leader"] == ""


LATER_THAN_7_0 = """
total_blocking_keys total_blocking_keys_on_nokey listener0 eventloop_cycles eventloop_duration_sum
eventloop_duration_cmd_sum instantaneous_eventloop_cycles_per_sec instantaneous_eventloop_duration_usec
"""


def test_fields_that_came_with_7_2_are_there() -> None:
    assert set(LATER_THAN_7_0.split()) - set(fields(Caller())) == set()


def test_the_event_loop_and_the_streams_of_peers_are_told_as_they_are_counted() -> None:
    caller = Caller()
    counted = caller.service.stats
    counted.loop_counts = lambda: (50, 7_000_000)
    counted.peer_traffic = lambda: PeerTraffic(300, 400, 5, 6, 7)
    counted.executed(caller.service.table.by_name[b"GET"], 3, 9_000)
    told = fields(caller)
    assert [told[f"eventloop_{name}"] for name in ("cycles", "duration_sum", "duration_cmd_sum")] == ["50", "7000", "9"]
    assert told["total_net_repl_input_bytes"] == "300"
    assert told["total_net_repl_output_bytes"] == "400"
    assert (told["sync_full"], told["cluster_connections"], told["mem_cluster_links"]) == ("5", "6", "7")
    caller.say("CONFIG RESETSTAT")
    told = fields(caller)
    assert (told["eventloop_cycles"], told["total_net_repl_input_bytes"]) == ("0", "0")


def test_a_snapshot_that_is_being_written_shows_how_far_it_is() -> None:
    caller = Caller()
    for number in range(8):
        caller.service.machine.databases[0].set(b"%d" % number, b"value")
    assert fields(caller)["current_save_keys_total"] == "0"
    caller.service.snapshots.in_progress = True
    caller.service.snapshots.keys_saved = 2
    told = fields(caller)
    assert (told["current_save_keys_processed"], told["current_save_keys_total"]) == ("2", "8")
    assert told["current_fork_perc"] == "25.00"


def test_keys_of_a_flushed_database_are_told_until_they_are_freed() -> None:
    caller = Caller()
    databases = caller.service.machine.databases
    for number in range(50):
        databases[0].set(b"%d" % number, b"value")
    databases[0].clear()
    told = fields(caller)
    assert (told["lazyfree_pending_objects"], told["lazyfreed_objects"]) == ("50", "0")
    while reap_slice(databases, 1000):
        pass
    told = fields(caller)
    assert (told["lazyfree_pending_objects"], told["lazyfreed_objects"]) == ("0", "50")
    caller.say("CONFIG RESETSTAT")
    assert fields(caller)["lazyfreed_objects"] == "0"


def test_what_waits_for_the_disk_is_told() -> None:
    caller = Caller()
    caller.service.node.bytes_pending = 77
    told = fields(caller)
    assert (told["aof_buffer_length"], told["mem_aof_buffer"]) == ("77", "77")


def test_callers_that_wait_are_blocked_clients() -> None:
    caller = Caller()
    caller.service.blocked_clients = 3
    caller.service.timed_clients = 2
    told = fields(caller)
    assert (told["blocked_clients"], told["clients_in_timeout_table"]) == ("3", "2")


def test_the_share_of_keys_that_are_past_their_deadline_and_not_removed_is_told() -> None:
    caller = Caller()
    assert fields(caller)["expired_stale_perc"] == "0.00"
    database = caller.service.machine.databases[0]
    for number in range(8):
        database.set(b"%d" % number, b"value")
        database.set_deadline(b"%d" % number, 1_000 if number < 2 else 1 << 60)
    database.set(b"kept", b"value")
    assert fields(caller)["expired_stale_perc"] == "25.00"


def test_memory_is_what_maxmemory_bounds() -> None:
    caller = Caller(FakeService(Config(maxmemory=200 * 1024)))
    caller.service.machine.databases[0].set(b"key", b"x" * 1000)
    caller.service.machine.memory.used_bytes = 100 * 1024
    caller.service.stats.sample(0.0, 150 * 1024)
    told = fields(caller)
    dataset = caller.service.machine.databases[0].bytes_used
    assert (told["used_memory"], told["used_memory_human"]) == (str(100 * 1024), "100.00K")
    assert (told["used_memory_peak"], told["used_memory_peak_perc"]) == (str(150 * 1024), "66.67%")
    assert (told["used_memory_dataset"], told["used_memory_overhead"]) == (str(dataset), str(100 * 1024 - dataset))
    assert (told["maxmemory"], told["maxmemory_policy"]) == (str(200 * 1024), "noeviction")
    assert int(told["used_memory_rss"]) > 1_000_000


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (5 << 20, "5.00M"), (3 << 40, "3.00T")]
)
def test_sizes_are_printed_as_redis_prints_them(size: int, text: str) -> None:
    assert human_size(size) == text


def test_persistence_tells_of_snapshots_and_log() -> None:
    caller = Caller()
    snapshots = caller.service.snapshots
    snapshots.in_progress, snapshots.current_seconds = True, 2.5
    snapshots.last_ok, snapshots.last_seconds, snapshots.taken = False, 7.9, 4
    told = fields(caller)
    assert (told["rdb_bgsave_in_progress"], told["rdb_current_bgsave_time_sec"]) == ("1", "2")
    assert (told["rdb_last_bgsave_status"], told["rdb_last_bgsave_time_sec"], told["rdb_saves"]) == ("err", "7", "4")
    assert (told["rdb_last_save_time"], told["rdb_changes_since_last_save"]) == ("1700000000", "7")
    assert (told["aof_enabled"], told["loading"]) == ("1", "0")
    assert (told["aof_current_size"], told["aof_base_size"]) == ("4096", "1024")


def test_a_node_that_replays_says_so() -> None:
    caller = Caller()
    caller.service.node.is_replayed, caller.service.node.replay_remaining = False, 250
    told = fields(caller)
    assert (told["loading"], told["loading_entries_remaining"]) == ("1", "250")


def test_keyspace_counts_keys_deadlines_and_what_they_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller()
    now_s = int(time.time())
    now_ms = now_s * 1000
    monkeypatch.setattr("kvservice.commands.info.time.time", lambda: now_s)
    first, third = caller.service.machine.databases[0], caller.service.machine.databases[3]
    for database in (first, third):
        database.set(b"a", b"1")
        database.set(b"b", b"2")
    third.set_deadline(b"a", now_ms + 100_000)
    third.set_deadline(b"b", now_ms + 300_000)
    told = sections(caller.text("INFO keyspace"))["Keyspace"]
    assert told["db0"] == "keys=2,expires=0,avg_ttl=0"
    assert told["db3"] == "keys=2,expires=2,avg_ttl=200000"
    assert set(told) == {"db0", "db3"}


def test_the_average_looks_at_a_sample_only() -> None:
    database = Caller().service.machine.databases[0]
    for number in range(5000):
        key = b"key:%d" % number
        database.set(key, b"v")
        database.set_deadline(key, 1000)
    touched = 0

    class Counting(dict[bytes, int]):
        def values(self):  # type: ignore[no-untyped-def]
            nonlocal touched
            touched += len(self)
            return super().values()

    database.expires = [Counting(deadlines) if deadlines else None for deadlines in database.expires]
    assert average_ttl_ms(database, 400) == 600
    assert TTL_SAMPLES <= touched < TTL_SAMPLES + 100


def test_counts_of_commands_are_told_by_command() -> None:
    caller = Caller()
    table, stats = caller.service.table, caller.service.stats
    get, config = table.find(b"get"), table.find(b"config")
    assert get is not None
    assert config is not None
    stats.executed(get, 4, 10_000)
    stats.failed(get, WrongType())
    stats.rejected(config.subcommands[b"SET"], RequestError("wrong number of arguments"))
    stats.answered(get, 4, 100)
    told = fields(caller, "INFO all")
    assert told["cmdstat_get"] == "calls=4,usec=10,usec_per_call=2.50,rejected_calls=0,failed_calls=1"
    assert told["cmdstat_config|set"] == "calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0"
    assert (told["errorstat_WRONGTYPE"], told["errorstat_ERR"]) == ("count=1", "count=1")
    assert told["latency_percentiles_usec_get"] == "p50=111.000,p99=111.000,p99.9=111.000"
    assert (told["total_commands_processed"], told["total_error_replies"]) == ("4", "2")


def test_percentiles_follow_their_setting() -> None:
    caller = Caller()
    get = caller.service.table.find(b"get")
    assert get is not None
    caller.service.stats.answered(get, 1, 3)
    caller.run([b"CONFIG", b"SET", b"latency-tracking-info-percentiles", b"50 99.99"])
    assert fields(caller)["latency_percentiles_usec_get"] == "p50=3.000,p99.99=3.000"
    caller.say("CONFIG SET latency-tracking no")
    assert sections(caller.text("INFO latencystats")) == {"Latencystats": {}}


def test_wrong_passwords_are_counted_as_denied() -> None:
    caller = Caller()
    for error in (WrongPassword(), WrongPassword(), RequestError("no")):
        caller.service.stats.rejected(None, error)
    assert fields(caller)["acl_access_denied_auth"] == "2"


def test_the_time_above_maxmemory_is_that_of_ended_spans_and_of_the_present_one() -> None:
    caller = Caller()
    caller.service.stats.over_limit_ms, caller.service.stats.over_limit_now_ms = 700, 200
    told = fields(caller)
    assert (told["total_eviction_exceeded_time"], told["current_eviction_exceeded_time"]) == ("900", "200")
