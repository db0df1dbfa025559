"""What administration of a cluster may be told, beside the errors of kvservice.errors.

Tree::

    RequestError
    ├── UnknownMember        no member has this name
    ├── ChangeRefused        the configuration does not admit the change
    ├── NotCaughtUp          a learner lacks too much of the log to be given a vote
    └── QuorumAtRisk         after the removal no majority would answer
    NotAppliedError
    ├── NotTheLeader         another node carries this out; ``metadata`` say which and where
    ├── TransferFailed       the voter that was to lead did not take over
    ├── Removed              this node belongs to the cluster no more: data commands go to another one
    └── ChangeInProgress     another change of the members, or a hand-over, is under way

Guarantees: as those of kvservice.errors; ``metadata`` go into the ErrorInfo of the status.
"""

# ruff: noqa: N818 -- named as the rest of the tree

from __future__ import annotations

from kvservice.errors import NotAppliedError, NotLeader, RequestError


class UnknownMember(RequestError):
    """No member has this name."""

    grpc_status = "NOT_FOUND"
    reason = "UNKNOWN_MEMBER"


class ChangeRefused(RequestError):
    """The configuration does not admit the change."""

    grpc_status = "FAILED_PRECONDITION"
    reason = "CHANGE_REFUSED"


class NotCaughtUp(RequestError):
    """The learner lacks too much of the log."""

    grpc_status = "FAILED_PRECONDITION"
    reason = "NOT_CAUGHT_UP"


class QuorumAtRisk(RequestError):
    """After the removal no majority of the members would answer."""

    grpc_status = "FAILED_PRECONDITION"
    reason = "QUORUM_AT_RISK"


class NotTheLeader(NotLeader):
    """Another node carries this out."""

    def __init__(self, leader: str, leader_grpc_address: str) -> None:
        where = f" at {leader_grpc_address}" if leader_grpc_address else ""
        super().__init__(
            f"ask the leader, {leader}{where}"
            if leader
            else "this node does not lead, and knows no leader; nothing was changed"
        )
        self.metadata = {"leader": leader, "leader_grpc_address": leader_grpc_address}


class Removed(NotAppliedError):
    """This node belongs to the cluster no more."""

    resp_prefix = "CLUSTERDOWN"
    reason = "REMOVED"
    default_text = "This node was removed from the cluster; connect to a member"


class TransferFailed(NotAppliedError):
    """The voter that was to lead did not take over."""

    reason = "TRANSFER_FAILED"


class ChangeInProgress(NotAppliedError):
    """Another change of the members, or a hand-over, is under way."""

    reason = "CHANGE_IN_PROGRESS"
    default_text = "another change of the members is under way; try again"
