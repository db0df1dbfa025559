"""Replies and error texts of the server plane that must be those of a real redis-server, byte for byte."""

from __future__ import annotations

import pytest

from kvservice.commands.key_access import VARIABLE, words_of
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import Pending
from kvservice.commands.table import Command
from kvservice.commands.tips import TIPS
from tests.harness.oracle import Oracle
from tests.harness.resp2 import bulk_of, encode_reply, parts_of
from tests.harness.server_plane import Caller

SAME = """
PING
PING hello
PING a b
ECHO
ECHO hello
AUTH secret
AUTH nobody secret
AUTH default anything
AUTH a b c
HELLO 4
HELLO three
HELLO 2 AUTH nobody secret
HELLO 2 SETNAME
HELLO 2 NONSENSE
SELECT 16
SELECT -1
SELECT a
SELECT 3
SELECT 0
RESET a
CLIENT
CLIENT NONSENSE
CLIENT GETNAME x
CLIENT SETNAME worker-1
CLIENT GETNAME
CLIENT SETNAME ""
CLIENT GETNAME
CLIENT KILL
CLIENT KILL 1.1.1.1:1
CLIENT KILL ID x
CLIENT KILL ID 0
CLIENT KILL ID 999999
CLIENT KILL TYPE nonsense
CLIENT KILL TYPE normal LADDR
CLIENT KILL TYPE normal
CLIENT KILL USER nobody
CLIENT KILL SKIPME maybe
CLIENT KILL NONSENSE x
CLIENT LIST TYPE nonsense
CLIENT LIST TYPE replica
CLIENT LIST TYPE
CLIENT LIST ID
CLIENT LIST ID x
CLIENT LIST ID 999998 999999
CLIENT LIST NONSENSE
CLIENT NO-EVICT maybe
CLIENT NO-EVICT on
CLIENT NO-EVICT off
CLIENT REPLY nonsense
CLIENT REPLY on
CLIENT PAUSE x
CLIENT PAUSE -1
CLIENT PAUSE 10 NONSENSE
CLIENT PAUSE 99999999999999999999
CLIENT UNPAUSE
CLIENT UNBLOCK 999999
CLIENT UNBLOCK x
CLIENT UNBLOCK 999999 NONSENSE
CLIENT TRACKING off
CLIENT TRACKING maybe
CLIENT CACHING yes
CLIENT GETREDIR
CLIENT TRACKINGINFO
CONFIG
CONFIG NONSENSE
CONFIG GET
CONFIG SET timeout
CONFIG SET nonsense b
CONFIG SET maxmemory x
CONFIG SET maxmemory -1
CONFIG SET maxmemory 1mb maxmemory 2mb
CONFIG SET maxmemory 0 timeout
CONFIG SET maxmemory 1mb timeout x
CONFIG GET maxmemory
CONFIG SET maxmemory 3mb
CONFIG GET maxmemory
CONFIG SET MaxMemory 0
CONFIG GET MAXMEMORY
CONFIG SET databases 3
CONFIG SET timeout -1
CONFIG SET timeout 17
CONFIG GET timeout
CONFIG SET timeout 0
CONFIG SET latency-tracking maybe
CONFIG SET slowlog-log-slower-than x
CONFIG SET latency-tracking-info-percentiles 200
CONFIG GET latency-tracking-info-percentiles
CONFIG GET maxmemory-policy
CONFIG GET maxmemory-p*y
CONFIG GET nonsense
CONFIG GET save
CONFIG RESETSTAT a
CONFIG RESETSTAT
COMMAND NONSENSE
COMMAND COUNT x
COMMAND DOCS nonsense
COMMAND GETKEYS nonsense a
COMMAND GETKEYS set a b
COMMAND GETKEYS mset a b c d
COMMAND GETKEYS memory usage k
COMMAND GETKEYSANDFLAGS set a b
COMMAND GETKEYSANDFLAGS set a b GET
COMMAND GETKEYSANDFLAGS get a
COMMAND GETKEYSANDFLAGS mset a b c d
COMMAND LIST NONSENSE
COMMAND LIST FILTERBY
COMMAND LIST FILTERBY NONSENSE x
COMMAND LIST FILTERBY MODULE x
COMMAND LIST FILTERBY ACLCAT nonsense
COMMAND LIST FILTERBY PATTERN x[abc]*y
COMMAND INFO nonsense
SLOWLOG
SLOWLOG NONSENSE
SLOWLOG GET -2
SLOWLOG GET x
SLOWLOG GET 1 2
SLOWLOG LEN x
SLOWLOG RESET
SLOWLOG LEN
LATENCY NONSENSE
LATENCY HISTORY
LATENCY HISTORY nonsense
LATENCY RESET
LATENCY RESET a b
LATENCY LATEST
LATENCY GRAPH nonsense
LATENCY HISTOGRAM nonsense
MEMORY NONSENSE
MEMORY USAGE missing
MEMORY USAGE a SAMPLES -1
MEMORY USAGE a SAMPLES x
MEMORY USAGE a SAMPLES
MEMORY USAGE a NONSENSE 1
MEMORY PURGE
BGSAVE NONSENSE
BGSAVE a b
SHUTDOWN NONSENSE
SHUTDOWN NOSAVE SAVE
SHUTDOWN ABORT
WAIT 0 0
WAIT x 1
WAIT 1 x
WAIT 1 -1
CLUSTER INFO
CLUSTER NODES
CLUSTER SLOTS
CLUSTER MYID
CLUSTER NONSENSE
READONLY
READWRITE
ASKING
MODULE LIST
MODULE NONSENSE
ACL WHOAMI
ACL NONSENSE
REPLICAOF NO ONE
DEBUG
DEBUG SLEEP 0
""".strip().splitlines()

