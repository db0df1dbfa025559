"""Latencies counted in buckets: four to every doubling, so a percentile is off by at most a quarter.

Guarantees: counting one latency costs a few integer operations and no allocation; 0 to 134 s fit, longer ones count in
    the last bucket. A histogram is a plain list of ``BUCKETS`` counts, so that histograms add by position.
Layout: buckets 0..3 hold exactly 0..3 microseconds; bucket ``4 * (b - 2) + q`` holds the latencies of ``b`` bits whose
    two bits after the leading one are ``q``. So every power of two from 4 on starts a bucket whose position is a
    multiple of 4, which makes coarser histograms (LATENCY HISTOGRAM, /metrics) exact sums of these.
Reference: HdrHistogram's bucket and sub-bucket scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

BUCKETS: Final = 104
"""Up to 27 bits of microseconds: 134 s is more than any command may take before it is given up."""


def new_histogram() -> list[int]:
    """Return an empty histogram."""
    return [0] * BUCKETS


def bucket_of(microseconds: int) -> int:
    """Return the bucket of a latency; hot."""
    if microseconds < 4:
        return max(0, microseconds)
    bits = microseconds.bit_length()
    if bits > 27:
        return BUCKETS - 1
    return 4 * (bits - 2) + ((microseconds >> (bits - 3)) & 3)


def bucket_end_us(bucket: int) -> int:
    """Return the longest latency in microseconds that a bucket holds."""
    if bucket < 4:
        return bucket
    bits, quarter = bucket // 4 + 2, bucket % 4
    return ((5 + quarter) << (bits - 3)) - 1


BUCKET_ENDS_US: Final = tuple(bucket_end_us(bucket) for bucket in range(BUCKETS))


def percentiles_us(histogram: Sequence[int], percentiles: Sequence[float]) -> list[int]:
    """Return, for each percentile, the end in microseconds of the bucket that it falls into; zeros when empty."""
    cumulated = list(accumulate(histogram))
    total = cumulated[-1]
    ends: list[int] = []
    for percentile in percentiles:
        # At least one latency must lie at or below the answer, also for percentile 0.
        wanted = max(1, -(-total * percentile // 100))
        ends.append(next((BUCKET_ENDS_US[at] for at, count in enumerate(cumulated) if count >= wanted), 0))
    return ends


def doublings(histogram: Sequence[int]) -> list[tuple[int, int]]:
    """Return (bound in microseconds, latencies below it) for each power of two at which the count rises."""
    steps: list[tuple[int, int]] = []
    below = 0
    # The first four buckets are exact: 0 counts as below 1, and 2 and 3 share the doubling that ends at 4.
    for bound, group in [(1, histogram[:1]), (2, histogram[1:2]), (4, histogram[2:4])]:
        steps.append((bound, below := below + sum(group)))
    steps.extend(
        (1 << (start // 4 + 2), below := below + sum(histogram[start : start + 4])) for start in range(4, BUCKETS, 4)
    )
    return [step for step, previous in zip(steps, [(0, 0), *steps], strict=False) if step[1] > previous[1]]
