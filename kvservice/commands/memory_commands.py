"""MEMORY: where memory goes.

Figures are of this node: the accounting that ``maxmemory`` acts upon, and the process as the kernel sees it.
Reference: the Redis command pages of MEMORY; texts of redis-server 7.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Final

from kvservice.commands.containers import container, server_row
from kvservice.commands.info_storage import dataset_bytes, human_size, resident_bytes
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.ports import ServerCall, ServerHandler, ServicePort
from kvservice.commands.reply import OK, Reply, Verbatim
from kvservice.commands.table import NO_KEYS, Args, Command, KeySpec
from kvservice.errors import RequestError
from kvservice.keyspace.database import EMPTY_SLOT, Database
from kvservice.keyspace.slots import slot_of
from kvservice.keyspace.values import DEADLINE_BYTES, cost_of, key_cost

SMALL_BYTES: Final = 5 * 1024 * 1024
"""Below this the interpreter outweighs the data and ratios say nothing; Redis uses the same bound."""

HELP: Final = """
DOCTOR
    Return a report of memory problems.
MALLOC-STATS
    Return what the allocator tells of itself.
PURGE
    Collect garbage, so that freed memory can be used again.
STATS
    Return where memory goes.
USAGE <key> [SAMPLES <count>]
    Return the memory in bytes of <key> and its value, or null.
"""


def usage(call: ServerCall, args: Args) -> Reply:
    """Answer the memory of a key and its value in bytes, the share of the slot's dict included, or null."""
    for at in range(3, len(args), 2):
        if args[at].upper() != b"SAMPLES" or at + 1 == len(args):
            raise RequestError(SYNTAX_ERROR)
        if integer(args[at + 1]) < 0:
            raise RequestError(SYNTAX_ERROR)
    database = call.service.machine.databases[call.session.db]
    return key_bytes(database, args[2], int(time.time() * 1000))


def key_bytes(database: Database, key: bytes, now_ms: int) -> int | None:
    """Return the memory that a key takes in bytes; None if it does not exist or its deadline has passed."""
    slot = slot_of(key)
    values = database.values[slot]
    value = values.get(key)
    deadlines = database.expires[slot]
    deadline_ms = deadlines.get(key) if deadlines else None
    if value is None or (deadline_ms is not None and deadline_ms <= now_ms):
        return None
    share = sys.getsizeof(values) // len(values)
    return key_cost(key) + cost_of(value) + share + (DEADLINE_BYTES if deadline_ms is not None else 0)


def stats(call: ServerCall, _args: Args) -> Reply:
    """Answer where memory goes."""
    service = call.service
    used, rss = service.machine.memory.used_bytes, resident_bytes()
    peak = max(used, service.stats.peak_memory_bytes)
    dataset = min(used, dataset_bytes(service))
    keys = sum(database.key_count for database in service.machine.databases)
    clients = sum(session.query_buffer_bytes + session.output_buffer_bytes for session in service.sessions.values())
    fields: dict[Reply, Reply] = {
        b"peak.allocated": peak,
        b"total.allocated": used,
        b"startup.allocated": 0,
        b"replication.backlog": 0,
        b"clients.slaves": 0,
        b"clients.normal": clients,
        b"cluster.links": 0,
        b"aof.buffer": 0,
        b"lua.caches": 0,
        b"functions.caches": 0,
    }
    for database in service.machine.databases:
        if database.key_count:
            fields[b"db.%d" % database.index] = _database_overhead(database)
    return fields | {
        b"overhead.total": used - dataset,
        b"keys.count": keys,
        b"keys.bytes-per-key": used // keys if keys else 0,
        b"dataset.bytes": dataset,
        b"dataset.percentage": 100 * dataset / used if used else 0.0,
        b"peak.percentage": 100 * used / peak if peak else 0.0,
        b"allocator.allocated": used,
        b"allocator.active": rss,
        b"allocator.resident": rss,
        b"allocator-fragmentation.ratio": rss / used if used else 0.0,
        b"allocator-fragmentation.bytes": max(0, rss - used),
        b"allocator-rss.ratio": 1.0,
        b"allocator-rss.bytes": 0,
        b"rss-overhead.ratio": 1.0,
        b"rss-overhead.bytes": 0,
        b"fragmentation": rss / used if used else 0.0,
        b"fragmentation.bytes": max(0, rss - used),
    }


def _database_overhead(database: Database) -> Reply:
    return {
        b"overhead.hashtable.main": sum(sys.getsizeof(keys) for keys in database.values if keys is not EMPTY_SLOT),
        b"overhead.hashtable.expires": sum(sys.getsizeof(deadlines) for deadlines in database.expires if deadlines),
        b"overhead.hashtable.slot-to-keys": 0,
    }


def doctor(call: ServerCall, _args: Args) -> Reply:
    """Answer a report in words."""
    return Verbatim(report(call.service, resident_bytes()).encode())


def report(service: ServicePort, rss_bytes: int) -> str:
    """Return what is wrong with memory, or that nothing is."""
    used, limit = service.machine.memory.used_bytes, service.config.maxmemory
    if used < SMALL_BYTES:
        return "The keyspace is nearly empty, so there is nothing to judge yet.\n"
    findings: list[str] = []
    if limit and used > limit * 9 // 10:
        policy = service.config.maxmemory_policy
        follows = "writes are refused" if policy == "noeviction" else f"keys give way ({policy})"
        findings.append(f"The keyspace has {human_size(used)} of maxmemory {human_size(limit)}; beyond it {follows}.")
    peak = service.stats.peak_memory_bytes
    if peak > used * 3 // 2:
        findings.append(
            f"The keyspace once had {human_size(peak)} and has {human_size(used)} now: the process may keep the rest."
        )
    if rss_bytes > used * 2 + 128 * 1024 * 1024:
        findings.append(
            f"The process has {human_size(rss_bytes)} for {human_size(used)} of keys and values: freed memory is "
            "scattered, or many connections hold buffers. A restart gives it back."
        )
    if not findings:
        return "Memory is in order: no problem was found.\n"
    return "".join(f"* {finding}\n" for finding in findings)


def purge(_call: ServerCall, _args: Args) -> Reply:
    """Collect the young garbage; a full collection would stop the node for as long as it has many keys."""
    gc.collect(0)
    return OK


def malloc_stats(_call: ServerCall, _args: Args) -> Reply:
    """Answer what the allocator tells of itself."""
    blocks = sys.getallocatedblocks()
    return Verbatim(f"pymalloc: {blocks} blocks allocated, process {human_size(resident_bytes())}\n".encode())


def _row(name: str, run: ServerHandler, arity: int, words: str, summary: str, keys: KeySpec = NO_KEYS) -> Command:
    return server_row(f"memory|{name}", run, arity, words, "", "4.0.0", summary, keys=keys)


ROWS: Final = [
    container(
        "memory",
        [
            _row("doctor", doctor, 2, "", "Reports memory problems, in words."),
            _row("malloc-stats", malloc_stats, 2, "", "Returns what the allocator tells of itself."),
            _row("purge", purge, 2, "", "Collects garbage."),
            _row("stats", stats, 2, "", "Returns where memory goes."),
            _row("usage", usage, -3, "readonly", "Returns the memory of a key.", KeySpec(2, 2)),
        ],
        "4.0.0",
        "Commands about memory.",
        help_lines=HELP,
    )
]
