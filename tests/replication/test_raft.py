"""The core with one voter: elections, proposals, commitment; what the thesis says of them."""

from __future__ import annotations

import pytest

from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import Entry, EntryKind, HardState
from replication.core.raft import Raft, Role, Settings
from replication.errors import NotLeading

STAMP_MS = 1_000


def new_raft(last_index: int = 0, term: int = 0, applied: int | None = None) -> Raft:
    """A node as a restart leaves it."""
    log = RaftLog(last_index, term, last_index if applied is None else applied)
    return Raft("n1", Settings(), HardState(term, ""), Configuration(("n1",)), log, lambda _count: 0)


def persist(raft: Raft) -> None:
    """Make everything durable that waits for the disk."""
    while (ready := raft.ready()) is not None:
        term = ready.hard_state.term if ready.hard_state is not None else raft.term
        raft.persisted(term, raft.log.last_index, STAMP_MS)


def new_leader(last_index: int = 0, term: int = 0) -> Raft:
    """A leader whose no-op is committed and applied."""
    raft = new_raft(last_index, term)
    raft.campaign()
    persist(raft)
    raft.take_committed()
    assert raft.role is Role.LEADER
    return raft


def test_a_node_starts_as_a_follower_and_knows_no_leader() -> None:
    raft = new_raft(last_index=4, term=3)
    assert (raft.role, raft.leader, raft.term, raft.vote) == (Role.FOLLOWER, None, 3, "")
    assert raft.ready() is None


def test_a_candidate_votes_for_itself_in_the_next_term() -> None:
    """Thesis, section 3.4: it increments its current term, and votes for itself."""
    raft = new_raft(term=3)
    raft.campaign()
    assert (raft.role, raft.leader) == (Role.CANDIDATE, None)
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state == HardState(4, "n1")
    assert ready.entries == []


def test_the_own_vote_counts_only_when_it_is_durable() -> None:
    """Thesis, section 3.8: the vote is persistent state, updated on stable storage before it is answered."""
    raft = new_raft()
    raft.campaign()
    roles = [raft.role]
    raft.ready()
    roles.append(raft.role)
    raft.persisted(1, 0, STAMP_MS)
    roles.append(raft.role)
    assert roles == [Role.CANDIDATE, Role.CANDIDATE, Role.LEADER]
    assert raft.leader == "n1"


def test_one_vote_of_three_elects_nobody() -> None:
    raft = new_raft()
    raft.use_configuration(Configuration(("n1", "n2", "n3")))
    raft.campaign()
    persist(raft)
    assert raft.role is Role.CANDIDATE


def test_a_durable_report_of_an_earlier_term_counts_for_nothing() -> None:
    raft = new_raft(term=3)
    raft.campaign()
    raft.ready()
    raft.persisted(3, 0, STAMP_MS)
    assert raft.role is Role.CANDIDATE


def test_a_candidate_that_campaigns_again_needs_a_vote_of_the_new_term() -> None:
    raft = new_raft()
    raft.campaign()
    raft.ready()
    raft.campaign()
    raft.persisted(1, 0, STAMP_MS)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    persist(raft)
    assert raft.role is Role.LEADER


def test_a_follower_learns_nothing_from_a_durable_report() -> None:
    raft = new_raft(last_index=5, term=2)
    raft.persisted(2, 5, STAMP_MS)
    assert (raft.role, raft.log.committed) == (Role.FOLLOWER, 5)


def test_a_new_leader_appends_a_no_op_of_its_term_first() -> None:
    """Thesis, section 6.4: a leader commits a blank no-op entry at the start of its term."""
    raft = new_raft(last_index=9, term=4)
    raft.campaign()
    raft.ready()
    raft.persisted(5, 9, STAMP_MS)
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state is None
    assert ready.entries == [Entry(5, 10, EntryKind.NOOP, STAMP_MS, b"")]


