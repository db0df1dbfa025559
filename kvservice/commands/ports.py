"""What commands of the server plane need of the node around them; the service provides it.

Guarantees: handlers touch nothing but what stands here, so that they run against fakes.
Leaves to the service:
    - one ``ServerCall`` a command, run after the replies of the session's earlier commands are known;
    - after the handler ran, honouring ``ends_session`` (close once the reply has left) and ``session.reply_mode``:
      "off" drops the reply; "skip-next" drops it and becomes "skip"; "skip" drops it and becomes "on";
    - holding the session's later commands while a ``Pending`` is unresolved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from kvservice.commands.context import Context
from kvservice.commands.reply import Pending, Reply
from kvservice.commands.table import Args, CommandTable
from kvservice.config import Config
from kvservice.keyspace.database import Database
from kvservice.session import Session
from kvservice.stats import Stats


class MemoryPort(Protocol):
    """Accounting of the keyspace (keyspace/memory)."""

    @property
    def used_bytes(self) -> int:
        """Memory of keys, values, deadlines and the slots' dicts: what ``maxmemory`` bounds."""


class MachinePort(Protocol):
    """The keyspace."""

    @property
    def context(self) -> Context:
        """Time, databases, hits and misses."""

    @property
    def databases(self) -> Sequence[Database]:
        """Databases by number."""

    @property
    def memory(self) -> MemoryPort:
        """Accounting."""


class NodePort(Protocol):
    """The node of the consensus group (replication/node)."""

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
    def last_index(self) -> int:
        """Index of the last entry of the log."""

    @property
    def commit_index(self) -> int:
        """Index of the last committed entry."""

    @property
    def applied_index(self) -> int:
        """Index of the last applied entry."""

    @property
    def bytes_pending(self) -> int:
        """Payload bytes that are proposed and not applied."""

    @property
    def is_replayed(self) -> bool:
        """Whether every entry of earlier runs is applied."""

    @property
    def replay_remaining(self) -> int:
        """Entries of earlier runs still to apply."""


class MemberView(NamedTuple):
    """One member of the cluster; addresses are host:port, "" if it has not said yet."""

    name: str
    is_voter: bool
    resp_address: str
    peer_address: str


class PeerView(NamedTuple):
    """How far another member is, as the leader knows it."""

    name: str
    match_index: int
    """Index of the last entry that is durable there and the same."""
    lag_entries: int
    """Entries of the log that it lacks."""
    state: str
    """How it is fed: probe, replicate or snapshot."""
    is_active: bool
    """Whether it was heard from within the last election timeout or the one before it."""
    agreement: str
    """What comparing its state with ours gave: equal, diverged or unknown."""


class Sighting(NamedTuple):
    """What a node knows of another member by itself, whether it leads or not."""

    is_heard: bool
    """The leader misses a member after one to two election timeouts, and is missed by all after one; others miss each
    other when their streams end, or after some seconds of silence."""
    index: int  # type: ignore[assignment]  # the log's word; tuple.index is never wanted here
    """Index of an entry that it certainly has, or had when it was last heard of; 0 if nothing is known. The leader
    knows what is durable there; others, what the leader told of its commits, and each member of its state."""


class GroupPort(Protocol):
    """The cluster that the node belongs to (kvservice/cluster/view)."""

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster; "" while the node is in none."""

    @property
    def role(self) -> str:
        """What the node is: leader, follower, candidate or learner."""

    @property
    def is_quarantined(self) -> bool:
        """Whether the node lost what it had acknowledged, and has no say until it has caught up."""

    @property
    def is_removed(self) -> bool:
        """Whether the node belongs to its cluster no more, and refuses commands on data."""

    @property
    def durable_index(self) -> int:
        """Index of the last entry that is on this node's own disk."""

    @property
    def agreement(self) -> str:
        """What comparing states with all others gave: equal, diverged or unknown."""

    @property
    def checkpoint(self) -> tuple[int, int] | None:
        """Index and digest of the newest state that others are told."""

    @property
    def requests_remembered(self) -> int:
        """Writes with a request id whose first answers are kept."""

    def agreement_with(self, name: str) -> str:
        """What comparing states with one other member gave: equal, diverged or unknown."""

    def members(self) -> Sequence[MemberView]:
        """Return every member, voters first; this node alone before any are known."""

    def sighting(self, name: str) -> Sighting:
        """Return what this node knows of another member."""

    def peers(self) -> Sequence[PeerView]:
        """Return how far the other members are, by name, if this node leads; nothing else."""


