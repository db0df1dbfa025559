"""Entries that the log holds from before: replayed at the start, read for peers, kept for them and purged."""

from __future__ import annotations

import pytest

from persistence.errors import Damaged
from replication.core.membership import Configuration, encode
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    EntryKind,
    Fetch,
    InstallSnapshot,
    VoteReply,
)
from tests.replication.node_bench import THREE, Bench, HeldReader, append, entry, forget

# -- entries of earlier runs -------------------------------------------------------------------------------------------


def test_what_was_known_to_be_committed_is_replayed_without_a_leader() -> None:
    bench = Bench(voters=3, stored=5, term=1, committed=3)
    bench.node.start()
    assert (bench.node.is_replayed, bench.node.replay_remaining) == (False, 3)
    bench.node.replay_some(lambda: False)
    assert bench.applied_indexes == [1, 2, 3]
    assert (bench.node.is_replayed, bench.node.replay_remaining) == (True, 0)


def test_what_the_leader_commits_of_the_rest_is_read_from_the_log() -> None:
    bench = Bench(voters=3, stored=5, term=1, committed=3)
    bench.node.start()
    bench.node.replay_some(lambda: False)
    bench.hear(append(entry(6), commit_index=4))
    assert bench.applied_indexes == [1, 2, 3, 4]
    bench.hear(AppendEntries(1, 6, 1, 6, [], 0))
    assert bench.applied_indexes == [1, 2, 3, 4, 5, 6]
    bench.hear(append(entry(7), commit_index=7))
    assert bench.applied_indexes == [1, 2, 3, 4, 5, 6, 7]
    assert bench.log.reads == 3


def test_nothing_is_read_beside_while_the_first_part_is_replayed_in_slices() -> None:
    bench = Bench(voters=3, stored=5, term=1, committed=3)
    bench.node.start()
    bench.node.replay_some(lambda: True)
    bench.hear(append(entry(6), commit_index=6))
    assert bench.applied_indexes == [1]
    bench.node.replay_some(lambda: False)
    bench.node.replay_some(lambda: False)
    assert bench.applied_indexes == [1, 2, 3, 4, 5, 6]


def test_a_change_of_members_of_an_earlier_run_takes_effect_in_its_place() -> None:
    bench = Bench(voters=3, stored=3, term=1, committed=3)
    two = Configuration(("n1", "n2"))
    bench.log.stored[1] = entry(2, kind=EntryKind.CONFIGURATION, payload=encode(two))
    bench.node.start()
    bench.node.replay_some(lambda: False)
    assert [line for line in bench.told if "members" in line or "apply " in line] == [
        "members n1 n2 n3",
        "apply 1",
        "apply 2",
        "members n1 n2",
        "apply 3",
    ]
    assert bench.node.configuration == two


def test_a_change_of_members_of_an_earlier_run_is_known_to_be_committed_after_the_next_start() -> None:
    bench = Bench(voters=3, stored=5, term=1, committed=3)
    bench.log.stored[3] = entry(4, kind=EntryKind.CONFIGURATION, payload=encode(Configuration(("n1",))))
    bench.node.start()
    bench.node.replay_some(lambda: False)
    assert bench.log.marks == []
    bench.hear(AppendEntries(1, 5, 1, 4, [], 0))
    assert bench.applied_indexes == [1, 2, 3, 4]
    assert bench.log.marks == [4], "nobody else could tell this node: it is the only member left"


def test_a_node_that_is_found_to_be_the_only_voter_campaigns_after_its_replay() -> None:
    bench = Bench(voters=2, stored=3, term=1, committed=2)
    bench.log.stored[1] = entry(2, kind=EntryKind.CONFIGURATION, payload=encode(Configuration(("n1",))))
    bench.node.start()
    bench.report_all()
    led = [bench.node.is_leader]
    bench.node.replay_some(lambda: False)
    bench.report_all()
    led.append(bench.node.is_leader)
    assert led == [False, True]
    bench.node.replay_some(lambda: False)
    bench.report_all()
    assert bench.applied_indexes == [1, 2, 3, 4]


def test_damage_in_what_is_to_be_replayed_stops_the_node() -> None:
    bench = Bench(voters=3, stored=3, term=1, committed=3)
    bench.log.is_unreadable = True
    bench.node.start()
    with pytest.raises(Damaged):
        bench.node.replay_some(lambda: False)
    assert bench.node.is_stopped


