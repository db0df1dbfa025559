from __future__ import annotations

import time

import pytest

from kvservice.commands.memory_commands import report
from kvservice.config import Config
from tests.harness.server_plane import Caller, FakeService

MB = 1024 * 1024


def test_usage_grows_with_the_value_and_counts_its_deadline() -> None:
    caller = Caller()
    database = caller.service.machine.databases[0]
    database.set(b"small", b"x")
    database.set(b"large", b"x" * 10_000)
    small, large = caller.say("MEMORY USAGE small"), caller.say("MEMORY USAGE large SAMPLES 5")
    assert isinstance(small, int)
    assert isinstance(large, int)
    assert 9_900 < large - small < 10_100
    database.set_deadline(b"small", int(time.time() * 1000) + 3_600_000)
    with_deadline = caller.say("MEMORY USAGE small")
    assert isinstance(with_deadline, int)
    assert with_deadline > small


def test_usage_looks_into_the_selected_database_only() -> None:
    caller = Caller()
    caller.service.machine.databases[2].set(b"key", b"value")
    assert caller.say("MEMORY USAGE key") is None
    caller.say("SELECT 2")
    assert caller.say("MEMORY USAGE key") is not None


def test_usage_of_a_key_whose_time_has_come_is_null() -> None:
    caller = Caller()
    database = caller.service.machine.databases[0]
    database.set(b"key", b"value")
    database.set_deadline(b"key", 1)
    assert caller.say("MEMORY USAGE key") is None


def test_stats_add_up() -> None:
    caller = Caller()
    database = caller.service.machine.databases[1]
    for number in range(100):
        database.set(b"key:%d" % number, b"x" * 50)
    caller.service.machine.memory.used_bytes = 4 * database.bytes_used
    told = caller.map("MEMORY STATS")
    assert told[b"total.allocated"] == told[b"peak.allocated"] == 4 * database.bytes_used
    assert (told[b"keys.count"], told[b"dataset.bytes"]) == (100, database.bytes_used)
    assert told[b"keys.bytes-per-key"] == 4 * database.bytes_used // 100
    assert told[b"overhead.total"] == 3 * database.bytes_used
    assert (told[b"dataset.percentage"], told[b"peak.percentage"]) == (25.0, 100.0)
    assert b"db.1" in told
    assert b"db.0" not in told


@pytest.mark.parametrize(
    ("used", "peak", "limit", "rss", "finding"),
    [
        (1 * MB, 0, 0, 500 * MB, "nearly empty"),
        (100 * MB, 100 * MB, 0, 200 * MB, "in order"),
        (95 * MB, 95 * MB, 100 * MB, 200 * MB, "maxmemory 100.00M; beyond it writes are refused"),
        (10 * MB, 100 * MB, 0, 50 * MB, "once had 100.00M and has 10.00M now"),
        (100 * MB, 100 * MB, 0, 900 * MB, "The process has 900.00M"),
    ],
)
def test_the_doctor_finds_what_is_wrong(used: int, peak: int, limit: int, rss: int, finding: str) -> None:
    service = FakeService(Config(maxmemory=limit))
    service.machine.memory.used_bytes = used
    service.stats.peak_memory_bytes = peak
    assert finding in report(service, rss)


def test_the_doctor_and_the_allocator_answer_in_words() -> None:
    caller = Caller()
    assert caller.text("MEMORY DOCTOR").endswith("\n")
    assert caller.text("MEMORY MALLOC-STATS").startswith("pymalloc:")
