"""DEBUG: what tests of clients and tools ask for; off unless ``enable_debug_command`` allows it.

Guarantees: DEBUG SLEEP holds the commands of clients and nothing else: probes, metrics and peers are served meanwhile.
What is read or written goes the way of any other read or write; DIGEST and RELOAD look at the node that is asked,
DIGEST once it has applied what the leader had committed, unless reads may be stale. The rest is local to the node and
ends with it.
Leaves to the service: walking and reloading the keyspace (kvservice/dataset_walks, kvservice/reload).
Reference: Redis `debug.c`; texts of redis-server 7.
"""

from __future__ import annotations

import ipaddress
import re
import time
from typing import Final

from kvservice.commands.containers import help_reply, server_row
from kvservice.commands.debug_reads import INSPECT, POSITION, VALUE_DIGESTS
from kvservice.commands.options import integer
from kvservice.commands.ports import ServerCall, ServerHandler
from kvservice.commands.reply import OK, ErrorReply, Pending, Reply, SetReply, Status, Verbatim
from kvservice.commands.table import Args
from kvservice.config_values import parse_size
from kvservice.errors import RequestError
from kvservice.keyspace.values import INT64_MAX
from kvservice.session import Session

SLEEP_SECONDS_MAX: Final = 3600
"""A longer sleep is a typing error: nothing but a restart would end it."""

CATCH_UP_SECONDS: Final = 30.0
"""For a follower to apply what the leader had committed when DIGEST came."""
LOOK_SECONDS: Final = 0.002
POPULATE_KEYS: Final = 500
POPULATE_BYTES: Final = 256 * 1024
"""What one entry of the log brings of POPULATE: about a millisecond of work."""
POPULATE_TEXT_BYTES: Final = 127
"""Longer names of keys are cut, as in Redis."""
PACKED_THRESHOLD_MAX: Final = (1 << 32) - (1 << 20)

_NUMBER: Final = re.compile(rb"\s*\d*\.?\d*")

HELP: Final = """
DIGEST
    Return a digest of all keys and values of the node that is asked: the same
    for the same data, zeros without any.
DIGEST-VALUE [<key> ...]
    Return a digest of the value at each key, zeros where there is none.
OBJECT <key>
    Show what a value is inside.
PAUSE-CRON <0|1>
    Stop what the node does by itself ten times a second (expiry, evictions,
    snapshots that are due), or do it again.
POPULATE <count> [<prefix>] [<size>]
    Create <count> keys named key:<number>, or <prefix>:<number>, which have no
    value yet, by the log and so on all nodes. <size> is that of the values.
PROTOCOL <type>
    Return a reply of a type: string, integer, double, null, array, set, map,
    verbatim, true, false.
QUICKLIST-PACKED-THRESHOLD <size>
    Is checked and changes nothing: there are no lists in this version.
RELOAD
    Save a snapshot, load it into a second keyspace, compare every key, and go
    on with the loaded one. Nobody waits meanwhile, and nothing is lost.
SET-ACTIVE-EXPIRE <0|1>
    Stop removing expired keys before they are read, or do it again.
SET-DISABLE-DENY-SCRIPTS <0|1>
    Changes nothing: there are no scripts in this version.
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
    found = SUBCOMMANDS.get(args[1].upper())
    if found is None or not found[1] <= len(args) <= found[2]:
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


def digest(call: ServerCall, _args: Args) -> Pending:
    """Answer the digest of this node's keys, once it has what was committed when the command came."""
    service, pending = call.service, Pending()
    looks_left = int(CATCH_UP_SECONDS / LOOK_SECONDS)

    def look(index: int) -> None:
        nonlocal looks_left
        if service.node.applied_index >= index:
            service.digest().then(pending.resolve)
        elif looks_left:
            looks_left -= 1
            service.after(LOOK_SECONDS, lambda: look(index))
        else:
            late = f"entry {index} is not applied here within {CATCH_UP_SECONDS:g} seconds"
            pending.resolve(ErrorReply(RequestError(late)))

    def told(replies: list[Reply]) -> None:
        if isinstance(replies[0], int):
            look(replies[0])
        else:
            pending.resolve(replies[0])

    service.ask(call.session.db, [[POSITION]], told)
    return pending


def digest_value(call: ServerCall, args: Args) -> Reply | Pending:
    """Answer the digest of the value at each key."""
    if len(args) == 2:
        return []
    pending = Pending()

    def told(replies: list[Reply]) -> None:
        found = replies[0]
        pending.resolve([Status(text) for text in found if isinstance(text, bytes)] if type(found) is list else found)

    call.service.ask(call.session.db, [[VALUE_DIGESTS, *args[2:]]], told)
    return pending


