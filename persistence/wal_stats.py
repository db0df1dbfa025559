"""Counters of the log, for metrics.

Guarantees: plain numbers, written by one thread, to be read from any without a lock; each alone is right, two of them
may be of different moments.
Leaves to the caller: turning the buckets into a cumulative histogram.
"""

DURATION_BUCKETS = 26
"""Durations of syncs are counted by powers of two: bucket b holds those below 2**b us, the last all above 33 s."""


class WalStats:
    """Counters for metrics; written by the writer thread, plain integers to read from any thread."""

    def __init__(self) -> None:
        self.appended_bytes = 0
        self.frames = 0
        self.records = 0
        self.syncs = 0
        self.sync_seconds = 0.0
        self.sync_seconds_last = 0.0
        self.sync_buckets = [0] * (DURATION_BUCKETS + 1)
        self.segments = 0
        self.bytes_on_disk = 0
        self.last_error = ""

    def count_sync(self, seconds: float) -> None:
        """Count one sync and how long it took."""
        self.syncs += 1
        self.sync_seconds += seconds
        self.sync_seconds_last = seconds
        self.sync_buckets[min(int(seconds * 1e6).bit_length(), DURATION_BUCKETS)] += 1
