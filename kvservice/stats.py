"""What a node counts: plain attributes that the service bumps, and that INFO, LATENCY and /metrics read.

Guarantees: local to the node, never part of the replicated state. A group of commands costs one call each of
    ``executed`` and ``answered``, however many commands are in it.
Leaves to the caller: calling ``sample`` ten times a second; adding to the attributes from the event loop's thread only.
Reference: Redis INFO (stats, commandstats, errorstats, latencystats), `trackInstantaneousMetric` in `server.c`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kvservice.commands.table import Command
from kvservice.config import Config
from kvservice.errors import RedanError
from kvservice.latency_buckets import bucket_of, new_histogram
from kvservice.latency_monitor import LatencyMonitor
from kvservice.slowlog import SlowLog

ERRORS_MAX: Final = 128
"""Kinds of errors that are counted one by one; more count in the total only, as in Redis."""
RATE_SAMPLES: Final = 16
"""Samples that a rate is the mean of: 1.6 s at ten a second, as in Redis."""
DEFAULT_PERCENTILES: Final = (50.0, 99.0, 99.9)


class PeerTraffic(NamedTuple):
    """What goes between this node and others to replicate: entries, votes, snapshots."""

    received_bytes: int = 0
    sent_bytes: int = 0
    snapshots_sent: int = 0
    """Those that a peer has taken whole."""
    streams: int = 0
    """Open now, of both directions."""
    queued_bytes: int = 0
    """Messages that wait to be sent now."""
    received_messages: int = 0
    """Of consensus, in both directions; never set back."""
    sent_messages: int = 0


def _nothing() -> tuple[int, int]:
    """Stand in for who counts what this node does not have."""
    return 0, 0


class CommandStats:
    """Counts of one command or subcommand."""

    __slots__ = ("buckets", "calls", "failed", "nanoseconds", "rejected")

    def __init__(self) -> None:
        self.calls = 0
        """Executions, failed ones included."""
        self.nanoseconds = 0
        """Time spent in executions, without waiting for the log."""
        self.rejected = 0
        """Refused before execution: arity, permission, memory, load."""
        self.failed = 0
        """Executions that answered an error."""
        self.buckets = new_histogram()
        """Time from arrival to answer, the wait for the log included (kvservice.latency_buckets)."""


class Rate:
    """A count's growth in units a second, as the mean of the last samples."""

    __slots__ = ("_at_s", "_samples", "_total", "_turn")

    def __init__(self) -> None:
        self._samples = [0.0] * RATE_SAMPLES
        self._turn = 0
        self._at_s: float | None = None
        self._total = 0

    def sample(self, now_s: float, total: int) -> None:
        """Take the count at a time on the loop's clock."""
        if self._at_s is not None and now_s > self._at_s:
            # A count that was reset is smaller than before: nothing is known of that interval.
            grown = max(0, total - self._total)
            self._samples[self._turn] = grown / (now_s - self._at_s)
            self._turn = (self._turn + 1) % RATE_SAMPLES
        self._at_s = now_s
        self._total = total

    @property
    def per_second(self) -> float:
        """The rate."""
        return sum(self._samples) / RATE_SAMPLES