@pytest.mark.parametrize("applied", [0, 4, 9])
def test_entries_of_earlier_terms_are_committed_with_the_first_of_the_own_term(applied: int) -> None:
    """Thesis, section 3.6.2: only entries of the leader's current term are committed by counting replicas."""
    raft = new_raft(last_index=9, term=4, applied=applied)
    raft.campaign()
    raft.ready()
    raft.persisted(5, 9, STAMP_MS)
    # The old entries are durable here, and a report of them alone commits nothing.
    raft.persisted(5, 9, STAMP_MS)
    assert raft.log.committed == applied
    raft.ready()
    raft.persisted(5, 10, STAMP_MS)
    assert raft.log.committed == 10


def test_nothing_can_be_proposed_before_the_election_is_won() -> None:
    raft = new_raft()
    with pytest.raises(NotLeading, match="leader: unknown"):
        raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    raft.campaign()
    with pytest.raises(NotLeading):
        raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    assert raft.log.last_index == 0


def test_a_refusal_names_the_leader_when_it_is_known() -> None:
    assert "leader: n2" in str(NotLeading("n2"))


def test_a_proposal_is_committed_only_when_it_is_durable() -> None:
    raft = new_leader()
    entry = raft.propose(EntryKind.COMMANDS, STAMP_MS, b"x")
    assert entry == Entry(1, 2, EntryKind.COMMANDS, STAMP_MS, b"x")
    assert raft.take_committed() == []
    raft.ready()
    assert raft.take_committed() == []
    raft.persisted(1, 2, STAMP_MS)
    assert raft.take_committed() == [entry]
    assert raft.take_committed() == []


def test_a_partial_report_commits_a_prefix() -> None:
    raft = new_leader()
    entries = [raft.propose(EntryKind.COMMANDS, STAMP_MS, b"%d" % number) for number in range(5)]
    raft.ready()
    raft.persisted(1, 4, STAMP_MS)
    assert raft.take_committed() == entries[:3]
    raft.persisted(1, 6, STAMP_MS)
    assert raft.take_committed() == entries[3:]


def test_a_late_report_takes_nothing_back() -> None:
    raft = new_leader()
    for number in range(3):
        raft.propose(EntryKind.COMMANDS, STAMP_MS, b"%d" % number)
    raft.ready()
    raft.persisted(1, 4, STAMP_MS)
    raft.persisted(1, 2, STAMP_MS)
    assert raft.log.committed == 4
    assert len(raft.take_committed()) == 3
    raft.persisted(1, 3, STAMP_MS)
    assert (raft.log.committed, raft.log.applied) == (4, 4)


def test_each_entry_is_handed_to_the_disk_once() -> None:
    raft = new_leader()
    handed_out: list[Entry] = []
    for number in range(4):
        raft.propose(EntryKind.COMMANDS, STAMP_MS, b"%d" % number)
        if number % 2:
            ready = raft.ready()
            assert ready is not None
            handed_out += ready.entries
    assert [entry.payload for entry in handed_out] == [b"0", b"1", b"2", b"3"]
    assert raft.ready() is None


def test_a_change_of_the_vote_alone_goes_to_the_disk() -> None:
    raft = new_raft(term=2)
    raft.vote = "n1"
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state == HardState(2, "n1")


def test_a_leader_does_not_campaign() -> None:
    raft = new_leader()
    raft.campaign()
    assert (raft.role, raft.term) == (Role.LEADER, 1)


def test_the_log_takes_only_the_next_entry_of_a_term_that_does_not_go_back() -> None:
    log = RaftLog(5, 3, 5)
    for wrong in (Entry(3, 5, 0, 0, b""), Entry(3, 7, 0, 0, b""), Entry(2, 6, 0, 0, b"")):
        with pytest.raises(AssertionError):
            log.append(wrong)
    log.append(Entry(3, 6, 0, 0, b""))
    assert (log.last_index, log.last_term) == (6, 3)


def test_a_log_cannot_be_applied_beyond_its_end() -> None:
    with pytest.raises(AssertionError):
        RaftLog(5, 3, 6)


def test_committed_entries_are_not_given_out_while_older_ones_are_not_applied() -> None:
    log = RaftLog(5, 3, 2)
    log.append(Entry(3, 6, 0, 0, b"x"))
    log.commit(6)
    assert log.replay_end == 5
    assert log.take_committed() == []
    for index in (3, 4, 5):
        log.replayed(index)
    assert [entry.payload for entry in log.take_committed()] == [b"x"]
