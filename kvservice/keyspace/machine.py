"""The replicated state machine: databases, and the only door through which commands reach them.

Guarantees: the same entries give the same state and the same replies on every node. A failing command changes nothing
and does not stop those after it. While a snapshot walks, a slot is saved before a command changes it.
Leaves to the caller: who is answered, measuring, and the wall clock.
Reference: Raft thesis, section 3.8 (state machines).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvservice.commands.context import Chance, Context
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args, Command, CommandTable, are_alike
from kvservice.errors import RedanError
from kvservice.keyspace.database import Clock, Database, StampNeeded, TooFewDatabases
from kvservice.keyspace.digest import ChainState, StateDigests
from kvservice.keyspace.image import ImageLoader, SnapshotWalk
from kvservice.keyspace.memory import MemoryMeter
from kvservice.keyspace.payload import groups_of
from kvservice.keyspace.slots import slot_of
from kvservice.keyspace.values import Value


class InternalError(RedanError):
    """A defect in a command's function; the same on every node, so it is answered and not fatal."""

    grpc_status = "INTERNAL"
    reason = "INTERNAL"


class SlotSaver(Protocol):
    """A running snapshot (keyspace/image)."""

    def save_before(self, slot: int) -> None:
        """Save a slot's image now unless it is saved already."""


class Savers:
    """Several walks at one time."""

    def __init__(self, *savers: SlotSaver) -> None:
        self._savers = savers

    def save_before(self, slot: int) -> None:
        """Let each save the slot."""
        for saver in self._savers:
            saver.save_before(slot)


