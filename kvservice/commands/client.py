"""CLIENT: what a connection tells of itself, and what one connection may do to others.

Guarantees: CLIENT LIST has the fields of Redis 7.2 in its order; what this server does not have (subscriptions,
    transactions, tracking) shows the value that Redis shows when it is unused.
Reference: the Redis command pages of CLIENT; texts of redis-server 7.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from kvservice.commands.client_kill import client_type, kill
from kvservice.commands.connection import checked_name, is_printable
from kvservice.commands.containers import container, server_row
from kvservice.commands.options import SYNTAX_ERROR, integer
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import OK, Reply, SetReply, Verbatim
from kvservice.commands.table import Args, Command
from kvservice.errors import RequestError
from kvservice.session import Session

HELP: Final = """
CACHING (YES|NO)
    Not in this version: client-side caching.
GETREDIR
    Return the connection that invalidations go to: always -1.
GETNAME
    Return this connection's name.
ID
    Return this connection's id.
INFO
    Return what CLIENT LIST says of this connection.
KILL <ip:port>
    Close the connection that comes from <ip:port>.
KILL <option> <value> [<option> <value> [...]]
    Close the connections that match every option:
    * ADDR <ip:port>, LADDR <ip:port>: the caller's, the server's address
    * ID <client-id>
    * MAXAGE <seconds>: connected for at least so long
    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)
    * USER <username>
    * SKIPME (YES|NO): whether to spare this connection (default: yes)
LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <client-id> [...]]
    Return one line for each connection.
NO-EVICT (ON|OFF)
    Never close this connection to save memory.
NO-TOUCH (ON|OFF)
    Let this connection's reads not count as uses of a key.
PAUSE <timeout> [WRITE|ALL]
    Hold the commands of all connections, or writes only, for <timeout> milliseconds.
REPLY (ON|OFF|SKIP)
    Choose whether this connection gets replies.
SETINFO (LIB-NAME|LIB-VER) <value>
    Record which client library this connection uses.
SETNAME <name>
    Name this connection.
TRACKING (ON|OFF) [...]
    Not in this version: client-side caching.
TRACKINGINFO
    Return the state of tracking: off.
UNBLOCK <clientid> [TIMEOUT|ERROR]
    End the wait of a blocked connection; answer whether it waited.
UNPAUSE
    Let held commands go.
"""


def describe(session: Session, now_s: float) -> str:
    """Return one line of CLIENT LIST; ``now_s`` is the loop's time."""
    flags = ("e" if session.no_evict else "") + ("T" if session.no_touch else "") + ("b" if session.held else "")
    queued, unsent = session.query_buffer_bytes, session.output_buffer_bytes
    fields: list[tuple[str, object]] = [
        ("id", session.id), ("addr", session.address), ("laddr", session.local_address), ("fd", session.fd),
        ("name", _text(session.name)), ("age", int(now_s - session.created_s)),
        ("idle", max(0, int(now_s - session.last_active_s))), ("flags", flags or "N"), ("db", session.db),
        ("sub", 0), ("psub", 0), ("ssub", 0), ("multi", -1), ("qbuf", queued), ("qbuf-free", 0), ("argv-mem", 0),
        ("multi-mem", 0), ("rbs", 0), ("rbp", 0), ("obl", 0), ("oll", 1 if unsent else 0), ("omem", unsent),
        ("tot-mem", queued + unsent), ("events", "rw" if unsent else "r"), ("cmd", session.last_command or "NULL"),
        ("user", _text(session.user)), ("redir", -1), ("resp", session.protocol),
        ("lib-name", _text(session.lib_name)), ("lib-ver", _text(session.lib_version)),
    ]  # fmt: skip
    return " ".join(f"{name}={value}" for name, value in fields)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _lines(sessions: Iterable[Session]) -> Reply:
    now_s = time.monotonic()
    return Verbatim("".join(f"{describe(session, now_s)}\n" for session in sessions).encode("utf-8", "surrogateescape"))


def list_(call: ServerCall, args: Args) -> Reply:
    """Answer a line for each connection, of one type or with certain ids if asked."""
    sessions = call.service.sessions
    if len(args) == 2:
        return _lines(sessions.values())
    option = args[2].upper()
    if option == b"TYPE" and len(args) == 4:
        kind = client_type(args[3])
        return _lines(session for session in sessions.values() if session.kind == kind)
    if option == b"ID" and len(args) >= 4:
        ids = [integer(text, "Invalid client ID") for text in args[3:]]
        return _lines(sessions[its_id] for its_id in ids if its_id in sessions)
    raise RequestError(SYNTAX_ERROR)


def info(call: ServerCall, _args: Args) -> Reply:
    """Answer this connection's line."""
    return _lines([call.session])


def id_(call: ServerCall, _args: Args) -> Reply:
    """Answer this connection's id; ids only grow while the node runs."""
    return call.session.id


def getname(call: ServerCall, _args: Args) -> Reply:
    """Answer this connection's name, or null."""
    return call.session.name or None


def setname(call: ServerCall, args: Args) -> Reply:
    """Name this connection; an empty name removes it."""
    call.session.name = checked_name(args[2])
    return OK


def setinfo(call: ServerCall, args: Args) -> Reply:
    """Record the library behind this connection."""
    attribute = args[2].upper()
    if attribute not in (b"LIB-NAME", b"LIB-VER"):
        raise RequestError(f"Unrecognized option '{_text(args[2])}'")
    if not is_printable(args[3]):
        raise RequestError(f"{_text(args[2])} cannot contain spaces, newlines or special characters.")
    if attribute == b"LIB-NAME":
        call.session.lib_name = args[3]
    else:
        call.session.lib_version = args[3]
    return OK


