"""Two servers are told the same and must answer the same.

Every reply is compared as raw RESP2, errors included, and then all that is left in the keyspace. What is allowed to
differ is listed in ``KNOWN_DIFFERENCES`` and in ``TOLERANCE``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvservice.commands.dump import restored
from tests.harness.oracle import Conversation
from tests.harness.resp2 import bulk_of, parts_of, quoted, shown
from tests.kvservice.commands.strategies import DATABASES, KEYS

TOLERANCE = {b"TTL": 5, b"PTTL": 5_000, b"EXPIRETIME": 5, b"PEXPIRETIME": 5_000}
"""By how much integers may differ because time passes on one side."""


class Difference(NamedTuple):
    """A case in which our answer differs from that of redis-server 7.0, and may."""

    reason: str
    applies: Callable[[list[bytes], bytes, bytes], bool]
    """Given the command, our reply and theirs."""


KNOWN_DIFFERENCES = [
    Difference(
        "7.2 checks the arguments of BITCOUNT and BITPOS before it looks for the key",
        lambda command, ours, theirs: (
            command[0].upper() in (b"BITCOUNT", b"BITPOS")
            and ours.startswith((b"-ERR syntax", b"-ERR value is not an integer"))
            and theirs in (b":0\r\n", b":-1\r\n")
        ),
    ),
    Difference(
        "our IDLETIME begins when tracking does, is noted once a pipeline, and forgets what RESTORE said before",
        lambda command, ours, theirs: (
            [word.upper() for word in command[:2]] == [b"OBJECT", b"IDLETIME"]
            and ours[:1] == theirs[:1] == b":"
            and int(ours[1:]) >= 0
        ),
    ),
    Difference(
        "our LZF compresses some strings that Redis's gives up on; both payloads stand for the same value",
        lambda command, ours, theirs: (
            command[0].upper() == b"DUMP"
            and ours[:1] == theirs[:1] == b"$"
            and b"$-1\r\n" not in (ours, theirs)
            and restored(bulk_of(ours)) == restored(bulk_of(theirs))
        ),
    ),
    Difference(
        "a small integer that COPY made is not one of Redis's shared objects; ours have no counts at all",
        lambda command, ours, theirs: (
            [word.upper() for word in command[:2]] == [b"OBJECT", b"REFCOUNT"]
            and (ours, theirs) == (b":2147483647\r\n", b":1\r\n")
        ),
    ),
]


def alike(command: list[bytes], ours: bytes, theirs: bytes) -> bool:
    """Tell whether two replies say the same."""
    name = command[0].upper()
    if ours == theirs:
        return True
    if name in TOLERANCE and ours[:1] == theirs[:1] == b":":
        left, right = int(ours[1:]), int(theirs[1:])
        if (left < 0) == (right < 0) and abs(left - right) <= TOLERANCE[name]:
            return True
    if name == b"RANDOMKEY":
        return ours[:1] == theirs[:1] == b"$" and b"$-1\r\n" not in (ours, theirs) and bulk_of(ours) in KEYS
    if name == b"TIME" and ours[:1] == theirs[:1] == b"*":
        return abs(int(bulk_of(parts_of(ours)[0])) - int(bulk_of(parts_of(theirs)[0]))) <= 5
    if name in (b"KEYS", b"SCAN") and ours[:1] == theirs[:1] == b"*":
        return in_order(name, ours) == in_order(name, theirs)
    return any(difference.applies(command, ours, theirs) for difference in KNOWN_DIFFERENCES)


def in_order(name: bytes, reply: bytes) -> list[bytes]:
    """Return a list of keys without its order, and the cursor before it if there is one."""
    parts = parts_of(reply)
    return sorted(parts) if name == b"KEYS" else [parts[0], *sorted(parts_of(parts[1]))]


def with_questions(conversation: list[list[bytes]]) -> list[list[bytes]]:
    """Add what asks for the final state, and before DBSIZE a look at every key, which makes Redis drop expired ones."""
    commands: list[list[bytes]] = []
    for command in conversation:
        if command[0].upper() == b"DBSIZE":
            commands.append([b"EXISTS", *KEYS])
        commands.append(command)
    for database in DATABASES:
        commands += [[b"SELECT", b"%d" % database], [b"KEYS", b"*"], [b"EXISTS", *KEYS], [b"DBSIZE"]]
        for key in KEYS:
            commands += [[b"TYPE", key], [b"GET", key], [b"OBJECT", b"ENCODING", key], [b"PTTL", key]]
    return commands


def transcript(commands: list[list[bytes]], ours: list[bytes], theirs: list[bytes]) -> str:
    """Return the conversation up to the first difference."""
    lines: list[str] = []
    for command, our_reply, their_reply in zip(commands, ours, theirs, strict=True):
        lines.append("> " + " ".join(map(quoted, command)))
        if not alike(command, our_reply, their_reply):
            return "\n".join([*lines, f"ours:  {shown(our_reply)}", f"redis: {shown(their_reply)}"])
        lines.append(shown(our_reply))
    return "\n".join(lines)


class Comparison:
    """Two sides, emptied before each conversation; ``prepare`` is called before that."""

    def __init__(self, ours: Conversation, theirs: Conversation, prepare: Callable[[], object] = lambda: None) -> None:
        self.ours = ours
        self.theirs = theirs
        self.prepare = prepare

    def check(self, conversation: list[list[bytes]]) -> None:
        """Hold one conversation with both sides. Raise AssertionError at the first difference."""
        self.prepare()
        commands = [[b"SELECT", b"0"], [b"FLUSHALL"], *with_questions(conversation)]
        theirs = self.theirs.send(commands)
        ours = self.ours.send(commands)
        if not all(map(alike, commands, ours, theirs)):
            raise AssertionError("the servers differ:\n" + transcript(commands, ours, theirs))
