"""Administration against a stand-in for the node: what is refused, what is waited for, and what a caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvservice.cluster import admin as module
from kvservice.cluster.admin import AdministeredNode, Administration, furthest_voter
from kvservice.cluster.errors import (
    ChangeInProgress,
    ChangeRefused,
    NotCaughtUp,
    NotTheLeader,
    QuorumAtRisk,
    TransferFailed,
)
from kvservice.cluster.errors import UnknownMember as UnknownMemberError
from kvservice.cluster.members import Addresses, Members
from kvservice.errors import CommitTimeout, LeadershipLost, NotAppliedError, Overloaded, ShuttingDown
from replication import errors as replication_errors
from replication.core.membership import (
    ADD_LEARNER,
    CHANGE_ADDRESS,
    PROMOTE,
    REMOVE,
    Change,
    Configuration,
    Refusal,
)
from replication.core.membership import ChangeRefused as CoreRefused
from replication.core.messages import EntryKind
from replication.core.progress import Progress

Done = Callable[[Exception | None], None]
ADDRESSES = {name: f"{name}:7401" for name in ("n1", "n2", "n3", "n4")}
FOUR = Configuration(("n1", "n2", "n3"), learners=("n4",), addresses=ADDRESSES)


class StandIn:
    """A leader of three voters and a learner, whose changes end as a test says."""

    def __init__(self) -> None:
        self.is_leader = True
        self.leader_id: str | None = "n1"
        self.term = 3
        self.commit_index = 10
        self.changes: list[Change] = []
        self.outcome: Exception | None = None
        self.is_silent = False
        self.transfers: list[str] = []
        self.refusal: Exception | None = None
        """Of the next transfer or proposal."""
        self.proposed: list[tuple[int, bytes, int]] = []
        self.raft = SimpleNamespace(progress={name: self._progress(name) for name in ("n1", "n2", "n3", "n4")})

    @staticmethod
    def _progress(name: str) -> Progress:
        progress = Progress(1, 1, 1, recent_active=True)
        progress.match = {"n2": 10, "n3": 9, "n4": 10}.get(name, 10)
        return progress

    def change(self, changes: list[Change], done: Done) -> None:
        self.changes += changes
        if not self.is_silent:
            done(self.outcome)

    def propose(self, kind: int, payload: bytes, batch: object) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.proposed.append((kind, payload, self.commit_index + 1))
        asyncio.get_running_loop().call_later(0.02, self._commit)
        return self.commit_index + 1

    def _commit(self) -> None:
        self.commit_index += 1

    def transfer(self, to: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.transfers.append(to)
        if not self.is_silent:
            self.leader_id, self.is_leader = to, False


class Setting:
    """A stand-in and its administration."""

    def __init__(self) -> None:
        self.node = StandIn()
        self.members = Members("n1", Addresses("n1:7401", grpc="n1:7400"))
        self.members.configuration_changed(FOUR, 5)
        self.members.met("n2", Addresses("n2:7401", "n2:6379", "n2:7400"))
        self.admin = Administration(self.members, lambda: cast(AdministeredNode, self.node))


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    for name in ("CATCH_UP_SECONDS", "COMMIT_SECONDS", "TRANSFER_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(module, name, 0.05)
    return Setting()


async def test_a_new_node_is_added_as_a_learner_and_a_known_one_moved(setting: Setting) -> None:
    await setting.admin.add("n5", "n5:7401")
    await setting.admin.add("n2", "n2:7401")
    setting.node.raft.progress["n2"].recent_active = False
    await setting.admin.add("n2", "elsewhere:7401")
    assert setting.node.changes == [
        Change(ADD_LEARNER, "n5", "n5:7401"),
        Change(CHANGE_ADDRESS, "n2", "elsewhere:7401"),
    ]


@pytest.mark.parametrize(
    ("name", "address", "told"),
    [
        ("n5", "n2:7401", "n2 is at n2:7401: remove it first, or name another address"),
        ("n2", "n3:7401", "n3 is at n3:7401: remove it first, or name another address"),
        ("n1", "n9:7401", "n1 answers at n1:7401: stop it first, or start it with advertise_peer_addr = n9:7401"),
        ("n4", "n9:7401", "n4 answers at n4:7401: stop it first, or start it with advertise_peer_addr = n9:7401"),
    ],
)
async def test_an_address_that_is_known_to_be_wrong_is_refused(
    setting: Setting, name: str, address: str, told: str
) -> None:
    with pytest.raises(ChangeRefused, match=f"^{told}$"):
        await setting.admin.add(name, address)
    assert setting.node.changes == []


async def test_what_a_member_says_of_itself_is_written_down_while_it_answers(setting: Setting) -> None:
    setting.members.met("n2", Addresses("host2:7401"))
    await setting.admin.add("n2", "host2:7401")
    setting.members.own = Addresses("host1:7401")
    await setting.admin.add("n1", "host1:7401")
    assert setting.node.changes == [Change(CHANGE_ADDRESS, name, f"host{name[1]}:7401") for name in ("n2", "n1")]


async def test_a_learner_gets_a_vote_once_it_has_caught_up(setting: Setting) -> None:
    await setting.admin.promote("n2")
    assert setting.node.changes == []
    await setting.admin.promote("n4")
    assert setting.node.changes == [Change(PROMOTE, "n4")]
    setting.node.raft.progress["n4"].match = 9
    with pytest.raises(NotCaughtUp, match=r"n4 has 9 of 11 entries after .* s; try again"):
        await setting.admin.promote("n4", 0.05)
    setting.members.problems["n4"] = "connection refused"
    with pytest.raises(NotCaughtUp, match="it is not reached at n4:7401: connection refused"):
        await setting.admin.promote("n4", 0.05)


async def test_a_node_that_nobody_could_find_takes_no_members(setting: Setting) -> None:
    setting.members.own = Addresses("0.0.0.0:7401")
    with pytest.raises(ChangeRefused, match=r"this one is at 0\.0\.0\.0:7401: start it with advertise_peer_addr"):
        await setting.admin.add("n5", "n5:7401")
    assert setting.node.changes == []


async def test_a_change_is_answered_once_a_later_entry_has_told_the_members_that_it_is_committed(
    setting: Setting,
) -> None:
    await setting.admin.add("n5", "n5:7401")
    assert setting.node.proposed == [(EntryKind.NOOP, b"", 11)]
    assert setting.node.commit_index == 11
    setting.node.refusal = replication_errors.NotLeading("n2")
    await setting.admin.add("n6", "n6:7401")
    assert setting.node.changes == [Change(ADD_LEARNER, name, f"{name}:7401") for name in ("n5", "n6")]


async def test_a_removal_needs_a_majority_of_the_rest_that_answers(setting: Setting) -> None:
    await setting.admin.remove("n3")
    setting.node.raft.progress["n2"].recent_active = False
    with pytest.raises(QuorumAtRisk, match="without n3, 1 of 2 voters would answer"):
        await setting.admin.remove("n3")
    await setting.admin.remove("n3", is_forced=True)
    assert setting.node.changes == [Change(REMOVE, "n3")] * 2


async def test_a_leader_that_is_removed_hands_over_first_and_names_its_successor(setting: Setting) -> None:
    with pytest.raises(NotTheLeader) as refused:
        await setting.admin.remove("n1")
    assert setting.node.transfers == ["n2"]
    assert setting.node.changes == []
    assert refused.value.metadata == {"leader": "n2", "leader_grpc_address": "n2:7400"}


async def test_leadership_goes_to_whom_is_named_or_to_who_is_furthest(setting: Setting) -> None:
    assert await setting.admin.transfer("n1") == "n1"
    with pytest.raises(ChangeRefused, match="n4: a learner, not a voter"):
        await setting.admin.transfer("n4")
    assert await setting.admin.transfer("n3") == "n3"
    assert setting.node.transfers == ["n3"]


@pytest.mark.parametrize("gives_up", [True, False])
async def test_a_transfer_that_comes_to_nothing_says_who_leads(setting: Setting, gives_up: bool) -> None:
    setting.node.is_silent = True
    setting.node.raft.transferee = None if gives_up else "n2"
    with pytest.raises(TransferFailed, match="n2 did not take over; n1 leads"):
        await setting.admin.transfer("")


async def test_leadership_is_not_offered_to_who_does_not_answer(setting: Setting) -> None:
    setting.node.raft.progress["n3"].recent_active = False
    with pytest.raises(TransferFailed, match="n3 does not answer; n1 leads"):
        await setting.admin.transfer("n3")
    assert setting.node.transfers == []


async def test_a_transfer_that_the_node_refuses_is_told_like_any_other_refusal(setting: Setting) -> None:
    setting.node.refusal = replication_errors.NotLeading("n2")
    with pytest.raises(NotTheLeader, match="ask the leader, n2 at n2:7400"):
        await setting.admin.transfer("n2")


async def test_a_node_that_does_not_lead_says_who_does(setting: Setting) -> None:
    setting.node.is_leader, setting.node.leader_id = False, "n2"
    with pytest.raises(NotTheLeader, match="ask the leader, n2 at n2:7400"):
        await setting.admin.add("n5", "n5:1")
    setting.node.leader_id = None
    with pytest.raises(NotTheLeader, match="knows no leader; nothing was changed"):
        await setting.admin.remove("n2")


@pytest.mark.parametrize("call", ["promote", "remove", "transfer"])
async def test_who_is_no_member_is_named(setting: Setting, call: str) -> None:
    with pytest.raises(UnknownMemberError, match="'n9' is not a member; members are n1, n2, n3, n4"):
        await getattr(setting.admin, call)("n9")


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (CoreRefused(Refusal.ALREADY_JOINT), ChangeInProgress),
        (CoreRefused(Refusal.CHANGE_UNDER_WAY), ChangeInProgress),
        (CoreRefused(Refusal.TOO_MANY_MEMBERS, "n5"), ChangeRefused),
        (replication_errors.NotLeading("n2"), NotTheLeader),
        (replication_errors.Overloaded(), Overloaded),
        (replication_errors.Stopped(), ShuttingDown),
        (replication_errors.NotApplied(7, 3), NotAppliedError),
        (replication_errors.OutcomeUnknown(7, 3, "time"), LeadershipLost),
    ],
)
async def test_what_the_node_says_of_a_change_is_told_in_our_own_terms(
    setting: Setting, outcome: Exception, told: type[Exception]
) -> None:
    setting.node.outcome = outcome
    with pytest.raises(told):
        await setting.admin.add("n5", "n5:1")


async def test_a_change_that_is_not_committed_in_time_has_an_unknown_outcome(setting: Setting) -> None:
    setting.node.is_silent = True
    with pytest.raises(CommitTimeout, match="may still be"):
        await setting.admin.add("n5", "n5:1")


def test_the_furthest_voter_is_one_that_was_heard_of_lately() -> None:
    setting = Setting()
    progress: dict[str, Any] = setting.node.raft.progress
    assert furthest_voter(setting.members, progress) == "n2"
    progress["n2"].recent_active = False
    assert furthest_voter(setting.members, progress) == "n3"
    progress["n3"].recent_active = False
    assert furthest_voter(setting.members, progress) == ""


def test_members_keep_what_they_were_told_and_forget_who_is_gone() -> None:
    members = Setting().members
    assert members.addresses_of("n2") == Addresses("n2:7401", "n2:6379", "n2:7400")
    members.met("n2", Addresses("other:1", "", "n2:7500"))
    assert members.addresses_of("n2") == Addresses("n2:7401", "n2:6379", "n2:7500")
    members.met("n9", Addresses("n9:1", "n9:2", "n9:3"))
    assert [row.name for row in members.rows()] == ["n1", "n2", "n3", "n4"]
    assert [row.is_voter for row in members.rows()] == [True, True, True, False]
    members.configuration_changed(Configuration(("n1",), addresses={"n1": "n1:7401"}), 9)
    members.configuration_changed(FOUR, 12)
    assert members.addresses_of("n2") == Addresses("n2:7401")
