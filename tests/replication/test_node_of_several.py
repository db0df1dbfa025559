"""The driver with peers: what is sent before the disk has reported, what after it, and what waits for whom."""

from __future__ import annotations

import pytest

import replication.node
from persistence.errors import Damaged
from replication.core.membership import ADD_LEARNER, Change, Configuration, encode
from replication.core.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    Fetch,
    HardState,
    Heartbeat,
    InstallSnapshot,
    RequestVote,
    VoteReply,
)
from replication.errors import Stopped
from tests.replication.node_bench import Bench, HeldReader

THREE = Configuration(("n1", "n2", "n3"))


def entry(index: int, term: int = 1, kind: EntryKind = EntryKind.COMMANDS, payload: bytes = b"x") -> Entry:
    return Entry(term, index, kind, 2_000 + index, payload)


def append(*entries: Entry, commit_index: int = 0, term: int = 1) -> AppendEntries:
    """Return an append that follows what comes before its first entry, all of one term."""
    previous = entries[0].index - 1
    return AppendEntries(term, previous, 1 if previous else 0, commit_index, list(entries), 0)


def follower() -> Bench:
    """Return a follower of n2 in term 1 whose log is empty."""
    bench = Bench(voters=3)
    bench.node.start()
    bench.hear(Heartbeat(1, 0, 0))
    bench.report_all()
    forget(bench)
    return bench


def leader() -> Bench:
    """Return the leader of term 1, whose no-op is committed."""
    bench = Bench(voters=3)
    bench.node.start()
    bench.node.raft.campaign()
    bench.node.tick()
    bench.hear(VoteReply(1, True, True))
    bench.report_all()
    bench.hear(VoteReply(1, True, False))
    bench.report_all()
    bench.hear(AppendReply(1, True, 1, 0, 0, 0))
    assert bench.node.is_leader
    assert bench.applied_indexes == [1]
    forget(bench)
    return bench


def forget(bench: Bench) -> None:
    bench.told.clear()
    bench.wire.sent.clear()
    bench.machine.applied.clear()


# -- the order ---------------------------------------------------------------------------------------------------------


def test_a_leader_sends_its_entries_beside_its_own_disk() -> None:
    bench = leader()
    bench.propose()
    assert bench.told == [
        "proposed",
        "persisting",
        "append 3",
        "sending",
        "send n2 AppendEntries",
        "sent",
    ]
    bench.hear(AppendReply(1, True, 2, 0, 0, 0))
    assert bench.applied_indexes == []
    bench.report_all()
    assert bench.applied_indexes == [2]


def test_a_follower_acknowledges_after_its_disk_has_reported() -> None:
    bench = follower()
    bench.hear(append(entry(1), entry(2)))
    assert bench.told == ["persisting", "append 2"]
    bench.report_all()
    assert bench.told[2:] == ["durable", "promising", "send n2 AppendReply", "promised"]
    assert bench.wire.sent[-1] == ("n2", AppendReply(1, True, 2, 0, 0, 0))


def test_a_vote_is_told_after_it_is_durable() -> None:
    bench = Bench(voters=3)
    bench.node.start()
    bench.hear(RequestVote(1, 0, 0, False, False))
    assert bench.log.appended[-1][0] == HardState(1, "n2")
    assert bench.wire.sent == []
    assert bench.told[-2:] == ["voting", "None leads 1"]
    bench.report_all()
    assert bench.wire.sent == [("n2", VoteReply(1, True, False))]


def test_a_promise_that_rests_on_nothing_new_waits_for_what_is_on_its_way() -> None:
    bench = follower()
    bench.hear(append(entry(1)))
    bench.hear(append(entry(1)))
    assert bench.wire.sent == []
    bench.report_all()
    assert [type(message) for _, message in bench.wire.sent] == [AppendReply, AppendReply]
    forget(bench)
    bench.hear(append(entry(1)))
    assert bench.told == ["promising", "send n2 AppendReply", "promised"]


def test_a_promise_of_an_earlier_term_is_not_sent() -> None:
    bench = follower()
    bench.hear(append(entry(1)))
    bench.hear(Heartbeat(2, 0, 0), sender="n3")
    bench.report_all()
    assert [peer for peer, message in bench.wire.sent if isinstance(message, AppendReply)] == []


def test_the_commit_index_goes_to_the_disk_with_entries_where_there_are_other_voters() -> None:
    bench = follower()
    bench.hear(append(entry(1)))
    bench.report_all()
    bench.hear(append(entry(2), commit_index=1))
    assert bench.log.marks[-2:] == [0, 1]
    alone = Bench()
    alone.elect()
    alone.propose()
    alone.report_all()
    alone.propose()
    assert set(alone.log.marks) == {0}


