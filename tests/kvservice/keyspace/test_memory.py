"""What is counted agrees with what the process takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvservice.keyspace.access import AccessTable
from kvservice.keyspace.memory import ROUNDS_UNSEEN, MemoryMeter
from tests.harness.inprocess import InProcess
from tests.kvservice.keyspace.memory_probe import WORKLOADS

ROOT = Path(__file__).resolve().parents[3]
KEYS = 200_000


@pytest.mark.parametrize("workload", WORKLOADS)
def test_accounting_is_within_15_percent_of_the_growth_of_the_process(workload: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.kvservice.keyspace.memory_probe", workload, str(KEYS)],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    counted, grown = map(int, run.stdout.split())
    assert 0.85 < counted / grown < 1.15


def test_used_bytes_follow_writes_at_once_and_dicts_shard_by_shard(ours: InProcess) -> None:
    meter = MemoryMeter(ours.databases)
    assert meter.used_bytes == 0
    ours.run(b"SET", b"a", bytes(1000))
    assert meter.used_bytes == 48 + 1040
    for _ in range(16):
        meter.refresh_shard()
    full = meter.used_bytes
    assert 130_000 < full < 140_000  # a list of 16,384 slots, and the dict of the only one that has a key
    meter.refresh()
    assert meter.used_bytes == full
    ours.say("FLUSHALL")
    meter.refresh()
    assert meter.used_bytes == 0


def test_dicts_are_measured_in_time_although_the_number_of_keys_is_the_same(ours: InProcess) -> None:
    meter = MemoryMeter(ours.databases)
    for number in range(5_000):
        ours.run(b"SET", b"{few}%d" % number, b"1")
    meter.refresh()
    few = meter.overhead_bytes
    # Gone from one slot and new in 5,000 others; DBSIZE is what it was.
    for number in range(5_000):
        ours.run(b"DEL", b"{few}%d" % number)
        ours.run(b"SET", b"%d" % number, b"1")
    for _ in range(16 * ROUNDS_UNSEEN):
        meter.refresh_shard()
    spread = meter.overhead_bytes
    meter.refresh()
    assert meter.overhead_bytes == spread > 1.5 * few


def test_dicts_that_have_lost_most_of_their_keys_give_memory_back(ours: InProcess) -> None:
    meter = MemoryMeter(ours.databases)
    for number in range(100_000):
        ours.run(b"SET", b"{%d}%d" % (number % 50, number), b"1", b"EX", b"100")
    meter.refresh()
    full = meter.overhead_bytes
    for number in range(99_000):
        ours.run(b"DEL", b"{%d}%d" % (number % 50, number))
    left = sorted(ours.databases[0].items())
    for _ in range(2):
        meter.refresh()
    assert meter.overhead_bytes < full / 4
    assert sorted(ours.databases[0].items()) == left
    assert ours.say("TTL {49}99999") == 100


def test_tables_of_use_are_counted(ours: InProcess) -> None:
    meter = MemoryMeter(ours.databases)
    ours.databases[0].access = AccessTable(0)
    assert meter.used_bytes == ours.databases[0].access.bytes_used > 0
