from __future__ import annotations

import pytest

from kvservice.config import Config
from kvservice.latency_monitor import EVENTS_MAX, SAMPLES_MAX, LatencyMonitor
from tests.harness.server_plane import Caller, FakeService


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock of the monitor: its one item is the time in seconds since the epoch."""
    now = [1_700_000_000]
    monkeypatch.setattr("kvservice.latency_monitor.time.time", lambda: now[0])
    return now


def watching() -> tuple[Caller, LatencyMonitor]:
    caller = Caller(FakeService(Config(latency_monitor_threshold=10)))
    return caller, caller.service.stats.latency


def test_only_events_that_reach_the_threshold_are_kept(seconds: list[int]) -> None:
    caller, monitor = watching()
    monitor.note("command", 9.9)
    monitor.note("snapshot", 10)
    assert caller.array("LATENCY LATEST") == [[b"snapshot", seconds[0], 10, 10]]


def test_a_threshold_of_zero_keeps_nothing() -> None:
    caller = Caller()
    caller.service.stats.latency.note("command", 10_000)
    assert caller.array("LATENCY LATEST") == []
    assert "latency-monitor-threshold" in caller.text("LATENCY DOCTOR")


def test_one_second_keeps_its_worst_sample(seconds: list[int]) -> None:
    caller, monitor = watching()
    for milliseconds in (20, 50, 30):
        monitor.note("command", milliseconds)
    seconds[0] += 1
    monitor.note("command", 15)
    first, second = seconds[0] - 1, seconds[0]
    assert caller.array("LATENCY HISTORY command") == [[first, 50], [second, 15]]
    assert caller.array("LATENCY LATEST") == [[b"command", second, 15, 50]]


def test_samples_and_events_are_bounded(seconds: list[int]) -> None:
    _caller, monitor = watching()
    for number in range(SAMPLES_MAX + 40):
        seconds[0] += 1
        monitor.note("command", 10 + number)
    for number in range(EVENTS_MAX + 40):
        monitor.note(f"event-{number}", 10)
    assert len(monitor.events["command"].samples) == SAMPLES_MAX
    assert monitor.events["command"].samples[0].milliseconds == 50
    assert len(monitor.events) == EVENTS_MAX


@pytest.mark.usefixtures("seconds")
def test_reset_forgets_the_named_events_or_all() -> None:
    caller, monitor = watching()
    for event in ("command", "snapshot", "event-loop"):
        monitor.note(event, 20)
    assert caller.say("LATENCY RESET command nonsense") == 1
    assert list(monitor.events) == ["snapshot", "event-loop"]
    assert caller.say("LATENCY RESET") == 2
    assert monitor.events == {}


def test_a_histogram_cumulates_by_powers_of_two() -> None:
    caller = Caller()
    row = caller.service.table.find(b"get")
    assert row is not None
    for latency_us, count in ((1, 2), (3, 1), (100, 5), (120, 1), (5_000, 1)):
        caller.service.stats.answered(row, count, latency_us)
    expected = {b"calls": 10, b"histogram_usec": {2: 2, 4: 3, 128: 9, 8192: 10}}
    assert caller.map("LATENCY HISTOGRAM get") == {b"get": expected}
    assert caller.map("LATENCY HISTOGRAM") == {b"get": expected}
    assert caller.map("LATENCY HISTOGRAM set nonsense") == {}


def test_a_histogram_of_a_container_has_its_subcommands() -> None:
    caller = Caller()
    row = caller.service.table.find(b"config")
    assert row is not None
    caller.service.stats.answered(row.subcommands[b"GET"], 1, 10)
    caller.service.stats.answered(row.subcommands[b"SET"], 1, 10)
    assert set(caller.map("LATENCY HISTOGRAM config")) == {b"config|get", b"config|set"}
    assert set(caller.map("LATENCY HISTOGRAM config|get")) == {b"config|get"}


def test_a_graph_has_a_column_for_each_sample_as_high_as_its_time(seconds: list[int]) -> None:
    caller, monitor = watching()
    for milliseconds in (10, 500, 20):
        monitor.note("command", milliseconds)
        seconds[0] += 60
    lines = caller.text("LATENCY GRAPH command").splitlines()
    assert lines[0] == "command - high 500 ms, low 10 ms (all time high 500 ms)"
    drawing = [line.ljust(3) for line in lines[2:6]]
    heights = [sum(line[column] != " " for line in drawing) for column in range(3)]
    assert heights == [1, 4, 1]


def test_the_doctor_names_what_took_long_and_what_to_do(seconds: list[int]) -> None:
    caller, monitor = watching()
    assert "No event took 10 ms" in caller.text("LATENCY DOCTOR")
    for milliseconds in (100, 300):
        monitor.note("aof-fsync-always", milliseconds)
        seconds[0] += 10
    report = caller.text("LATENCY DOCTOR")
    assert "aof-fsync-always: 2 samples in 10 s, mean 200 ms, longest 300 ms" in report
    assert "disk" in report
