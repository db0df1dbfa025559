"""CONFIG: settings under Redis's names.

Guarantees: CONFIG GET answers every name that Redis 7.2 knows and tools ask for; names that stand for nothing here
    answer what is true of this server (``save`` is empty, ``appendonly`` yes). CONFIG SET changes all or nothing; a
    fixed name accepts the value it has, because tools write back what they read, and refuses any other. What the leader
    decides for all is as fixed while there are several members: set on one, it would change with every leader.
Leaves to the service: acting on fields that changed (``config_changed``).
Reference: the Redis command pages of CONFIG; texts of redis-server 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvservice.commands.containers import container, server_row
from kvservice.commands.glob import matcher
from kvservice.commands.options import SYNTAX_ERROR
from kvservice.commands.ports import ServerCall, ServerHandler, ServicePort
from kvservice.commands.reply import OK, Reply
from kvservice.commands.table import Args, Command
from kvservice.config_redis import REDIS_SETTINGS, ConfigSetError, change_redis_settings, redis_settings
from kvservice.config_values import parse_size
from kvservice.errors import RequestError
from kvservice.keyspace.reaper import waiting_keys

PERCENTILES: Final = "latency-tracking-info-percentiles"

FIXED: Final[Mapping[str, str]] = {
    # Durability: every write is in the log, and snapshots follow the settings of this server, not save points.
    "save": "", "appendonly": "yes", "appendfilename": "wal", "appenddirname": "wal", "dbfilename": "snapshots",
    "no-appendfsync-on-rewrite": "no", "auto-aof-rewrite-percentage": "0", "auto-aof-rewrite-min-size": "0",
    "aof-load-truncated": "yes", "aof-use-rdb-preamble": "yes", "aof-timestamp-enabled": "yes", "rdbcompression": "yes",
    "rdbchecksum": "yes", "stop-writes-on-bgsave-error": "no", "sanitize-dump-payload": "yes",
    # One process, one event loop, ten housekeeping rounds a second.
    "hz": "10", "dynamic-hz": "no", "io-threads": "1", "io-threads-do-reads": "no", "daemonize": "no",
    "supervised": "no", "pidfile": "", "logfile": "", "syslog-enabled": "no", "always-show-logo": "no",
    "set-proc-title": "no", "active-expire-effort": "1", "activerehashing": "no", "activedefrag": "no",
    "jemalloc-bg-thread": "no", "unixsocket": "", "unixsocketperm": "0", "tcp-backlog": "511",
    "socket-mark-id": "0", "bind-source-addr": "", "close-on-oom": "no", "crash-log-enabled": "no",
    # Memory: deletes are in line, except that a flushed database is taken apart in slices.
    "maxmemory-clients": "0", "maxmemory-eviction-tenacity": "10", "lazyfree-lazy-eviction": "no",
    "lazyfree-lazy-expire": "no", "lazyfree-lazy-server-del": "no", "lazyfree-lazy-user-del": "no",
    "lazyfree-lazy-user-flush": "yes", "oom-score-adj": "no",
    # Encodings of types: bounds as Redis 7.2 has them.
    "list-max-listpack-size": "-2", "list-max-ziplist-size": "-2", "list-compress-depth": "0",
    "hash-max-listpack-entries": "128", "hash-max-ziplist-entries": "128", "hash-max-listpack-value": "64",
    "hash-max-ziplist-value": "64", "set-max-intset-entries": "512", "set-max-listpack-entries": "128",
    "set-max-listpack-value": "64", "zset-max-listpack-entries": "128", "zset-max-ziplist-entries": "128",
    "zset-max-listpack-value": "64", "zset-max-ziplist-value": "64", "stream-node-max-bytes": "4096",
    "stream-node-max-entries": "100", "hll-sparse-max-bytes": "3000",
    # What this version does not do: scripts, notifications, tracking, ACL files, modules, TLS.
    "lua-time-limit": "0", "busy-reply-threshold": "0", "notify-keyspace-events": "", "tracking-table-max-keys": "0",
    "aclfile": "", "acllog-max-len": "0", "acl-pubsub-default": "resetchannels", "enable-module-command": "no",
    "enable-protected-configs": "no", "masteruser": "", "masterauth": "", "tls-port": "0", "tls-cluster": "no",
    "tls-replication": "no", "tls-auth-clients": "no",
    # Replication is by the consensus log; Redis's own kind and Redis Cluster are off.
    "replicaof": "", "slaveof": "", "replica-read-only": "yes", "slave-read-only": "yes",
    "replica-serve-stale-data": "no", "slave-serve-stale-data": "no", "replica-priority": "100",
    "slave-priority": "100", "repl-backlog-size": "0", "repl-timeout": "60", "repl-diskless-sync": "no",
    "min-replicas-to-write": "0", "min-slaves-to-write": "0", "min-replicas-max-lag": "0", "min-slaves-max-lag": "0",
    "cluster-enabled": "no", "cluster-node-timeout": "0", "cluster-announce-ip": "", "cluster-announce-port": "0",
}  # fmt: skip
"""Names that cannot change here, with their values."""

WHY: Final[Mapping[str, str]] = {
    "save": "there are no save points: every write is in the log, and snapshots follow snapshot_every_bytes and "
    "snapshot_every_seconds; only an empty value is accepted",
    "appendonly": "every write is in the log; only yes is accepted",
    "notify-keyspace-events": "this version sends no keyspace events; only an empty value is accepted",
}
"""What is said to another value of a fixed name, where Redis's own words would leave a reader in the dark."""

