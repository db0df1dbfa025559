"""How figures become medians, ratios, verdicts and tables, and that the documents show the results that are kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cluster, render
from bench.alone import alone_table
from bench.cluster_loads import CLIENTS, LOADS
from bench.compare import main as compare_main
from bench.compare import parse
from bench.comparison import Better, Figures, figure_table
from bench.load import read_output
from bench.million import largest_new_bucket
from bench.placement import SCHEMES, moved
from bench.report import environment, percentile, significant, spelled
from bench.servers import in_turn

OUTPUT = """
====== SET ======
  2000 requests completed in 0.10 seconds

Latency by percentile distribution:
0.000% <= 0.159 milliseconds (cumulative count 1)
50.000% <= 0.615 milliseconds (cumulative count 1000)
99.805% <= 1.807 milliseconds (cumulative count 1996)
99.902% <= 2.111 milliseconds (cumulative count 1998)
100.000% <= 2.303 milliseconds (cumulative count 2000)

Summary:
  throughput summary: 19607.84 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        0.651     0.152     0.615     0.975     1.423     2.303
"""


def test_the_output_of_redis_benchmark_is_read_with_its_far_percentile() -> None:
    assert read_output(OUTPUT) == (19607.84, 0.615, 1.423, 2.111, 2.303)


def test_output_that_cannot_be_read_is_shown_and_not_taken_for_zero() -> None:
    with pytest.raises(RuntimeError, match="Connection refused"):
        read_output("", "Could not connect: Connection refused")


def one_figure(redis: list[float], redan: list[float], better: Better, target: float) -> dict[str, Any]:
    figures = Figures()
    for value in redis:
        figures.add("redis", value, section="s", name="n", unit="u", better=better, target=target)
    for value in redan:
        figures.add("redan", value, section="s", name="n", unit="u", better=better, target=target)
    [figure] = figures.as_json()
    return figure


def test_a_ratio_is_that_of_the_medians() -> None:
    figure = one_figure([100, 1, 110], [90, 88, 500], "higher", 0.9)
    assert (figure["redis"]["median"], figure["redan"]["median"], figure["ratio"]) == (100, 90, 0.9)


@pytest.mark.parametrize(
    ("redan", "better", "met"),
    [(90.0, "higher", True), (89.0, "higher", False), (90.0, "lower", True), (91.0, "lower", False)],
)
def test_a_target_is_met_up_to_its_bound(redan: float, better: Better, met: bool) -> None:
    assert one_figure([100], [redan], better, 0.9)["met"] is met


def test_a_figure_of_one_side_has_neither_ratio_nor_verdict() -> None:
    figure = one_figure([], [5], "lower", 1.5)
    assert (figure["ratio"], figure["met"]) == (None, None)
    assert "–" in figure_table([figure])


def test_who_goes_first_alternates() -> None:
    assert [in_turn(number)[0] for number in range(4)] == ["redis", "redan", "redis", "redan"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567.0, "1,230,000"),
        (123.4, "123"),
        (1.0, "1"),
        (12.34, "12.3"),
        (0.456, "0.456"),
        (0.00012345, "0.000123"),
    ],
)
def test_numbers_are_spelled_with_three_digits(value: float, text: str) -> None:
    assert spelled(value) == text


def test_significant_digits_and_percentiles_follow_their_definitions() -> None:
    assert significant(123456, 2) == 120000
    assert [percentile(range(1, 101), percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]


def test_the_largest_new_lag_is_that_of_the_highest_bucket_that_grew() -> None:
    before = {0.001: 5.0, 0.01: 6.0, 1.0: 7.0, float("inf"): 7.0}
    assert largest_new_bucket(before, before) == 0
    assert largest_new_bucket(before, {0.001: 9.0, 0.01: 11.0, 1.0: 12.0, float("inf"): 12.0}) == 0.01


def test_slots_move_no_more_keys_than_the_new_node_gets() -> None:
    keys = [b"k%d" % number for number in range(2000)]
    assert moved(SCHEMES["slots and a table"], keys, 3) < 30
    assert moved(SCHEMES["hash modulo nodes"], keys, 3) > 60


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        parse(["--only", "everything"])
    assert refused.value.code == 2


def test_without_redis_the_comparison_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent / "nowhere"))
    assert compare_main(["--quick"]) == 1
    assert "redis-server" in capsys.readouterr().err


def test_a_page_is_filled_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    tables = [{"title": "Speeds", "head": ["who", "ns"], "rows": [["it", 12.0], ["that", None]]}]
    (tmp_path / "speed.json").write_text(json.dumps({"name": "speed", "environment": environment(), "tables": tables}))
    page = (
        "Before.\n<!-- figures: speed -->\nold\n<!-- /figures -->\nAfter.\n<!-- figures: none -->\n<!-- /figures -->\n"
    )
    filled = render.render_page(page, tmp_path)
    assert "| it   | 12 |" in filled
    assert "| that | –  |" in filled
    assert "old" not in filled
    assert filled.startswith("Before.\n")
    assert render.NOT_YET in filled
    assert render.render_page(filled, tmp_path) == filled


def test_results_by_row_become_a_table_with_a_column_for_each_figure() -> None:
    content = {"name": "x", "environment": {}, "keys": 1000, "heap": {"new_key": {"ns": 5}}, "wheel": {"bytes": 7}}
    assert render.tables_of(content) == [
        {"title": "1,000 keys", "head": ["", "new key, ns", "bytes"], "rows": [["heap", 5, None], ["wheel", None, 7]]}
    ]


def test_the_documents_show_the_results_that_are_kept() -> None:
    assert render.main(["--check"]) == 0, "run make bench-docs"


def rates(side: str, *loads: str, each: float) -> dict[str, list[float]]:
    """Return three rounds of loads, the middle one as given."""
    return {f"{side} {load} {clients}": [each, 1.0, 9 * each] for load in loads for clients in CLIENTS}


def test_loads_of_three_nodes_and_of_one_process_stand_beside_etcd() -> None:
    values = rates("etcd", "etcd", each=1000.0) | rates("redan", *LOADS, each=20_000.0)
    single = rates("redan", *LOADS, each=30_000.0)
    alone = rates("redis", "set 1", "set 16", each=50_000.0) | rates("empty", "redan", each=1500.0)
    written = cluster.writes_table(values)
    assert written.rows[0][1:] == [1000.0, 20_000.0, 20.0, "≥ 8", "met"]
    assert [row[5] for row in cluster.writes_table(values | rates("redan", "set 16", each=19_000.0)).rows] == [
        "met",
        "missed",
        "met",
        "met",
    ] * len(CLIENTS)
    rows = alone_table(values, single, alone).rows
    assert [row[0] for row in rows] == [row[0] for row in written.rows]
    assert [row[1:] for row in rows[:4]] == [
        [30.0, None, 50.0, None, "≥ 8"],
        [30.0, None, 50.0, None, "≥ 20"],
        [30.0, None, None, 1.5, "≥ 1"],
        [30.0, None, None, None, "≥ 20"],
    ]
