"""Runs calls on the machine and answers them: reads at once, committed entries through ``apply``.

Guarantees: what comes in an order is answered in that order; what the calls cost is counted once a group.
Leaves to the caller: admission (kvservice/admission), the order of a session's calls (kvservice/router) and that of the
log (replication/node).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from time import perf_counter_ns, time_ns

from kvservice.admission import REFUSED
from kvservice.batch import Batch, Call, Found
from kvservice.commands.lookup import raw_of
from kvservice.commands.reply import ErrorReply, Reply
from kvservice.commands.table import Args, Command
from kvservice.errors import OutcomeUnknownError
from kvservice.keyspace.database import StampNeeded
from kvservice.keyspace.machine import Machine
from kvservice.session import NO_LANE, Session
from kvservice.stats import Stats
from replication.core.membership import Configuration, encode
from replication.core.messages import Entry, EntryKind, InstallSnapshot
from replication.errors import ReplicationError

ONE_BY_ONE_BELOW_US = 1000
"""Below this slow-log threshold every command is timed alone; else only those that are not quick."""
NEVER_US = 1 << 60


class Runner:
    """The replicated state machine as the node sees it, with measuring and answering."""

    def __init__(self, machine: Machine, stats: Stats, release: Callable[[Session], None]) -> None:
        self.machine = machine
        self.stats = stats
        self._release = release
        """Told a session that was held until its pending writes were answered."""
        self._slow_us = 0
        self._watched_ns = 0
        self.touch: Callable[[Call], None] | None = None
        """Told every call that ran, when an eviction policy needs to know what was used."""
        self.is_stale = False
        """Whether reads see the time of the last entry, and so wait for nothing: read_mode = stale."""
        self.wall_clock_ms: Callable[[], int] = _wall_clock_ms
        """What time it is for reads; a simulation has its own."""
        self.wait_for_time: Callable[[Call], None] = _unexpected
        """Lets the rest of a call of reads wait for an entry that moves time."""
        self.on_refused: Callable[[Batch, ReplicationError], None] = _unexpected
        self.on_answered: Callable[[], None] = lambda: None
        """Told when the callers of an entry or a round have their replies."""
        self.on_applied: Callable[[Batch], None] = lambda _batch: None
        self.on_read: Callable[[Batch], None] = lambda _batch: None
        self.on_leader: Callable[[str | None, bool, int], None] = lambda _leader, _is_leader, _term: None
        self.on_configuration: list[Callable[[Configuration], None]] = []
        self.on_restore: Callable[[InstallSnapshot], None] = _unexpected
        self.follow: Callable[[Entry], None] | None = None
        """Told every entry that is about to be applied, while somebody keeps a second keyspace (kvservice/reload)."""
        self.watch(10_000, 0)

    def watch(self, slow_us: int, latency_ms: int) -> None:
        """Set from when on a command is slow: for the slow log (negative = never), the latency monitor (0 = never)."""
        self._slow_us = slow_us if slow_us >= 0 else NEVER_US
        self._watched_ns = min(self._slow_us, latency_ms * 1000 or NEVER_US) * 1000

    @property
    def _is_observed(self) -> bool:
        """Whether single commands are watched: timed one by one, or noted for eviction."""
        return self.touch is not None or self._slow_us < ONE_BY_ONE_BELOW_US

    @property
    def stamp_ms(self) -> int:
        """Stamp of the last applied entry in ms."""
        return self.machine.clock.stamp_ms

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_call(self, call: Call) -> list[Reply]:
        """Run a call of reads on the applied state; fewer replies than commands if time has to move first."""
        machine = self.machine
        machine.begin_read(0 if self.is_stale else self.wall_clock_ms())
        return self._run(call)

    def read_alike(self, session: Session, row: Command, commands: list[Args], arrived_ns: int) -> list[Reply]:
        """Do what ``read`` does for commands of one row and one length; hot."""
        count = len(commands)
        if self._is_observed or (count > 1 and not row.is_quick):
            return self.read_call(Call(session, session.db, [row] * count, commands, arrived_ns, row))
        machine = self.machine
        machine.begin_read(0 if self.is_stale else self.wall_clock_ms())
        replies = machine.execute_alike(session.db, row, commands)
        spent_ns = perf_counter_ns() - arrived_ns
        self.stats.ran(row, len(replies), spent_ns, spent_ns // 1000)
        if spent_ns >= self._watched_ns:
            self._note_slow(row, commands[0], spent_ns // count // 1000, session)
        if machine.failures:
            self._count_failures()
        return replies

    def read(self, batch: object) -> None:
        """Run calls of reads whose round has ended, and answer them."""
        assert isinstance(batch, Batch)
        for call in [] if self._answer_together(batch) else batch.calls:
            session = call.session
            # Without a lane, an earlier read of the session waits for time, and this one stays behind it.
            replies = self.read_call(call) if session.lane != NO_LANE else []
            answered = len(replies)
            if answered == len(call.commands):
                self.answer(call, replies)
                continue
            if answered:
                session.deliver(replies)
                call = call._replace(rows=call.rows[answered:], commands=call.commands[answered:])
            self.wait_for_time(call)
        self.on_answered()
        self.on_read(batch)

    def read_ahead(self, batch: Batch) -> None:
        """Run reads whose round is under way, if they can run as one; ``read`` answers and counts them.

        Requires ``Node.may_read_ahead``. None of them runs if a caller waits for anything else as well: what it asked
        before must not run after them.
        """
        calls = batch.calls
        if not self._are_one_group(calls):
            return
        for call in calls:
            if call.session.pending != 1:
                return
        context = self.machine.context
        hits, misses = context.hits, context.misses
        found = self._read_together(calls)
        if found is not None:
            batch.ahead = found._replace(hits=context.hits - hits, misses=context.misses - misses)
            context.hits, context.misses = hits, misses

    def _answer_together(self, batch: Batch) -> bool:
        """Answer reads that have run as one, or can; tell whether it was done. Hot."""
        calls = batch.calls
        found = batch.ahead
        if found is None:
            if not self._are_one_group(calls) or any(call.session.lane == NO_LANE for call in calls):
                return False
            found = self._read_together(calls)
            if found is None:
                return False
        self._count_together(calls, found)
        answer = self.answer
        for call, replies in zip(calls, found.replies, strict=True):
            answer(call, replies)
        return True

    def _read_together(self, calls: list[Call]) -> Found | None:
        """Run reads of one group; None, and nothing has happened, if one of them is not plain. Hot."""
        machine = self.machine
        started_ns = perf_counter_ns()
        machine.begin_read(0 if self.is_stale else self.wall_clock_ms())
        commands = list(chain.from_iterable([call.commands for call in calls]))
        replies = machine.read_group(calls[0].db, calls[0].rows[0], commands)
        if replies is None:
            return None
        return Found(_shared_out(calls, replies), len(replies), perf_counter_ns() - started_ns)

    def length_of(self, db: int, key: bytes) -> int:
        """Return how many bytes the string at a key has, without what is not applied yet; 0 if there is none."""
        machine = self.machine
        machine.begin_read(self.wall_clock_ms())
        try:
            return len(raw_of(machine.databases[db].get(key)))
        except StampNeeded:
            return 0

    # -- applying -----------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry, batch: object | None) -> None:
        """Apply a committed entry and answer those who wait for it."""
        if self.follow is not None:
            self.follow(entry)
        machine = self.machine
        machine.begin_entry(entry.index, entry.term, entry.stamp_ms, entry.payload)
        if entry.kind == EntryKind.COMMANDS:
            # Any other only moves time, begins a term or names the members: no reason for a snapshot.
            machine.changes += 1
        if batch is None:
            if entry.kind == EntryKind.COMMANDS:
                machine.replay(entry.payload)
            machine.end_entry()
            return
        assert isinstance(batch, Batch)
        released: list[Session] = []
        calls = batch.calls
        for call, replies in zip(calls, self._run_all(calls), strict=True):
            session = call.session
            session.pending -= 1
            if session.is_in_doubt:
                session.is_in_doubt = not call.has_writes
            session.deliver(replies)
            if session.held and not session.pending:
                released.append(session)
        machine.end_entry()
        self.on_answered()
        # Hundreds of commands are freed while the callers read their replies, and not when the first of them is back.
        calls.clear()
        self.on_applied(batch)
        for session in released:
            self._release(session)

    # -- what else the node has to say --------------------------------------------------------------------------------

    def refused(self, batch: object, error: ReplicationError) -> None:
        """Learn that a batch will not be run."""
        assert isinstance(batch, Batch)
        self.on_refused(batch, error)

    def on_leadership(self, leader: str | None, is_leader: bool, term: int) -> None:
        """Learn who leads."""
        self.on_leader(leader, is_leader, term)

    def configuration_changed(self, configuration: Configuration) -> None:
        """Learn who the members are."""
        self.machine.configuration = encode(configuration)
        for listener in self.on_configuration:
            listener(configuration)

    def restore(self, snapshot: InstallSnapshot) -> None:
        """Let the state be replaced by that of a snapshot."""
        self.on_restore(snapshot)

    # -- answering ----------------------------------------------------------------------------------------------------

    def answer(self, call: Call, replies: list[Reply]) -> None:
        """Answer a call that is counted as pending."""
        session = call.session
        session.pending -= 1
        session.deliver(replies)
        self.settle(session)

    def answer_forwarded(self, call: Call, replies: list[Reply]) -> None:
        """Answer a call that another node ran, and count it as answered here."""
        latency_us = (perf_counter_ns() - call.arrived_ns) // 1000
        stats = self.stats
        if call.row is not None:
            if call.row is not REFUSED:
                stats.ran(call.row, len(replies), 0, latency_us)
        else:
            for row in call.rows:
                if row is not REFUSED:
                    stats.ran(row, 1, 0, latency_us)
        session = call.session
        was_in_doubt = session.is_in_doubt
        for row, reply in zip(call.rows, replies, strict=True):
            if type(reply) is ErrorReply:
                if row is not REFUSED:
                    stats.failed(row, reply.cause)
                if isinstance(reply.cause, OutcomeUnknownError):
                    session.is_in_doubt = True
            elif was_in_doubt and row.is_write:
                # What the leader refused is no write of its log.
                session.is_in_doubt = False
        self.answer(call, replies)

    def settle(self, session: Session) -> None:
        """Let a held session go on if nothing of it is pending."""
        if session.held and not session.pending:
            self._release(session)

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_all(self, calls: list[Call]) -> Iterable[list[Reply]]:
        """Run the calls of an entry and return the replies of each; all together if they are of one kind. Hot."""
        if not self._are_one_group(calls) or not (row := calls[0].rows[0]).is_write:
            return map(self._run, calls)
        started_ns = perf_counter_ns()
        commands = list(chain.from_iterable([call.commands for call in calls]))
        replies = _shared_out(calls, self.machine.execute_alike(calls[0].db, row, commands))
        self._count_together(calls, Found(replies, len(commands), perf_counter_ns() - started_ns))
        if self.machine.failures:
            self._count_failures()
        return replies

    def _count_together(self, calls: list[Call], found: Found) -> None:
        """Count calls that ran as one; hot."""
        _, count, spent_ns, hits, misses = found
        row = calls[0].rows[0]
        if spent_ns >= self._watched_ns:
            self._note_slow(row, calls[0].commands[0], spent_ns // count // 1000, calls[0].session)
        now_ns = perf_counter_ns()
        waits = [(len(call.commands), (now_ns - call.arrived_ns) // 1000) for call in calls]
        self.stats.ran_together(row, count, spent_ns, waits)
        self.machine.context.hits += hits
        self.machine.context.misses += misses

    def _are_one_group(self, calls: list[Call]) -> bool:
        """Tell whether several calls may run as one: they are of one row, one length and one database."""
        if len(calls) < 2 or self._is_observed:
            return False
        _, db, _, commands, _, row = calls[0]
        if row is None or row.run_group is None or not row.is_quick:
            return False
        length = len(commands[0])
        for _, of_db, _, commands, _, of_row in calls:
            if of_row is not row or of_db != db or len(commands[0]) != length:
                return False
        return True

    def _run(self, call: Call) -> list[Reply]:
        row = call.row
        count = len(call.commands)
        started_ns = perf_counter_ns()
        if count > 1 and (row is None or not row.is_quick or self._slow_us < ONE_BY_ONE_BELOW_US):
            return self._run_one_by_one(call)
        row = call.rows[0]
        replies = self.machine.execute_alike(call.db, row, call.commands)
        ended_ns = perf_counter_ns()
        spent_ns = ended_ns - started_ns
        if row is not REFUSED:
            self.stats.ran(row, len(replies), spent_ns, (ended_ns - call.arrived_ns) // 1000)
        if spent_ns >= self._watched_ns:
            self._note_slow(row, call.commands[0], spent_ns // count // 1000, call.session)
        self._after(call)
        return replies

    def _run_one_by_one(self, call: Call) -> list[Reply]:
        """Run a group whose commands differ, or may be slow, and time those that are not quick alone."""
        stats = self.stats
        machine = self.machine
        replies: list[Reply] = []
        rows, commands = call.rows, call.commands
        position, count = 0, len(commands)
        is_timing_all = self._slow_us < ONE_BY_ONE_BELOW_US
        while position < count:
            end = position + 1
            if rows[position].is_quick and not is_timing_all:
                while end < count and rows[end].is_quick:
                    end += 1
            started_ns = perf_counter_ns()
            got = machine.execute(call.db, rows[position:end], commands[position:end])
            spent_ns = perf_counter_ns() - started_ns
            replies += got
            share_ns = spent_ns // (end - position)
            latency_us = (started_ns + spent_ns - call.arrived_ns) // 1000
            for at in range(position, position + len(got)):
                row = rows[at]
                if row is not REFUSED:
                    stats.ran(row, 1, share_ns, latency_us)
            if spent_ns >= self._watched_ns:
                self._note_slow(rows[position], commands[position], share_ns // 1000, call.session)
            if len(got) < end - position:
                break
            position = end
        self._after(call)
        return replies

    def _note_slow(self, row: Command, args: Args, microseconds: int, session: Session) -> None:
        if row is REFUSED:
            return
        if microseconds >= self._slow_us:
            self.stats.slowlog.note(args, microseconds, session)
        self.stats.latency.note("fast-command" if "fast" in row.flags else "command", microseconds / 1000)

    def _after(self, call: Call) -> None:
        if self.machine.failures:
            self._count_failures()
        if self.touch is not None:
            self.touch(call)

    def _count_failures(self) -> None:
        failures = self.machine.failures
        for row, error in failures:
            self.stats.failed(row, error)
        failures.clear()


def _shared_out(calls: list[Call], replies: list[Reply]) -> list[list[Reply]]:
    """Return the replies of each call, of those to all their commands."""
    if len(calls) == len(replies):
        return [[reply] for reply in replies]
    shares: list[list[Reply]] = []
    start = 0
    for call in calls:
        end = start + len(call.commands)
        shares.append(replies[start:end])
        start = end
    return shares


def _unexpected(*_arguments: object) -> None:
    """Stand in for a listener that is not there yet."""
    raise AssertionError("the runner has no service")


def _wall_clock_ms() -> int:
    return time_ns() // 1_000_000
