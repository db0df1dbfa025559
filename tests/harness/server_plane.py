"""The server plane without a server: commands run against a node whose every figure a test can set.

Guarantees: commands go through the table as the service does it: look-up, arity, then the row's function; errors become
error replies. Time (``after``) passes only when a test says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from kvservice.commands.containers import leaf
from kvservice.commands.context import Context
from kvservice.commands.ports import MemberView, PeerView, Sighting
from kvservice.commands.registry import TABLE
from kvservice.commands.reply import OK, ErrorReply, Pending, Reply, Status, Verbatim
from kvservice.commands.table import Args
from kvservice.config import Config
from kvservice.errors import RedanError, RequestError
from kvservice.keyspace.database import Clock, Database
from kvservice.keyspace.dataset_digest import DatasetDigest, shown
from kvservice.keyspace.image import SnapshotWalk
from kvservice.session import Session
from kvservice.stats import Stats


class FakeMemory:
    """Accounting that says what it is told."""

    def __init__(self) -> None:
        self.used_bytes = 0


class FakeMachine:
    """Databases and nothing around them."""

    def __init__(self, databases: int) -> None:
        clock = Clock()
        self.databases = [Database(index, clock) for index in range(databases)]
        self.context = Context(clock, self.databases, lambda _index: random.Random(1))
        self.memory = FakeMemory()


class FakeNode:
    """Consensus in a cluster of one."""

    def __init__(self) -> None:
        self.is_leader = True
        self.leader_id: str | None = "n1"
        self.term = 3
        self.last_index = 12
        self.commit_index = 11
        self.applied_index = 10
        self.bytes_pending = 0
        self.is_replayed = True
        self.replay_remaining = 0


class FakeGroup:
    """A cluster whose members a test sets."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.role = "leader"
        self.is_quarantined = False
        self.is_removed = False
        self.durable_index = 10
        self.agreement = "unknown"
        self.checkpoint: tuple[int, int] | None = None
        self.requests_remembered = 0
        self.all_members = [MemberView("n1", True, "127.0.0.1:6379", "127.0.0.1:7401")]
        self.all_peers: list[PeerView] = []
        self.sightings: dict[str, Sighting] = {}
        """What a node knows that does not lead."""

    def agreement_with(self, name: str) -> str:
        return next((peer.agreement for peer in self.all_peers if peer.name == name), "unknown")

    def members(self) -> list[MemberView]:
        return self.all_members

    def sighting(self, name: str) -> Sighting:
        known = {peer.name: Sighting(peer.is_active, peer.match_index) for peer in self.all_peers}
        return known.get(name) or self.sightings.get(name, Sighting(False, 0))

    def peers(self) -> list[PeerView]:
        return self.all_peers


class FakeLog:
    """Counts of a log."""

    bytes_on_disk = 4096
    base_bytes = 1024

    def take_longest_sync_seconds(self) -> float:
        return 0.0


class FakeSnapshots:
    """Snapshots that are taken when a test says so."""

    def __init__(self) -> None:
        self.in_progress = False
        self.current_seconds = -1.0
        self.keys_saved = 0
        self.taken_index = 0
        self.last_saved_s = 1_700_000_000
        self.last_ok = True
        self.last_seconds = -1.0
        self.slice_seconds_max = 0.002
        self.taken = 0
        self.last_index = 0
        self.last_bytes = 0
        self.changes_since_last = 7


class FakeSession(Session):
    """A caller that remembers how it was closed."""

    def __init__(self, session_id: int, address: str = "127.0.0.1:50000", created_s: float = 0.0) -> None:
        super().__init__(session_id, address, "127.0.0.1:6379", created_s)
        self.closed_after_replies: bool | None = None
        self.query_bytes = 0
        self.output_bytes = 0

    @property
    def query_buffer_bytes(self) -> int:
        """What a test set."""
        return self.query_bytes

    @property
    def output_buffer_bytes(self) -> int:
        """What a test set."""
        return self.output_bytes

    def close(self, after_replies: bool = True) -> None:
        """Remember."""
        self.closed_after_replies = after_replies
        self.is_closed = True


