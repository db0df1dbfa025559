"""The rules see each way of breaking them, and nothing else."""

from __future__ import annotations

from random import Random

import pytest

from kvservice.commands.registry import TABLE
from kvservice.keyspace.machine import Machine
from kvservice.simulation.rules import DurableLog, RuleBroken, Rules, digest_of
from replication.core.membership import Configuration
from replication.core.messages import Entry, HardState

THREE = Configuration(("a", "b", "c"))


def entry(index: int, term: int = 1, payload: bytes = b"x") -> Entry:
    return Entry(term, index, 1, 0, payload)


def three() -> Rules:
    rules = Rules()
    for name in "abc":
        rules.disks[name] = DurableLog()
        rules.started(name, 0)
    return rules


def test_a_term_has_one_leader() -> None:
    rules = three()
    for voter, candidate, term in (("b", "a", 1), ("c", "a", 1), ("a", "b", 2), ("b", "a", 3)):
        rules.votes(voter, candidate, term)
    rules.leads("a", 1, THREE)
    rules.leads("a", 1, THREE)
    rules.leads("b", 2, THREE)
    with pytest.raises(RuleBroken, match="election safety"):
        rules.leads("b", 1, THREE)


def test_a_leader_has_the_votes_of_a_majority_of_each_set() -> None:
    rules = three()
    with pytest.raises(RuleBroken, match="elected"):
        rules.leads("a", 1, THREE)
    rules.votes("b", "a", 2)
    with pytest.raises(RuleBroken, match="elected"):
        rules.leads("a", 2, Configuration(("a", "b", "c"), ("a", "c")))
    rules.leads("a", 2, Configuration(("a", "b", "c"), ("a", "b")))


def test_a_vote_is_on_disk_and_stays_there() -> None:
    rules = three()
    rules.disks["a"].hard_state = HardState(2, "a")
    rules.votes("a", "a", 2)
    with pytest.raises(RuleBroken, match="durable vote"):
        rules.votes("a", "b", 3)
    rules.found("a", HardState(2, "a"))
    rules.found("a", HardState(3, ""))
    with pytest.raises(RuleBroken, match="durable vote"):
        rules.found("a", HardState(2, "a"))
    rules.found("b", HardState(2, "a"))
    with pytest.raises(RuleBroken, match="durable vote"):
        rules.found("b", HardState(2, ""))


def test_what_a_leader_counts_of_a_peer_is_on_its_disk() -> None:
    rules = three()
    for voter in "bc":
        rules.votes(voter, "a", 2)
    rules.leads("a", 2, THREE)
    rules.disks["b"].append([entry(1), entry(2, term=2)])
    rules.matches("a", 2, "b", 2, 2)
    rules.matches("c", 1, "b", 3, 1)
    with pytest.raises(RuleBroken, match="match"):
        rules.matches("a", 2, "b", 2, 1)
    with pytest.raises(RuleBroken, match="match"):
        rules.matches("a", 2, "b", 3, 2)
    rules.disks["b"].is_doubtful = True
    rules.matches("a", 2, "b", 3, 2)


def test_a_leader_commits_by_counting_in_its_term_only() -> None:
    rules = three()
    rules.counts("a", committed=5, committed_at_election=5, term_start_index=8)
    rules.counts("a", committed=8, committed_at_election=5, term_start_index=8)
    with pytest.raises(RuleBroken, match="own term"):
        rules.counts("a", committed=7, committed_at_election=5, term_start_index=8)


def test_a_voter_has_one_vote_a_term() -> None:
    rules = three()
    rules.votes("a", "b", 1)
    rules.votes("a", "b", 1)
    rules.votes("a", "c", 2)
    with pytest.raises(RuleBroken, match="one vote"):
        rules.votes("a", "c", 1)


def test_a_voter_whose_disk_is_lost_cannot_know_its_votes() -> None:
    rules = three()
    rules.votes("a", "b", 1)
    rules.loses_disk("c")
    with pytest.raises(RuleBroken, match="one vote"):
        rules.votes("a", "c", 1)
    rules.loses_disk("a")
    rules.votes("a", "c", 1)


