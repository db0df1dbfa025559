"""The Protocols through which the replication layer calls its surroundings; it owns them, others implement them.

Rules for implementers: no call waits, none raises but where it says so, and all happen on the thread of the node. A
call from the state machine or the transport back into the node is allowed: the node finishes what it is at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from replication.core.messages import Entry, HardState, InstallSnapshot, Message
from replication.errors import ReplicationError

if TYPE_CHECKING:
    from persistence.errors import StorageError
    from replication.core.membership import Configuration


class StateMachine(Protocol):
    """Applies committed entries, and is told what happens to what it proposed."""

    @property
    def stamp_ms(self) -> int:
        """Stamp of the last applied entry in ms; never decreases."""

    def apply(self, entry: Entry, batch: object | None) -> None:
        """Change the state by one committed entry, of any kind: only COMMANDS do more than move index, term and time.

        ``batch`` is what this node proposed the entry with, or None for an entry read from disk or from a peer; it
        carries the parsed commands and whom to answer.
        """

    def read(self, batch: object) -> None:
        """Run reads on the applied state and answer them; in the order of ``Node.read``."""

    def refused(self, batch: object, error: ReplicationError) -> None:
        """Learn that a batch of ``Node.propose`` or ``Node.read`` will not come back in another way.

        NotLeading: reads that were not run. NotApplied: certain. OutcomeUnknown: perhaps applied, perhaps later.
        """

    def configuration_changed(self, configuration: Configuration) -> None:
        """Learn who the members are from the entry on that was applied last, or from a snapshot; also at the start."""

    def restore(self, snapshot: InstallSnapshot) -> None:
        """Replace the state by that of a received snapshot, whose file is durable.

        ``Node.restored`` is to be called once the state is that of the snapshot, in this call or later.
        """

    def on_leadership(self, leader: str | None, is_leader: bool, term: int) -> None:
        """Learn who leads now, in which term; called when any of the three has changed."""


class LogStore(Protocol):
    """Durable storage of entries and hard state."""

    def append(self, hard_state: HardState | None, entries: list[Entry], commit_index: int, token: int) -> None:
        """Queue for the disk; ``Node.durable(token)`` is to be called once it is durable. Raises StorageError.

        ``commit_index`` is remembered with it, unless it is 0.
        """

    def restart(self, snapshot_index: int, snapshot_term: int) -> None:
        """Let the log go on behind a snapshot that is durable, with the next append; entries before that are void."""

    def entries(self, from_index: int, to_index: int) -> Iterator[Entry]:
        """Read entries [from_index, to_index] back, in order; fewer if the last are not written.

        Raises StorageError.
        """

    def bytes_from(self, index: int) -> int:
        """Return about how many bytes the log holds from ``index`` on."""

    def purge(self, before_index: int) -> None:
        """Drop what is before ``before_index``; some of it may stay."""


class Transport(Protocol):
    """Carries messages to peers."""

    def send(self, peer: str, messages: list[Message]) -> None:
        """Queue messages for a peer, in order; drop them when there is no room or no peer of that name."""

    def send_snapshot(self, peer: str, snapshot: InstallSnapshot) -> None:
        """Begin to stream the newest snapshot, of this index or later; call ``Node.snapshot_sent`` in the end."""

    def peers_changed(self, configuration: Configuration) -> None:
        """Learn who the members are and where; connections to others end."""


class NoPeers:
    """The transport of a node alone: there is nobody to send to."""

    def send(self, peer: str, messages: list[Message]) -> None:
        """Drop them."""

    def send_snapshot(self, peer: str, snapshot: InstallSnapshot) -> None:
        """Drop it."""

    def peers_changed(self, configuration: Configuration) -> None:
        """Stay alone."""


Fetched = Callable[["list[Entry] | StorageError"], None]


class EntryReader(Protocol):
    """Reads old entries from the log beside the node."""

    def read(self, from_index: int, to_index: int, bytes_max: int, done: Fetched) -> None:
        """Read entries from ``from_index`` on, up to ``to_index`` or ``bytes_max`` bytes of payload, at least one.

        ``done`` gets them, in order and without a hole, or the error, on the thread of the node, in this call or later.
        """


CrashPoint = Callable[[str], None]
"""Called at the named points of the driver; tests kill the process there."""
