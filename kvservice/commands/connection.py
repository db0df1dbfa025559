"""Commands about the connection itself: PING ECHO AUTH HELLO SELECT QUIT RESET.

PING, ECHO and TIME touch nothing, so they run on the data plane and a pipeline streams past them.
Reference: the Redis command pages of the connection group; texts of redis-server 7.
"""

from __future__ import annotations

import hmac
from typing import Final

from kvservice.commands.cluster_shape import is_clustered
from kvservice.commands.containers import server_row
from kvservice.commands.context import Context
from kvservice.commands.options import NOT_AN_INTEGER, SYNTAX_ERROR, integer
from kvservice.commands.ports import ServerCall
from kvservice.commands.reply import OK, PONG, Reply, Status
from kvservice.commands.table import Args, Plane
from kvservice.errors import NoAuthentication, RequestError, UnknownProtocol, WrongPassword
from kvservice.logs import Event, Log
from kvservice.session import Session

log = Log("authentication")

REDIS_VERSION: Final = "7.2.5"
"""The version whose behaviour we follow; clients and libraries decide by it what they may send."""
DEFAULT_USER: Final = b"default"


def ping(_ctx: Context, args: Args) -> Reply:
    """Answer PONG, or the argument."""
    if len(args) > 2:
        raise RequestError("wrong number of arguments for 'ping' command")
    return PONG if len(args) == 1 else args[1]


def echo(_ctx: Context, args: Args) -> Reply:
    """Answer the argument."""
    return args[1]


def time(ctx: Context, _args: Args) -> Reply:
    """Answer seconds since the epoch and microseconds within the second, as precise as the log's stamps: 1 ms."""
    seconds, milliseconds = divmod(ctx.clock.now_ms, 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]


def auth(call: ServerCall, args: Args) -> Reply:
    """Authenticate with a password, or a user name and a password."""
    if len(args) > 3:
        raise RequestError(SYNTAX_ERROR)
    if len(args) == 2 and not call.service.config.requirepass:
        raise RequestError(
            "AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    user, password = (args[1], args[2]) if len(args) == 3 else (DEFAULT_USER, args[1])
    authenticate(call, user, password)
    return OK


def authenticate(call: ServerCall, user: bytes, password: bytes) -> None:
    """Let the session in. Raise WrongPassword."""
    wanted = call.service.config.requirepass.encode("utf-8", "surrogateescape")
    # Compared in constant time; without a password the default user takes any, as in Redis.
    if user != DEFAULT_USER or (wanted and not hmac.compare_digest(password, wanted)):
        log.warning(Event.AUTHENTICATION_FAILED, address=call.session.address)
        raise WrongPassword
    call.session.user = user
    call.session.authenticated = True


def hello(call: ServerCall, args: Args) -> Reply:
    """Choose the protocol version, authenticate and name the connection on the way; answer who serves."""
    session = call.session
    protocol = session.protocol
    if len(args) > 1:
        protocol = integer(args[1], "Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise UnknownProtocol
    login: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    at = 2
    while at < len(args):
        word, more = args[at].upper(), len(args) - at - 1
        if word == b"AUTH" and more >= 2:
            login = (args[at + 1], args[at + 2])
            at += 3
        elif word == b"SETNAME" and more >= 1:
            name = checked_name(args[at + 1])
            at += 2
        else:
            raise RequestError(f"Syntax error in HELLO option '{args[at].decode('utf-8', 'surrogateescape')}'")
    if login is not None:
        authenticate(call, *login)
    if not session.authenticated:
        raise NoAuthentication(
            "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
            "<pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
        )
    if name is not None:
        session.name = name
    session.protocol = protocol
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION.encode(),
        b"proto": protocol,
        b"id": session.id,
        b"mode": b"cluster" if is_clustered(call.service) else b"standalone",
        b"role": b"replica" if call.service.group.is_removed else b"master",
        b"modules": [],
    }


def checked_name(name: bytes) -> bytes:
    """Return a connection's name, which must fit CLIENT LIST's blank-separated lines. Raise RequestError."""
    if not is_printable(name):
        raise RequestError("Client names cannot contain spaces, newlines or special characters.")
    return name


def is_printable(text: bytes) -> bool:
    """Tell whether a text has only the characters from ``!`` to ``~``."""
    return all(33 <= byte <= 126 for byte in text)


def select(call: ServerCall, args: Args) -> Reply:
    """Choose the database of the connection's next commands."""
    number = integer(args[1], NOT_AN_INTEGER)
    if not 0 <= number < len(call.service.machine.databases):
        raise RequestError("DB index is out of range")
    call.session.db = number
    return OK


def quit_(call: ServerCall, _args: Args) -> Reply:
    """Close the connection after the reply."""
    call.ends_session = True
    return OK


def reset(call: ServerCall, _args: Args) -> Reply:
    """Make the connection as new."""
    session = call.session
    forget_settings(session)
    session.authenticated = not call.service.config.requirepass
    return Status(b"RESET")


def forget_settings(session: Session) -> None:
    """Give a session the settings that a new one has."""
    session.db = 0
    session.protocol = 2
    session.name = b""
    session.user = DEFAULT_USER
    session.reply_mode = "on"
    session.no_evict = False
    session.no_touch = False


_AT_ANY_TIME = "noscript loading stale fast no_auth allow_busy"

ROWS: Final = [
    server_row(
        "ping", ping, -1, "fast", "connection", "1.0.0", "Answers PONG, or the text it is given.",
        group="connection", plane=Plane.DATA,
    ),
    server_row(
        "echo", echo, 2, "loading stale fast", "connection", "1.0.0", "Answers the text it is given.",
        group="connection", plane=Plane.DATA,
    ),
    server_row("time", time, 1, "loading stale fast", "", "2.6.0", "Returns the server's time.", plane=Plane.DATA),
    server_row("auth", auth, -2, _AT_ANY_TIME, "connection", "1.0.0", "Authenticates.", group="connection"),
    server_row(
        "hello", hello, -1, _AT_ANY_TIME, "connection", "6.0.0", "Chooses the protocol version and authenticates.",
        group="connection",
    ),
    server_row(
        "select", select, 2, "loading stale fast", "connection", "1.0.0", "Chooses the database.", group="connection"
    ),
    server_row("quit", quit_, -1, _AT_ANY_TIME, "connection", "1.0.0", "Closes the connection.", group="connection"),
    server_row(
        "reset", reset, 1, _AT_ANY_TIME, "connection", "6.2.0", "Makes the connection as new.", group="connection"
    ),
]  # fmt: skip
