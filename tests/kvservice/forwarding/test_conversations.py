"""Random conversations through every node while leaders and connections come and go: the whole of forwarding at once.

Each caller appends tokens to its own value. What it is told, in the order in which it asked, must agree with the value
that comes out: a token told as appended is there once and in its place, one told as not applied is not there, and no
token is there twice.
"""

from __future__ import annotations

import random

import pytest

from kvservice.commands.reply import ErrorReply, Reply
from kvservice.errors import NotAppliedError, OutcomeUnknownError
from tests.kvservice.fake_node import Bench, Peer
from tests.kvservice.forwarding.fake_cluster import FakeCluster, moves

TOKEN_BYTES = 5


class Caller:
    """A caller of one node, and what it has asked."""

    def __init__(self, bench: Bench, number: int) -> None:
        self.bench = bench
        self.peer: Peer = bench.peer()
        self.key = f"key{number}"
        self.number = number
        self.asked: list[str] = []

    def ask(self, chance: random.Random) -> None:
        """Send one chunk of one to three commands."""
        lines = []
        for _ in range(chance.randint(1, 3)):
            place = len(self.asked)
            line = chance.choice(
                [f"APPEND {self.key} {self.number:02d}{place:03d}"] * 3
                + [f"GET {self.key}"] * 2
                + [f"STRLEN {self.key} extra", f"CLIENT SETNAME n{place}", "CLIENT GETNAME", f"ECHO e{place}"]
            )
            self.asked.append(line)
            lines.append(line)
        self.bench.send(self.peer, *lines)

    def check(self, final: bytes) -> tuple[int, int]:
        """Compare what was told with what came out; return how many writes were told unknown, and not applied."""
        replies = self.peer.replies
        assert len(replies) == len(self.asked)
        tokens = [final[at : at + TOKEN_BYTES].decode() for at in range(0, len(final), TOKEN_BYTES)]
        assert len(set(tokens)) == len(tokens), "a write ran twice"
        place_of = {token: place for place, token in enumerate(tokens)}
        # Places of the newest write that is there, and of the newest that the caller knows to be there: one that was
        # told as unknown may come about later, though before the caller's next one.
        last = seen_last = -1
        unknown = refused = 0
        name: bytes | None = None
        for line, reply in zip(self.asked, replies, strict=True):
            words = line.split()
            if words[0] == "APPEND":
                place = place_of.get(words[2])
                if isinstance(reply, int):
                    assert place is not None, f"{line} was acknowledged and is lost"
                    assert reply == (place + 1) * TOKEN_BYTES, f"{line} got the reply of another"
                    seen_last = place
                elif is_a(reply, NotAppliedError):
                    assert place is None, f"{line} was told as not applied"
                    refused += 1
                else:
                    assert is_a(reply, OutcomeUnknownError), reply
                    unknown += 1
                if place is not None:
                    assert place > last, f"{line} ran before an earlier write of its caller"
                    last = place
            elif words[0] == "GET":
                if is_a(reply, (NotAppliedError, OutcomeUnknownError)):
                    continue
                seen = reply or b""
                assert isinstance(seen, bytes)
                assert final.startswith(seen), "a read of what never was"
                assert len(seen) >= (seen_last + 1) * TOKEN_BYTES, f"{line} did not see the caller's own write"
                seen_last = len(seen) // TOKEN_BYTES - 1
                last = max(last, seen_last)
            elif words[0] == "STRLEN":
                assert is_a(reply, Exception)
                assert b"wrong number of arguments" in text_of(reply)
            elif words[0] == "ECHO":
                assert reply == words[1].encode() or is_a(reply, (NotAppliedError, OutcomeUnknownError))
            elif words[1] == "SETNAME":
                name = words[2].encode()
            else:
                assert reply == name
        return unknown, refused


def is_a(reply: Reply, kind: type[Exception] | tuple[type[Exception], ...]) -> bool:
    return isinstance(reply, ErrorReply) and isinstance(reply.cause, kind)


def text_of(reply: Reply) -> bytes:
    assert isinstance(reply, ErrorReply)
    return reply.text


def converse(seed: int, steps: int) -> tuple[int, int, int]:
    chance = random.Random(seed)
    cluster = FakeCluster()
    cluster.elect("n1")
    cluster.tell_all()
    callers = [Caller(bench, number) for number, bench in enumerate(list(cluster.benches.values()) * 2)]
    for _ in range(steps):
        if chance.random() < 0.3:
            chance.choice(callers).ask(chance)
        else:
            moves(cluster, chance)
    cluster.tell_all()
    for _ in range(5):
        cluster.settle()
        cluster.pass_time(6.0)
    database = cluster.benches[cluster.leader].machine.databases[0]
    unknown = refused = 0
    for caller in callers:
        final = database.get(caller.key.encode()) or b""
        assert isinstance(final, (bytes, bytearray))
        told_unknown, told_refused = caller.check(bytes(final))
        unknown += told_unknown
        refused += told_refused
        assert (caller.peer.pending, caller.peer.away, caller.peer.held) == (0, 0, False)
    for bench in cluster.benches.values():
        assert bench.service.forwarder.calls_pending == 0
        assert bench.service.forwarder.bytes_pending == 0
    assert all(link.stream.callers == 0 for link in cluster.links if link.is_open)
    return sum(len(caller.asked) for caller in callers), unknown, refused


@pytest.mark.parametrize("first_seed", range(0, 400, 50))
def test_random_conversations_through_every_node(first_seed: int) -> None:
    asked = unknown = 0
    for seed in range(first_seed, first_seed + 50):
        try:
            counts = converse(seed, 250)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        asked += counts[0]
        unknown += counts[1]
    assert asked > 5000
    assert 0 < unknown < asked / 20, "most outcomes are known"
