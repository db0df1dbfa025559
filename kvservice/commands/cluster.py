"""CLUSTER and its companions: where cluster clients find the members.

A node alone answers as a server that is not in cluster mode, so that clients talk to it as to one Redis, with all its
databases. With other members, cluster clients are told of one shard with all slots: its master is the leader, and they
follow it after a failover. No node ever answers MOVED: a command may be sent to any, also for keys of several slots.
Whether others are there each node says by what it hears itself. Without a known leader a node shows itself as the
master: as in Redis, that says where to send commands of a slot, and CLUSTER INFO that the slot is not served.

Reference: the Redis command pages of CLUSTER; texts of redis-server 7.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.cluster_reads import COUNT_IN_SLOT, KEYS_IN_SLOT
from kvservice.commands.cluster_shape import Shape, endpoint_of, is_clustered, node_id, shape_of, shard_id
from kvservice.commands.containers import container, server_row
from kvservice.commands.options import integer
from kvservice.commands.ports import MemberView, ServerCall, ServerHandler, ServicePort, Sighting
from kvservice.commands.reply import OK, Pending, Reply, Verbatim
from kvservice.commands.table import Args, Command
from kvservice.errors import RequestError
from kvservice.keyspace.slots import SLOTS, slot_of

DISABLED: Final = "This instance has cluster support disabled"
UNCHANGEABLE: Final = "members are changed with `redan ctl`, and slots are not split"
_REASONS: Final = {
    "COUNT-FAILURE-REPORTS": "nodes report no failures to each other, CLUSTER NODES says who is connected",
    "LINKS": "links between nodes are not listed, CLUSTER NODES says who is connected",
}
"""Why a subcommand is refused that would change nothing."""


def _shape(service: ServicePort) -> Shape:
    if not is_clustered(service):
        raise RequestError(DISABLED)
    return shape_of(service)


def info(call: ServerCall, _args: Args) -> Reply:
    """Answer whether all slots are served, which a leader decides, and how many members there are."""
    service = call.service
    _shape(service)
    node = service.node
    is_served = node.leader_id is not None
    # Not since CONFIG RESETSTAT: Redis counts these from the start.
    traffic = service.stats.peer_traffic()
    fields = {
        "cluster_state": "ok" if is_served else "fail",
        "cluster_slots_assigned": SLOTS,
        "cluster_slots_ok": SLOTS if is_served else 0,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0 if is_served else SLOTS,
        "cluster_known_nodes": len(service.group.members()),
        "cluster_size": 1,
        "cluster_current_epoch": node.term,
        "cluster_my_epoch": node.term,
        "cluster_stats_messages_sent": traffic.sent_messages,
        "cluster_stats_messages_received": traffic.received_messages,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return Verbatim("".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode())


def nodes(call: ServerCall, _args: Args) -> Reply:
    """Answer a line for each member, in the form of Redis's nodes.conf."""
    service = call.service
    shape = _shape(service)
    return Verbatim(
        "".join(_line(service, shape, member) + "\n" for member in [shape.master, *shape.replicas]).encode()
    )


def replicas(call: ServerCall, args: Args) -> Reply:
    """Answer a line for each replica of a master."""
    service = call.service
    shape = _shape(service)
    ids = {node_id(service.group, member.name) for member in (shape.master, *shape.replicas)}
    wanted = args[2].decode("utf-8", "replace")
    if wanted not in ids:
        raise RequestError(f"Unknown node {wanted}")
    if wanted != node_id(service.group, shape.master.name):
        raise RequestError("The specified node is not a master")
    return [_line(service, shape, member).encode() for member in shape.replicas]


def _line(service: ServicePort, shape: Shape, member: MemberView) -> str:
    group, is_master = service.group, member is shape.master
    resp, peer = endpoint_of(member.resp_address), endpoint_of(member.peer_address)
    flags = ["myself"] if member.name == service.config.name else []
    flags.append("master" if is_master else "slave")
    if not resp.port:
        flags.append("noaddr")
    master_id = "-" if is_master else node_id(group, shape.master.name)
    link = "connected" if _is_connected(service, member) else "disconnected"
    slots = f" 0-{SLOTS - 1}" if is_master else ""
    return (
        f"{node_id(group, member.name)} {resp.host}:{resp.port}@{peer.port} {','.join(flags)} {master_id} 0 0 "
        f"{service.node.term} {link}{slots}"
    )