class Stats:
    """All counts of a node."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.slowlog = SlowLog(config)
        self.latency = LatencyMonitor(config)
        self.percentiles: tuple[float, ...] = DEFAULT_PERCENTILES
        """What INFO latencystats shows (latency-tracking-info-percentiles)."""
        self.peak_memory_bytes = 0
        self.is_expiring_actively = True
        """False while DEBUG SET-ACTIVE-EXPIRE 0 holds: then keys vanish when read, and are not removed before."""
        self.is_cron_paused = False
        """True while DEBUG PAUSE-CRON 1 holds: nothing happens by itself ten times a second."""
        self.keys_loaded = 0
        """Keys of the snapshot that the node started with."""
        self.loop_counts: Callable[[], tuple[int, int]] = _nothing
        """Turns of the event loop, and nanoseconds that it was not asleep (kvservice/loop_meter)."""
        self.peer_traffic: Callable[[], PeerTraffic] = PeerTraffic
        self._clear_counts()

    def _clear_counts(self) -> None:
        self.commands: dict[Command, CommandStats] = {}
        self.errors: dict[str, int] = {}
        """Error replies by RESP prefix."""
        self.error_replies = 0
        self.connections_received = 0
        self.rejected_connections = 0
        self.net_input_bytes = 0
        self.net_output_bytes = 0
        self.reads = 0
        """Chunks received from RESP connections."""
        self.writes = 0
        """Writes to RESP connections."""
        self.expired_keys = 0
        self.expire_nanoseconds = 0
        """Time spent on the removal of expired keys."""
        self.expire_cuts = 0
        """How often the removal gave way to others before all due keys were gone."""
        self.evicted_keys = 0
        self.over_limit_ms = 0
        """Time that memory was above maxmemory, in spans that have ended."""
        self.over_limit_now_ms = 0
        """The span that has not ended; 0 below the limit."""
        self.commands_processed = 0
        self._loop_before = self.loop_counts()
        self._peers_before = self.peer_traffic()
        self.turns_rate = Rate()
        self.work_rate = Rate()
        self.peer_input_rate = Rate()
        self.peer_output_rate = Rate()
        self.operations_rate = Rate()
        self.input_rate = Rate()
        self.output_rate = Rate()

    def reset(self) -> None:
        """Forget every count, as CONFIG RESETSTAT does; the slow log and latency events stay."""
        self._clear_counts()

    @property
    def loop_totals(self) -> tuple[int, int]:
        """Turns and nanoseconds of work of the event loop since the last reset."""
        turns, nanoseconds = self.loop_counts()
        return turns - self._loop_before[0], nanoseconds - self._loop_before[1]

    @property
    def peers(self) -> PeerTraffic:
        """What went between this node and others since the last reset, and what waits now."""
        now, before = self.peer_traffic(), self._peers_before
        return now._replace(
            received_bytes=now.received_bytes - before.received_bytes,
            sent_bytes=now.sent_bytes - before.sent_bytes,
            snapshots_sent=now.snapshots_sent - before.snapshots_sent,
        )

    @property
    def microseconds_a_turn(self) -> float:
        """How long the event loop worked in one turn lately."""
        turns = self.turns_rate.per_second
        return self.work_rate.per_second / turns / 1000 if turns else 0.0

    def of(self, row: Command) -> CommandStats:
        """Return the counts of a command."""
        stats = self.commands.get(row)
        if stats is None:
            stats = self.commands[row] = CommandStats()
        return stats

    def told(self) -> list[tuple[Command, CommandStats]]:
        """Return what is shown by command: rows without a summary stand for no command that a client can name."""
        return [(row, stats) for row, stats in self.commands.items() if row.summary]

    def executed(self, row: Command, count: int, nanoseconds: int) -> None:
        """Count ``count`` executions of one command that took ``nanoseconds`` together; hot."""
        stats = self.of(row)
        stats.calls += count
        stats.nanoseconds += nanoseconds
        self.commands_processed += count

    def answered(self, row: Command, count: int, latency_us: int) -> None:
        """Count ``count`` answers that each came ``latency_us`` after their command; hot."""
        if self._config.latency_tracking:
            self.of(row).buckets[bucket_of(latency_us)] += count

    def ran(self, row: Command, count: int, spent_ns: int, latency_us: int) -> None:
        """Do what ``executed`` and ``answered`` do, for the hot path."""
        stats = self.commands.get(row)
        if stats is None:
            stats = self.of(row)
        stats.calls += count
        stats.nanoseconds += spent_ns
        self.commands_processed += count
        if self._config.latency_tracking:
            stats.buckets[bucket_of(latency_us)] += count

    def ran_together(self, row: Command, count: int, spent_ns: int, waits: list[tuple[int, int]]) -> None:
        """Do what ``ran`` does for several callers; ``waits`` has, for each, its commands and their latency in us."""
        stats = self.of(row)
        stats.calls += count
        stats.nanoseconds += spent_ns
        self.commands_processed += count
        if self._config.latency_tracking:
            buckets = stats.buckets
            for of_caller, latency_us in waits:
                buckets[bucket_of(latency_us)] += of_caller

    def failed(self, row: Command, error: RedanError) -> None:
        """Count an execution that answered an error (``executed`` counts it as well)."""
        self.of(row).failed += 1
        self._count_error(error)

    def rejected(self, row: Command | None, error: RedanError) -> None:
        """Count a command that was refused before it ran; ``row`` is None for an unknown one."""
        if row is not None:
            self.of(row).rejected += 1
        self._count_error(error)

    def _count_error(self, error: RedanError) -> None:
        self.error_replies += 1
        prefix = error.resp_prefix
        if prefix in self.errors or len(self.errors) < ERRORS_MAX:
            self.errors[prefix] = self.errors.get(prefix, 0) + 1

    def sample(self, now_s: float, memory_bytes: int) -> None:
        """Take a sample of every rate and of memory; call ten times a second with the loop's time."""
        self.operations_rate.sample(now_s, self.commands_processed)
        self.input_rate.sample(now_s, self.net_input_bytes)
        self.output_rate.sample(now_s, self.net_output_bytes)
        turns, worked_ns = self.loop_totals
        self.turns_rate.sample(now_s, turns)
        self.work_rate.sample(now_s, worked_ns)
        peers = self.peers
        self.peer_input_rate.sample(now_s, peers.received_bytes)
        self.peer_output_rate.sample(now_s, peers.sent_bytes)
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory_bytes)
