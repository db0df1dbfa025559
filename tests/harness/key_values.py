"""The simplest state machine there is, strings under keys, and what a test that writes and reads them holds.

Guarantees: entries are applied once and in order, and no waiter is answered twice, or the test fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replication.core.membership import Configuration
from replication.core.messages import Entry, EntryKind, InstallSnapshot
from replication.errors import ReplicationError

if TYPE_CHECKING:
    from tests.harness.cluster import Member


class Waiter:
    """A write or a read, and what became of it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.value: str | None = None
        """What a read found."""
        self.is_done = False
        self.error: ReplicationError | None = None

    @property
    def outcome(self) -> str:
        """``done``, ``waiting`` or the name of the error."""
        if self.error is not None:
            return type(self.error).__name__
        return "done" if self.is_done else "waiting"


class Snapshot(NamedTuple):
    """A state at an index, as durable as anything."""

    last_index: int
    last_term: int
    configuration: Configuration
    values: dict[str, str]
    applied: list[tuple[int, int, bytes]]


class KeyValues:
    """A state machine of strings: an entry is ``key=value``."""

    def __init__(self, member: Member, snapshot: Snapshot | None) -> None:
        self._member = member
        self.stamp_ms = 0
        self.values: dict[str, str] = {}
        self.applied: list[tuple[int, int, bytes]] = []
        """(index, term, payload) of every entry since the beginning of time."""
        self.configurations: list[Configuration] = []
        self.leaders: list[tuple[str | None, bool, int]] = []
        self.is_restore_held = False
        if snapshot is not None:
            self.load(snapshot)

    def load(self, snapshot: Snapshot) -> None:
        """Take over the state of a snapshot."""
        self.values = dict(snapshot.values)
        self.applied = list(snapshot.applied)

    def apply(self, entry: Entry, batch: object | None) -> None:
        assert entry.index == (self.applied[-1][0] if self.applied else 0) + 1, "entries are applied once and in order"
        self.stamp_ms = max(self.stamp_ms, entry.stamp_ms)
        self.applied.append((entry.index, entry.term, entry.payload))
        if entry.kind == EntryKind.COMMANDS:
            key, _, value = entry.payload.decode().partition("=")
            self.values[key] = value
        if batch is not None:
            assert isinstance(batch, Waiter)
            assert batch.outcome == "waiting"
            batch.is_done = True

    def read(self, batch: object) -> None:
        assert isinstance(batch, Waiter)
        assert batch.outcome == "waiting"
        batch.value, batch.is_done = self.values.get(batch.key), True

    def refused(self, batch: object, error: ReplicationError) -> None:
        assert isinstance(batch, Waiter)
        assert batch.outcome == "waiting"
        batch.error = error

    def configuration_changed(self, configuration: Configuration) -> None:
        self.configurations.append(configuration)

    def restore(self, snapshot: InstallSnapshot) -> None:
        newest = self._member.snapshots[-1]
        assert newest.last_index >= snapshot.last_index
        if not self.is_restore_held:
            self.finish_restore()

    def finish_restore(self) -> None:
        """Load the newest snapshot and say so."""
        self.load(self._member.snapshots[-1])
        self._member.node.restored()

    def on_leadership(self, leader: str | None, is_leader: bool, term: int) -> None:
        self.leaders.append((leader, is_leader, term))