def _is_connected(service: ServicePort, member: MemberView) -> bool:
    """Tell whether a member is there, as far as this node knows, and clients can reach it."""
    return endpoint_of(member.resp_address).port > 0 and _sighting(service, member).is_heard


def _sighting(service: ServicePort, member: MemberView) -> Sighting:
    if member.name == service.config.name:
        return Sighting(True, service.node.applied_index)
    return service.group.sighting(member.name)


def slots(call: ServerCall, _args: Args) -> Reply:
    """Answer one range with all slots: master first, then the replicas that can be reached."""
    service = call.service
    shape = _shape(service)
    members: list[Reply] = []
    for member in (shape.master, *shape.replicas):
        host, port = endpoint_of(member.resp_address)
        if member is shape.master or _is_connected(service, member):
            members.append([host.encode(), port, node_id(service.group, member.name).encode(), []])
    return [[0, SLOTS - 1, *members]]


def shards(call: ServerCall, _args: Args) -> Reply:
    """Answer the one shard: its slots and its members.

    The offset of another member is what this node knows that it has: exactly on the leader; on others what the leader
    has said that it committed, and what the rest say of themselves once a second; 0 if nothing is known.
    """
    service = call.service
    shape = _shape(service)
    members: list[Reply] = []
    for member in (shape.master, *shape.replicas):
        host, port = endpoint_of(member.resp_address)
        members.append(
            {
                b"id": node_id(service.group, member.name).encode(),
                b"port": port,
                b"ip": host.encode(),
                b"endpoint": host.encode(),
                b"role": b"master" if member is shape.master else b"replica",
                b"replication-offset": _sighting(service, member).index,
                b"health": b"online" if _is_connected(service, member) else b"failed",
            }
        )
    return [{b"slots": [0, SLOTS - 1], b"nodes": members}]


def myid(call: ServerCall, _args: Args) -> Reply:
    """Answer the id of this node."""
    _shape(call.service)
    return node_id(call.service.group, call.service.config.name).encode()


def myshardid(call: ServerCall, _args: Args) -> Reply:
    """Answer the id of the shard."""
    _shape(call.service)
    return shard_id(call.service.group).encode()


def accepted(call: ServerCall, _args: Args) -> Reply:
    """Answer OK: every node reads and writes, so that nothing is to be turned on."""
    _shape(call.service)
    return OK


def refused(call: ServerCall, args: Args) -> Reply:
    """Refuse to change what only the members' log can change, and to tell what is not there."""
    _shape(call.service)
    name = args[1].decode("utf-8", "surrogateescape").upper()
    raise RequestError(f"CLUSTER {name} is not supported: {_REASONS.get(name, UNCHANGEABLE)}")


def keyslot(_call: ServerCall, args: Args) -> Reply:
    """Answer the hash slot of a key."""
    return slot_of(args[2])


def count_keys_in_slot(call: ServerCall, args: Args) -> Pending:
    """Answer how many keys of the database a slot has."""
    _shape(call.service)
    slot = integer(args[2])
    if not 0 <= slot < SLOTS:
        raise RequestError("Invalid slot")
    return _asked(call, [COUNT_IN_SLOT, b"%d" % slot])


def get_keys_in_slot(call: ServerCall, args: Args) -> Pending:
    """Answer keys of the database that a slot has, at most so many."""
    _shape(call.service)
    slot, count = integer(args[2]), integer(args[3])
    if not 0 <= slot < SLOTS or count < 0:
        raise RequestError("Invalid slot or number of keys")
    return _asked(call, [KEYS_IN_SLOT, b"%d" % slot, b"%d" % count])


def _asked(call: ServerCall, command: Args) -> Pending:
    """Answer what the data plane does, wherever this read has to run."""
    pending = Pending()
    call.service.ask(call.session.db, [command], lambda replies: pending.resolve(replies[0]))
    return pending


