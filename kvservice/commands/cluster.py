"""CLUSTER and its companions: Redis Cluster's partitioning, which this version does not have.

Clients ask CLUSTER INFO, SLOTS or NODES to learn whether they must route by slot; the answer is Redis's own of a server
that is not in cluster mode, so they talk to it as to one server. KEYSLOT needs no cluster and is answered.
Reference: the Redis command pages of CLUSTER; texts of redis-server 7.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.containers import container, server_row
from kvservice.commands.ports import ServerCall
from kvservice.commands.reply import Reply
from kvservice.commands.table import Args, Command
from kvservice.errors import RequestError
from kvservice.keyspace.slots import slot_of


def disabled(_call: ServerCall, _args: Args) -> Reply:
    """Refuse: this server is not in cluster mode."""
    raise RequestError("This instance has cluster support disabled")


def keyslot(_call: ServerCall, args: Args) -> Reply:
    """Answer the hash slot of a key."""
    return slot_of(args[2])


_ADMIN = "admin stale"
_CHANGE = "admin stale no_async_loading"
_REFUSED: Final = (
    ("addslots", -3, _CHANGE), ("addslotsrange", -4, _CHANGE), ("bumpepoch", 2, _CHANGE),
    ("count-failure-reports", 3, _ADMIN), ("countkeysinslot", 3, "stale"), ("delslots", -3, _CHANGE),
    ("delslotsrange", -4, _CHANGE), ("failover", -2, _CHANGE), ("flushslots", 2, _CHANGE), ("forget", 3, _CHANGE),
    ("getkeysinslot", 4, "stale"), ("info", 2, "stale"), ("links", 2, "stale"), ("meet", -4, _CHANGE),
    ("myid", 2, "stale"), ("myshardid", 2, "stale"), ("nodes", 2, "stale"), ("replicas", 3, _ADMIN),
    ("replicate", 3, _CHANGE), ("reset", -2, "admin noscript stale"), ("saveconfig", 2, _CHANGE),
    ("set-config-epoch", 3, _CHANGE), ("setslot", -4, _CHANGE), ("shards", 2, "stale"), ("slaves", 3, _ADMIN),
    ("slots", 2, "stale"),
)  # fmt: skip

_COMPANIONS: Final = (("asking", "fast"), ("readonly", "loading stale fast"), ("readwrite", "loading stale fast"))


def _row(name: str, arity: int, words: str) -> Command:
    return server_row(f"cluster|{name}", disabled, arity, words, "", "3.0.0", "Not in this version.", group="cluster")


ROWS: Final = [
    container(
        "cluster",
        [
            *(_row(name, arity, words) for name, arity, words in _REFUSED),
            server_row(
                "cluster|keyslot", keyslot, 3, "stale", "", "3.0.0", "Returns the slot of a key.",
                group="cluster", complexity="O(N) where N is the number of bytes in the key",
            ),
        ],
        "3.0.0",
        "Commands about Redis Cluster.",
        help_lines="KEYSLOT <key>\n    Return the hash slot of <key>.",
        group="cluster",
    ),
    *(
        server_row(name, disabled, 1, words, "connection", "3.0.0", "Not in this version.", group="cluster")
        for name, words in _COMPANIONS
    ),
]  # fmt: skip
