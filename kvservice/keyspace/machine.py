"""The replicated state machine: databases, and the only door through which commands reach them.

Guarantees: the same entries give the same state and the same replies on every node. A failing command changes nothing
and does not stop those after it. While a snapshot walks, a slot is saved before a command changes it.
Leaves to the caller: who is answered, measuring, and the wall clock.
Reference: Raft thesis, section 3.8 (state machines).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import hiredis

from kvservice.commands.context import Chance, Context
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args, Command, CommandTable
from kvservice.errors import RedanError
from kvservice.keyspace.database import Clock, Database, StampNeeded, TooFewDatabases
from kvservice.keyspace.digest import ChainState, StateDigests
from kvservice.keyspace.image import ImageLoader, SnapshotWalk
from kvservice.keyspace.memory import MemoryMeter
from kvservice.keyspace.slots import slot_of


class InternalError(RedanError):
    """A defect in a command's function; the same on every node, so it is answered and not fatal."""

    grpc_status = "INTERNAL"
    reason = "INTERNAL"


class SlotSaver(Protocol):
    """A running snapshot (keyspace/image)."""

    def save_before(self, slot: int) -> None:
        """Save a slot's image now unless it is saved already."""


class Machine:
    """Databases, context and the loop that runs commands."""

    def __init__(self, table: CommandTable, databases: int, chance_for: Callable[[int], Chance]) -> None:
        self.table = table
        self.clock = Clock()
        self.databases = [Database(index, self.clock) for index in range(databases)]
        self.memory = MemoryMeter(self.databases)
        self._chance_for = chance_for
        """Makes the source of chance of one entry, seeded with its index."""
        self.context = Context(self.clock, self.databases, chance_for(0))
        self.once = self.context.once
        self.digests = StateDigests(self.databases, self.once, table.find_any)
        self.index = 0
        """Index of the last applied entry."""
        self.term = 0
        """Term of the last applied entry."""
        self.changes = 0
        """Entries with writes applied so far; the caller of ``begin_entry`` counts them."""
        self.configuration = b""
        """Members as of the last applied entry, encoded (replication/core/membership); empty before any is known."""
        self._payload = b""
        """Payload of the entry that is being applied."""
        self.snapshot: SlotSaver | None = None
        self.failures: list[tuple[Command, RedanError]] = []
        """Commands that failed since the caller last looked; it clears the list."""
        self.on_defect: Callable[[Command, BaseException], None] = lambda _row, _error: None

    def begin_entry(self, index: int, term: int, stamp_ms: int, payload: bytes) -> None:
        """Move time and position to an entry that is about to be applied."""
        clock = self.clock
        if stamp_ms > clock.stamp_ms:
            clock.stamp_ms = stamp_ms
        clock.now_ms = clock.stamp_ms
        context = self.context
        context.applying = True
        context.chance = self._chance_for(index)
        self.index = index
        self.term = term
        self._payload = payload

    def end_entry(self) -> None:
        """Leave the entry, all of whose commands ran: what runs next is a read."""
        self.context.applying = False
        self.digests.add(self.index, self.term, self.clock.stamp_ms, self._payload)

    def begin_walk(self) -> SnapshotWalk:
        """Begin a snapshot of the state as it is now; put None into ``snapshot`` when it has ended."""
        walk = SnapshotWalk(self.databases, self.once.answers(), self.digests.state())
        self.snapshot = walk
        return walk

    def loader(self) -> ImageLoader:
        """Return what reads a snapshot into this machine, which must be empty; ``stand_at`` comes after it."""
        return ImageLoader(self.databases, self.once)

    def stand_at(self, index: int, term: int, stamp_ms: int, chain: ChainState | None) -> None:
        """Take the position of a snapshot that was loaded; ``chain`` is what it carries of the digest."""
        self.index = index
        self.term = term
        self.clock.stamp_ms = self.clock.now_ms = stamp_ms
        self.digests.stand_at(stamp_ms, chain)

    def replace_by(self, fresh: Machine) -> None:
        """Take over the state of ``fresh``, into which a snapshot was loaded; the old one is freed by the reaper.

        A walk that is under way goes on with the old state.
        """
        for ours, theirs in zip(self.databases, fresh.databases, strict=True):
            access = ours.access
            ours.clear()
            ours.swap(theirs)
            ours.access = access
        self.once.take(fresh.once)
        self.stand_at(fresh.index, fresh.term, fresh.clock.stamp_ms, fresh.digests.state())
        self.configuration = fresh.configuration

    def begin_read(self, wall_clock_ms: int) -> None:
        """Let reads see ``wall_clock_ms``, but never a time before the last stamp."""
        clock = self.clock
        clock.now_ms = max(wall_clock_ms, clock.stamp_ms)

    def execute_alike(self, db: int, row: Command, commands: list[Args]) -> list[Reply]:
        """Do what ``execute`` does for commands of one row and one length; hot."""
        context = self.context
        if self.snapshot is not None and context.applying:
            return self.execute(db, [row] * len(commands), commands)
        context.db = self.databases[db]
        if row.run_group is not None and len(commands) > 1:
            together = row.run_group(context, commands)
            if together is not None:
                return together
        replies: list[Reply] = []
        run = row.run
        for args in commands:
            try:
                replies.append(run(context, args))
            except RedanError as error:
                replies.append(self._failed(row, error))
            except StampNeeded:
                break
            except Exception as error:
                replies.append(self._defect(row, error))
        return replies

    def execute(self, db: int, rows: list[Command], commands: list[Args]) -> list[Reply]:
        """Run commands in order and return their replies.

        Fewer replies than commands mean that the command after the last reply needs an entry that moves time.
        """
        context = self.context
        context.db = self.databases[db]
        if self.snapshot is not None and context.applying:
            return self._execute_saving(self.snapshot, rows, commands)
        replies: list[Reply] = []
        for row, args in zip(rows, commands, strict=True):
            try:
                replies.append(row.run(context, args))
            except RedanError as error:
                replies.append(self._failed(row, error))
            except StampNeeded:
                break
            except Exception as error:
                replies.append(self._defect(row, error))
        return replies

    def _execute_saving(self, snapshot: SlotSaver, rows: list[Command], commands: list[Args]) -> list[Reply]:
        replies: list[Reply] = []
        for row, args in zip(rows, commands, strict=True):
            try:
                if row.is_write:
                    for key in row.keys_of(args):
                        snapshot.save_before(slot_of(key))
                replies.append(row.run(self.context, args))
            except RedanError as error:
                replies.append(self._failed(row, error))
            except Exception as error:
                replies.append(self._defect(row, error))
        return replies

    def save_before(self, slot: int) -> None:
        """Save a slot for a running snapshot before housekeeping changes it."""
        if self.snapshot is not None:
            self.snapshot.save_before(slot)

    def replay(self, payload: bytes) -> None:
        """Apply the commands of an entry that this node did not propose in this run."""
        reader = hiredis.Reader()
        reader.feed(payload)
        db = 0
        find = self.table.find_any
        rows: list[Command] = []
        commands: list[Args] = []
        while (args := reader.gets()) is not False:
            row = find(args[0])
            assert row is not None, f"the log holds the unknown command {args[0]!r}"
            if row.name == "select":
                self.execute(db, rows, commands)
                rows, commands = [], []
                db = int(args[1])
                if db >= len(self.databases):
                    raise TooFewDatabases(db, len(self.databases))
                continue
            rows.append(row)
            commands.append(args)
        self.execute(db, rows, commands)
        self.failures.clear()

    def _failed(self, row: Command, error: RedanError) -> ErrorReply:
        self.failures.append((row, error))
        if row.is_write:
            # Reads that ride with an entry run on one node only.
            self.digests.failures += 1
        return ErrorReply(error)

    def _defect(self, row: Command, error: Exception) -> ErrorReply:
        if isinstance(error, MemoryError):
            raise error
        self.on_defect(row, error)
        return self._failed(row, InternalError(f"internal error in '{row.name}': {type(error).__name__}"))
