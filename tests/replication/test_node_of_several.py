"""The driver with peers: what is sent before the disk has reported, what after it, and what waits for whom."""

from __future__ import annotations

import pytest

import replication.node
from replication.core.membership import ADD_LEARNER, Change
from replication.core.messages import (
    AppendReply,
    HardState,
    Heartbeat,
    InstallSnapshot,
    RequestVote,
    VoteReply,
)
from replication.errors import Stopped
from tests.replication.node_bench import THREE, Bench, append, entry, follower, forget, leader

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


LARGE = bytes(replication.node.LARGE_BYTES)


def follower_of_large_entries() -> Bench:
    """Return a follower that has acknowledged one."""
    bench = follower()
    bench.hear(append(entry(1, payload=LARGE)))
    bench.report_all()
    bench.soon.pop()()
    return bench


def test_a_follower_acknowledges_before_it_applies_large_entries() -> None:
    bench = follower_of_large_entries()
    forget(bench)
    bench.hear(append(entry(2, payload=LARGE), commit_index=1))
    bench.report_all()
    assert bench.told == ["persisting", "append 3", "durable", "promising", "send n2 AppendReply", "promised"]
    [apply] = bench.soon
    apply()
    assert bench.applied_indexes == [1]
    bench.hear(Heartbeat(1, 2, 0))
    assert bench.applied_indexes == [1, 2], "nothing is on its way to the disk"


def test_a_follower_whose_disk_is_slow_applies_large_entries_nevertheless() -> None:
    bench = follower_of_large_entries()
    bench.hear(append(entry(2, payload=LARGE), commit_index=1))
    bench.node.tick()
    bench.hear(append(entry(3, payload=LARGE), commit_index=1))
    assert bench.applied_indexes == []
    bench.node.tick()
    assert bench.applied_indexes == [1]
    bench.report_all()
    assert bench.applied_indexes == [1]


def test_small_entries_are_applied_as_they_are_committed() -> None:
    bench = follower()
    bench.hear(append(entry(1)))
    bench.hear(append(entry(2), commit_index=1))
    assert bench.applied_indexes == [1]
    assert bench.soon == []


def test_a_leader_applies_large_entries_as_they_are_committed() -> None:
    bench = leader()
    bench.propose(LARGE)
    bench.report_all()
    bench.hear(AppendReply(1, True, 2, 0, 0, 0))
    assert bench.applied_indexes == [2]


def test_a_node_that_stops_applies_nothing_late() -> None:
    bench = follower_of_large_entries()
    bench.hear(append(entry(2, payload=LARGE), commit_index=1))
    bench.report_all()
    bench.node.stop()
    bench.soon.pop()()
    assert bench.applied_indexes == []


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
