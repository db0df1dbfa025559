"""Commands about the node: snapshots, stopping, its role, and waiting for copies.

SAVE, BGSAVE and BGREWRITEAOF take a snapshot, which is what shortens the log here. REPLICAOF, FAILOVER and SYNC belong
to Redis's replication, which the consensus log replaces: they are refused by name, except for what is true already.
Reference: the Redis command pages of the server group; texts of redis-server 7.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.cluster_shape import followers
from kvservice.commands.containers import container, server_row
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import OK, Pending, Reply, Status
from kvservice.commands.table import Args, Command
from kvservice.errors import RequestError

SHUTDOWN_WORDS: Final = frozenset({b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"})


def save(call: ServerCall, _args: Args) -> Pending:
    """Take a snapshot and answer when it is on disk; other commands go on meanwhile."""
    if call.service.snapshots.in_progress:
        raise RequestError("Background save already in progress")
    return call.service.save()


def bgsave(call: ServerCall, args: Args) -> Reply:
    """Begin a snapshot."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"SCHEDULE"):
        raise RequestError(SYNTAX_ERROR)
    # SCHEDULE waits for a rewrite of the AOF in Redis, never for another save; there is no such rewrite here.
    if call.service.snapshots.in_progress:
        raise RequestError("Background save already in progress")
    call.service.save()
    return Status(b"Background saving started")


def bgrewriteaof(call: ServerCall, _args: Args) -> Reply:
    """Begin a snapshot, after which the log is cut."""
    if call.service.snapshots.in_progress:
        raise RequestError("Background append only file rewriting already in progress")
    call.service.save()
    return Status(b"Background append only file rewriting started")


def lastsave(call: ServerCall, _args: Args) -> Reply:
    """Answer when the newest snapshot was finished, in seconds since the epoch."""
    return call.service.snapshots.last_saved_s


def shutdown(call: ServerCall, args: Args) -> Reply | Pending:
    """Stop the node in order; the connection closes with it. Nothing that was acknowledged is lost, NOSAVE or not."""
    words = [word.upper() for word in args[1:]]
    if not SHUTDOWN_WORDS.issuperset(words) or {b"NOSAVE", b"SAVE"}.issubset(words):
        raise RequestError(SYNTAX_ERROR)
    if b"ABORT" in words:
        if len(words) > 1:
            raise RequestError(SYNTAX_ERROR)
        raise RequestError("No shutdown in progress.")
    call.service.shutdown()
    return Pending()


def role(call: ServerCall, _args: Args) -> Reply:
    """Answer master, as every member takes writes; the offset is the position in the log, the replicas who follows."""
    if call.service.group.is_removed:
        return [b"slave", b"", 0, b"connect", -1]
    replicas: list[Reply] = [
        [endpoint.host.encode(), b"%d" % endpoint.port, b"%d" % peer.match_index]
        for endpoint, peer in followers(call.service.group)
    ]
    return [b"master", call.service.node.applied_index, replicas]


def wait(call: ServerCall, args: Args) -> Reply | Pending:
    """Answer how many other members have the caller's writes, when they are enough or the time is over."""
    wanted = integer(args[1])
    timeout_ms = _timeout_ms(args[2])
    service = call.service
    if len(service.group.members()) == 1:
        return 0
    return service.wait_for_copies(
        call.session,
        args,
        timeout_ms,
        lambda copies, _is_durable: copies,
        lambda reply: isinstance(reply, int) and reply >= wanted,
    )


def waitaof(call: ServerCall, args: Args) -> Reply | Pending:
    """Answer whether the caller's writes are on the leader's disk, and on how many others.

    Writes are answered after their sync with ``fsync = always`` only; with the others nobody can tell here.
    """
    service = call.service
    local = integer(args[1])
    if not 0 <= local <= 1:
        raise RequestError("value is out of range, value must between 0 and 1")
    if integer(args[2]) < 0:
        raise RequestError("value is out of range, must be positive")
    timeout_ms = _timeout_ms(args[3])
    if service.config.fsync != "always":
        return [0, 0]
    if len(service.group.members()) == 1:
        return [1, 0]
    wanted = [local, integer(args[2])]
    return service.wait_for_copies(
        call.session,
        args,
        timeout_ms,
        lambda copies, is_durable: [int(is_durable), copies],
        lambda reply: isinstance(reply, list) and all(got >= want for got, want in zip(reply, wanted, strict=True)),  # type: ignore[operator]
    )


