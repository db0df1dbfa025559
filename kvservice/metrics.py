"""What /metrics says of a node, made from the node's own counts at the time of a scrape.

Guarantees: counting costs the service nothing beyond its plain integers and lists: no metric object is touched per
    command. Base units (seconds, bytes), counters end in _total, every family has HELP; p50, p95 and p99 can be derived
    from the histograms. A count starts again at zero with the process, and after CONFIG RESETSTAT.
Leaves to the caller: rendering and serving (kvservice.admin). Scrapes run on the thread of the event loop.
Layout: one method a group; a family is yielded only where it has something to say.
Reference: Prometheus naming practice; the latencies of kvservice.latency_buckets, four buckets to a doubling, summed to
    one a doubling here so that a command costs 24 lines instead of 104.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kvservice.commands.ports import GroupPort, MachinePort, NodePort, SnapshotsPort
from kvservice.config import Config
from kvservice.latency_buckets import BUCKET_ENDS_US, BUCKETS
from kvservice.loop_lag import LoopLag
from kvservice.session import Session
from kvservice.stats import CommandStats, Stats
from persistence.log_writer import WalStats

# From 16 us, which no durable write beats, to 67 s, where every client has given up: 23 bounds.
FIRST_BOUND_BITS: Final = 4
LAST_BOUND_BITS: Final = 26
_BOUNDS: Final = tuple(
    (bits, repr((1 << bits) / 1e6)) for bits in range(FIRST_BOUND_BITS, LAST_BOUND_BITS + 1)
)  # fmt: skip
# The middle of a bucket stands for its latencies in sums: off by an eighth at most, and by chance in both directions.
_BUCKET_STARTS_US: Final = (0, *(end + 1 for end in BUCKET_ENDS_US[:-1]))
_BUCKET_MIDDLES_US: Final = tuple(
    (start + end) / 2 for start, end in zip(_BUCKET_STARTS_US, BUCKET_ENDS_US, strict=True)
)


class MeasuredNode(NodePort, Protocol):
    """What consensus tells beyond what commands need."""

    @property
    def proposals_pending(self) -> int:
        """Entries proposed and not yet applied."""


class MeasuredForwarder(Protocol):
    """What was passed on to the leader."""

    @property
    def calls_sent(self) -> int:
        """Calls sent, repetitions included."""

    @property
    def calls_returned(self) -> int:
        """Sent, certainly not applied, and kept to be sent again."""

    @property
    def calls_lost(self) -> int:
        """Writes whose outcome could not be learnt."""

    @property
    def calls_pending(self) -> int:
        """Calls that are not answered."""

    @property
    def bytes_pending(self) -> int:
        """What they hold."""

    @property
    def is_linked(self) -> bool:
        """Whether there is a stream to the leader."""


class MeasuredService(Protocol):
    """The node as /metrics sees it; kvservice.service satisfies it."""

    @property
    def config(self) -> Config:
        """Settings."""

    @property
    def stats(self) -> Stats:
        """Counts."""

    @property
    def machine(self) -> MachinePort:
        """The keyspace."""

    @property
    def sessions(self) -> Mapping[int, Session]:
        """Connected callers."""

    @property
    def node(self) -> MeasuredNode:
        """Consensus."""

    @property
    def forwarder(self) -> MeasuredForwarder:
        """What takes calls to the leader."""

    @property
    def group(self) -> GroupPort:
        """The cluster."""

    @property
    def snapshots(self) -> SnapshotsPort:
        """Snapshots."""

    @property
    def started_s(self) -> float:
        """When the node started, in seconds since the epoch."""


def node_registry(service: MeasuredService, loop_lag: LoopLag) -> CollectorRegistry:
    """Return a registry with what can be told from the start on, also while the data is loading."""
    registry = CollectorRegistry()
    registry.register(NodeMetrics(service, loop_lag))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def add_log_metrics(registry: CollectorRegistry, service: MeasuredService, wal: WalStats) -> None:
    """Add what can be told once log, snapshots and consensus exist; call it once, before the replay."""
    registry.register(LogMetrics(service, wal))


def program_version() -> str:
    """Return the version of the installed program, "unknown" where it runs without being installed."""
    try:
        return version("redan")
    except PackageNotFoundError:
        return "unknown"


class NodeMetrics(Collector):
    """Metrics of process, commands, clients and keyspace."""

    def __init__(self, service: MeasuredService, loop_lag: LoopLag) -> None:
        self._service = service
        self._loop_lag = loop_lag

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._process()
        yield from self._commands()
        yield from self._clients()
        yield from self._keyspace()

    def _process(self) -> Iterator[Metric]:
        labels = {"version": program_version(), "python": platform.python_version(), "node": self._service.config.name}
        build = GaugeMetricFamily("redan_build_info", "Version of the program; always 1.", labels=list(labels))
        build.add_metric(list(labels.values()), 1)
        yield build
        yield _gauge("redan_start_time_seconds", "When the node started, since the epoch.", self._service.started_s)
        lag = HistogramMetricFamily("redan_event_loop_lag_seconds", "How late timers of the event loop fired.")
        lag.add_metric([], cumulated(self._loop_lag.histogram), self._loop_lag.total_seconds)
        yield lag

    def _commands(self) -> Iterator[Metric]:
        stats = self._service.stats
        rows = sorted(((row.name.lower(), counts) for row, counts in stats.commands.items()), key=lambda row: row[0])
        yield _by_command("redan_commands", "Executions, failed ones included.", rows, "calls")
        yield _by_command("redan_commands_rejected", "Commands refused before execution.", rows, "rejected")
        yield _by_command("redan_commands_failed", "Executions that answered an error.", rows, "failed")
        execution = CounterMetricFamily(
            "redan_command_execution_seconds",
            "Time spent in executions, without waiting for the log.",
            labels=["command"],
        )
        latency = HistogramMetricFamily(
            "redan_command_duration_seconds",
            "Time from the arrival of a command to its answer, the wait for the log included; the sum is an "
            "estimate from the buckets.",
            labels=["command"],
        )
        for name, counts in rows:
            execution.add_metric([name], counts.nanoseconds / 1e9)
            if any(counts.buckets):
                estimate = sum(map(float.__mul__, _BUCKET_MIDDLES_US, map(float, counts.buckets))) / 1e6
                latency.add_metric([name], cumulated(counts.buckets), estimate)
        yield execution
        yield latency
        errors = CounterMetricFamily("redan_error_replies", "Error replies by their first word.", labels=["error"])
        for prefix, count in sorted(stats.errors.items()):
            errors.add_metric([prefix], count)
        yield errors

    def _clients(self) -> Iterator[Metric]:
        service, stats = self._service, self._service.stats
        yield _gauge("redan_connected_clients", "Callers connected now.", len(service.sessions))
        yield _gauge("redan_clients_max", "Most Redis connections at one time (maxclients).", service.config.maxclients)
        yield _counter("redan_connections_received", "Connections accepted.", stats.connections_received)
        yield _counter(
            "redan_connections_rejected",
            "Connections refused at maxclients or by protected mode.",
            stats.rejected_connections,
        )
        yield _counter("redan_network_receive_bytes", "Bytes received from clients.", stats.net_input_bytes)
        yield _counter("redan_network_transmit_bytes", "Bytes sent to clients.", stats.net_output_bytes)

    def _keyspace(self) -> Iterator[Metric]:
        service, stats, machine = self._service, self._service.stats, self._service.machine
        used = machine.memory.used_bytes
        yield _gauge("redan_memory_used_bytes", "Memory of keys and values, as maxmemory counts it.", used)
        peak = max(stats.peak_memory_bytes, used)
        yield _gauge("redan_memory_peak_bytes", "Most that redan_memory_used_bytes has been.", peak)
        yield _gauge("redan_memory_max_bytes", "The limit maxmemory; 0 = none.", service.config.maxmemory)
        keys = GaugeMetricFamily("redan_keys", "Keys, expired ones that are not yet removed included.", labels=["db"])
        expiring = GaugeMetricFamily("redan_keys_expiring", "Keys that have a time to live.", labels=["db"])
        for database in machine.databases:
            if database.key_count:
                keys.add_metric([str(database.index)], database.key_count)
                expiring.add_metric([str(database.index)], database.expiry_count)
        yield keys
        yield expiring
        yield _counter("redan_expired_keys", "Keys removed because their time had come.", stats.expired_keys)
        yield _counter("redan_evicted_keys", "Keys removed to stay below maxmemory.", stats.evicted_keys)
        yield _counter("redan_keyspace_hits", "Reads that found their key.", machine.context.hits)
        yield _counter("redan_keyspace_misses", "Reads that found no key.", machine.context.misses)


class LogMetrics(Collector):
    """Metrics of log, snapshots and consensus."""

    def __init__(self, service: MeasuredService, wal: WalStats) -> None:
        self._service = service
        self._wal = wal

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._log()
        yield from self._snapshots()
        yield from self._consensus()
        yield from self._forwarding()
        yield from self._cluster()

    def _log(self) -> Iterator[Metric]:
        wal = self._wal
        yield _counter("redan_wal_appended_bytes", "Bytes written to the log.", wal.appended_bytes)
        yield _counter("redan_wal_frames", "Writes to the log; one carries all that waited.", wal.frames)
        yield _counter("redan_wal_records", "Records in these writes.", wal.records)
        yield _gauge("redan_wal_segments", "Files of the log.", wal.segments)
        yield _gauge("redan_wal_disk_bytes", "Size of these files.", wal.bytes_on_disk)
        yield _gauge("redan_wal_failed", "1 after a write or a sync of the log has failed.", int(bool(wal.last_error)))
        # Bucket b of the log's own counts holds durations of b bits of microseconds: less than 1 << b.
        below = list(accumulate(wal.sync_buckets))
        steps = [(bound, float(below[bits])) for bits, bound in _BOUNDS if bits < len(below) - 1]
        fsync = HistogramMetricFamily("redan_wal_fsync_duration_seconds", "Durations of fdatasync on the log.")
        fsync.add_metric([], [*steps, ("+Inf", float(below[-1]))], wal.sync_seconds)
        yield fsync

    def _snapshots(self) -> Iterator[Metric]:
        snapshots = self._service.snapshots
        yield _gauge("redan_snapshot_in_progress", "1 while a snapshot is being written.", int(snapshots.in_progress))
        yield _counter("redan_snapshots_taken", "Snapshots finished.", snapshots.taken)
        yield _gauge("redan_snapshot_last_success", "Whether the last attempt succeeded.", int(snapshots.last_ok))
        yield _gauge(
            "redan_snapshot_last_time_seconds", "When the newest was finished, since the epoch.", snapshots.last_saved_s
        )
        if snapshots.last_seconds >= 0:
            yield _gauge(
                "redan_snapshot_last_duration_seconds", "How long the last attempt took.", snapshots.last_seconds
            )
        yield _gauge(
            "redan_snapshot_slice_seconds_max",
            "Longest that a slice of a snapshot kept the event loop.",
            snapshots.slice_seconds_max,
        )
        yield _gauge(
            "redan_snapshot_pending_entries", "Entries with writes in no snapshot.", snapshots.changes_since_last
        )

    def _consensus(self) -> Iterator[Metric]:
        node = self._service.node
        yield _gauge("redan_raft_is_leader", "1 where this node leads.", int(node.is_leader))
        yield _gauge("redan_raft_has_leader", "1 where this node knows a leader.", int(node.leader_id is not None))
        yield _gauge("redan_raft_term", "Current term.", node.term)
        yield _gauge("redan_raft_last_index", "Index of the last entry of the log.", node.last_index)
        yield _gauge("redan_raft_commit_index", "Index of the last committed entry.", node.commit_index)
        yield _gauge("redan_raft_applied_index", "Index of the last applied entry.", node.applied_index)
        yield _gauge("redan_raft_proposals_pending", "Entries proposed and not yet applied.", node.proposals_pending)
        yield _gauge("redan_replay_pending_entries", "Entries of earlier runs still to apply.", node.replay_remaining)

    def _forwarding(self) -> Iterator[Metric]:
        forwarder = self._service.forwarder
        yield _gauge("redan_forwarding_linked", "1 where commands can go to the leader.", int(forwarder.is_linked))
        yield _counter("redan_forwarded_calls", "Calls sent to the leader, repetitions included.", forwarder.calls_sent)
        yield _counter(
            "redan_forwarded_calls_returned", "Sent, certainly not applied, and sent again.", forwarder.calls_returned
        )
        yield _counter("redan_forwarded_calls_lost", "Writes of unknown outcome.", forwarder.calls_lost)
        yield _gauge("redan_forwarding_pending_calls", "Calls that wait for the leader.", forwarder.calls_pending)
        yield _gauge("redan_forwarding_pending_bytes", "Memory of these calls.", forwarder.bytes_pending)

    def _cluster(self) -> Iterator[Metric]:
        group, name = self._service.group, self._service.config.name
        members, checkpoint = group.members(), group.checkpoint
        voters = sum(member.is_voter for member in members)
        yield _gauge("redan_raft_voters", "Members with a vote.", voters)
        yield _gauge("redan_raft_learners", "Members without a vote.", len(members) - voters)
        yield _gauge(
            "redan_raft_quarantined", "1 while what this node's disk lost is not back.", int(group.is_quarantined)
        )
        yield _gauge(
            "redan_raft_requests_remembered", "Request ids whose first answer is kept.", group.requests_remembered
        )
        yield _gauge(
            "redan_state_digest_index", "Entry of the newest digest of the state.", checkpoint[0] if checkpoint else 0
        )
        others = [member.name for member in members if member.name != name]
        if not others:
            return
        yield _by_peer(
            "redan_state_divergence",
            "1 for a peer whose state differs from this node's.",
            {peer: group.agreement_with(peer) == "diverged" for peer in others},
        )
        peers = group.peers()
        if not peers:
            return
        yield _by_peer(
            "redan_raft_peer_match_index",
            "Last entry that is durable there, as the leader knows it.",
            {peer.name: peer.match_index for peer in peers},
        )
        yield _by_peer(
            "redan_raft_peer_lag_entries",
            "Entries of the leader's log that a peer lacks.",
            {peer.name: peer.lag_entries for peer in peers},
        )
        yield _by_peer(
            "redan_raft_peer_active",
            "1 for a peer that the leader heard from within the last election timeout or the one before.",
            {peer.name: peer.is_active for peer in peers},
        )


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def _by_peer(name: str, documentation: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=["peer"])
    for peer, value in values.items():
        family.add_metric([peer], value)
    return family


def _counter(name: str, documentation: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, documentation, value=value)


def _by_command(
    name: str, documentation: str, rows: Sequence[tuple[str, CommandStats]], count: str
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=["command"])
    for command, counts in rows:
        family.add_metric([command], getattr(counts, count))
    return family


def cumulated(histogram: Sequence[int]) -> list[tuple[str, float]]:
    """Sum a histogram of kvservice.latency_buckets to one bucket a doubling: (bound in seconds, count below it)."""
    below = list(accumulate(histogram))
    # The latencies below 1 << bits are those in the buckets before 4 * (bits - 1).
    steps = [(bound, float(below[4 * (bits - 1) - 1])) for bits, bound in _BOUNDS if 4 * (bits - 1) <= BUCKETS]
    return [*steps, ("+Inf", float(below[-1]))]
