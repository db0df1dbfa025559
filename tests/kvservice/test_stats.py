from __future__ import annotations

from kvservice.admission import REFUSED
from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command
from kvservice.config import Config
from kvservice.errors import NoAuthentication, OutOfMemory, RedanError, RequestError, WrongType
from kvservice.stats import ERRORS_MAX, RATE_SAMPLES, PeerTraffic, Rate, Stats


def row(name: bytes) -> Command:
    found = TABLE.find(name)
    assert found is not None
    return found


def test_a_group_of_commands_counts_as_many_executions() -> None:
    stats = Stats(Config())
    stats.executed(row(b"get"), 16, 32_000)
    stats.executed(row(b"get"), 4, 8_000)
    stats.executed(row(b"set"), 1, 5_000)
    assert (stats.of(row(b"get")).calls, stats.of(row(b"get")).nanoseconds) == (20, 40_000)
    assert stats.commands_processed == 21


def test_answers_count_in_the_bucket_of_their_latency_while_tracking_is_on() -> None:
    config = Config()
    stats = Stats(config)
    stats.answered(row(b"get"), 3, 100)
    config.change({"latency_tracking": False})
    stats.answered(row(b"get"), 5, 100)
    assert sum(stats.of(row(b"get")).buckets) == 3


def test_errors_are_counted_by_prefix_and_by_command() -> None:
    stats = Stats(Config())
    stats.failed(row(b"get"), WrongType())
    stats.failed(row(b"get"), RequestError("syntax error"))
    stats.rejected(row(b"set"), OutOfMemory())
    stats.rejected(None, RequestError("unknown command"))
    stats.rejected(row(b"set"), NoAuthentication())
    assert stats.errors == {"WRONGTYPE": 1, "ERR": 2, "OOM": 1, "NOAUTH": 1}
    assert stats.error_replies == 5
    assert (stats.of(row(b"get")).failed, stats.of(row(b"set")).rejected) == (2, 2)


def test_kinds_of_errors_are_bounded() -> None:
    stats = Stats(Config())
    for number in range(ERRORS_MAX + 50):
        kind: type[RedanError] = type(f"Error{number}", (RequestError,), {"resp_prefix": f"E{number}"})
        stats.rejected(None, kind("text"))
    assert len(stats.errors) == ERRORS_MAX
    assert stats.error_replies == ERRORS_MAX + 50


def test_a_rate_is_the_mean_of_its_last_samples() -> None:
    rate = Rate()
    for tick in range(RATE_SAMPLES + 1):
        rate.sample(tick * 0.1, tick * 50)
    assert round(rate.per_second) == 500
    for tick in range(RATE_SAMPLES + 1, 2 * RATE_SAMPLES + 1):
        rate.sample(tick * 0.1, RATE_SAMPLES * 50)
    assert rate.per_second == 0


def test_a_count_that_was_reset_makes_no_negative_rate() -> None:
    rate = Rate()
    rate.sample(0.0, 1_000)
    rate.sample(0.1, 10)
    assert rate.per_second == 0


def test_a_clock_that_stands_still_makes_no_rate() -> None:
    rate = Rate()
    rate.sample(5.0, 0)
    rate.sample(5.0, 1_000)
    assert rate.per_second == 0


def test_reset_forgets_counts_but_not_the_peak_of_memory() -> None:
    stats = Stats(Config(slowlog_log_slower_than=0))
    stats.executed(row(b"get"), 1, 1)
    stats.net_input_bytes = 5
    stats.slowlog.note([b"GET", b"k"], 1, None)
    stats.sample(0.0, 1234)
    stats.reset()
    assert stats.commands == {}
    assert (stats.commands_processed, stats.net_input_bytes) == (0, 0)
    assert (len(stats.slowlog), stats.peak_memory_bytes) == (1, 1234)


def test_what_others_count_is_told_since_the_last_reset_and_as_a_rate() -> None:
    stats = Stats(Config())
    turns, peers = (10, 5_000_000), PeerTraffic(100, 200, 1, 4, 50)
    stats.loop_counts = lambda: turns
    stats.peer_traffic = lambda: peers
    stats.sample(0.0, 0)
    turns, peers = (110, 25_000_000), PeerTraffic(1_100, 2_200, 3, 4, 50)
    for tick in range(1, RATE_SAMPLES + 1):
        stats.sample(tick * 0.1, 0)
    assert (stats.loop_totals, stats.peers) == (turns, peers)
    assert round(stats.turns_rate.per_second) == round(100 / 0.1 / RATE_SAMPLES)
    assert round(stats.microseconds_a_turn) == 200
    assert round(stats.peer_output_rate.per_second) == round(2_000 / 0.1 / RATE_SAMPLES)
    stats.reset()
    assert (stats.loop_totals, stats.peers) == ((0, 0), PeerTraffic(0, 0, 0, 4, 50))
    assert stats.microseconds_a_turn == 0
    turns, peers = (111, 25_000_100), PeerTraffic(1_101, 2_202, 4, 2, 0)
    assert (stats.loop_totals, stats.peers) == ((1, 100), PeerTraffic(1, 2, 1, 2, 0))


def test_rows_that_stand_for_no_command_are_not_told() -> None:
    stats = Stats(Config())
    stats.executed(REFUSED, 1, 10)
    stats.executed(row(b"get"), 1, 10)
    assert [told.name for told, _counts in stats.told()] == ["get"]


def test_every_command_can_be_told() -> None:
    assert [told.name for top in TABLE.rows for told in (top, *top.subcommands.values()) if not told.summary] == []
