"""Administration: who belongs to the cluster, and who leads it. Carried out on the leader, one change at a time.

Order of a replacement: add (a learner, no vote) → it catches up → promote → remove the other one. A change is answered
when its entry is applied here, so when a majority has it, and when a majority of the new members knows that.

Guarantees: a call that raises NotAppliedError changed nothing; OutcomeUnknownError says that it may have. A removal
after which no majority would answer is refused unless forced.
Leaves to the caller: finding the leader (``NotTheLeader`` says where), and decoding (kvservice/api/cluster).
Reference: Raft thesis, chapter 4; section 4.2.1 for catching up before the vote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from kvservice.batch import Batch
from kvservice.cluster.addresses import can_be_dialed
from kvservice.cluster.errors import (
    ChangeInProgress,
    ChangeRefused,
    NotCaughtUp,
    NotTheLeader,
    QuorumAtRisk,
    TransferFailed,
    UnknownMember,
)
from kvservice.cluster.members import Members
from kvservice.errors import CommitTimeout, LeadershipLost, NotAppliedError, Overloaded, RedanError, ShuttingDown
from replication import errors as replication_errors
from replication.core import membership
from replication.core.membership import Change, ChangeKind, Refusal
from replication.core.messages import EntryKind
from replication.core.progress import Progress
from replication.core.raft import Raft
from replication.errors import ReplicationError

POLL_SECONDS: Final = 0.01
CATCH_UP_SECONDS: Final = 30.0
COMMIT_SECONDS: Final = 10.0
TRANSFER_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 1.0
_PASSING: Final = (Refusal.ALREADY_JOINT, Refusal.CHANGE_UNDER_WAY, Refusal.NO_MEMBERS)
"""Refusals that end by themselves."""


class AdministeredNode(Protocol):
    """What administration needs of the node (replication/node)."""

    raft: Raft

    @property
    def is_leader(self) -> bool:
        """Whether this node leads."""

    @property
    def leader_id(self) -> str | None:
        """Name of the leader."""

    @property
    def term(self) -> int:
        """Current term."""

    @property
    def commit_index(self) -> int:
        """Index of the last committed entry."""

    def change(self, changes: list[Change], done: Callable[[Exception | None], None]) -> None:
        """Propose a change of the members; ``done`` is told when it is applied, or what went wrong."""

    def propose(self, kind: int, payload: bytes, batch: object) -> int:
        """Append an entry; return its index."""

    def transfer(self, to: str) -> None:
        """Hand the leadership over to a voter."""


class Administration:
    """Changes of one cluster, as one node can carry them out."""

    def __init__(self, members: Members, node: Callable[[], AdministeredNode]) -> None:
        self._members = members
        self._node = node
        """The node as it is now: it exists later than the services do."""

    async def add(self, name: str, peer_address: str) -> None:
        """Add a node as a learner, or change the address of a member that has moved."""
        node = self._leading()
        if name in self._members and self._members.configuration.addresses.get(name) == peer_address:
            return
        self._check_address(node, name, peer_address)
        if not can_be_dialed(self._members.own.peer):
            raise ChangeRefused(
                f"other nodes would be told that this one is at {self._members.own.peer}: start it with "
                "advertise_peer_addr first"
            )
        kind = ChangeKind.CHANGE_ADDRESS if name in self._members else ChangeKind.ADD_LEARNER
        await self._change(node, Change(kind, name, peer_address))

    async def promote(self, name: str, catch_up_seconds: float = CATCH_UP_SECONDS) -> None:
        """Give a learner a vote, once it has caught up."""
        node = self._leading()
        self._require_member(name)
        if self._members.configuration.is_voter(name):
            return
        await self._until_caught_up(node, name, catch_up_seconds)
        await self._change(node, Change(ChangeKind.PROMOTE, name))

    async def remove(self, name: str, *, is_forced: bool = False) -> None:
        """Remove a member. The leader itself hands over first, and raises NotTheLeader."""
        node = self._leading()
        self._require_member(name)
        voters = [voter for voter in self._members.configuration.voters if voter != name]
        if not voters:
            raise ChangeRefused(f"{name}: {Refusal.LAST_VOTER.value}")

        def answering() -> int:
            return sum(voter == self._members.name or self._is_active(node, voter) for voter in voters)

        # A leader that was elected just now has not heard from everybody yet.
        if not is_forced and not await _until(lambda: answering() > len(voters) // 2, ANSWER_SECONDS):
            raise QuorumAtRisk(
                f"without {name}, {answering()} of {len(voters)} voters would answer, and that is no majority; "
                "bring the others back first, or force it"
            )
        if name == self._members.name:
            leader = await self.transfer("")
            raise NotTheLeader(leader, self._members.addresses_of(leader).grpc)
        await self._change(node, Change(ChangeKind.REMOVE, name))

    async def transfer(self, to: str) -> str:
        """Make another voter the leader, the one that is furthest if ``to`` is ""; return its name once it leads."""
        node = self._leading()
        target = to or furthest_voter(self._members, node.raft.progress)
        if not target:
            raise ChangeRefused("there is no other voter that answers")
        self._require_member(target)
        if target not in self._members.configuration.voters:
            raise ChangeRefused(f"{target}: {Refusal.NOT_A_VOTER.value}")
        if target == self._members.name:
            return target
        # Commands wait while it lasts, so nobody is tried who does not answer.
        if not await _until(lambda: self._is_active(node, target), ANSWER_SECONDS):
            raise TransferFailed(f"{target} does not answer; {self._leads(node)}")
        try:
            node.transfer(target)
        except (ReplicationError, ValueError) as error:
            raise self._translated(error) from error

        def is_over() -> bool:
            return node.raft.transferee is None if node.is_leader else node.leader_id is not None

        await _until(is_over, TRANSFER_SECONDS)
        if node.leader_id != target:
            raise TransferFailed(f"{target} did not take over; {self._leads(node)}")
        return target

    def _leads(self, node: AdministeredNode) -> str:
        return f"{node.leader_id} leads" if node.leader_id else "nobody leads now"

    def _leading(self) -> AdministeredNode:
        """Return the node if it leads. Raise NotTheLeader."""
        node = self._node()
        if not node.is_leader:
            leader = node.leader_id or ""
            raise NotTheLeader(leader, self._members.addresses_of(leader).grpc if leader else "")
        return node

    def _require_member(self, name: str) -> None:
        if name not in self._members:
            raise UnknownMember(
                f"'{name}' is not a member; members are {', '.join(self._members.configuration.members)}"
            )

    def _check_address(self, node: AdministeredNode, name: str, address: str) -> None:
        """Raise ChangeRefused for an address of another member, or of a member that answers where it is."""
        members = self._members
        for other in members.configuration.members:
            if other != name and members.addresses_of(other).peer == address:
                raise ChangeRefused(f"{other} is at {address}: remove it first, or name another address")
        present = members.configuration.addresses.get(name)
        # What a member says of itself is no mistake of a person's: an IP address gives way to a host name like that.
        if present is None or address == members.said_by(name):
            return
        if name == members.name or self._is_active(node, name):
            raise ChangeRefused(
                f"{name} answers at {present}: stop it first, or start it with advertise_peer_addr = {address}"
            )

    def _is_active(self, node: AdministeredNode, name: str) -> bool:
        progress = node.raft.progress.get(name)
        return progress is not None and progress.is_heard

    async def _until_caught_up(self, node: AdministeredNode, name: str, seconds: float) -> None:
        """Wait until a learner has what was committed when the wait began (thesis, 4.2.1: one round of it)."""
        goal = node.commit_index

        def has_caught_up() -> bool:
            progress = node.raft.progress.get(name)
            return not node.is_leader or (progress is not None and progress.match >= goal)

        if not await _until(has_caught_up, seconds):
            progress = node.raft.progress.get(name)
            match = progress.match if progress is not None else 0
            problem = self._members.problems.get(name, "")
            why = f"it is not reached at {self._members.addresses_of(name).peer}: {problem}" if problem else "try again"
            raise NotCaughtUp(f"{name} has {match} of {goal} entries after {seconds:.0f} s; {why}")
        self._leading()

    async def _change(self, node: AdministeredNode, change: Change) -> None:
        outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            if not outcome.done():
                outcome.set_result(error)

        try:
            node.change([change], done)
            error = await asyncio.wait_for(outcome, COMMIT_SECONDS)
        except TimeoutError:
            raise CommitTimeout("the change is not committed yet, and may still be: look at the members") from None
        except Exception as refused:
            error = refused
        if error is not None:
            raise self._translated(error) from error
        await self._until_known(node)

    async def _until_known(self, node: AdministeredNode) -> None:
        """Wait until a majority of the new members knows that the change is committed: a later entry tells them.

        Before they know, an election goes by the old members: of two, the one that is left would wait for the other
        for ever, although a third has just been given a vote.
        """
        try:
            index = node.propose(EntryKind.NOOP, b"", Batch())
        except ReplicationError:
            return  # The change is made, and who leads from here on knows of it, or finds out.
        await _until(lambda: node.commit_index >= index or not node.is_leader, COMMIT_SECONDS)

    def _translated(self, error: Exception) -> RedanError:
        """Return what the caller is told of an error of the node or of the core."""
        match error:
            case RedanError():
                return error
            case membership.ChangeRefused() if error.reason in _PASSING:
                return ChangeInProgress(str(error))
            case membership.ChangeRefused():
                return ChangeRefused(str(error))
            case replication_errors.NotLeading():
                leader = error.leader or ""
                return NotTheLeader(leader, self._members.addresses_of(leader).grpc if leader else "")
            case replication_errors.Overloaded():
                return Overloaded()
            case replication_errors.Stopped():
                return ShuttingDown()
            case replication_errors.NotApplied():
                return NotAppliedError("another leader took over before the change was committed; it was not made")
            case replication_errors.OutcomeUnknown():
                return LeadershipLost("leadership moved meanwhile; whether the change was made, the members will show")
            case ValueError():
                return ChangeInProgress(str(error))
        raise error


def furthest_voter(members: Members, progress: Mapping[str, Progress]) -> str:
    """Return the other voter that was heard of lately and has most of the log; "" if there is none."""
    candidates = [
        (progress[name].match, progress[name].recent_active, name)
        for name in members.configuration.voters
        if name != members.name and name in progress and progress[name].is_heard
    ]
    return max(candidates)[-1] if candidates else ""


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, looking every POLL_SECONDS; False when the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