_ADMIN: Final = "admin stale"
_CHANGE: Final = "admin stale no_async_loading"
_REFUSED: Final = (
    ("addslots", -3, _CHANGE), ("addslotsrange", -4, _CHANGE), ("bumpepoch", 2, _CHANGE),
    ("count-failure-reports", 3, _ADMIN), ("delslots", -3, _CHANGE), ("delslotsrange", -4, _CHANGE),
    ("failover", -2, _CHANGE), ("flushslots", 2, _CHANGE), ("forget", 3, _CHANGE), ("links", 2, "stale"),
    ("meet", -4, _CHANGE), ("replicate", 3, _CHANGE), ("reset", -2, "admin noscript stale"),
    ("saveconfig", 2, _CHANGE), ("set-config-epoch", 3, _CHANGE), ("setslot", -4, _CHANGE),
)  # fmt: skip

_COMPANIONS: Final = (("asking", "fast"), ("readonly", "loading stale fast"), ("readwrite", "loading stale fast"))

_OF_MEMBERS: Final = "O(N) where N is the number of members"


def _row(
    name: str, run: ServerHandler, arity: int, words: str, since: str, summary: str, complexity: str = _OF_MEMBERS
) -> Command:
    return server_row(f"cluster|{name}", run, arity, words, "", since, summary, group="cluster", complexity=complexity)


ROWS: Final = [
    container(
        "cluster",
        [
            _row("info", info, 2, "stale", "3.0.0", "Tells whether all slots are served."),
            _row("nodes", nodes, 2, "stale", "3.0.0", "Lists the members, as Redis keeps them in a file."),
            _row("replicas", replicas, 3, _ADMIN, "5.0.0", "Lists the replicas of a master."),
            _row("slaves", replicas, 3, _ADMIN, "3.0.0", "Lists the replicas of a master."),
            _row("slots", slots, 2, "stale", "3.0.0", "Tells who serves the slots: one shard has all."),
            _row("shards", shards, 2, "stale", "7.0.0", "Describes the one shard."),
            _row("myid", myid, 2, "stale", "3.0.0", "Returns the id of the node.", "O(1)"),
            _row("myshardid", myshardid, 2, "stale", "7.2.0", "Returns the id of the shard.", "O(1)"),
            _row(
                "countkeysinslot", count_keys_in_slot, 3, "stale", "3.0.0", "Counts the keys of a slot.",
                "O(N) where N is the number of keys in the slot that have a deadline",
            ),
            _row(
                "getkeysinslot", get_keys_in_slot, 4, "stale", "3.0.0", "Lists keys of a slot.",
                "O(N) where N is the number of keys asked for",
            ),
            *(_row(name, refused, arity, words, "3.0.0", "Is refused.", "O(1)") for name, arity, words in _REFUSED),
            _row(
                "keyslot", keyslot, 3, "stale", "3.0.0", "Returns the slot of a key.",
                "O(N) where N is the number of bytes in the key",
            ),
        ],
        "3.0.0",
        "Commands about the members, as Redis Cluster has them.",
        help_lines="COUNTKEYSINSLOT <slot>\n    Return the number of keys in <slot>.\n"
        "GETKEYSINSLOT <slot> <count>\n    Return at most <count> keys of <slot>.\n"
        "INFO\n    Return whether all slots are served, and by how many members.\n"
        "KEYSLOT <key>\n    Return the hash slot of <key>.\n"
        "MYID\n    Return the id of the node.\n"
        "MYSHARDID\n    Return the id of the shard.\n"
        "NODES\n    Return a line for each member.\n"
        "REPLICAS <node-id>\n    Return a line for each replica of a master.\n"
        "SHARDS\n    Return the one shard and its members.\n"
        "SLOTS\n    Return who serves the slots.",
        group="cluster",
    ),
    *(
        server_row(
            name, accepted, 1, words, "connection", "3.0.0", "Is accepted, and changes nothing.", group="cluster"
        )
        for name, words in _COMPANIONS
    ),
]  # fmt: skip
