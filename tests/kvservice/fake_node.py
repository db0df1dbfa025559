"""A service on a node that a test drives by hand: turns of the event loop, commits and timers come when it says so.

Guarantees: the real service, runner, machine and admission; only consensus, the event loop and the wire are stand-ins.
``commit`` applies what was proposed in order, with a stamp that never decreases.
Leaves to the caller: the wall clock (``time_ns`` of the modules that read it).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from kvservice.commands.registry import TABLE
from kvservice.commands.reply import ErrorReply, Reply, Status
from kvservice.config import Config
from kvservice.gateway.resp import encode_commands
from kvservice.keyspace.machine import Machine
from kvservice.memory_limit import MemoryLimit
from kvservice.service import Service
from kvservice.session import Session
from kvservice.stats import Stats
from replication.core.messages import Entry, EntryKind
from replication.errors import NotLeading, ReplicationError, Stopped
from replication.node import Node

START_MS = 1_700_000_000_000


class QueueNode:
    """Consensus that commits when a test says so."""

    def __init__(self) -> None:
        self.is_leader = True
        self.is_restoring = False
        self.leader_id: str | None = "n1"
        self.term = 1
        self.refuses: ReplicationError | None = None
        """What a proposal or a read of the leader is told instead of being taken."""
        self.reads: deque[object] = deque()
        """Batches of reads whose round has not ended."""
        self.queued: deque[tuple[Entry, object]] = deque()
        self.log: list[Entry] = []
        self.is_stopped = False
        self.now_ms = START_MS
        self.bytes_pending = 0
        self.reads_at_once = True
        self.has_applied_all: Callable[[], bool] = lambda: True
        """Whether it has applied what it knows to be committed."""
        self.applied_index = 0

    @property
    def proposals_pending(self) -> int:
        """Entries that wait for ``commit``."""
        return len(self.queued)

    @property
    def may_read_ahead(self) -> bool:
        """Whether reads may run before their round ends."""
        return self.has_applied_all()

    def propose(self, kind: int, payload: bytes, batch: object) -> int:
        """Queue an entry."""
        self._check()
        entry = Entry(self.term, len(self.log) + 1, kind, self.now_ms, payload)
        self.log.append(entry)
        self.queued.append((entry, batch))
        return entry.index

    def read(self, batch: object) -> None:
        """Queue reads."""
        self._check()
        self.reads.append(batch)

    def _check(self) -> None:
        if self.is_stopped:
            raise Stopped
        if not self.is_leader:
            raise NotLeading(self.leader_id)
        if self.refuses is not None:
            raise self.refuses


class Peer(Session):
    """A caller that keeps what it is told."""

    def __init__(self, session_id: int) -> None:
        super().__init__(session_id, "127.0.0.1:50000", "127.0.0.1:6379", 0.0)
        self.replies: list[Reply] = []

    def deliver(self, replies: list[Reply]) -> None:
        """Keep."""
        assert replies, "nothing is delivered as nothing"
        self.replies += replies

    def close(self, after_replies: bool = True) -> None:
        """Be closed."""
        self.is_closed = True

    def taken(self) -> list[Reply]:
        """Return the replies since the last call."""
        replies, self.replies = self.replies, []
        return replies


class Bench:
    """A service and the hands that move it."""

    def __init__(self, **settings: Any) -> None:
        self.soon: deque[Callable[[], object]] = deque()
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.config = Config(**settings)
        self.machine = Machine(TABLE, self.config.databases, random.Random)
        self.stats = Stats(self.config)
        self.service = Service(self.config, TABLE, self.machine, self.stats, self.soon.append, self._call_later)
        self.node = QueueNode()
        self.service.node = cast(Node, self.node)
        self.service.refusal = None
        self.now_s = 0.0
        self.service.forwarder.now = lambda: self.now_s
        self.limit = MemoryLimit(self.service)

    def _call_later(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers.append((seconds, act))

    def peer(self) -> Peer:
        """Return a new caller."""
        peer = Peer(self.service.next_session_id())
        peer.authenticated = not self.config.requirepass
        self.service.sessions[peer.id] = peer
        return peer

    def send(self, peer: Peer, *lines: str) -> None:
        """Submit commands, written as blank-separated words, as one chunk."""
        self.service.submit(peer, [line.encode().split() for line in lines], None)

    def turn(self) -> None:
        """End this turn of the event loop, and those that it asks for."""
        for _ in range(100):
            if not self.soon:
                return
            self.soon.popleft()()
        raise AssertionError("the event loop does not come to rest")

    def commit(self, count: int | None = None) -> None:
        """Apply the next ``count`` proposed entries, or all."""
        queued = self.node.queued
        for _ in range(len(queued) if count is None else count):
            entry, batch = queued.popleft()
            self.service.runner.apply(entry, batch)

    def lead(self, leader: str | None, term: int, *, is_leader: bool = False) -> None:
        """Let the node learn who leads."""
        self.node.leader_id, self.node.is_leader, self.node.term = leader, is_leader, term
        self.service.runner.on_leadership(leader, is_leader, term)

    def end_round(self, count: int | None = None) -> None:
        """End the rounds of the next ``count`` batches of reads, or of all."""
        reads = self.node.reads
        for _ in range(len(reads) if count is None else count):
            self.service.runner.read(reads.popleft())

    def refuse(self, error: ReplicationError, count: int | None = None) -> None:
        """Let the next ``count`` proposed entries, or all, end with an error."""
        queued = self.node.queued
        for _ in range(len(queued) if count is None else count):
            _entry, batch = queued.popleft()
            self.service.runner.refused(batch, error)

    def refuse_reads(self) -> None:
        """Let all rounds of reads end because leadership was lost."""
        while self.node.reads:
            self.service.runner.refused(self.node.reads.popleft(), NotLeading(self.node.leader_id))

    def run(self, peer: Peer, *lines: str) -> list[Reply]:
        """Submit commands, let everything happen, and return the replies."""
        self.send(peer, *lines)
        for _ in range(100):
            self.turn()
            if not self.node.queued:
                return peer.taken()
            self.commit()
        raise AssertionError("the service proposes for ever")

    def fire_timers(self) -> None:
        """Let every timer that is set now come due."""
        timers, self.timers = self.timers, []
        for _seconds, act in timers:
            act()

    def payloads(self) -> list[bytes]:
        """Return the payloads of all entries that carry commands."""
        return [entry.payload for entry in self.node.log if entry.kind == EntryKind.COMMANDS]


def texts(replies: list[Reply]) -> list[object]:
    """Return replies with errors and simple strings as text."""
    return [reply.text.decode() if isinstance(reply, (ErrorReply, Status)) else reply for reply in replies]


def resp(*lines: str) -> bytes:
    """Return commands as the log stores them."""
    return encode_commands([line.encode().split() for line in lines])
