"""Reads of a leader of several voters: they wait for a round, and neither they nor what follows changes its order."""

from __future__ import annotations

import random

import pytest

from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK
from replication.core.messages import EntryKind
from tests.kvservice.fake_node import START_MS, Bench, Peer, texts


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A wall clock in ms that a test sets, for reads."""
    now = [START_MS]
    monkeypatch.setattr("kvservice.runner.time_ns", lambda: now[0] * 1_000_000)
    return now


def leader_of_several(**settings: object) -> Bench:
    bench = Bench(**settings)
    bench.node.reads_at_once = False
    bench.lead("n1", 1, is_leader=True)
    return bench


def test_a_read_is_not_answered_before_its_round_ends() -> None:
    """The node ends no round before the no-op of its term is committed, so a new leader answers nothing stale."""
    bench = leader_of_several()
    peer = bench.peer()
    bench.send(peer, "GET k")
    bench.turn()
    assert peer.taken() == []
    assert bench.node.log == [], "a read is not stored"
    bench.end_round()
    assert peer.taken() == [None]
    assert peer.pending == 0


def test_a_read_sees_what_was_applied_while_its_round_ran() -> None:
    bench = leader_of_several()
    reader, writer = bench.peer(), bench.peer()
    bench.send(reader, "GET k")
    bench.send(writer, "SET k 1")
    bench.turn()
    bench.commit()
    bench.end_round()
    assert reader.taken() == [b"1"]


def test_reads_that_can_run_as_one_run_while_their_round_is_under_way_and_are_answered_when_it_ends() -> None:
    bench = leader_of_several()
    readers, writer = [bench.peer() for _ in range(3)], bench.peer()
    bench.run(writer, "SET k 1", "SET j 2")
    for reader in readers:
        bench.send(reader, "GET k", "GET j", "GET none")
    bench.turn()
    bench.run(writer, "SET k 3", "FLUSHALL")
    assert [reader.taken() for reader in readers] == [[]] * 3
    bench.end_round()
    assert [reader.taken() for reader in readers] == [[b"1", b"2", None]] * 3
    row = TABLE.by_name[b"GET"]
    assert bench.stats.of(row).calls == 9
    assert (bench.machine.context.hits, bench.machine.context.misses) == (6, 3)
    for reader in readers:
        bench.send(reader, "GET k")
    bench.turn()
    bench.fire_timers()
    bench.turn()
    bench.end_round()
    assert [reader.taken() for reader in readers] == [[None]] * 3


def test_reads_do_not_run_ahead_while_something_committed_is_not_applied() -> None:
    bench = leader_of_several()
    readers, writer = [bench.peer() for _ in range(2)], bench.peer()
    bench.node.has_applied_all = lambda: not bench.node.queued
    bench.send(writer, "SET k 1")
    bench.turn()
    for reader in readers:
        bench.send(reader, "GET k")
    bench.turn()
    bench.commit()
    bench.end_round()
    assert [reader.taken() for reader in readers] == [[b"1"]] * 2


def test_a_read_does_not_run_ahead_of_what_its_caller_asked_before() -> None:
    """The first read waits for a round alone; the second one joins a later round, which an entry brings along."""
    bench = leader_of_several()
    reader, another, writer = [bench.peer() for _ in range(3)]
    bench.send(reader, "GET k")
    bench.turn()
    bench.send(reader, "GET k")
    bench.send(another, "GET k")
    bench.send(writer, "SET k 1")
    bench.turn()
    assert len(bench.node.reads) == 2
    bench.commit()
    bench.end_round()
    assert reader.taken() == [b"1", b"1"]


def test_reads_that_ran_ahead_of_a_lost_round_run_again_and_are_counted_once() -> None:
    bench = leader_of_several()
    readers, writer = [bench.peer() for _ in range(2)], bench.peer()
    for reader in readers:
        bench.send(reader, "GET k")
    bench.turn()
    bench.lead(None, 2)
    bench.refuse_reads()
    bench.lead("n1", 3, is_leader=True)
    bench.run(writer, "SET k 1")
    bench.turn()
    bench.end_round()
    assert [reader.taken() for reader in readers] == [[b"1"]] * 2
    assert bench.stats.of(TABLE.by_name[b"GET"]).calls == 2
    assert (bench.machine.context.hits, bench.machine.context.misses) == (2, 0)


def test_reads_of_all_callers_in_one_turn_are_one_round() -> None:
    bench = leader_of_several()
    peers = [bench.peer() for _ in range(5)]
    for peer in peers:
        bench.send(peer, "GET k", "GET j")
    bench.turn()
    assert len(bench.node.reads) == 1
    bench.end_round()
    assert [peer.taken() for peer in peers] == [[None, None]] * 5


def test_a_write_behind_reads_that_wait_is_proposed_after_them() -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.send(peer, "GET k")
    bench.send(peer, "SET k 1")
    bench.send(peer, "GET k")
    bench.turn()
    assert bench.node.log == []
    bench.end_round()
    assert peer.taken() == [None]
    bench.turn()
    bench.commit()
    assert peer.taken() == [OK, b"1"]


def test_reads_behind_reads_join_the_next_round() -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.send(peer, "GET k")
    bench.turn()
    for _ in range(2):
        bench.send(peer, "EXISTS k")
        bench.turn()
    assert len(bench.node.reads) == 1
    bench.end_round()
    assert peer.taken() == [None]
    bench.fire_timers()
    bench.turn()
    assert len(bench.node.reads) == 1
    bench.end_round()
    assert peer.taken() == [0, 0]


def test_a_read_behind_a_write_rides_with_its_entry() -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    bench.turn()
    bench.send(peer, "GET k")
    bench.turn()
    assert not bench.node.reads
    bench.commit()
    assert peer.taken() == [OK, b"1"]


def test_a_mixed_group_behind_reads_waits_for_them() -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.send(peer, "GET k")
    bench.send(peer, "STRLEN k", "NOSUCH", "SET k 1", "GET k")
    bench.turn()
    assert peer.taken() == []
    bench.end_round()
    bench.turn()
    bench.commit()
    assert texts(peer.taken()) == [
        None, 0, "ERR unknown command 'NOSUCH', with args beginning with: ", "OK", b"1",
    ]  # fmt: skip


def test_a_refusal_of_a_caller_that_waits_for_nothing_is_told_at_once() -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.send(peer, "NOSUCH", "GET")
    assert len(peer.taken()) == 2
    assert not bench.node.reads


def test_a_lease_answers_at_once_and_its_end_brings_rounds_back() -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.node.reads_at_once = True
    bench.send(peer, "GET k")
    assert peer.taken() == [None]
    bench.node.reads_at_once = False
    bench.send(peer, "GET k")
    assert peer.taken() == []


def test_a_read_of_a_key_that_is_due_waits_for_time_behind_its_round(wall_clock: list[int]) -> None:
    bench = leader_of_several()
    peer = bench.peer()
    bench.run(peer, "SET k v PX 500", "SET j w")
    wall_clock[0] = bench.node.now_ms = START_MS + 1000
    bench.send(peer, "GET j", "GET k", "GET j")
    bench.turn()
    bench.send(peer, "STRLEN j")
    bench.turn()
    bench.send(peer, "STRLEN k")
    assert len(bench.node.reads) == 1
    bench.end_round(1)
    assert peer.taken() == [b"w"]
    bench.send(peer, "SET j other")
    bench.turn()
    bench.commit()
    assert peer.taken() == [None, b"w"]
    bench.end_round()
    bench.turn()
    assert peer.taken() == [], "what waits behind a read that waited for time is not mixed with what follows"
    bench.commit()
    assert peer.taken() == [1, 0]
    bench.turn()
    bench.commit()
    assert peer.taken() == [OK]


def test_reads_of_one_round_are_run_together_up_to_one_that_waits_for_time(wall_clock: list[int]) -> None:
    bench = leader_of_several()
    peers = [bench.peer() for _ in range(4)]
    bench.run(peers[0], "SET k v PX 500", "SET j w")
    wall_clock[0] = bench.node.now_ms = START_MS + 1000
    row = TABLE.find(b"get")
    assert row is not None
    calls = bench.stats.of(row).calls
    for peer, key in zip(peers, "jjkj", strict=True):
        bench.send(peer, f"GET {key}")
    bench.turn()
    bench.end_round()
    assert [peer.taken() for peer in peers] == [[b"w"], [b"w"], [], [b"w"]]
    bench.turn()
    bench.commit()
    assert peers[2].taken() == [None]
    assert bench.stats.of(row).calls == calls + 4


def test_stale_reads_are_answered_at_once_by_any_node_as_of_its_last_entry(wall_clock: list[int]) -> None:
    bench = leader_of_several(read_mode="stale")
    peer = bench.peer()
    bench.run(peer, "SET k v PX 500")
    wall_clock[0] = START_MS + 1000
    for leads in (True, False):
        bench.lead("n1" if leads else "n2", 2, is_leader=leads)
        bench.send(peer, "GET k")
        bench.send(peer, "GET k", "STRLEN k")
        assert peer.taken() == [b"v", b"v", 1]
    assert bench.node.log[-1].kind == EntryKind.COMMANDS, "no entry was asked for"


def test_a_stale_read_does_not_overtake_a_write_of_its_caller() -> None:
    bench = leader_of_several(read_mode="stale")
    peer = bench.peer()
    bench.send(peer, "SET k 1")
    bench.send(peer, "GET k")
    assert peer.taken() == []
    bench.turn()
    bench.commit()
    assert peer.taken() == [OK, b"1"]


class Conversation:
    """What a caller asks, and what it must be told: it writes growing numbers into its own key."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.expected: list[object] = []
        self._number = 0
        self._latest: bytes | None = None

    def line(self, chance: random.Random) -> str:
        """Return the next command."""
        self._number += 1
        name = chance.choice(["SET", "GET", "GET", "NO", "CLIENT"])
        if name == "GET":
            self.expected.append(self._latest)
            return f"GET p{self.peer.id}"
        if name == "NO":
            self.expected.append(f"ERR unknown command 'NO{self._number}', with args beginning with: ")
            return f"NO{self._number}"
        self.expected.append("OK")
        if name == "CLIENT":
            return f"CLIENT SETNAME {self._number}"
        self._latest = b"%d" % self._number
        return f"SET p{self.peer.id} {self._number}"


def test_random_conversations_over_rounds_and_entries_are_answered_in_order() -> None:
    for seed in range(80):
        chance = random.Random(seed)
        bench = leader_of_several()
        conversations = [Conversation(bench.peer()) for _ in range(3)]
        for _ in range(60):
            conversation = chance.choice(conversations)
            bench.send(conversation.peer, *(conversation.line(chance) for _ in range(chance.randint(1, 3))))
            if chance.random() < 0.5:
                bench.turn()
            if chance.random() < 0.4 and bench.node.queued:
                bench.commit(1)
            if chance.random() < 0.4 and bench.node.reads:
                bench.end_round(1)
        for _ in range(200):
            bench.turn()
            bench.commit()
            bench.end_round()
            bench.fire_timers()
        for conversation in conversations:
            assert texts(conversation.peer.replies) == conversation.expected, seed
            assert (conversation.peer.pending, conversation.peer.held) == (0, False)
