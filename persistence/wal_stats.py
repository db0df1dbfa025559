"""Counters of the log, for metrics.

Guarantees: plain numbers, written by one thread, to be read from any without a lock; each alone is right, two of them
may be of different moments.
Leaves to the caller: turning the buckets into a cumulative histogram.
"""

from collections import deque

DURATION_BUCKETS = 26
"""Durations of syncs are counted by powers of two: bucket b holds those below 2**b us, the last all above 33 s."""
UNSEEN_SYNCS_MAX = 4096
"""Syncs kept for a reader that comes ten times a second: a disk that takes 25 us for each makes as many."""


class WalStats:
    """Counters for metrics; written by the writer thread, plain integers to read from any thread."""

    def __init__(self) -> None:
        self.appended_bytes = 0
        self.frames = 0
        self.records = 0
        self.syncs = 0
        self.sync_seconds = 0.0
        self.sync_buckets = [0] * (DURATION_BUCKETS + 1)
        self._unseen_seconds: deque[float] = deque(maxlen=UNSEEN_SYNCS_MAX)
        self.segments = 0
        self.bytes_on_disk = 0
        self.base_bytes = 0
        """What was on disk when the log was opened, or was last cut behind a snapshot."""
        self.last_error = ""

    def count_sync(self, seconds: float) -> None:
        """Count one sync and how long it took."""
        self.syncs += 1
        self.sync_seconds += seconds
        self._unseen_seconds.append(seconds)
        self.sync_buckets[min(int(seconds * 1e6).bit_length(), DURATION_BUCKETS)] += 1

    def take_longest_sync_seconds(self) -> float:
        """Return how long the longest sync since the last call took, in seconds; one reader only."""
        unseen = self._unseen_seconds
        longest = 0.0
        for _ in range(len(unseen)):
            longest = max(longest, unseen.popleft())
        return longest