def object_(call: ServerCall, args: Args) -> Pending:
    """Answer what a value is inside, on one line."""
    pending = Pending()

    def told(replies: list[Reply]) -> None:
        line = replies[0]
        if line is None:
            line = ErrorReply(RequestError("no such key"))
        pending.resolve(Status(line) if isinstance(line, bytes) else line)

    call.service.ask(call.session.db, [[INSPECT, args[2]]], told)
    return pending


def reload(call: ServerCall, args: Args) -> Pending:
    """Write the keys to disk, load them, compare, and go on with the loaded ones."""
    for word in args[2:]:
        name = word.upper()
        if name not in (b"MERGE", b"NOFLUSH", b"NOSAVE"):
            raise RequestError("DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.")
        raise RequestError(
            f"DEBUG RELOAD {name.decode()} is not supported: members of a cluster would differ from each other"
        )
    return call.service.reload()


def populate(call: ServerCall, args: Args) -> Pending:
    """Create keys that do not exist, in entries of a bounded size, one after the other."""
    service, session, pending = call.service, call.session, Pending()
    count = _not_negative(args[2])
    prefix = args[3] if len(args) > 3 else b"key"
    value_bytes = _not_negative(args[4]) if len(args) > 4 else 0
    if value_bytes > service.config.value_bytes_max:
        limit = service.config.value_bytes_max
        raise RequestError(f"value is {value_bytes} bytes long, allowed are 0..{limit} (value-bytes-max)")
    step = min(POPULATE_KEYS, max(1, POPULATE_BYTES // max(value_bytes, 1)))
    done = 0

    def go_on(replies: list[Reply]) -> None:
        nonlocal done
        failed = next((reply for reply in replies if isinstance(reply, ErrorReply)), None)
        if failed is not None or done >= count or session.is_closed:
            pending.resolve(OK if failed is None else failed)
            return
        numbers = range(done, min(done + step, count))
        done = numbers.stop
        service.ask(session.db, [_creation(prefix, number, value_bytes) for number in numbers], go_on)

    go_on([])
    return pending


def _creation(prefix: bytes, number: int, value_bytes: int) -> Args:
    value = b"value:%d" % number
    if value_bytes:
        value = value[:value_bytes].ljust(value_bytes, b"\0")
    return [b"SET", (b"%b:%d" % (prefix, number))[:POPULATE_TEXT_BYTES], value, b"NX"]


def _not_negative(text: bytes) -> int:
    refusal = "value is out of range, must be positive"
    number = integer(text, refusal)
    if not 0 <= number <= INT64_MAX:
        raise RequestError(refusal)
    return number


def pause_cron(call: ServerCall, args: Args) -> Reply:
    """Stop what the node does by itself ten times a second, or do it again."""
    call.service.stats.is_cron_paused = _leading_number(args[2]) != 0
    return OK


def packed_threshold(_call: ServerCall, args: Args) -> Reply:
    """Check a size; there is no list that it could matter to."""
    try:
        size = parse_size(args[2].decode("utf-8", "replace"))
    except ValueError:
        size = -1
    if not 0 <= size <= PACKED_THRESHOLD_MAX:
        raise RequestError("argument must be a memory value bigger than 1 and smaller than 4gb")
    return OK


def accepted(_call: ServerCall, _args: Args) -> Reply:
    """Accept what concerns nothing that this version has."""
    return OK


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

SUBCOMMANDS: Final[dict[bytes, tuple[ServerHandler, int, int]]] = {
    b"DIGEST": (digest, 2, 2),
    b"DIGEST-VALUE": (digest_value, 2, 1 << 31),
    b"HELP": (_help, 2, 2),
    b"OBJECT": (object_, 3, 3),
    b"PAUSE-CRON": (pause_cron, 3, 3),
    b"POPULATE": (populate, 3, 5),
    b"PROTOCOL": (protocol, 3, 3),
    b"QUICKLIST-PACKED-THRESHOLD": (packed_threshold, 3, 3),
    b"RELOAD": (reload, 2, 1 << 31),
    b"SET-ACTIVE-EXPIRE": (set_active_expire, 3, 3),
    b"SET-DISABLE-DENY-SCRIPTS": (accepted, 3, 3),
    b"SLEEP": (sleep, 3, 3),
}
"""Function, and the least and largest number of words."""

ROWS: Final = [
    server_row("debug", debug, -2, "admin noscript loading stale", "", "1.0.0", "Commands for tests of clients."),
]