def _switch(word: bytes) -> bool:
    if word.upper() not in (b"ON", b"OFF"):
        raise RequestError(SYNTAX_ERROR)
    return word.upper() == b"ON"


def no_evict(call: ServerCall, args: Args) -> Reply:
    """Spare this connection when memory is short, or not."""
    call.session.no_evict = _switch(args[2])
    return OK


def no_touch(call: ServerCall, args: Args) -> Reply:
    """Let this connection's reads not count as uses of a key, or count them again."""
    call.session.no_touch = _switch(args[2])
    return OK


def reply(call: ServerCall, args: Args) -> Reply:
    """Turn replies on or off, or leave out the next one."""
    session, mode = call.session, args[2].upper()
    if mode == b"ON":
        session.reply_mode = "on"
    elif mode == b"OFF":
        session.reply_mode = "off"
    elif mode == b"SKIP":
        # While replies are off there is none to leave out.
        if session.reply_mode != "off":
            session.reply_mode = "skip-next"
    else:
        raise RequestError(SYNTAX_ERROR)
    return OK


def pause(call: ServerCall, args: Args) -> Reply:
    """Hold the commands of all connections for some milliseconds."""
    timeout_ms = integer(args[2], "timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise RequestError("timeout is negative")
    if len(args) > 4:
        raise RequestError(SYNTAX_ERROR)
    mode = args[3].upper() if len(args) == 4 else b"ALL"
    if mode not in (b"WRITE", b"ALL"):
        raise RequestError("CLIENT PAUSE mode must be WRITE or ALL")
    call.service.pause(int(time.time() * 1000) + timeout_ms, mode == b"WRITE")
    return OK


def unpause(call: ServerCall, _args: Args) -> Reply:
    """Let held commands go."""
    call.service.unpause()
    return OK


def unblock(_call: ServerCall, args: Args) -> Reply:
    """Answer 0: no command of this version blocks."""
    integer(args[2])
    if len(args) > 4:
        raise RequestError(SYNTAX_ERROR)
    if len(args) == 4 and args[3].upper() not in (b"TIMEOUT", b"ERROR"):
        raise RequestError("CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    return 0


def tracking(_call: ServerCall, args: Args) -> Reply:
    """Accept OFF; client-side caching is not there to be turned on."""
    if _switch(args[2]):
        raise RequestError("client-side caching (CLIENT TRACKING) is not supported by this version")
    return OK


def caching(_call: ServerCall, _args: Args) -> Reply:
    """Refuse: tracking cannot be on."""
    raise RequestError(
        "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
    )


def getredir(_call: ServerCall, _args: Args) -> Reply:
    """Answer -1: tracking is off."""
    return -1


def trackinginfo(_call: ServerCall, _args: Args) -> Reply:
    """Answer that tracking is off."""
    return {b"flags": SetReply([b"off"]), b"redirect": -1, b"prefixes": []}


_OPEN = "noscript loading stale"
_ADMIN = "admin noscript loading stale"


def _row(name: str, run: ServerHandler, arity: int, words: str, since: str, summary: str) -> Command:
    complexity = "O(N) where N is the number of connections" if name in ("list", "kill") else "O(1)"
    return server_row(
        f"client|{name}", run, arity, words, "connection", since, summary, group="connection", complexity=complexity
    )


ROWS: Final = [
    container(
        "client",
        [
            _row("caching", caching, 3, _OPEN, "6.0.0", "Is refused: there is no client-side caching."),
            _row("getname", getname, 2, _OPEN, "2.6.9", "Returns the connection's name."),
            _row("getredir", getredir, 2, _OPEN, "6.0.0", "Returns -1: there is no client-side caching."),
            _row("id", id_, 2, _OPEN, "5.0.0", "Returns the connection's id."),
            _row("info", info, 2, _OPEN, "6.2.0", "Describes the connection."),
            _row("kill", kill, -3, _ADMIN, "2.4.0", "Closes connections."),
            _row("list", list_, -2, _ADMIN, "2.4.0", "Describes the open connections."),
            _row("no-evict", no_evict, 3, _ADMIN, "7.0.0", "Spares the connection when memory is short."),
            _row("no-touch", no_touch, 3, _OPEN, "7.2.0", "Lets reads not count as uses of a key."),
            _row("pause", pause, -3, _ADMIN, "3.0.0", "Holds commands for a time."),
            _row("reply", reply, 3, _OPEN, "3.2.0", "Chooses whether replies are sent."),
            _row("setinfo", setinfo, 4, _OPEN, "7.2.0", "Records the client library."),
            _row("setname", setname, 3, _OPEN, "2.6.9", "Names the connection."),
            _row("tracking", tracking, -3, _OPEN, "6.0.0", "Takes OFF only: there is no client-side caching."),
            _row("trackinginfo", trackinginfo, 2, _OPEN, "6.2.0", "Says that client-side caching is off."),
            _row("unblock", unblock, -3, _ADMIN, "5.0.0", "Ends the wait of a blocked connection."),
            _row("unpause", unpause, 2, _ADMIN, "6.2.0", "Lets held commands go."),
        ],
        "2.4.0",
        "Commands about connections.",
        help_lines=HELP,
        help_categories="connection",
        group="connection",
    )
]
