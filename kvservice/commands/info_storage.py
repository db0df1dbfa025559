"""INFO's sections Memory and Persistence.

``used_memory`` is what ``maxmemory`` bounds: keys, values, deadlines and their dicts. The process is larger by the
interpreter and by buffers, which ``used_memory_rss`` holds. Persistence speaks of snapshots where Redis speaks of RDB,
and of the log where it speaks of the AOF.
Reference: the Redis command page of INFO.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeAlias

from kvservice.commands.ports import ServicePort
from kvservice.keyspace.reaper import waiting_keys

Fields: TypeAlias = Iterable[tuple[str, object]]

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * PAGE_BYTES


def human_size(size: int) -> str:
    """Return a number of bytes as INFO's ``…_human`` fields print it."""
    amount = float(size)
    for unit in ("B", "K", "M", "G", "T"):
        if amount < 1024 or unit == "T":
            break
        amount /= 1024
    return f"{size}B" if unit == "B" else f"{amount:.2f}{unit}"


def ratio(part: float, whole: float) -> str:
    """Return a quotient with two decimals; 0 when there is nothing to divide by."""
    return f"{part / whole if whole else 0.0:.2f}"


def percent(part: float, whole: float) -> str:
    """Return a share with two decimals and a percent sign."""
    return f"{100 * part / whole if whole else 0.0:.2f}%"


def dataset_bytes(service: ServicePort) -> int:
    """Return the memory of keys, values and deadlines, without the dicts that hold them."""
    return sum(database.bytes_used for database in service.machine.databases)


def memory(service: ServicePort) -> Fields:
    """Return the section Memory."""
    used, rss = service.machine.memory.used_bytes, resident_bytes()
    databases = service.machine.databases
    to_free = waiting_keys(databases)
    peak = max(used, service.stats.peak_memory_bytes)
    dataset = min(used, dataset_bytes(service))
    total = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
    buffers = sum(session.query_buffer_bytes + session.output_buffer_bytes for session in service.sessions.values())
    config = service.config
    return [
        ("used_memory", used),
        ("used_memory_human", human_size(used)),
        ("used_memory_rss", rss),
        ("used_memory_rss_human", human_size(rss)),
        ("used_memory_peak", peak),
        ("used_memory_peak_human", human_size(peak)),
        ("used_memory_peak_perc", percent(used, peak)),
        ("used_memory_overhead", used - dataset),
        ("used_memory_startup", 0),
        ("used_memory_dataset", dataset),
        ("used_memory_dataset_perc", percent(dataset, used)),
        ("allocator_allocated", used),
        ("allocator_active", rss),
        ("allocator_resident", rss),
        ("total_system_memory", total),
        ("total_system_memory_human", human_size(total)),
        ("used_memory_lua", 0),
        ("used_memory_vm_eval", 0),
        ("used_memory_lua_human", "0B"),
        ("used_memory_scripts_eval", 0),
        ("number_of_cached_scripts", 0),
        ("number_of_functions", 0),
        ("number_of_libraries", 0),
        ("used_memory_vm_functions", 0),
        ("used_memory_vm_total", 0),
        ("used_memory_vm_total_human", "0B"),
        ("used_memory_functions", 0),
        ("used_memory_scripts", 0),
        ("used_memory_scripts_human", "0B"),
        ("maxmemory", config.maxmemory),
        ("maxmemory_human", human_size(config.maxmemory)),
        ("maxmemory_policy", config.maxmemory_policy),
        ("allocator_frag_ratio", ratio(rss, used)),
        ("allocator_frag_bytes", max(0, rss - used)),
        ("allocator_rss_ratio", "1.00"),
        ("allocator_rss_bytes", 0),
        ("rss_overhead_ratio", "1.00"),
        ("rss_overhead_bytes", 0),
        ("mem_fragmentation_ratio", ratio(rss, used)),
        ("mem_fragmentation_bytes", max(0, rss - used)),
        ("mem_not_counted_for_evict", buffers),
        ("mem_replication_backlog", 0),
        ("mem_total_replication_buffers", 0),
        ("mem_clients_slaves", 0),
        ("mem_clients_normal", buffers),
        ("mem_cluster_links", service.stats.peers.queued_bytes),
        ("mem_aof_buffer", service.node.bytes_pending),
        ("mem_allocator", "pymalloc"),
        ("active_defrag_running", 0),
        ("lazyfree_pending_objects", to_free),
        ("lazyfreed_objects", sum(database.flushed_keys for database in databases) - to_free),
    ]


def persistence(service: ServicePort) -> Fields:
    """Return the section Persistence."""
    snapshots, node = service.snapshots, service.node
    loading = not node.is_replayed
    saved = snapshots.keys_saved
    to_save = sum(database.key_count for database in service.machine.databases) if snapshots.in_progress else 0
    fields: list[tuple[str, object]] = [
        ("loading", int(loading)),
        ("async_loading", 0),
        ("current_cow_peak", 0),
        ("current_cow_size", 0),
        ("current_cow_size_age", 0),
        ("current_fork_perc", ratio(100 * saved, to_save)),
        ("current_save_keys_processed", saved),
        ("current_save_keys_total", to_save),
        ("rdb_changes_since_last_save", snapshots.changes_since_last),
        ("rdb_bgsave_in_progress", int(snapshots.in_progress)),
        ("rdb_last_save_time", snapshots.last_saved_s),
        ("rdb_last_bgsave_status", "ok" if snapshots.last_ok else "err"),
        ("rdb_last_bgsave_time_sec", int(snapshots.last_seconds)),
        ("rdb_current_bgsave_time_sec", int(snapshots.current_seconds)),
        ("rdb_saves", snapshots.taken),
        ("rdb_last_cow_size", 0),
        ("rdb_last_load_keys_expired", 0),
        ("rdb_last_load_keys_loaded", service.stats.keys_loaded),
        # A write or sync of the log that fails stops the node, so a node that answers has had none.
        ("aof_enabled", 1),
        ("aof_rewrite_in_progress", int(snapshots.in_progress)),
        ("aof_rewrite_scheduled", 0),
        ("aof_last_rewrite_time_sec", int(snapshots.last_seconds)),
        ("aof_current_rewrite_time_sec", int(snapshots.current_seconds)),
        ("aof_last_bgrewrite_status", "ok" if snapshots.last_ok else "err"),
        ("aof_rewrites", snapshots.taken),
        ("aof_rewrites_consecutive_failures", 0 if snapshots.last_ok else 1),
        ("aof_last_write_status", "ok"),
        ("aof_last_cow_size", 0),
        ("module_fork_in_progress", 0),
        ("module_fork_last_cow_size", 0),
        ("aof_current_size", service.wal_stats.bytes_on_disk),
        ("aof_base_size", service.wal_stats.base_bytes),
        ("aof_pending_rewrite", 0),
        ("aof_buffer_length", node.bytes_pending),
        ("aof_pending_bio_fsync", 0),
        ("aof_delayed_fsync", 0),
    ]
    if loading:
        fields.append(("loading_entries_remaining", node.replay_remaining))
    return fields
