"""The service: takes commands of any caller, refuses, runs or proposes them, and keeps each caller's order.

Path of a command: ``submit`` → admission → a read of a caller with nothing pending runs at once where the node may do
that (one voter, a valid lease, or read_mode = stale); everything else of the data plane goes the way that the router
finds: into an entry of the log, into a round of reads, or to the leader. A server command runs on the node that is
asked, once nothing of its caller is pending. Replies leave through ``Session.deliver``, in order.

Guarantees: one write path; no task, future or lock for a command.
Leaves to the caller: parsing and encoding (gateway, api), assembling (kvservice/server).
Reference: Raft thesis, section 6.4 (linearizable reads; one voter needs no round).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from secrets import token_hex
from time import monotonic, perf_counter_ns, time
from typing import Final, cast

from kvservice.admission import REFUSED, refusal, unknown_command
from kvservice.batch import Call
from kvservice.cluster.copies import Answer, IsEnough, Wait
from kvservice.cluster.divergence import Divergence
from kvservice.commands.containers import leaf
from kvservice.commands.ports import GroupPort, SnapshotsPort, WalStatsPort
from kvservice.commands.reply import ErrorReply, Pending, Reply
from kvservice.commands.table import Args, Command, CommandTable, are_alike
from kvservice.config import Config
from kvservice.dataset_walks import DatasetWalks
from kvservice.errors import Loading, OutOfMemory, Overloaded, RedanError, RequestError, ShuttingDown
from kvservice.forwarding.forwarder import Forwarder
from kvservice.gateway.resp import encode_commands
from kvservice.holds import Holds
from kvservice.inner_caller import InnerCaller
from kvservice.keyspace.machine import InternalError, Machine
from kvservice.router import Router
from kvservice.runner import Runner
from kvservice.session import Session
from kvservice.starting import StartingGroup, StartingLog, StartingNode, StartingSnapshots
from kvservice.stats import Stats
from replication.node import Node

ASKED_OF_LEADER: Final = frozenset({"wait", "waitaof"})
"""Commands of the server plane that another node may ask: only the leader knows what each member has."""
QUEUED_BYTES_MAX: Final = 256 * 1024 * 1024
"""Writes are refused while more than this waits for the disk: two seconds of a disk that writes 128 MB/s."""


class ServerCall:
    """One command of the server plane: who asks, and of what node."""

    __slots__ = ("ends_session", "service", "session")

    def __init__(self, service: Service, session: Session) -> None:
        self.service = service
        self.session = session
        self.ends_session = False


class Service:
    """What a node does for its callers."""

    def __init__(
        self,
        config: Config,
        table: CommandTable,
        machine: Machine,
        stats: Stats,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.config = config
        self.table = table
        self.machine = machine
        self.stats = stats
        # INFO and /metrics are answered before the log is open.
        self.wal_stats: WalStatsPort = StartingLog()
        self.snapshots: SnapshotsPort = StartingSnapshots()
        self.sessions: dict[int, Session] = {}
        self.started_s = time()
        self.run_id = token_hex(20)
        self.divergence = Divergence(machine.digests)
        self.group: GroupPort = StartingGroup(config)
        self.runner = Runner(machine, stats, self.release)
        self.runner.is_stale = self._is_stale = config.read_mode == "stale"
        self.forwarder = Forwarder(self.runner.answer_forwarded, monotonic, call_soon, call_later)
        self.router = Router(self.runner, self.forwarder, call_soon, call_later)
        self.router.on_switched = self._leader_changed
        self.router.admit_home = self._admit_home
        self.node = self.router.node
        self.refusal: RedanError | None = Loading()
        """Why data commands are refused now: loading or draining; None when serving."""
        self.holds = Holds(self.release, call_later)
        self.start_save: Callable[[], Pending] = Pending
        self.start_reload: Callable[[], Pending] = Pending
        self.digest = DatasetWalks(machine, call_later).digest
        self.begin_shutdown: Callable[[], None] = lambda: None
        self.on_config_changed: list[Callable[[frozenset[str]], None]] = []
        self.make_room: Callable[[list[Args]], bool] = lambda _commands: True
        """Evicts what maxmemory demands before some writes; False if a write that needs memory must be refused."""
        self._call_soon = call_soon
        self._call_later = call_later
        self._by_name = table.by_name
        self._enqueue = self.router.enqueue
        self._last_session_id = 0
        self.config_changed(frozenset())

    # -- sessions and settings ----------------------------------------------------------------------------------------

    @property
    def node(self) -> Node | StartingNode:
        """The consensus node."""
        return self._node

    @node.setter
    def node(self, node: Node | StartingNode) -> None:
        self._node = self.router.node = node

    @property
    def is_away(self) -> bool:
        """Whether data commands go to another node, or wait for one that leads."""
        return self.router.is_away

    def next_session_id(self) -> int:
        """Return a new session's id; ids only grow."""
        self._last_session_id += 1
        return self._last_session_id

    def config_changed(self, fields: frozenset[str]) -> None:
        """Take over settings that have another value now."""
        config = self.config
        self._key_bytes_max = config.key_bytes_max
        self._leader_changed()
        self.forwarder.leader_wait_s = config.leader_wait_ms / 1000
        self.forwarder.outcome_timeout_s = config.outcome_timeout_ms / 1000
        self.runner.watch(config.slowlog_log_slower_than, config.latency_monitor_threshold)
        for listener in self.on_config_changed:
            listener(fields)

    def _leader_changed(self) -> None:
        """Take over who decides about memory and the length of values: the leader alone."""
        self._maxmemory = 0 if self.router.is_away else self.config.maxmemory
        self._value_bytes_max = 0 if self.router.is_away else self.config.value_bytes_max

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call ``act`` once on the event loop, later."""
        self._call_later(seconds, act)

    def pause(self, until_ms: int, writes_only: bool) -> None:
        """Hold commands, or writes only, of all sessions until a wall-clock time in ms; never shorten a hold."""
        self.holds.pause(until_ms, writes_only)

    def unpause(self) -> None:
        """Let held commands go."""
        self.holds.unpause()

    def save(self) -> Pending:
        """Start a snapshot; the reply is OK or the error. Raises RequestError while one is being written."""
        return self.start_save()

    def reload(self) -> Pending:
        """Save, load, compare and exchange the keys; see kvservice/reload."""
        return self.start_reload()

    def ask(self, db: int, commands: list[Args], answered: Callable[[list[Reply]], None]) -> None:
        """Run commands of the data plane where they have to run; ``answered`` gets their replies, all at once."""
        InnerCaller(self, db, answered).ask(commands)

    def shutdown(self) -> None:
        """Begin an orderly stop."""
        self.begin_shutdown()

    def wait_for_copies(
        self, session: Session, args: Args, timeout_ms: int, answer: Answer, is_enough: IsEnough
    ) -> Pending:
        """Wait until other members have the caller's writes; see kvservice/cluster/copies."""
        return Wait(self, session, args, timeout_ms, answer, is_enough).pending

    @property
    def blocked_clients(self) -> int:
        """Sessions that wait for a reply of the server plane, or for the end of a pause."""
        return self.holds.count + sum(session.awaited is not None for session in self.sessions.values())

    @property
    def timed_clients(self) -> int:
        """Sessions that wait with a limit to their wait."""
        return sum(session.awaited is not None and session.awaited.is_timed for session in self.sessions.values())

    def drain(self) -> None:
        """Refuse data commands from now on; what runs is finished, and what a pause holds is refused."""
        self.refusal = ShuttingDown()
        self.holds.unpause()

    def end_waits(self) -> None:
        """Answer whoever still waits, but for those that asked for the stop: they see the connection end."""
        for session in list(self.sessions.values()):
            if session.awaited is not None and session.last_command != "shutdown":
                session.awaited.resolve(ErrorReply(ShuttingDown()))

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, session: Session, commands: list[Args], raw: bytes | None, alike: bool = False) -> None:
        """Take commands of one caller, in order; hot.

        ``commands`` is not empty and none of them is; ``raw`` is their RESP if it is at hand in one piece; ``alike``:
        they are known to have one name and length.
        """
        if session.held:
            session.backlog.append(commands)
            return
        arrived_ns = perf_counter_ns()
        args = commands[0]
        row = self._by_name.get(args[0])
        if (
            row is None
            or not row.is_plain
            or not row.arity_min <= len(args) <= row.arity_max
            or self.refusal is not None
            or self.holds.is_paused
            or not session.authenticated
            or (not alike and len(commands) > 1 and not are_alike(commands))
        ):
            self._submit_mixed(session, commands, arrived_ns)
            return
        if raw is None and row.is_write:
            raw = encode_commands(commands)
        if (raw is None or len(raw) > self._key_bytes_max) and self._has_long(commands):
            self._submit_mixed(session, commands, arrived_ns)
        elif row.is_write:
            assert raw is not None
            if self._node.bytes_pending > QUEUED_BYTES_MAX or (
                self._maxmemory and row.deny_oom and not self.make_room(commands)
            ):
                self._submit_mixed(session, commands, arrived_ns)
            elif session.pending and not self.router.may_write(session):
                self._hold(session, commands)
            else:
                call = Call(session, session.db, [row] * len(commands), commands, arrived_ns, row)
                self._enqueue(call, raw)
        elif session.pending or not (self._node.reads_at_once or self._is_stale or not row.needs_leader):
            call = Call(session, session.db, [row] * len(commands), commands, arrived_ns, row)
            if not self.router.read(call, raw or b""):
                self._hold(session, commands)
        else:
            replies = self.runner.read_alike(session, row, commands, arrived_ns)
            if len(replies) == len(commands):
                session.deliver(replies)
            else:
                self._deliver_and_wait(
                    Call(session, session.db, [row] * len(commands), commands, arrived_ns, row), replies
                )

    def _has_long(self, commands: list[Args]) -> bool:
        """Tell whether any argument is longer than a key may be; the command's own key positions decide then."""
        return max(map(len, chain.from_iterable(commands))) > self._key_bytes_max

    def propose(self, session: Session, commands: list[Args]) -> None:
        """Put writes of the node itself into this turn's batch, in front of what is submitted after them.

        They are answered as not applied if this node does not lead.
        """
        rows = [self._by_name[args[0]] for args in commands]
        self._enqueue(Call(session, session.db, rows, commands, perf_counter_ns(), None), encode_commands(commands))

    def release(self, session: Session) -> None:
        """Let a session's held commands go, until one of them holds it again."""
        session.held = False
        backlog = session.backlog
        while backlog and not session.held and not session.is_closed:
            self.submit(session, backlog.popleft(), None)

    def _submit_mixed(self, session: Session, commands: list[Args], arrived_ns: int) -> None:
        """Take commands one by one: whatever is not a plain group of one data command."""
        if not self.router.may_write(session):
            self._hold(session, commands)
            return
        rows: list[Command] = []
        group: list[Args] = []
        for position, args in enumerate(commands):
            row, args = self._admit(session, args)
            if row is not REFUSED and self.holds.is_paused and self.holds.holds(row) and session.kind != "remote":
                self._dispatch(session, rows, group, arrived_ns)
                self._hold(session, commands[position:])
                self.holds.add(session)
                return
            if row.is_data:
                rows.append(row)
                group.append(args)
                continue
            self._dispatch(session, rows, group, arrived_ns)
            rows, group = [], []
            if session.pending:
                self._hold(session, commands[position:])
                return
            session.last_command = row.name
            if not self._run_server_command(session, row, args, arrived_ns):
                if rest := commands[position + 1 :]:
                    session.backlog.appendleft(rest)
                return
        self._dispatch(session, rows, group, arrived_ns)

    def _admit(self, session: Session, args: Args) -> tuple[Command, Args]:
        """Return the row and arguments to run: those of the command, or of its refusal."""
        row = self.table.find_any(args[0]) if session.is_trusted else self.table.find(args[0])
        error: RedanError | None
        if row is None:
            error = unknown_command(args)
        else:
            try:
                # A subcommand is counted, and checked, by its own row.
                row = leaf(row, args) if row.subcommands else row
                error = refusal(row, args, session, self.refusal, self._key_bytes_max)
                if error is None and row.check_growth is not None and self._value_bytes_max:
                    row.check_growth(args, partial(self.runner.length_of, session.db), self._value_bytes_max)
            except RequestError as refused:
                error = refused
            if session.kind == "remote" and not row.is_data and row.name not in ASKED_OF_LEADER:
                error = RequestError(f"'{row.name}' is a matter of the node that is asked")
            if error is None and row.is_write and self._node.bytes_pending > QUEUED_BYTES_MAX:
                error = Overloaded()
            if error is None and row.deny_oom and self._maxmemory and not self.make_room([args]):
                error = OutOfMemory()
        if error is None:
            assert row is not None
            return row, args
        self.stats.rejected(row, error)
        return REFUSED, [ErrorReply(error)]  # type: ignore[list-item]  # the one argument of REFUSED

    def _hold(self, session: Session, commands: list[Args]) -> None:
        session.held = True
        session.backlog.appendleft(commands)

    def _dispatch(self, session: Session, rows: list[Command], group: list[Args], arrived_ns: int) -> None:
        """Run or propose admitted data commands, refused ones among them."""
        if not group:
            return
        session.last_command = rows[-1].name
        call = Call(session, session.db, rows, group, arrived_ns, rows[0] if len(rows) == 1 else None)
        if writes := call.writes():
            self._enqueue(call, encode_commands(writes))
        elif session.pending or not (self._node.reads_at_once or self._is_stale or _runs_anywhere(call)):
            self.router.read(call)
        else:
            self._deliver_and_wait(call, self.runner.read_call(call))

    def _run_server_command(self, session: Session, row: Command, args: Args, arrived_ns: int) -> bool:
        """Run a command of the server plane; False if the session's next commands have to wait or it ends."""
        call = ServerCall(self, session)
        started_ns = perf_counter_ns()
        reply: Reply | Pending
        try:
            reply = cast("Reply | Pending", row.run(call, args))
        except RedanError as error:
            self.stats.failed(row, error)
            reply = ErrorReply(error)
        except Exception as error:
            self.machine.on_defect(row, error)
            reply = ErrorReply(InternalError(f"internal error in '{row.name}': {type(error).__name__}"))
        ended_ns = perf_counter_ns()
        self.stats.executed(row, 1, ended_ns - started_ns)
        self.stats.answered(row, 1, (ended_ns - arrived_ns) // 1000)
        if isinstance(reply, Pending):
            session.held = True
            session.awaited = reply
            reply.then(lambda late: self._resolved(call, late))
            return False
        return self._answer(call, reply)

    def _answer(self, call: ServerCall, reply: Reply) -> bool:
        call.session.deliver([reply])
        if call.ends_session:
            call.session.close(after_replies=True)
            return False
        return True

    def _resolved(self, call: ServerCall, reply: Reply) -> None:
        session = call.session
        session.awaited = None
        if not session.is_closed and self._answer(call, reply):
            self._call_soon(lambda: self.release(session))

    # -- reading and proposing ----------------------------------------------------------------------------------------

    def _deliver_and_wait(self, call: Call, replies: list[Reply]) -> None:
        """Answer what was read; the rest waits for an entry that moves time."""
        answered = len(replies)
        if answered:
            call.session.deliver(replies)
        if answered < len(call.commands):
            rest = call._replace(rows=call.rows[answered:], commands=call.commands[answered:])
            self._enqueue(rest, b"")

    def _admit_home(self, call: Call) -> Call:
        """Refuse, of a call that was meant for another leader, what this node has no memory for."""
        if self._maxmemory and any(row.deny_oom for row in call.rows) and not self.make_room(call.commands):
            return call.lost(OutOfMemory())
        return call

    def move_time(self) -> None:
        """Propose an entry that only carries a new stamp, if this node leads."""
        self.router.move_time()

    def flush(self) -> None:
        """Propose what waits for company."""
        self.router.flush()


def _runs_anywhere(call: Call) -> bool:
    """Tell whether a call of refusals and the like of PING is right on whatever node."""
    return not any(row.needs_leader for row in call.rows)
