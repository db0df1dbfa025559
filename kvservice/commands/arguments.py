"""What the arguments of each command are, as COMMAND DOCS tells clients that complete and check command lines.

Layout: a line for each command (TEXT): its name, then its arguments in order, in the notation

    word            a string that Redis calls so; ``word:integer``, ``:double``, ``:pattern``, ``:unix-time`` are others
    key:0           a key, and which of the command's key specifications it belongs to
    WORD            a word to be written as it is; ``WORD=name:token`` if Redis does not call it by itself
    WORD=argument   the word in front of the argument
    name<a | b>     one of several; ``name(a b)``: all of them, one after the other
    [argument]      may be left out
    argument+       as often as one likes; ``argument++``: with the word in front each time
    argument@7.0.0  since this version of Redis; ``~7.0.0``: not to be used since then

Guarantees: COMMAND DOCS has the fields of Redis 7.2, with the names, types and order of 7.0.
Leaves to the caller: the rest of a command's documentation, which its row in the table has.
Reference: the Redis command pages, "Command arguments".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from kvservice.commands.key_access import statuses
from kvservice.commands.reply import Reply

TEXT: Final = """
append key:0 value
auth [username@6.0.0] password
bgsave [SCHEDULE@3.2.2]
bitcount key:0 [index(start:integer end:integer [index_unit<BYTE | BIT>@7.0.0])]
bitfield key:0 [operation<GET=encoding_offset(encoding offset:integer) | write([OVERFLOW=wrap_sat_fail<WRAP | SAT |
    FAIL>] write_operation<SET=encoding_offset_value(encoding offset:integer value:integer) |
    INCRBY=encoding_offset_increment(encoding offset:integer increment:integer)>)>+]
bitfield_ro key:0 [GET=encoding_offset(encoding offset:integer)++]
bitop operation destkey:0 key:1+
bitpos key:0 bit:integer [index(start:integer [end_index(end:integer [index_unit<BYTE | BIT>@7.0.0])])]
client|caching mode<YES | NO>
client|kill filter<ip:port~2.8.12 | new-format<[ID=client-id:integer@2.8.12] |
    [TYPE=normal_master_slave_pubsub<NORMAL | MASTER@3.2.0 | SLAVE | REPLICA@5.0.0 | PUBSUB>@2.8.12] |
    [USER=username] | [ADDR=ip:port] | [LADDR=ip:port@6.2.0] | [SKIPME=yes/no] | [MAXAGE=maxage:integer]>+>
client|list [TYPE=normal_master_replica_pubsub<NORMAL | MASTER | REPLICA | PUBSUB>@5.0.0]
    [ID=id(client-id:integer+)@6.2.0]
client|no-evict enabled<ON | OFF>
client|no-touch enabled<ON | OFF>
client|pause timeout:integer [mode<WRITE | ALL>@6.2.0]
client|reply on_off_skip<ON | OFF | SKIP>
client|setinfo attr<LIB-NAME=libname | LIB-VER=libver>
client|setname connection-name
client|tracking status<ON | OFF> [REDIRECT=client-id:integer] [PREFIX=prefix++] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]
client|unblock client-id:integer [timeout_error<TIMEOUT | ERROR>]
cluster|addslots slot:integer+
cluster|addslotsrange start-slot_end-slot(start-slot:integer end-slot:integer)+
cluster|count-failure-reports node-id
cluster|countkeysinslot slot:integer
cluster|delslots slot:integer+
cluster|delslotsrange start-slot_end-slot(start-slot:integer end-slot:integer)+
cluster|failover [options<FORCE | TAKEOVER>]
cluster|forget node-id
cluster|getkeysinslot slot:integer count:integer
cluster|keyslot key
cluster|meet ip port:integer [cluster_bus_port:integer@4.0.0]
cluster|replicas node-id
cluster|replicate node-id
cluster|reset [hard_soft<HARD | SOFT>]
cluster|set-config-epoch config-epoch:integer
cluster|setslot slot:integer subcommand<IMPORTING=node-id | MIGRATING=node-id | NODE=node-id | STABLE>
cluster|slaves node-id
command|docs [command-name+]
command|getkeys command [arg+]
command|getkeysandflags command [arg+]
command|info [command-name+]
command|list [FILTERBY=filterby<MODULE=module-name | ACLCAT=category | PATTERN=pattern:pattern>]
config|get parameter(parameter)+
config|set parameter_value(parameter value)+
copy source:0 destination:1 [DB=destination-db:integer] [REPLACE]
decr key:0
decrby key:0 decrement:integer
del key:0+
dump key:0
echo message
exists key:0+
expire key:0 seconds:integer [condition<NX | XX | GT | LT>@7.0.0]
expireat key:0 unix-time-seconds:unix-time [condition<NX | XX | GT | LT>@7.0.0]
expiretime key:0
failover [TO=target(host port:integer [FORCE])] [ABORT] [TIMEOUT=milliseconds:integer]
flushall [async<ASYNC@4.0.0 | SYNC@6.2.0>]
flushdb [async<ASYNC@4.0.0 | SYNC@6.2.0>]
get key:0
getbit key:0 offset:integer
getdel key:0
getex key:0 [expiration<EX=seconds:integer | PX=milliseconds:integer | EXAT=unix-time-seconds:unix-time |
    PXAT=unix-time-milliseconds:unix-time | PERSIST>]