def test_damage_in_what_the_leader_has_committed_stops_the_node_and_says_so() -> None:
    bench = Bench(voters=3, stored=3, term=1, committed=1)
    bench.node.start()
    bench.node.replay_some(lambda: False)
    bench.log.is_unreadable = True
    bench.hear(append(entry(4), commit_index=4))
    assert bench.node.is_stopped
    [failure] = bench.failures
    assert isinstance(failure, Damaged)


def reading_the_rest() -> tuple[Bench, HeldReader]:
    """Return a follower that waits for entries 2 and 3 of an earlier run, which its leader has committed."""
    reader = HeldReader()
    bench = Bench(voters=3, stored=3, term=1, committed=1, reader=reader)
    bench.node.start()
    bench.node.replay_some(lambda: False)
    bench.hear(append(entry(4), commit_index=3))
    return bench, reader


def test_the_rest_is_asked_for_once_however_often_the_leader_speaks() -> None:
    bench, reader = reading_the_rest()
    bench.hear(AppendEntries(1, 4, 1, 4, [], 0))
    [(from_index, to_index, done)] = reader.asked
    assert (from_index, to_index) == (2, 3)
    done(bench.log.stored[1:3])
    assert bench.applied_indexes == [1, 2, 3, 4]


def test_what_was_read_for_a_stopped_node_or_behind_a_snapshot_is_dropped() -> None:
    bench, reader = reading_the_rest()
    bench.node.stop()
    reader.asked[0][2](Damaged("wal", 0, "flipped"))
    assert bench.failures == []
    bench, reader = reading_the_rest()
    bench.report_all()
    bench.node.snapshot_received("n2", InstallSnapshot(1, 50, 1, THREE))
    reader.asked[0][2](bench.log.stored[1:3])
    bench.node.restored()
    assert bench.applied_indexes == [1]


# -- old entries for a peer --------------------------------------------------------------------------------------------


def leader_with_old_entries() -> Bench:
    """Return the leader of term 2 whose first five entries are on disk only."""
    bench = Bench(voters=3, stored=5, applied=5, term=1)
    log = bench.node.raft.log
    log.base_index, log.base_term = 0, 0
    log.run_starts, log.run_terms = [0, 1], [0, 1]
    bench.node.start()
    bench.node.raft.campaign()
    bench.node.tick()
    bench.hear(VoteReply(2, True, True))
    bench.report_all()
    bench.hear(VoteReply(2, True, False))
    bench.report_all()
    assert bench.node.is_leader
    forget(bench)
    return bench


def test_entries_that_are_on_disk_only_are_read_for_a_peer() -> None:
    bench = leader_with_old_entries()
    bench.hear(AppendReply(2, False, 5, 0, 0, 0))
    sent = [message for peer, message in bench.wire.sent if isinstance(message, AppendEntries)]
    assert [[found.index for found in message.entries] for message in sent] == [[1, 2, 3, 4, 5]]


def test_entries_that_cannot_be_read_turn_into_a_snapshot_and_are_reported() -> None:
    bench = leader_with_old_entries()
    bench.log.is_unreadable = True
    bench.hear(AppendReply(2, False, 5, 0, 0, 0))
    assert "send n2 snapshot 0" in bench.told
    assert len(bench.damage) == 1


def test_entries_that_were_purged_meanwhile_are_no_damage() -> None:
    bench = leader_with_old_entries()
    bench.node._kept_bytes = 0
    bench.node.purge(5)
    bench.log.is_unreadable = True
    bench.node._fetched(2, Fetch("n2", 1, 5), Damaged("wal", 0, "gone"))
    assert bench.damage == []


def test_entries_that_were_read_for_an_earlier_leadership_are_dropped() -> None:
    bench = leader_with_old_entries()
    forget(bench)
    bench.node._fetched(1, Fetch("n2", 1, 5), Damaged("wal", 0, "flipped"))
    assert bench.told == []
    assert bench.damage == []


# -- purging -----------------------------------------------------------------------------------------------------------


def test_the_log_is_kept_for_a_peer_that_is_a_little_behind() -> None:
    bench = leader_with_old_entries()
    bench.hear(AppendReply(2, True, 6, 0, 0, 0))
    bench.hear(AppendReply(2, True, 2, 0, 0, 0), sender="n3")
    bench.node.purge(6)
    assert bench.told[-1] == "purge before 3"
    bench.node.purge(3)
    assert bench.told.count("purge before 3") == 1, "what is gone is not purged again"


def test_the_log_is_not_kept_for_a_peer_that_is_far_behind() -> None:
    bench = leader_with_old_entries()
    bench.node._kept_bytes = 2
    bench.node.purge(6)
    assert bench.told[-1] == "purge before 6"
    assert bench.node.raft.log.base_index == 5
