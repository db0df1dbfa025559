"""CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT, and a redis-server in cluster mode to compare with."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kvservice.commands.ports import MemberView
from kvservice.commands.reply import Pending, Reply
from kvservice.keyspace.database import StampNeeded
from tests.harness.cluster_processes import free_ports
from tests.harness.oracle import REDIS_SERVER, TIMEOUT_S, Oracle
from tests.harness.resp2 import bulk_of, encode_reply, parts_of
from tests.harness.server_plane import Caller

SLOT = 12182
"""That of foo."""
KEYS = ("foo", "{foo}1", "{foo}2")


@pytest.fixture
def caller() -> Caller:
    """A caller of one of two nodes, with three keys in a slot and one in another."""
    caller = Caller()
    caller.service.group.all_members.append(MemberView("n2", True, "127.0.0.1:7002", "127.0.0.1:7202"))
    for key in (*KEYS, "bar"):
        caller.say(f"SET {key} 1")
    return caller


@pytest.fixture(scope="module")
def clustered() -> Iterator[Oracle]:
    """A redis-server that has all slots, with the same keys."""
    if REDIS_SERVER is None:
        pytest.skip("redis-server is not installed, so there is nothing to compare with")
    port, cluster_port = map(str, free_ports(2))
    options = ("--cluster-enabled", "yes", "--port", port, "--cluster-port", cluster_port, "--bind", "127.0.0.1")
    with Oracle(*options) as server:
        server.send([b"CLUSTER ADDSLOTSRANGE 0 16383".split()])
        deadline = time.monotonic() + TIMEOUT_S
        while b"cluster_state:ok" not in server.send([[b"CLUSTER", b"INFO"]])[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert set(server.send([[b"SET", key.encode(), b"1"] for key in (*KEYS, "bar")])) == {b"+OK\r\n"}
        yield server


def answer(caller: Caller, line: str) -> Reply:
    """Return the reply of a command that asks the data plane, or is refused before."""
    reply = caller.say(line)
    if not isinstance(reply, Pending):
        return reply
    replies: list[Reply] = []
    reply.then(replies.append)
    return replies[0]


@pytest.mark.parametrize(
    "words",
    [
        f"COUNTKEYSINSLOT {SLOT}", "COUNTKEYSINSLOT 0", "COUNTKEYSINSLOT 16384", "COUNTKEYSINSLOT -1",
        "COUNTKEYSINSLOT x", "COUNTKEYSINSLOT 012182", 'COUNTKEYSINSLOT ""', "COUNTKEYSINSLOT", "COUNTKEYSINSLOT 1 2",
        f"GETKEYSINSLOT {SLOT} 10", f"GETKEYSINSLOT {SLOT} 3", f"GETKEYSINSLOT {SLOT} 0", "GETKEYSINSLOT 0 5",
        f"GETKEYSINSLOT {SLOT} {2**63 - 1}", f"GETKEYSINSLOT {SLOT} {2**63}", f"GETKEYSINSLOT {SLOT} -1",
        "GETKEYSINSLOT 16384 1", "GETKEYSINSLOT 16384 -1", "GETKEYSINSLOT 16384 x", "GETKEYSINSLOT x -1",
        f"GETKEYSINSLOT {SLOT}", f"GETKEYSINSLOT {SLOT} 1 1",
    ],
)  # fmt: skip
def test_slots_are_told_as_a_real_server_tells_them(caller: Caller, clustered: Oracle, words: str) -> None:
    line = f"CLUSTER {words}"
    theirs = clustered.send([[b"" if word == '""' else word.encode() for word in line.split()]])[0]
    ours = encode_reply(answer(caller, line))
    if theirs.startswith(b"*"):
        # In which order is nobody's promise.
        assert sorted(parts_of(ours)) == sorted(parts_of(theirs))
    else:
        assert ours == theirs


def test_no_more_keys_are_listed_than_asked_for(caller: Caller, clustered: Oracle) -> None:
    line = f"CLUSTER GETKEYSINSLOT {SLOT} 2"
    for reply in (encode_reply(answer(caller, line)), clustered.send([line.encode().split()])[0]):
        listed = {bulk_of(part).decode() for part in parts_of(reply)}
        assert len(listed) == 2
        assert listed < set(KEYS)


def test_the_keys_of_a_slot_are_those_of_the_callers_database(caller: Caller) -> None:
    caller.say("SELECT 1")
    assert answer(caller, f"CLUSTER COUNTKEYSINSLOT {SLOT}") == 0
    assert answer(caller, f"CLUSTER GETKEYSINSLOT {SLOT} 9") == []


def test_keys_whose_time_has_come_are_not_in_their_slot(caller: Caller) -> None:
    clock = caller.service.machine.context.clock
    caller.service.machine.databases[0].set_deadline(b"foo", 2000)
    clock.now_ms = 1999
    assert answer(caller, f"CLUSTER COUNTKEYSINSLOT {SLOT}") == 3
    clock.now_ms = 2000
    for line in (f"CLUSTER COUNTKEYSINSLOT {SLOT}", f"CLUSTER GETKEYSINSLOT {SLOT} 9"):
        with pytest.raises(StampNeeded):
            answer(caller, line)
    clock.stamp_ms = 2000
    assert answer(caller, f"CLUSTER COUNTKEYSINSLOT {SLOT}") == 2
    assert answer(caller, f"CLUSTER GETKEYSINSLOT {SLOT} 9") == [b"{foo}1", b"{foo}2"]