def test_a_follower_that_comes_to_lead_stamps_nothing_before_what_it_holds() -> None:
    bench = follower()
    bench.now_ms = 100
    bench.hear(append(entry(1)))
    assert bench.node.next_stamp_ms() == 2_001


def test_who_leads_is_told_when_it_changes_and_only_then() -> None:
    bench = Bench(voters=3)
    bench.node.start()
    for _ in range(3):
        bench.hear(Heartbeat(1, 0, 0))
    bench.node.peer_lost("n2")
    bench.hear(Heartbeat(2, 0, 0), sender="n3")
    assert [line for line in bench.told if "leads" in line] == ["n2 leads 1", "None leads 1", "n3 leads 2"]


def test_a_disk_that_refuses_stops_the_node_before_it_sends() -> None:
    bench = leader()
    bench.log.has_failed = True
    bench.propose()
    assert bench.node.is_stopped
    assert bench.wire.sent == []


def test_a_disk_that_refuses_to_remember_a_change_of_members_stops_the_node() -> None:
    bench = Bench()
    bench.elect()
    outcome: list[Exception | None] = []
    bench.node.change([Change(ADD_LEARNER, "n2", "host:1")], outcome.append)
    [(_, _, token)] = bench.log.appended
    bench.log.has_failed = True
    bench.node.durable(token)
    assert outcome == [None]
    assert bench.node.is_stopped


# -- what a node refuses -----------------------------------------------------------------------------------------------


def test_a_stopped_node_is_deaf() -> None:
    bench = follower()
    bench.hear(append(entry(1)))
    bench.node.stop()
    forget(bench)
    bench.node.tick()
    bench.node.peer_lost("n2")
    bench.node.snapshot_sent("n2", True)
    bench.node.snapshot_received("n2", InstallSnapshot(1, 9, 1, THREE))
    bench.node.replay_some(lambda: False)
    bench.hear(append(entry(2)))
    bench.report_all()
    with pytest.raises(Stopped):
        bench.node.transfer("n2")
    assert bench.told == []


def test_a_snapshot_that_comes_as_a_message_is_not_believed() -> None:
    bench = follower()
    bench.hear(InstallSnapshot(1, 9, 1, THREE))
    assert bench.told == []


def test_a_node_that_applies_too_slowly_takes_no_more_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication.node, "UNAPPLIED_BYTES_MAX", 10)
    bench = follower()
    bench.hear(append(entry(1, payload=b"x" * 11)))
    bench.hear(append(entry(2)), Heartbeat(1, 1, 0))
    assert bench.node.last_index == 1
    assert bench.node.commit_index == 1, "what else the leader says counts"
    bench.hear(append(entry(2)))
    assert bench.node.last_index == 2


# -- snapshots ---------------------------------------------------------------------------------------------------------


def received(index: int, term: int = 1) -> InstallSnapshot:
    return InstallSnapshot(1, index, term, THREE)


def test_a_received_snapshot_restarts_the_log_and_then_the_machine() -> None:
    bench = follower()
    bench.node.snapshot_received("n2", received(50))
    assert bench.told == [
        "persisting",
        "restart behind 50 of term 1",
        "append 2",
        "restoring",
        "restore 50",
    ]
    bench.report_all()
    assert bench.wire.sent == [("n2", AppendReply(1, True, 50, 0, 0, 0))]
    bench.node.restored()
    assert bench.told[-2:] == ["restored", "members n1 n2 n3"]
    bench.hear(append(entry(51), commit_index=51))
    assert bench.applied_indexes == [51]


def test_a_newer_snapshot_is_restored_after_the_one_that_is_being_loaded() -> None:
    bench = follower()
    bench.node.snapshot_received("n2", received(50))
    bench.report_all()
    bench.node.snapshot_received("n2", received(70))
    assert bench.told.count("restore 70") == 0
    bench.node.restored()
    assert bench.told[-1] == "restore 70"
    restoring = [bench.node.is_restoring]
    bench.node.restored()
    restoring.append(bench.node.is_restoring)
    assert restoring == [True, False]
    assert bench.told.count("members n1 n2 n3") == 1


def test_a_machine_that_is_ready_after_the_stop_changes_nothing() -> None:
    bench = follower()
    bench.node.snapshot_received("n2", received(50))
    bench.node.stop()
    forget(bench)
    bench.node.restored()
    assert bench.told == []


def test_a_snapshot_ends_the_replay() -> None:
    bench = Bench(voters=3, stored=5, term=1, committed=2)
    bench.node.start()
    bench.hear(Heartbeat(1, 2, 0))
    bench.node.snapshot_received("n2", received(50))
    bench.node.restored()
    assert bench.node.is_replayed
    assert bench.log.reads == 0
    assert bench.applied_indexes == []


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
    bench.node.snapshot_received("n2", received(50))
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