class WalStatsPort(Protocol):
    """Counts of the log (persistence/wal)."""

    @property
    def bytes_on_disk(self) -> int:
        """Size of all segments."""

    @property
    def base_bytes(self) -> int:
        """Their size when the log was opened, or was last cut behind a snapshot."""

    def take_longest_sync_seconds(self) -> float:
        """Return how long the longest sync since the last call took, in seconds; one reader only."""


class SnapshotsPort(Protocol):
    """Snapshots of this node."""

    @property
    def in_progress(self) -> bool:
        """Whether one is being written."""

    @property
    def current_seconds(self) -> float:
        """Age of the one being written; -1 without one."""

    @property
    def keys_saved(self) -> int:
        """Keys that the one being written has so far; 0 without one."""

    @property
    def last_index(self) -> int:
        """Index of the last entry that the newest one holds; 0 before any."""

    @property
    def taken_index(self) -> int:
        """Index of the last entry that the newest one holds that was written here since the start; 0 before any."""

    @property
    def last_bytes(self) -> int:
        """Size of the newest one that was written since the start; 0 before any."""

    @property
    def last_saved_s(self) -> int:
        """When the newest one was finished, in seconds since the epoch; the node's start if none ever was."""

    @property
    def last_ok(self) -> bool:
        """Whether the last attempt succeeded; True before any."""

    @property
    def last_seconds(self) -> float:
        """How long the last attempt took; -1 before any."""

    @property
    def slice_seconds_max(self) -> float:
        """The longest that one slice of a snapshot kept the event loop."""

    @property
    def taken(self) -> int:
        """Snapshots finished since start."""

    @property
    def changes_since_last(self) -> int:
        """Entries with writes that no snapshot holds."""


class ServicePort(Protocol):
    """The node as server commands see it."""

    @property
    def config(self) -> Config:
        """Settings, changed by CONFIG SET."""

    @property
    def table(self) -> CommandTable:
        """All commands."""

    @property
    def machine(self) -> MachinePort:
        """The keyspace."""

    @property
    def sessions(self) -> Mapping[int, Session]:
        """Connected callers by id."""

    @property
    def stats(self) -> Stats:
        """Counts."""

    @property
    def node(self) -> NodePort:
        """Consensus."""

    @property
    def group(self) -> GroupPort:
        """The cluster."""

    @property
    def wal_stats(self) -> WalStatsPort:
        """The log."""

    @property
    def snapshots(self) -> SnapshotsPort:
        """Snapshots."""

    @property
    def blocked_clients(self) -> int:
        """Callers that wait for a reply of the server plane, or for the end of a pause."""

    @property
    def timed_clients(self) -> int:
        """Callers that wait with a limit to their wait."""

    @property
    def started_s(self) -> float:
        """When the node started, in seconds since the epoch."""

    @property
    def run_id(self) -> str:
        """40 hexadecimal digits, another at every start."""

    def pause(self, until_ms: int, writes_only: bool) -> None:
        """Hold commands, or writes only, of all sessions until a wall-clock time in ms; never shorten a hold."""

    def unpause(self) -> None:
        """Let held commands go."""

    def save(self) -> Pending:
        """Start a snapshot; the reply is OK or the error. Raises RequestError while one is being written."""

    def ask(self, db: int, commands: list[Args], answered: Callable[[list[Reply]], None]) -> None:
        """Run commands of the data plane where they have to run; ``answered`` gets their replies, all at once.

        Those of nodes among themselves may be among them. Not a transaction.
        """

    def digest(self) -> Pending:
        """Compute the digest of this node's keys as they are now; the reply is its 40 digits."""

    def reload(self) -> Pending:
        """Save, load, compare and exchange the keys; the reply is OK or the error.

        Raises RequestError while one is under way, or while a snapshot is being written.
        """

    def shutdown(self) -> None:
        """Begin an orderly stop."""

    def wait_for_copies(
        self,
        session: Session,
        args: Args,
        timeout_ms: int,
        answer: Callable[[int, bool], Reply],
        is_enough: Callable[[Reply], bool],
    ) -> Pending:
        """Wait until other members have the caller's writes, at most ``timeout_ms``; 0 = as long as it takes.

        The reply is ``answer(others that have them, whether they are on the leader's disk)``, once ``is_enough`` of it
        or when the time is over. ``args`` is the command; its last argument is the time.
        """

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call ``act`` once on the event loop, later."""

    def config_changed(self, fields: frozenset[str]) -> None:
        """Act on settings that have another value now."""


class ServerCall(Protocol):
    """One command of the server plane: who asks, and of what node."""

    ends_session: bool
    """Set by a handler: close the session once the reply has left."""

    @property
    def service(self) -> ServicePort:
        """The node."""

    @property
    def session(self) -> Session:
        """The caller."""


ServerHandler = Callable[[ServerCall, Args], Reply | Pending]
