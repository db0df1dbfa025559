"""DEBUG: what tests of clients and tools ask for; off unless ``enable_debug_command`` allows it.

Guarantees: DEBUG SLEEP holds the commands of clients and nothing else: probes, metrics and peers are served meanwhile.
Reference: Redis `debug.c`; texts of redis-server 7.
"""

from __future__ import annotations

import ipaddress
import re
import time
from typing import Final

from kvservice.commands.containers import help_reply, server_row
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import OK, Pending, Reply, SetReply, Verbatim
from kvservice.commands.table import Args
from kvservice.errors import RequestError
from kvservice.session import Session

SLEEP_SECONDS_MAX: Final = 3600
"""A longer sleep is a typing error: nothing but a restart would end it."""

_NUMBER: Final = re.compile(rb"\s*\d*\.?\d*")

HELP: Final = """
PROTOCOL <type>
    Return a reply of a type: string, integer, double, null, array, set, map,
    verbatim, true, false.
SET-ACTIVE-EXPIRE <0|1>
    Stop removing expired keys before they are read, or do it again.
SLEEP <seconds>
    Hold the commands of all clients for a time. Decimals allowed.
"""

REFUSED: Final = (
    'DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local '
    "connection, otherwise you need to set this option in the configuration file, and then restart the server."
)


def is_local(session: Session) -> bool:
    """Tell whether a caller is on this machine."""
    host = session.address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def debug(call: ServerCall, args: Args) -> Reply | Pending:
    """Run a subcommand if this caller may."""
    allowed = call.service.config.enable_debug_command
    if allowed == "no" or (allowed == "local" and not is_local(call.session)):
        raise RequestError(REFUSED)
    found = _SUBCOMMANDS.get(args[1].upper())
    if found is None or len(args) != found[1]:
        name = args[1][:128].decode("utf-8", "surrogateescape")
        raise RequestError(f"unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP.")
    return found[0](call, args)


def sleep(call: ServerCall, args: Args) -> Pending:
    """Hold commands for some seconds and then answer OK; what is no number counts as 0, as in Redis."""
    seconds = min(_leading_number(args[2]), SLEEP_SECONDS_MAX)
    pending = Pending()
    if seconds > 0:
        call.service.pause(int((time.time() + seconds) * 1000), writes_only=False)
    call.service.after(seconds, lambda: pending.resolve(OK))
    return pending


def _leading_number(text: bytes) -> float:
    found = _NUMBER.match(text)
    digits = found[0].strip() if found is not None else b""
    return float(digits) if digits.strip(b".") else 0.0


def set_active_expire(call: ServerCall, args: Args) -> Reply:
    """Turn the removal of expired keys that nobody reads off or on."""
    call.service.stats.is_expiring_actively = _leading_number(args[2]) != 0
    return OK


def protocol(_call: ServerCall, args: Args) -> Reply:
    """Answer a reply of a type, for tests of clients."""
    name = args[2].lower()
    if name == b"map":
        return {0: False, 1: True, 2: False}
    if name in _SAMPLES:
        return _SAMPLES[name]
    types = "|".join(sample.decode() for sample in (*_SAMPLES, b"map"))
    raise RequestError(f"Wrong protocol type name. Please use one of the following: {types}")


def _help(_call: ServerCall, _args: Args) -> Reply:
    return help_reply("debug", HELP)


_SAMPLES: Final[dict[bytes, Reply]] = {
    b"string": b"Hello World",
    b"integer": 12345,
    b"double": 3.141,
    b"null": None,
    b"array": [0, 1, 2],
    b"set": SetReply([0, 1, 2]),
    b"verbatim": Verbatim(b"This is a verbatim\nstring"),
    b"true": True,
    b"false": False,
}

_SUBCOMMANDS: Final[dict[bytes, tuple[ServerHandler, int]]] = {
    b"HELP": (_help, 2),
    b"PROTOCOL": (protocol, 3),
    b"SET-ACTIVE-EXPIRE": (set_active_expire, 3),
    b"SLEEP": (sleep, 3),
}

ROWS: Final = [
    server_row("debug", debug, -2, "admin noscript loading stale", "", "1.0.0", "Commands for tests of clients."),
]