getrange key:0 start:integer end:integer
getset key:0 value
hello [arguments(protover:integer [AUTH=username_password(username password)] [SETNAME=clientname])]
incr key:0
incrby key:0 increment:integer
incrbyfloat key:0 increment:double
info [section+]
keys pattern:pattern
latency|graph event
latency|histogram [command+]
latency|history event
latency|reset [event+]
lcs key1:0 key2:0 [LEN] [IDX] [MINMATCHLEN=len:integer] [WITHMATCHLEN]
memory|usage key:0 [SAMPLES=count:integer]
mget key:0+
module|load path [arg+]
module|loadex path [CONFIG=configs(name value)++] [ARGS=args(arg)+]
module|unload name
move key:0 db:integer
mset key_value(key:0 value)+
msetnx key_value(key:0 value)+
object|encoding key:0
object|freq key:0
object|idletime key:0
object|refcount key:0
persist key:0
pexpire key:0 milliseconds:integer [condition<NX | XX | GT | LT>@7.0.0]
pexpireat key:0 unix-time-milliseconds:unix-time [condition<NX | XX | GT | LT>@7.0.0]
pexpiretime key:0
ping [message]
psetex key:0 milliseconds:integer value
psync replicationid offset:integer
pttl key:0
rename key:0 newkey:1
renamenx key:0 newkey:1
replicaof args<host-port(host port:integer) | no-one(NO ONE)>
restore key:0 ttl:integer serialized-value [REPLACE@3.0.0] [ABSTTL@5.0.0] [IDLETIME=seconds:integer@5.0.0]
    [FREQ=frequency:integer@5.0.0]
scan cursor:integer [MATCH=pattern:pattern] [COUNT=count:integer] [TYPE=type@6.0.0]
select index:integer
set key:0 value [condition<NX | XX>@2.6.12] [GET@6.2.0] [expiration<EX=seconds:integer@2.6.12 |
    PX=milliseconds:integer@2.6.12 | EXAT=unix-time-seconds:unix-time@6.2.0 |
    PXAT=unix-time-milliseconds:unix-time@6.2.0 | KEEPTTL@6.0.0>]
setbit key:0 offset:integer value:integer
setex key:0 seconds:integer value
setnx key:0 value
setrange key:0 offset:integer value
shutdown [nosave_save<NOSAVE | SAVE>] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]
slaveof args<host-port(host port:integer) | no-one(NO ONE)>
slowlog|get [count:integer]
strlen key:0
substr key:0 start:integer end:integer
swapdb index1:integer index2:integer
touch key:0+
ttl key:0
type key:0
unlink key:0+
wait numreplicas:integer timeout:integer
waitaof numlocal:integer numreplicas:integer timeout:integer
"""


class Argument(NamedTuple):
    """One argument, or a group of them."""

    name: str
    kind: str
    """Redis's word: string, integer, key, pure-token, oneof, block …"""
    key_spec: int | None
    token: str
    """The word in front of it, or the word that it is; empty if there is none."""
    since: str
    deprecated_since: str
    flags: tuple[str, ...]
    parts: tuple[Argument, ...]


