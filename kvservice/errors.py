"""Every error a client can be told, sorted by what the client may conclude.

Tree::

    RedanError
    ├── RequestError            the same bytes fail again
    │   ├── WrongType           the key holds a value of another type
    │   ├── NoAuthentication    the connection has not authenticated yet
    │   ├── WrongPassword       user name or password do not match
    │   ├── NoPermission        this user may not do this
    │   ├── UnknownProtocol     HELLO with a version that is not 2 or 3
    │   ├── BusyKey             the target key exists
    │   └── ScriptMissing       no script with this digest
    ├── NotAppliedError         nothing was done, nothing will happen later: a retry is safe
    │   ├── NotLeader           another node leads; the hint names it
    │   ├── NoLeader            an election is under way
    │   ├── Loading             the node replays its log
    │   ├── ShuttingDown        the node drains
    │   ├── Overloaded          a bound on queued work is reached
    │   └── OutOfMemory         maxmemory is reached and nothing may be evicted
    └── OutcomeUnknownError     may or may not be applied; no client repeats this by itself
        ├── CommitTimeout       not committed before the deadline
        └── LeadershipLost      leadership moved while the write was in flight

Guarantees: every class carries the RESP prefix, the gRPC status name and the ``ErrorInfo`` reason of its case, and
texts are those of Redis where Redis has the case. ``StorageError`` (persistence) is not here: it stops the node.
Reference: the Redis error prefixes that clients act upon; google.rpc.Code.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class RedanError(Exception):
    """Base of all errors that are answered to a client; ``text`` is the message after the prefix."""

    resp_prefix: ClassVar[str] = "ERR"
    grpc_status: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = "UNSPECIFIED"
    default_text: ClassVar[str] = ""
    metadata: Mapping[str, str] = MappingProxyType({})
    """What gRPC's ``ErrorInfo`` says beside reason and outcome, such as where the leader is."""

    def __init__(self, text: str = "") -> None:
        self.text = text or self.default_text
        super().__init__(self.text)

    @property
    def line(self) -> str:
        """Return the RESP error line without the leading dash: prefix, blank, text."""
        return f"{self.resp_prefix} {self.text}"


class RequestError(RedanError):
    """The request itself is wrong: the same bytes fail again."""

    grpc_status = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"


class WrongType(RequestError):
    """The key holds a value of another type."""

    resp_prefix = "WRONGTYPE"
    grpc_status = "FAILED_PRECONDITION"
    reason = "WRONG_TYPE"
    default_text = "Operation against a key holding the wrong kind of value"


class NoAuthentication(RequestError):
    """The connection has not authenticated yet."""

    resp_prefix = "NOAUTH"
    grpc_status = "UNAUTHENTICATED"
    reason = "AUTHENTICATION_REQUIRED"
    default_text = "Authentication required."


class WrongPassword(RequestError):
    """User name or password do not match."""

    resp_prefix = "WRONGPASS"
    grpc_status = "UNAUTHENTICATED"
    reason = "WRONG_PASSWORD"
    default_text = "invalid username-password pair or user is disabled."


class NoPermission(RequestError):
    """This user may not do this."""

    resp_prefix = "NOPERM"
    grpc_status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class UnknownProtocol(RequestError):
    """HELLO asked for a protocol version that is not 2 or 3."""

    resp_prefix = "NOPROTO"
    grpc_status = "INVALID_ARGUMENT"
    reason = "UNKNOWN_PROTOCOL"
    default_text = "unsupported protocol version"


class BusyKey(RequestError):
    """The target key exists already."""

    resp_prefix = "BUSYKEY"
    grpc_status = "ALREADY_EXISTS"
    reason = "KEY_EXISTS"
    default_text = "Target key name already exists."


class ScriptMissing(RequestError):
    """No script with this digest is known."""

    resp_prefix = "NOSCRIPT"
    grpc_status = "NOT_FOUND"
    reason = "NO_SCRIPT"
    default_text = "No matching script. Please use EVAL."


class NotAppliedError(RedanError):
    """Nothing was done and nothing will happen later: a retry is safe."""

    resp_prefix = "TRYAGAIN"
    grpc_status = "UNAVAILABLE"
    reason = "NOT_APPLIED"


class NotLeader(NotAppliedError):
    """Another node leads."""

    resp_prefix = "MOVED"
    grpc_status = "FAILED_PRECONDITION"
    reason = "NOT_LEADER"


class NoLeader(NotAppliedError):
    """No leader is known: an election is under way."""

    resp_prefix = "CLUSTERDOWN"
    grpc_status = "UNAVAILABLE"
    reason = "NO_LEADER"
    default_text = "The cluster has no leader"


class Loading(NotAppliedError):
    """The node still loads its snapshot or replays its log."""

    resp_prefix = "LOADING"
    grpc_status = "UNAVAILABLE"
    reason = "LOADING"
    default_text = "Redis is loading the dataset in memory"


class ShuttingDown(NotAppliedError):
    """The node drains and takes no new work."""

    resp_prefix = "CLUSTERDOWN"
    grpc_status = "UNAVAILABLE"
    reason = "SHUTTING_DOWN"
    default_text = "The node is shutting down"


class Overloaded(NotAppliedError):
    """A bound on queued work is reached."""

    resp_prefix = "TRYAGAIN"
    grpc_status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"
    default_text = "Too much work is queued, try again"


class OutOfMemory(NotAppliedError):
    """maxmemory is reached and nothing may be evicted."""

    resp_prefix = "OOM"
    grpc_status = "RESOURCE_EXHAUSTED"
    reason = "OUT_OF_MEMORY"
    default_text = "command not allowed when used memory > 'maxmemory'."


class OutcomeUnknownError(RedanError):
    """The write may or may not be applied."""

    resp_prefix = "UNKNOWN"
    grpc_status = "ABORTED"
    reason = "OUTCOME_UNKNOWN"


class CommitTimeout(OutcomeUnknownError):
    """The write was not committed before the deadline."""

    grpc_status = "DEADLINE_EXCEEDED"
    reason = "COMMIT_TIMEOUT"
    default_text = "outcome: the write was not committed in time and may still be applied"


class LeadershipLost(OutcomeUnknownError):
    """Leadership moved while the write was in flight."""

    reason = "LEADERSHIP_LOST"
    default_text = "outcome: leadership moved while the write was in flight"
