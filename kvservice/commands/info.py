"""INFO: the node in Redis's sections and fields, and one section of our own, Raft.

Guarantees: a field of Redis that means something here has its true value; one that counts what this server does not
    have shows what Redis shows while that is unused. ``role`` is master on a node that takes writes.
Leaves to others: memory and persistence (info_storage), counts of commands (info_counts).
Reference: the Redis command page of INFO; fields of redis-server 7.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeAlias

from kvservice.commands.cluster_shape import followers, is_clustered, shard_id
from kvservice.commands.connection import REDIS_VERSION
from kvservice.commands.containers import server_row
from kvservice.commands.info_counts import commandstats, errorstats, latencystats, stats
from kvservice.commands.info_storage import memory, persistence
from kvservice.commands.ports import ServerCall, ServicePort
from kvservice.commands.reply import Reply, Verbatim
from kvservice.commands.table import Args
from kvservice.keyspace.database import Database

Fields: TypeAlias = Iterable[tuple[str, object]]

TTL_SAMPLES: Final = 64
"""Deadlines that avg_ttl is the mean of: INFO is asked every second by some tools and must not walk all keys."""


@cache
def redan_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("redan")
    except PackageNotFoundError:
        return "unknown"


def server(service: ServicePort) -> Fields:
    """Return the section Server."""
    now_s = time.time()
    uptime_s = max(0, int(now_s - service.started_s))
    return [
        ("redis_version", REDIS_VERSION),
        ("redan_version", redan_version()),
        ("redis_git_sha1", "00000000"),
        ("redis_git_dirty", 0),
        ("redis_build_id", 0),
        ("redis_mode", "cluster" if is_clustered(service) else "standalone"),
        ("os", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("arch_bits", 64 if sys.maxsize > 1 << 32 else 32),
        ("monotonic_clock", "POSIX clock_gettime"),
        ("multiplexing_api", "epoll"),
        ("python_version", platform.python_version()),
        ("process_id", os.getpid()),
        ("process_supervised", "no"),
        ("run_id", service.run_id),
        ("tcp_port", service.config.resp_addr.port),
        ("server_time_usec", int(now_s * 1_000_000)),
        ("uptime_in_seconds", uptime_s),
        ("uptime_in_days", uptime_s // 86_400),
        ("hz", 10),
        ("configured_hz", 10),
        ("lru_clock", int(now_s) & 0xFFFFFF),
        ("executable", sys.executable),
        ("config_file", ""),
        ("io_threads_active", 0),
        ("listener0", f"name=tcp,bind={service.config.resp_addr.host},port={service.config.resp_addr.port}"),
    ]


def clients(service: ServicePort) -> Fields:
    """Return the section Clients."""
    sessions = service.sessions.values()
    return [
        ("connected_clients", len(sessions)),
        ("cluster_connections", service.stats.peers.streams),
        ("maxclients", service.config.maxclients),
        ("client_recent_max_input_buffer", max((session.query_buffer_bytes for session in sessions), default=0)),
        ("client_recent_max_output_buffer", max((session.output_buffer_bytes for session in sessions), default=0)),
        ("blocked_clients", service.blocked_clients),
        ("tracking_clients", 0),
        ("clients_in_timeout_table", service.timed_clients),
        ("total_blocking_keys", 0),
        ("total_blocking_keys_on_nokey", 0),
    ]


_NO_MASTER: Final[Fields] = [
    ("role", "slave"),
    ("master_host", ""),
    ("master_port", 0),
    ("master_link_status", "down"),
    ("master_last_io_seconds_ago", -1),
    ("master_sync_in_progress", 0),
    ("slave_read_only", 1),
]
"""What a node says that was removed from its cluster: who looks for a node that takes writes goes elsewhere."""


def replication(service: ServicePort) -> Fields:
    """Return the section Replication; the offset is the position in the log. The leader lists who follows it."""
    group = service.group
    following = followers(group)
    return [
        *(_NO_MASTER if group.is_removed else [("role", "master")]),
        ("connected_slaves", len(following)),
        *(
            (
                f"slave{number}",
                f"ip={host},port={port},state={'send_bulk' if peer.state == 'snapshot' else 'online'},"
                f"offset={peer.match_index},lag=0",
            )
            for number, ((host, port), peer) in enumerate(following)
        ),
        ("master_failover_state", "no-failover"),
        ("master_replid", shard_id(group) if group.cluster_id else service.run_id),
        ("master_replid2", "0" * 40),
        ("master_repl_offset", service.node.applied_index),
        ("second_repl_offset", -1),
        ("repl_backlog_active", 0),
        ("repl_backlog_size", 0),
        ("repl_backlog_first_byte_offset", 0),
        ("repl_backlog_histlen", 0),
    ]


def raft(service: ServicePort) -> Fields:
    """Return the section Raft; the leader alone knows how far the others are."""
    node, group = service.node, service.group
    # A node that was removed may never have been told by its log.
    removed = service.config.name if group.is_removed else None
    members = [member for member in group.members() if member.name != removed]
    checkpoint = group.checkpoint
    return [
        ("raft_role", group.role),
        ("raft_node", service.config.name),
        ("raft_leader", node.leader_id or ""),
        ("raft_term", node.term),
        ("raft_last_index", node.last_index),
        ("raft_commit_index", node.commit_index),
        ("raft_applied_index", node.applied_index),
        ("raft_voters", ",".join(member.name for member in members if member.is_voter)),
        ("raft_learners", ",".join(member.name for member in members if not member.is_voter)),
        ("raft_quarantined", int(group.is_quarantined)),
        ("raft_read_mode", service.config.read_mode),
        ("raft_requests_remembered", group.requests_remembered),
        ("raft_digest_state", group.agreement),
        ("raft_digest_index", checkpoint[0] if checkpoint is not None else 0),
        ("raft_digest", f"{checkpoint[1]:016x}" if checkpoint is not None else ""),
        *(
            (
                f"raft_peer_{peer.name}",
                f"match={peer.match_index},lag={peer.lag_entries},state={peer.state},active={int(peer.is_active)},"
                f"digest={peer.agreement}",
            )
            for peer in group.peers()
        ),
    ]


def cpu(_service: ServicePort) -> Fields:
    """Return the section CPU, in seconds."""
    fields: list[tuple[str, object]] = []
    for suffix, who in (
        ("", resource.RUSAGE_SELF),
        ("_children", resource.RUSAGE_CHILDREN),
        ("_main_thread", resource.RUSAGE_THREAD),
    ):
        used = resource.getrusage(who)
        fields += [
            (f"used_cpu_sys{suffix}", f"{used.ru_stime:.6f}"),
            (f"used_cpu_user{suffix}", f"{used.ru_utime:.6f}"),
        ]
    return fields


def modules(_service: ServicePort) -> Fields:
    """Return the section Modules: there are none."""
    return []


def cluster(service: ServicePort) -> Fields:
    """Return the section Cluster: whether cluster clients find members here (commands/cluster)."""
    return [("cluster_enabled", int(is_clustered(service)))]


def keyspace(service: ServicePort) -> Fields:
    """Return the section Keyspace: the databases that have keys."""
    now_ms = int(time.time() * 1000)
    return [
        (
            f"db{database.index}",
            f"keys={database.key_count},expires={database.expiry_count},avg_ttl={average_ttl_ms(database, now_ms)}",
        )
        for database in service.machine.databases
        if database.key_count
    ]


def average_ttl_ms(database: Database, now_ms: int) -> int:
    """Return the mean time that keys with a deadline have left, in ms, from a sample of them."""
    left_ms: list[int] = []
    for deadlines in database.expires:
        if deadlines:
            left_ms += [max(0, deadline_ms - now_ms) for deadline_ms in deadlines.values()]
            if len(left_ms) >= TTL_SAMPLES:
                break
    return sum(left_ms) // len(left_ms) if left_ms else 0


SECTIONS: Final[Mapping[str, Callable[[ServicePort], Fields]]] = {
    "Server": server,
    "Clients": clients,
    "Memory": memory,
    "Persistence": persistence,
    "Stats": stats,
    "Replication": replication,
    "Raft": raft,
    "CPU": cpu,
    "Modules": modules,
    "Commandstats": commandstats,
    "Errorstats": errorstats,
    "Latencystats": latencystats,
    "Cluster": cluster,
    "Keyspace": keyspace,
}
NOT_BY_DEFAULT: Final = frozenset({"commandstats", "latencystats"})


def chosen_sections(words: Iterable[bytes]) -> set[str]:
    """Return the lower-case names of the sections that INFO's arguments mean; unknown words mean none."""
    known = {name.lower() for name in SECTIONS}
    chosen: set[str] = set()
    for word in words:
        match word.lower():
            case b"all" | b"everything":
                chosen |= known
            case b"default":
                chosen |= known - NOT_BY_DEFAULT
            case name:
                chosen |= known & {name.decode("utf-8", "surrogateescape")}
    return chosen


def render(service: ServicePort, words: Iterable[bytes]) -> str:
    """Return INFO's text for some sections."""
    chosen = chosen_sections(words)
    parts: list[str] = []
    for name, fields_of in SECTIONS.items():
        if name.lower() in chosen:
            lines = "".join(f"{field}:{value}\r\n" for field, value in fields_of(service))
            parts.append(f"# {name}\r\n{lines}")
    return "\r\n".join(parts)


def info(call: ServerCall, args: Args) -> Reply:
    """Answer the sections that are named, the usual ones without a name."""
    return Verbatim(render(call.service, args[1:] or [b"default"]).encode("utf-8", "surrogateescape"))


ROWS: Final = [
    server_row("info", info, -1, "loading stale", "dangerous", "1.0.0", "Describes the node.", complexity="O(1)"),
]