class FakeService:
    """A node."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else Config()
        self.table = TABLE
        self.machine = FakeMachine(self.config.databases)
        self.sessions: dict[int, Session] = {}
        self.stats = Stats(self.config)
        self.node = FakeNode()
        self.group = FakeGroup()
        self.waits: list[tuple[int, Callable[[int, bool], Reply], Callable[[Reply], bool]]] = []
        self.wal_stats = FakeLog()
        self.snapshots = FakeSnapshots()
        self.started_s = 1_700_000_000.0
        self.blocked_clients = self.timed_clients = 0
        self.run_id = "ab" * 20
        self.paused: tuple[int, bool] | None = None
        self.is_stopping = False
        self.saves: list[Pending] = []
        self.reloads: list[Pending] = []
        self.asked: list[list[Args]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.changed: list[frozenset[str]] = []

    def pause(self, until_ms: int, writes_only: bool) -> None:
        """Remember."""
        self.paused = (until_ms, writes_only)

    def unpause(self) -> None:
        """Forget."""
        self.paused = None

    def save(self) -> Pending:
        """Begin a snapshot."""
        self.snapshots.in_progress = True
        self.saves.append(Pending())
        return self.saves[-1]

    def finish_save(self) -> None:
        """Finish the snapshot that was begun last."""
        self.snapshots.in_progress = False
        self.saves[-1].resolve(OK)

    def wait_for_copies(
        self,
        _session: Session,
        _args: Args,
        timeout_ms: int,
        answer: Callable[[int, bool], Reply],
        is_enough: Callable[[Reply], bool],
    ) -> Pending:
        """Remember."""
        self.waits.append((timeout_ms, answer, is_enough))
        return Pending()

    def ask(self, db: int, commands: list[Args], answered: Callable[[list[Reply]], None]) -> None:
        """Run commands of the data plane at once, on this node's keyspace."""
        self.asked.append(commands)
        context = self.machine.context
        context.db = self.machine.databases[db]
        replies: list[Reply] = []
        for args in commands:
            row = TABLE.find_any(args[0])
            assert row is not None
            try:
                replies.append(row.run(context, args))
            except RedanError as error:
                replies.append(ErrorReply(error))
        answered(replies)

    def digest(self) -> Pending:
        """Walk over the keys at once."""
        pending = Pending()
        walk, digest = SnapshotWalk(self.machine.databases), DatasetDigest(self.machine.context.clock.stamp_ms)
        while (chunk := walk.next_slice(1000)) is not None:
            digest.add(chunk)
        pending.resolve(Status(shown(digest.total())))
        return pending

    def reload(self) -> Pending:
        """Remember."""
        self.reloads.append(Pending())
        return self.reloads[-1]

    def shutdown(self) -> None:
        """Remember."""
        self.is_stopping = True

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Remember; ``run_timers`` lets time pass."""
        self.timers.append((seconds, act))

    def run_timers(self) -> None:
        """Let all timers come due."""
        timers, self.timers = self.timers, []
        for _seconds, act in timers:
            act()

    def config_changed(self, fields: frozenset[str]) -> None:
        """Remember."""
        self.changed.append(fields)


class Caller:
    """One connected caller and the node it talks to."""

    def __init__(self, service: FakeService | None = None, address: str = "127.0.0.1:50000") -> None:
        self.service = service if service is not None else FakeService()
        self.session: Session = FakeSession(len(self.service.sessions) + 1, address)
        self.service.sessions[self.session.id] = self.session
        self.ends_session = False

    def run(self, args: Args) -> Reply | Pending:
        """Run one command and return its reply."""
        row = self.service.table.find(args[0])
        try:
            if row is None:
                raise RequestError("unknown command")
            row = leaf(row, args)
            return row.run(self.service.machine.context if row.is_data else self, args)
        except RedanError as error:
            return ErrorReply(error)

    def say(self, line: str) -> Reply | Pending:
        """Run one command written as blank-separated words; ``""`` is an empty one."""
        return self.run([b"" if word == '""' else word.encode() for word in line.split()])

    def text(self, line: str) -> str:
        """Run one command and return its reply, which must be text of some kind, as text."""
        reply = self.say(line)
        if isinstance(reply, (Status, Verbatim)):
            return reply.text.decode()
        if isinstance(reply, ErrorReply):
            return f"-{reply.text.decode()}"
        assert isinstance(reply, bytes), reply
        return reply.decode()

    def array(self, line: str) -> list[Reply]:
        """Run one command and return its reply, which must be an array."""
        reply = self.say(line)
        assert isinstance(reply, list), reply
        return reply

    def map(self, line: str) -> dict[Reply, Reply]:
        """Run one command and return its reply, which must be a map."""
        reply = self.say(line)
        assert isinstance(reply, dict), reply
        return reply