class Machine:
    """Databases, context and the loop that runs commands."""

    def __init__(self, table: CommandTable, databases: int, chance_for: Callable[[int], Chance]) -> None:
        self.table = table
        self.clock = Clock()
        self.databases = [Database(index, self.clock) for index in range(databases)]
        self.memory = MemoryMeter(self.databases)
        self.context = Context(self.clock, self.databases, chance_for)
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
        self._snapshot: SlotSaver | None = None
        self._digesting: SnapshotWalk | None = None
        self._saver: SlotSaver | None = None
        """What has to save a slot before it changes: the walk that is under way, or both."""
        self.failures: list[tuple[Command, RedanError]] = []
        """Commands that failed since the caller last looked; it clears the list."""
        self.on_defect: Callable[[Command, BaseException], None] = lambda _row, _error: None

    def begin_entry(self, index: int, term: int, stamp_ms: int, payload: bytes) -> None:
        """Move time and position to an entry that is about to be applied."""
        clock = self.clock
        if stamp_ms > clock.stamp_ms:
            clock.stamp_ms = stamp_ms
        clock.now_ms = clock.stamp_ms
        self.context.begin_entry(index)
        self.index = index
        self.term = term
        self._payload = payload

    def end_entry(self) -> None:
        """Leave the entry, all of whose commands ran: what runs next is a read."""
        self.context.applying = False
        self.digests.add(self.index, self.term, self.clock.stamp_ms, self._payload)

    @property
    def snapshot(self) -> SlotSaver | None:
        """The walk of the snapshot that is being taken."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, walk: SlotSaver | None) -> None:
        self._snapshot = walk
        self._join_savers()

    @property
    def digesting(self) -> SnapshotWalk | None:
        """The walk of the digest that is being computed; put None into it when it has ended."""
        return self._digesting

    @digesting.setter
    def digesting(self, walk: SnapshotWalk | None) -> None:
        self._digesting = walk
        self._join_savers()

    def _join_savers(self) -> None:
        first, second = self._snapshot, self._digesting
        self._saver = Savers(first, second) if first is not None and second is not None else first or second

    def begin_digest(self) -> SnapshotWalk:
        """Begin a walk over the keys as they are now, for their digest."""
        self.digesting = walk = SnapshotWalk(self.databases)
        return walk

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
        self.index = self.context.index = index
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

    def is_equal(self, other: Machine) -> bool:
        """Tell whether both stand at the same entry of the same history; the keys are not looked at."""
        ours, theirs = self.digests.state(), other.digests.state()
        return self.index == other.index and ours == theirs and self.once.digest == other.once.digest

    def has_same_slot(self, other: Machine, slot: int) -> bool:
        """Tell whether the live keys of a slot have the same values, inner forms and deadlines in both."""
        stamp_ms = self.clock.stamp_ms
        for ours, theirs in zip(self.databases, other.databases, strict=True):
            if (ours.values[slot] or theirs.values[slot]) and not (
                _are_alike(ours, theirs, slot) or _live(ours, slot, stamp_ms) == _live(theirs, slot, stamp_ms)
            ):
                return False
        return True

    def adopt(self, twin: Machine) -> None:
        """Take the keys of a machine that holds the same state in place of ours, which the reaper frees.

        What is known of the use of keys stays. A walk that is under way goes on with the old dicts, which change no
        more.
        """
        for ours, theirs in zip(self.databases, twin.databases, strict=True):
            access, ours.access = ours.access, None
            ours.clear()
            ours.swap(theirs)
            ours.access = access

    def begin_read(self, wall_clock_ms: int) -> None:
        """Let reads see ``wall_clock_ms``, but never a time before the last stamp."""
        clock = self.clock
        clock.now_ms = max(wall_clock_ms, clock.stamp_ms)

    def execute_alike(self, db: int, row: Command, commands: list[Args]) -> list[Reply]:
        """Do what ``execute`` does for commands of one row and one length; hot."""
        context = self.context
        if self._saver is not None and context.applying:
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
        if row.is_write:
            self.digests.answered(replies)
        return replies

    def read_group(self, db: int, row: Command, commands: list[Args]) -> list[Reply] | None:
        """Run reads of one row and one length together; None, and nothing has happened, if one is not plain. Hot."""
        assert row.run_group is not None
        context = self.context
        context.db = self.databases[db]
        return row.run_group(context, commands)

    def execute(self, db: int, rows: list[Command], commands: list[Args]) -> list[Reply]:
        """Run commands in order and return their replies.

        Fewer replies than commands mean that the command after the last reply needs an entry that moves time.
        """
        context = self.context
        context.db = self.databases[db]
        if self._saver is not None and context.applying:
            return self._execute_saving(self._saver, rows, commands)
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
        self._note_answers(rows, replies)
        return replies

    def _note_answers(self, rows: list[Command], replies: list[Reply]) -> None:
        # Reads that ride with an entry run on one node only.
        self.digests.answered([reply for row, reply in zip(rows, replies, strict=False) if row.is_write])

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
        self._note_answers(rows, replies)
        return replies

    def save_before(self, slot: int) -> None:
        """Save a slot for a running snapshot before housekeeping changes it."""
        if self._saver is not None:
            self._saver.save_before(slot)

    def replay(self, payload: bytes) -> None:
        """Apply the commands of an entry that this node did not propose in this run."""
        db = 0
        for commands, alike in groups_of(payload):
            row = self._row_of(commands[0]) if alike or are_alike(commands) else None
            if row is not None and row.name != "select":
                self.execute_alike(db, row, commands)
            else:
                db = self._replay_mixed(db, commands)
        self.failures.clear()

    def _replay_mixed(self, db: int, stored: list[Args]) -> int:
        """Apply commands, the first of them in ``db``; return the database of what comes behind them."""
        rows: list[Command] = []
        commands: list[Args] = []
        for args in stored:
            row = self._row_of(args)
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
        return db

    def _row_of(self, args: Args) -> Command:
        row = self.table.find_any(args[0])
        assert row is not None, f"the log holds the unknown command {args[0]!r}"
        return row

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


def _are_alike(ours: Database, theirs: Database, slot: int) -> bool:
    """Tell whether all that is stored in a slot is the same, at C speed; False if it may be the same nevertheless."""
    values, others = ours.values[slot], theirs.values[slot]
    return (
        values == others
        and list(map(type, values.values())) == list(map(type, others.values()))
        and ours.expires[slot] == theirs.expires[slot]
    )


def _live(db: Database, slot: int, stamp_ms: int) -> dict[bytes, tuple[type, Value, int]]:
    """Return what the live keys of a slot have: type, value, deadline in ms or 0."""
    deadlines = db.expires[slot] or {}
    return {
        key: (type(value), value, due_ms)
        for key, value in db.values[slot].items()
        if (due_ms := deadlines.get(key, 0)) == 0 or due_ms > stamp_ms
    }
