"""INFO's sections of counts: Stats, Commandstats, Errorstats, Latencystats.

Reference: the Redis command page of INFO. Latencies run from a command's arrival to its answer, so that they hold the
wait for the disk, which Redis's do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import time
from typing import TypeAlias

from kvservice.commands.info_storage import ratio
from kvservice.commands.ports import ServicePort
from kvservice.errors import WrongPassword
from kvservice.keyspace.database import Database
from kvservice.latency_buckets import percentiles_us

Fields: TypeAlias = Iterable[tuple[str, object]]


def stats(service: ServicePort) -> Fields:
    """Return the section Stats."""
    counted = service.stats
    context = service.machine.context
    peers = counted.peers
    turns, worked_ns = counted.loop_totals
    in_commands_ns = sum(of_command.nanoseconds for of_command in counted.commands.values())
    return [
        ("total_connections_received", counted.connections_received),
        ("total_commands_processed", counted.commands_processed),
        ("instantaneous_ops_per_sec", int(counted.operations_rate.per_second)),
        ("total_net_input_bytes", counted.net_input_bytes),
        ("total_net_output_bytes", counted.net_output_bytes),
        ("total_net_repl_input_bytes", peers.received_bytes),
        ("total_net_repl_output_bytes", peers.sent_bytes),
        ("instantaneous_input_kbps", f"{counted.input_rate.per_second / 1024:.2f}"),
        ("instantaneous_output_kbps", f"{counted.output_rate.per_second / 1024:.2f}"),
        ("instantaneous_input_repl_kbps", f"{counted.peer_input_rate.per_second / 1024:.2f}"),
        ("instantaneous_output_repl_kbps", f"{counted.peer_output_rate.per_second / 1024:.2f}"),
        ("rejected_connections", counted.rejected_connections),
        ("sync_full", peers.snapshots_sent),
        *_zeros("sync_partial_ok sync_partial_err"),
        ("expired_keys", counted.expired_keys),
        ("expired_stale_perc", expired_percentage(service.machine.databases, int(time() * 1000))),
        ("expired_time_cap_reached_count", counted.expire_cuts),
        ("expire_cycle_cpu_milliseconds", counted.expire_nanoseconds // 1_000_000),
        ("evicted_keys", counted.evicted_keys),
        ("evicted_clients", 0),
        ("total_eviction_exceeded_time", counted.over_limit_ms + counted.over_limit_now_ms),
        ("current_eviction_exceeded_time", counted.over_limit_now_ms),
        ("keyspace_hits", context.hits),
        ("keyspace_misses", context.misses),
        *_zeros("pubsub_channels pubsub_patterns pubsubshard_channels latest_fork_usec total_forks"),
        *_zeros("migrate_cached_sockets slave_expires_tracked_keys active_defrag_hits active_defrag_misses"),
        *_zeros("active_defrag_key_hits active_defrag_key_misses total_active_defrag_time current_active_defrag_time"),
        *_zeros("tracking_total_keys tracking_total_items tracking_total_prefixes unexpected_error_replies"),
        ("total_error_replies", counted.error_replies),
        ("dump_payload_sanitizations", 0),
        ("total_reads_processed", counted.reads),
        ("total_writes_processed", counted.writes),
        *_zeros("io_threaded_reads_processed io_threaded_writes_processed reply_buffer_shrinks reply_buffer_expands"),
        ("eventloop_cycles", turns),
        ("eventloop_duration_sum", worked_ns // 1000),
        ("eventloop_duration_cmd_sum", in_commands_ns // 1000),
        ("instantaneous_eventloop_cycles_per_sec", int(counted.turns_rate.per_second)),
        ("instantaneous_eventloop_duration_usec", int(counted.microseconds_a_turn)),
        ("acl_access_denied_auth", counted.errors.get(WrongPassword.resp_prefix, 0)),
        *_zeros("acl_access_denied_cmd acl_access_denied_key acl_access_denied_channel"),
    ]


def expired_percentage(databases: Sequence[Database], now_ms: int) -> str:
    """Return how many of the keys with a deadline are past it and not removed yet, in percent."""
    due = sum(database.expiry.count_due(now_ms) for database in databases)
    return ratio(100 * due, sum(database.expiry_count for database in databases))


def _zeros(names: str) -> Fields:
    """Return fields that count what this server does not have."""
    return [(name, 0) for name in names.split()]


def commandstats(service: ServicePort) -> Fields:
    """Return the section Commandstats: one field for each command that was called or refused."""
    fields: list[tuple[str, object]] = []
    for row, counted in service.stats.told():
        if not (counted.calls or counted.rejected or counted.failed):
            continue
        microseconds = counted.nanoseconds // 1000
        per_call = counted.nanoseconds / 1000 / counted.calls if counted.calls else 0.0
        fields.append(
            (
                f"cmdstat_{row.name}",
                f"calls={counted.calls},usec={microseconds},usec_per_call={per_call:.2f},"
                f"rejected_calls={counted.rejected},failed_calls={counted.failed}",
            )
        )
    return fields


def errorstats(service: ServicePort) -> Fields:
    """Return the section Errorstats: error replies by their first word."""
    return [(f"errorstat_{prefix}", f"count={count}") for prefix, count in service.stats.errors.items()]


def latencystats(service: ServicePort) -> Fields:
    """Return the section Latencystats, in microseconds."""
    if not service.config.latency_tracking:
        return []
    wanted = service.stats.percentiles
    fields: list[tuple[str, object]] = []
    for row, counted in service.stats.told():
        if any(counted.buckets):
            ends = percentiles_us(counted.buckets, wanted)
            values = ",".join(f"p{percentile:g}={end:.3f}" for percentile, end in zip(wanted, ends, strict=True))
            fields.append((f"latency_percentiles_usec_{row.name}", values))
    return fields