def _timeout_ms(text: bytes) -> int:
    timeout_ms = integer(text, "timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise RequestError("timeout is negative")
    return timeout_ms


def replicaof(_call: ServerCall, args: Args) -> Reply:
    """Accept NO ONE, which is the case already."""
    if [word.upper() for word in args[1:]] == [b"NO", b"ONE"]:
        return OK
    raise RequestError(f"{args[0].decode().upper()} is not supported: nodes copy each other through the consensus log")


def not_supported(_call: ServerCall, args: Args) -> Reply:
    """Refuse a command of Redis's own replication."""
    raise RequestError(f"{args[0].decode().upper()} is not supported: nodes copy each other through the consensus log")


def whoami(call: ServerCall, _args: Args) -> Reply:
    """Answer the user that the connection authenticated as."""
    return call.session.user


def module_list(_call: ServerCall, _args: Args) -> Reply:
    """Answer no modules."""
    return []


def module_refused(_call: ServerCall, _args: Args) -> Reply:
    """Refuse: modules are native code for another server."""
    raise RequestError("modules are not supported")


_SAVING = "admin noscript no_async_loading"


def _row(name: str, run: ServerHandler, arity: int, words: str, since: str, summary: str) -> Command:
    return server_row(name, run, arity, words, "", since, summary)


ROWS: Final = [
    _row("save", save, 1, f"{_SAVING} no_multi", "1.0.0", "Takes a snapshot and waits for it."),
    _row("bgsave", bgsave, -1, _SAVING, "1.0.0", "Takes a snapshot."),
    _row("bgrewriteaof", bgrewriteaof, 1, _SAVING, "1.0.0", "Takes a snapshot, after which the log is cut."),
    server_row(
        "lastsave", lastsave, 1, "loading stale fast", "admin dangerous", "1.0.0", "Returns the time of the last save."
    ),
    _row("shutdown", shutdown, -1, "admin noscript loading stale no_multi allow_busy", "1.0.0", "Stops the node."),
    server_row("role", role, 1, "noscript loading stale fast", "admin dangerous", "2.8.12", "Returns the node's role."),
    server_row("wait", wait, 3, "noscript", "connection", "3.0.0", "Waits for copies of the writes.", group="generic"),
    server_row("waitaof", waitaof, 4, "noscript", "connection", "7.2.0", "Waits for disks.", group="generic"),
    _row("replicaof", replicaof, 3, "admin noscript stale no_async_loading", "5.0.0", "Accepts NO ONE only."),
    _row("slaveof", replicaof, 3, "admin noscript stale no_async_loading", "1.0.0", "Accepts NO ONE only."),
    _row("failover", not_supported, -1, "admin noscript stale", "6.2.0", "Not supported."),
    _row("psync", not_supported, -3, f"{_SAVING} no_multi", "2.8.0", "Not supported."),
    _row("sync", not_supported, 1, f"{_SAVING} no_multi", "1.0.0", "Not supported."),
    container(
        "acl",
        [_row("acl|whoami", whoami, 2, "noscript loading stale", "6.0.0", "Returns the connection's user.")],
        "6.0.0",
        "Commands about users.",
        help_lines="WHOAMI\n    Return the user of this connection.",
    ),
    container(
        "module",
        [
            _row("module|list", module_list, 2, "admin noscript", "4.0.0", "Lists modules: there are none."),
            _row("module|load", module_refused, -3, _SAVING, "4.0.0", "Not supported."),
            _row("module|loadex", module_refused, -3, _SAVING, "7.0.0", "Not supported."),
            _row("module|unload", module_refused, 3, _SAVING, "4.0.0", "Not supported."),
        ],
        "4.0.0",
        "Commands about modules.",
        help_lines="LIST\n    Return the loaded modules: there are none.",
    ),
]  # fmt: skip