def test_every_node_applies_the_same_in_order() -> None:
    rules = three()
    rules.applies("a", entry(1))
    rules.applies("b", entry(1))
    rules.applies("b", entry(2))
    with pytest.raises(RuleBroken, match="state machine safety"):
        rules.applies("a", entry(2, term=2))
    with pytest.raises(RuleBroken, match="order of applying"):
        rules.applies("c", entry(2))
    with pytest.raises(RuleBroken, match="order of applying"):
        rules.applies("b", entry(2))


def test_a_node_that_restored_a_snapshot_goes_on_behind_it() -> None:
    rules = three()
    rules.started("a", 10)
    rules.applies("a", entry(11))


def test_nobody_acknowledges_more_than_is_on_its_disk() -> None:
    rules = three()
    rules.disks["a"].append([entry(1), entry(2)])
    rules.acknowledges("a", 2)
    with pytest.raises(RuleBroken, match="durable acknowledgment"):
        rules.acknowledges("a", 3)


def test_a_leader_applies_what_a_quorum_of_each_set_has() -> None:
    rules = three()
    rules.disks["a"].append([entry(1)])
    with pytest.raises(RuleBroken, match="quorum"):
        rules.commits("a", entry(1), [Configuration(("a", "b", "c"))])
    rules.disks["b"].append([entry(1)])
    rules.commits("a", entry(1), [Configuration(("a", "b", "c"))])
    with pytest.raises(RuleBroken, match="quorum"):
        rules.commits("a", entry(1, term=2), [Configuration(("a", "b", "c"))])
    with pytest.raises(RuleBroken, match="quorum"):
        rules.commits("a", entry(1), [Configuration(("a", "b"), outgoing=("b", "c", "d"))])


def test_a_durable_log_forgets_what_was_replaced() -> None:
    disk = DurableLog()
    disk.append([entry(1), entry(2), entry(3)])
    disk.append([entry(2, term=2)])
    assert (disk.last, disk.holds(1, 1), disk.holds(2, 1), disk.holds(2, 2), disk.holds(3, 1)) == (
        2,
        True,
        False,
        True,
        False,
    )
    disk.restart(10)
    assert disk.holds(9, 7)
    assert not disk.holds(11, 7)


def machine_after(*commands: bytes) -> Machine:
    machine = Machine(TABLE, 2, Random)
    for index, text in enumerate(commands, start=1):
        words = text.split()
        payload = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        machine.begin_entry(index, 1, 1000, payload)
        machine.replay(payload)
        machine.end_entry()
    return machine


def test_states_that_differ_have_other_digests() -> None:
    machines = [
        machine_after(*commands)
        for commands in (
            (),
            (b"SET k 1",),
            (b"SET k 2",),
            (b"SET m 1",),
            (b"SET k 1 PX 5000",),
            (b"SET k 1 PX 6000",),
            (b"SET {k}a 1", b"SET {k}b 1"),
        )
    ]
    digests = [digest_of(machine.databases, 1000) for machine in machines]
    assert len(set(digests)) == len(digests)


def test_the_order_of_keys_in_a_slot_is_not_in_the_digest() -> None:
    one, other = machine_after(b"SET {k}a 1", b"SET {k}b 1"), machine_after(b"SET {k}b 1", b"SET {k}a 1")
    assert digest_of(one.databases, 1000) == digest_of(other.databases, 1000)


def test_a_key_that_is_expired_is_not_in_the_digest() -> None:
    kept, gone = machine_after(b"SET k 1 PX 5000"), machine_after()
    assert digest_of(kept.databases, 5999) != digest_of(gone.databases, 5999)
    assert digest_of(kept.databases, 6000) == digest_of(gone.databases, 6000)


def test_states_at_one_index_are_compared() -> None:
    rules = three()
    rules.state("a", 64, 5)
    rules.state("b", 64, 5)
    assert rules.states_compared == 1
    with pytest.raises(RuleBroken, match="equal states"):
        rules.state("c", 64, 6)
