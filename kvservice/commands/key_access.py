"""What commands do to their keys, in the words of Redis's key specifications.

RO, RW, OW and RM: reads, changes, overwrites or removes the key's value; access: may return or copy what it holds;
update, insert, delete: changes what it holds, only adds, or takes away.
Guarantees: every command has words; a command that is not named here has those that its flags imply.
Reference: Redis "Command key specifications".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvservice.commands.reply import Reply, SetReply, Status
from kvservice.commands.table import Args, Command

VARIABLE: Final = "variable_flags"

# Commands with two kinds of keys have two texts: for the first key, and for all others.
_WORDS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("set", "bitfield"), (f"RW access update {VARIABLE}",)),
    **dict.fromkeys(("setnx", "msetnx"), ("OW insert",)),
    **dict.fromkeys(("setex", "psetex", "mset", "restore"), ("OW update",)),
    **dict.fromkeys(("strlen", "exists", "type", "touch"), ("RO",)),
    **dict.fromkeys(("setrange", "persist", "expire", "pexpire", "expireat", "pexpireat"), ("RW update",)),
    **dict.fromkeys(("del", "unlink"), ("RM delete",)),
    **dict.fromkeys(("object|encoding", "object|freq", "object|idletime", "object|refcount", "memory|usage"), ("RO",)),
    "append": ("RW insert",),
    "getdel": ("RW access delete",),
    "bitop": ("OW update", "RO access"),
    "rename": ("RW access delete", "OW update"),
    "renamenx": ("RW access delete", "OW insert"),
    "copy": ("RO access", "OW update"),
}


def words_of(row: Command) -> tuple[str, ...]:
    """Return the words for the first key and, if they differ, for the others."""
    return _WORDS.get(row.name) or (("RW access update",) if row.is_write else ("RO access",))


def words_of_call(row: Command, args: Args, position: int) -> list[str]:
    """Return the words that hold for the key at ``position`` of one call, where options decide."""
    texts = words_of(row)
    words = texts[min(position, len(texts) - 1)].split()
    if VARIABLE not in words:
        return words
    given = {arg.upper() for arg in args[2:]}
    if row.name == "set":
        return ["RW", "access", "update"] if b"GET" in given else ["OW", "update"]
    return ["RW", "access", "update"] if given & {b"SET", b"INCRBY"} else ["RO", "access"]


def key_specifications(row: Command) -> list[Reply]:
    """Return a row's key specifications as COMMAND INFO answers them."""
    keys = row.keys
    if not keys.first:
        return []
    texts = words_of(row)
    if len(texts) == 1:
        return [_specification(texts[0], keys.first, keys.last if keys.last < 0 else keys.last - keys.first, keys.step)]
    rest = keys.last if keys.last < 0 else keys.last - keys.first - 1
    return [
        _specification(texts[0], keys.first, 0, keys.step),
        _specification(texts[1], keys.first + 1, rest, keys.step),
    ]


def _specification(words: str, first: int, last: int, step: int) -> Reply:
    return {
        b"flags": statuses(words.split()),
        b"begin_search": {b"type": b"index", b"spec": {b"index": first}},
        b"find_keys": {b"type": b"range", b"spec": {b"lastkey": last, b"keystep": step, b"limit": 0}},
    }


def statuses(words: Sequence[str]) -> SetReply:
    """Return words as the set of simple strings that COMMAND INFO answers flags with."""
    return SetReply([Status(word.encode()) for word in words])
