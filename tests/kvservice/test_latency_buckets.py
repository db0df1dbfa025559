from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvservice.latency_buckets import (
    BUCKET_ENDS_US,
    BUCKETS,
    bucket_of,
    doublings,
    new_histogram,
    percentiles_us,
)

latencies = st.integers(0, 1 << 27)


def histogram_of(values: list[int]) -> list[int]:
    histogram = new_histogram()
    for value in values:
        histogram[bucket_of(value)] += 1
    return histogram


@given(latencies)
def test_a_latency_lies_within_its_bucket_and_at_most_a_quarter_below_its_end(microseconds: int) -> None:
    bucket = bucket_of(microseconds)
    if bucket == BUCKETS - 1:
        assert microseconds > BUCKET_ENDS_US[bucket - 1]
        return
    assert microseconds <= BUCKET_ENDS_US[bucket] <= max(3, microseconds * 5 // 4)
    assert bucket == 0 or microseconds > BUCKET_ENDS_US[bucket - 1]


def test_buckets_follow_each_other_without_a_gap() -> None:
    assert [bucket_of(end + 1) for end in BUCKET_ENDS_US[:-1]] == list(range(1, BUCKETS))


def test_latencies_out_of_range_count_at_the_ends() -> None:
    assert bucket_of(-5) == 0
    assert bucket_of(1 << 60) == BUCKETS - 1


@given(st.lists(latencies, min_size=1, max_size=60), st.sampled_from([0.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_bucket_of_the_latency_at_that_rank(values: list[int], percentile: float) -> None:
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percentile // 100))
    assert percentiles_us(histogram_of(values), [percentile]) == [BUCKET_ENDS_US[bucket_of(ordered[int(rank) - 1])]]


def test_percentiles_of_nothing_are_zero() -> None:
    assert percentiles_us(new_histogram(), [50, 99]) == [0, 0]


@given(st.lists(latencies, max_size=60))
def test_doublings_count_what_is_below_each_power_of_two(values: list[int]) -> None:
    within = [value for value in values if value < 1 << 27]
    steps = doublings(histogram_of(within))
    assert [(bound, sum(value < bound for value in within)) for bound, _below in steps] == steps
    assert (steps[-1][1] if steps else 0) == len(within)
    counts = [below for _bound, below in steps]
    assert counts == sorted(set(counts))