LATER_THAN_7_0 = {"client|no-touch", "client|setinfo", "cluster|myshardid", "waitaof"}
"""Commands that redis-server 7.0 does not know."""
OTHER_ARITY_IN_7_0 = {"command|getkeys", "command|getkeysandflags"}
"""-4 there, which refused commands with a single word; -3 since 7.2."""


@pytest.fixture(scope="module")
def caller() -> Caller:
    """One caller for the whole conversation, as the oracle has one connection."""
    return Caller()


def test_replies_are_those_of_a_real_server(oracle: Oracle, caller: Caller) -> None:
    # One test for the whole conversation: later lines read what earlier ones set.
    assert [line for line in SAME if not is_same(line, oracle, caller)] == []


def is_same(line: str, oracle: Oracle, caller: Caller) -> bool:
    words = [b"" if word == '""' else word.encode() for word in line.split()]
    reply = caller.run(words)
    assert not isinstance(reply, Pending)
    ours, theirs = encode_reply(reply), oracle.send([words])[0]
    if ours != theirs:
        print(f"{line}: {ours!r}, and theirs is {theirs!r}")
    return ours == theirs


def every_row() -> list[Command]:
    rows: list[Command] = []
    for row in TABLE.rows:
        rows += [row, *row.subcommands.values()]
    return rows


@pytest.mark.parametrize("row", every_row(), ids=lambda row: row.name)
def test_command_info_of_a_row_is_the_one_of_a_real_server(row: Command, oracle: Oracle, caller: Caller) -> None:
    theirs = oracle.send([[b"COMMAND", b"INFO", row.name.encode()]])[0]
    if theirs in (b"*1\r\n*-1\r\n", b"*1\r\n$-1\r\n"):
        assert row.name in LATER_THAN_7_0
        return
    reply = caller.run([b"COMMAND", b"INFO", row.name.encode()])
    assert not isinstance(reply, Pending)
    ours = parts_of(parts_of(encode_reply(reply))[0])
    real = parts_of(parts_of(theirs)[0])
    if row.name in OTHER_ARITY_IN_7_0:
        ours[1] = real[1]
    assert ours[:2] == real[:2]
    assert sorted(parts_of(ours[2])) == sorted(parts_of(real[2]))
    assert ours[3:6] == real[3:6]
    assert sorted(parts_of(ours[6])) == sorted(parts_of(real[6]))
    assert sorted(parts_of(ours[7])) == sorted(parts_of(real[7]))
    # Notes are prose and differ; subcommands (9) have tests of their own.
    assert without_notes(ours[8]) == without_notes(real[8])


def test_tips_are_of_commands_that_there_are() -> None:
    assert TIPS.keys() - {row.name for row in every_row()} == set()


def without_notes(specifications: bytes) -> list[list[bytes]]:
    kept: list[list[bytes]] = []
    for specification in parts_of(specifications):
        fields = parts_of(specification)
        pairs = list(zip(fields[::2], fields[1::2], strict=True))
        kept.append([part for name, value in pairs if bulk_of(name) != b"notes" for part in (name, value)])
    return kept


def test_only_set_and_bitfield_decide_by_their_options_what_they_do_to_a_key() -> None:
    assert {row.name for row in every_row() if VARIABLE in " ".join(words_of(row))} == {"set", "bitfield"}
