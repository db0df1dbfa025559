"""Command tips: what COMMAND INFO tells a cluster client of how to send a command and how to put replies together.

Reference: Redis, "Command tips"; tips of redis-server 7.0, and of 7.2 for what came with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NAMES: Final = {
    "request_policy:multi_shard": "mget",
    "request_policy:multi_shard response_policy:all_succeeded": "mset",
    "request_policy:multi_shard response_policy:agg_min": "msetnx",
    "request_policy:multi_shard response_policy:agg_sum": "del unlink exists touch",
    "request_policy:all_shards nondeterministic_output": "randomkey",
    "request_policy:all_shards nondeterministic_output_order": "keys",
    "request_policy:all_shards response_policy:agg_sum": "dbsize",
    "request_policy:all_shards response_policy:all_succeeded": "flushdb flushall ping memory|purge",
    "request_policy:all_shards response_policy:agg_min": "wait waitaof",
    "request_policy:all_nodes response_policy:all_succeeded": "config|set slowlog|reset latency|reset client|setinfo",
    "request_policy:all_nodes nondeterministic_output": "slowlog|get",
    "request_policy:all_nodes response_policy:agg_sum nondeterministic_output": "slowlog|len",
    "nondeterministic_output": (
        "ttl pttl dump object|encoding object|freq object|idletime object|refcount time client|info client|list "
        "lastsave cluster|info cluster|nodes cluster|replicas cluster|slaves cluster|slots cluster|shards "
        "cluster|bumpepoch cluster|count-failure-reports cluster|getkeysinslot cluster|links cluster|myshardid"
    ),
    "nondeterministic_output request_policy:special": "scan",
    "nondeterministic_output request_policy:all_shards response_policy:special": (
        "info memory|doctor memory|malloc-stats memory|stats"
    ),
    "nondeterministic_output request_policy:all_nodes response_policy:special": (
        "latency|doctor latency|graph latency|histogram latency|history latency|latest"
    ),
    "nondeterministic_output_order": "command command|docs command|info command|list module|list",
}

TIPS: Final[Mapping[str, tuple[bytes, ...]]] = {
    name: tuple(tip.encode() for tip in tips.split()) for tips, names in _NAMES.items() for name in names.split()
}
"""Tips by the name of the command; without an entry it has none."""