OF_THE_CLUSTER: Final = (
    "the leader decides this for all members, and any of them may lead: change the setting of every node and restart "
    "one after the other"
)
DECIDED_BY_LEADER: Final = {"maxmemory": OF_THE_CLUSTER, "maxmemory-policy": OF_THE_CLUSTER}

HELP: Final = """
GET <pattern> [<pattern> ...]
    Return the settings whose names match, and their values.
SET <name> <value> [<name> <value> ...]
    Change settings while the node runs: all of them or none.
RESETSTAT
    Set the counters of INFO to zero.
REWRITE
    Not in this version: settings come from flags, environment and a TOML file.
"""


def get(call: ServerCall, args: Args) -> Reply:
    """Answer the settings whose names match one of the patterns."""
    values = current_settings(call.service)
    found: dict[Reply, Reply] = {}
    for pattern in args[2:]:
        plain = pattern.lower().decode("utf-8", "surrogateescape")
        if plain in values:
            found[pattern] = _encode(values[plain])  # spelled as the client did, which looks for it like that
            continue
        matches = matcher(pattern.lower())
        found |= {name.encode(): _encode(value) for name, value in values.items() if matches(name.encode())}
    return found


def _encode(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def current_settings(service: ServicePort) -> dict[str, str]:
    """Return every name that CONFIG GET knows, with its value as Redis prints it."""
    percentiles = " ".join(f"{percentile:g}" for percentile in service.stats.percentiles)
    return {**FIXED, PERCENTILES: percentiles, **redis_settings(service.config)}


def set_(call: ServerCall, args: Args) -> Reply:
    """Change settings: all of them or none."""
    if len(args) % 2:
        raise RequestError(SYNTAX_ERROR)
    texts = [arg.decode("utf-8", "surrogateescape") for arg in args[2:]]
    pairs = [(name.lower(), value) for name, value in zip(texts[::2], texts[1::2], strict=True)]
    own: list[tuple[str, str]] = []
    percentiles: tuple[float, ...] | None = None
    seen: set[str] = set()
    for name, value in pairs:
        if name in REDIS_SETTINGS:
            own.append((name, value))
        elif name in seen:
            raise _refusal(name, "duplicate parameter")
        elif name == PERCENTILES:
            percentiles = _read_percentiles(value)
        elif name in FIXED:
            if not _is_same(value, FIXED[name]):
                raise _refusal(name, WHY.get(name, "can't set immutable config"))
        else:
            raise RequestError(f"Unknown option or number of arguments for CONFIG SET - '{name}'")
        seen.add(name)
    try:
        has_others = len(call.service.group.members()) > 1
        changed = change_redis_settings(call.service.config, own, DECIDED_BY_LEADER if has_others else {})
    except ConfigSetError as refused:
        raise RequestError(str(refused)) from refused
    if percentiles is not None:
        call.service.stats.percentiles = percentiles
    if changed:
        call.service.config_changed(changed)
    return OK


def _is_same(value: str, fixed: str) -> bool:
    """Tell whether a value asks for what is the case: yes and no in any letter case, sizes with any unit."""
    if fixed in ("yes", "no"):
        return value.lower() == fixed
    if fixed.isdigit():
        try:
            return parse_size(value) == int(fixed)
        except ValueError:
            return False
    return value == fixed


def _refusal(name: str, reason: str) -> RequestError:
    return RequestError(f"CONFIG SET failed (possibly related to argument '{name}') - {reason}")


def _read_percentiles(text: str) -> tuple[float, ...]:
    try:
        percentiles = tuple(float(word) for word in text.split())
    except ValueError as error:
        raise _refusal(PERCENTILES, f"{PERCENTILES} parameters should be floating point values") from error
    if not all(0 <= percentile <= 100 for percentile in percentiles):
        raise _refusal(PERCENTILES, f"{PERCENTILES} parameters should sit between [0.0,100.0]")
    # Redis has no bound; eight percentiles are more than any dashboard shows.
    return percentiles[:8]


def resetstat(call: ServerCall, _args: Args) -> Reply:
    """Set the counters of INFO to zero."""
    call.service.stats.reset()
    context = call.service.machine.context
    context.hits = 0
    context.misses = 0
    for database in call.service.machine.databases:
        database.flushed_keys = waiting_keys([database])
    return OK


def rewrite(_call: ServerCall, _args: Args) -> Reply:
    """Refuse: there is no file that this server may write."""
    raise RequestError("The server is running without a config file")


_ADMIN = "admin noscript loading stale"
_OF_SETTINGS: Final = "O(N) where N is the number of settings"


def _row(name: str, run: ServerHandler, arity: int, since: str, summary: str, complexity: str = "O(1)") -> Command:
    return server_row(f"config|{name}", run, arity, _ADMIN, "", since, summary, complexity=complexity)


ROWS: Final = [
    container(
        "config",
        [
            _row("get", get, -3, "2.0.0", "Returns settings by name or pattern.", _OF_SETTINGS),
            _row("resetstat", resetstat, 2, "2.0.0", "Sets counters to zero."),
            _row("rewrite", rewrite, 2, "2.8.0", "Is refused: no configuration file is ever written."),
            _row("set", set_, -4, "2.0.0", "Changes settings while the node runs.", _OF_SETTINGS),
        ],
        "2.0.0",
        "Commands about settings.",
        help_lines=HELP,
    )
]