_HEAD: Final = re.compile(
    r"(?:(?P<token>[A-Z][A-Z0-9-]*)(?:=|(?![A-Z0-9=-])))?"
    r"(?P<name>[a-z][a-z0-9_/-]*(?::port)?)?(?::(?P<kind>[a-z][a-z-]*|[0-9]))?"
)
_TAIL: Final = re.compile(r"(?:@(?P<since>[0-9.]+))?(?:~(?P<deprecated>[0-9.]+))?(?P<many>\+{0,2})")
_MANY: Final = {"": (), "+": ("multiple",), "++": ("multiple", "multiple_token")}


class _Reader:
    """Reads one line's notation from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def sequence(self, end: str = "") -> tuple[Argument, ...]:
        """Read arguments up to ``end``."""
        arguments: list[Argument] = []
        while not (self._has(end) if end else self._at == len(self._text)):
            arguments.append(self._argument())
            self._has("|")
        return tuple(arguments)

    def _argument(self) -> Argument:
        if not self._has("["):
            return self._required()
        argument = self._required()
        assert self._has("]"), self._text[self._at :]
        return argument._replace(flags=("optional", *argument.flags))

    def _required(self) -> Argument:
        head = _HEAD.match(self._text, self._at)
        assert head is not None
        assert head.end() > self._at, self._text[self._at :]
        self._at = head.end()
        token, name, kind = (head[part] or "" for part in ("token", "name", "kind"))
        parts: tuple[Argument, ...] = ()
        if self._has("<"):
            kind, parts = "oneof", self.sequence(">")
        elif self._has("("):
            kind, parts = "block", self.sequence(")")
        elif not name or kind == "token":
            kind = "pure-token"
        tail = _TAIL.match(self._text, self._at)
        assert tail is not None
        self._at = tail.end()
        key_spec = int(kind) if kind.isdigit() else None
        return Argument(
            name or token.lower(),
            "key" if key_spec is not None else kind or "string",
            key_spec,
            token,
            tail["since"] or "",
            tail["deprecated"] or "",
            _MANY[tail["many"]],
            parts,
        )

    def _has(self, mark: str) -> bool:
        """Step over blanks and a mark, if it is the next."""
        while self._text.startswith(" ", self._at):
            self._at += 1
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True


def _lines() -> dict[str, str]:
    """Return the notation of each command; a line that begins with blanks goes on with the one before."""
    return dict(line.split(" ", 1) for line in TEXT.replace("\n    ", " ").strip().split("\n"))


NOTATION: Final = _lines()
"""By name."""


@lru_cache(None)
def arguments_of(name: str) -> tuple[Argument, ...]:
    """Return the arguments of a command, or of a subcommand such as ``config|get``."""
    return _Reader(NOTATION.get(name, "")).sequence()


def documented(arguments: tuple[Argument, ...]) -> list[Reply]:
    """Return arguments in the form of COMMAND DOCS."""
    return [_fields(argument) for argument in arguments]


def _fields(argument: Argument) -> Reply:
    fields: dict[Reply, Reply] = {b"name": argument.name.encode(), b"type": argument.kind.encode()}
    if not argument.parts:
        fields[b"display_text"] = argument.name.encode()
    if argument.key_spec is not None:
        fields[b"key_spec_index"] = argument.key_spec
    for name, text in (
        (b"token", argument.token), (b"since", argument.since), (b"deprecated_since", argument.deprecated_since)
    ):  # fmt: skip
        if text:
            fields[name] = text.encode()
    if argument.flags:
        fields[b"flags"] = statuses(argument.flags)
    if argument.parts:
        fields[b"arguments"] = documented(argument.parts)
    return fields
