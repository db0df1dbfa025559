"""Planted bugs around the consensus core: in the driver, the log, snapshots, applying, and what callers are told.

Guarantees: outside of its context nothing is changed.
Leaves to the caller: running a simulation in it (tests/simulation/test_planted_bugs.py).
Reference: Jepsen's analyses of RedisRaft, etcd and Redis; the Linux fsync of 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from kvservice import router
from kvservice.batch import Batch
from kvservice.commands.reply import Reply
from kvservice.forwarding import forwarder
from kvservice.forwarding.forwarded import RemoteSession
from kvservice.forwarding.forwarder import Forwarder
from kvservice.keyspace.image import ImageLoader, SnapshotWalk
from kvservice.keyspace.machine import Machine
from kvservice.router import Router
from kvservice.runner import Runner
from kvservice.simulation.disk import SimulatedDisk
from persistence import log_writer, recovery
from persistence.errors import Damaged
from persistence.log_writer import LogWriter
from persistence.recovery import TornTail
from persistence.segment import last_nonzero
from persistence.snapshot import SnapshotMeta, SnapshotWriter
from replication import storage
from replication.applying import Applying
from replication.core import follower
from replication.core.membership import Configuration
from replication.core.messages import Entry, EntryKind, HardState, InstallSnapshot
from replication.core.raft import HANDLERS, Raft, Role
from replication.errors import NotApplied, ReplicationError
from replication.storage import Storage
from replication.waiters import Proposals, Refusal

Planted = Iterator[None]


# -- log ---------------------------------------------------------------------------------------------------------------


@contextmanager
def skips_fsync() -> Planted:
    """The log reports what it has only written."""
    init = LogWriter.__init__

    def lazy(writer: LogWriter, *arguments: Any) -> None:
        init(writer, *arguments)
        writer._always = False

    with patch.object(LogWriter, "__init__", lazy):
        yield


@contextmanager
def _writing(change: Callable[[HardState], HardState | None]) -> Planted:
    append = Storage.append

    def append_changed(
        log: Storage, hard_state: HardState | None, entries: list[Entry], commit_index: int, token: int
    ) -> None:
        append(log, hard_state if hard_state is None else change(hard_state), entries, commit_index, token)

    with patch.object(Storage, "append", append_changed):
        yield


@contextmanager
def does_not_persist_the_vote() -> Planted:
    """The term is on disk, the vote in it is not."""
    with _writing(lambda hard_state: hard_state._replace(vote="")):
        yield


@contextmanager
def does_not_persist_the_term() -> Planted:
    """Term and vote are in memory only; the log knows the terms of its entries."""
    with _writing(lambda hard_state: hard_state if hard_state.quarantined else None):
        yield


@contextmanager
def drops_the_kind_of_entries() -> Planted:
    """Entries read back from disk are no-ops."""
    decode_entry = storage.decode_entry

    def decode(record: Any) -> Entry:
        return decode_entry(record)._replace(kind=EntryKind.NOOP)

    with patch.object(storage, "decode_entry", decode):
        yield


@contextmanager
def cuts_damage_like_a_tear() -> Planted:
    """What does not check at the end of the log is cut, whatever later frames say."""
    judge_rest = recovery.judge_rest

    def judge(disk: Any, handle: int, path: Any, header: Any, reader: Any) -> TornTail | None:
        try:
            return judge_rest(disk, handle, path, header, reader)
        except Damaged:
            end = last_nonzero(disk, handle, reader.offset)
            return None if end is None else TornTail(path, reader.offset, end - reader.offset)

    with patch.object(recovery, "judge_rest", judge):
        yield


@contextmanager
def does_not_make_the_found_tail_durable() -> Planted:
    """After a failed write, what a start finds in the page cache counts as durable."""

    def leave(disk: Any, handle: int, tail: Any) -> None:
        return None

    with patch.object(recovery, "rewrite_tail", leave), patch.object(log_writer, "rewrite_tail", leave):
        yield


# -- snapshots ---------------------------------------------------------------------------------------------------------


@contextmanager
def _snapshots(change: Callable[[SnapshotMeta], SnapshotMeta]) -> Planted:
    init = SnapshotWriter.__init__

    def init_changed(
        writer: SnapshotWriter, directory: Any, disk: Any, meta: SnapshotMeta, *rest: Any, **more: Any
    ) -> None:
        init(writer, directory, disk, change(meta), *rest, **more)

    with patch.object(SnapshotWriter, "__init__", init_changed):
        yield


@contextmanager
def applied_index_apart_from_the_state() -> Planted:
    """A snapshot says that it ends one entry before it does: etcd 3.5 kept the two apart, and they parted."""
    with _snapshots(lambda meta: meta._replace(last_index=max(1, meta.last_index - 1))):
        yield


@contextmanager
def snapshots_have_no_members() -> Planted:
    """A snapshot keeps the members that its node began with."""
    configuration_changed = Runner.configuration_changed

    def only_the_first(runner: Runner, configuration: Configuration) -> None:
        known = runner.machine.configuration
        configuration_changed(runner, configuration)
        runner.machine.configuration = known or runner.machine.configuration

    with patch.object(Runner, "configuration_changed", only_the_first):
        yield


@contextmanager
def snapshots_are_not_of_one_moment() -> Planted:
    """Keys that change while a snapshot is written are not saved before."""

    def save_nothing(_walk: SnapshotWalk, _slot: int) -> None:
        return None

    with patch.object(SnapshotWalk, "save_before", save_nothing):
        yield


@contextmanager
def snapshots_leave_out_deadlines() -> Planted:
    """Keys come back from a snapshot without their deadlines."""
    load = ImageLoader.load

    def load_lasting(loader: ImageLoader, chunk: bytes) -> bool:
        is_last = load(loader, chunk)
        for database in loader._databases:
            database.expires = [None] * len(database.expires)
        return is_last

    with patch.object(ImageLoader, "load", load_lasting):
        yield


@contextmanager
def takes_a_late_snapshot_over_newer_state() -> Planted:
    """A snapshot that comes when the node has gone on takes the place of the state; the log refuses that aloud."""

    def install_snapshot(raft: Raft, sender: str, message: InstallSnapshot) -> None:
        follower.follow(raft, sender)
        raft.is_tail_replaced = True
        raft.log.restore(message.last_index, message.last_term)
        raft.use_configuration(message.configuration)
        raft.snapshot = message
        follower.acknowledge(raft, sender, raft.log.committed, 0)

    with patch.dict(HANDLERS[Role.FOLLOWER], {InstallSnapshot: install_snapshot}):
        yield


@contextmanager
def renames_snapshots_before_they_are_durable() -> Planted:
    """A snapshot gets its name while its bytes are in the page cache."""
    write = SnapshotWriter._write

    def write_lazily(writer: SnapshotWriter, temporary: Any) -> bool:
        with patch.object(SimulatedDisk, "fsync", lambda _disk, _handle: None):
            return write(writer, temporary)

    with patch.object(SnapshotWriter, "_write", write_lazily):
        yield


# -- applying ----------------------------------------------------------------------------------------------------------


@contextmanager
def expires_by_the_local_clock() -> Planted:
    """Time in the state is that of each node, not that of the log."""
    begin_entry = Machine.begin_entry
    apply = Runner.apply

    def apply_now(runner: Runner, entry: Entry, batch: object | None) -> None:
        def begin(machine: Machine, index: int, term: int, stamp_ms: int, payload: bytes) -> None:
            begin_entry(machine, index, term, stamp_ms, payload)
            machine.clock.now_ms = max(machine.clock.now_ms, runner.wall_clock_ms())

        with patch.object(Machine, "begin_entry", begin):
            apply(runner, entry, batch)

    with patch.object(Runner, "apply", apply_now):
        yield


@contextmanager
def forgets_entries_while_it_loads_a_snapshot() -> Planted:
    """Entries that are committed while a snapshot is loaded are applied to the state that is about to go."""
    apply_committed = Applying._apply_committed

    def apply_anyway(node: Applying) -> None:
        restoring, node._restoring = node._restoring, None
        apply_committed(node)
        node._restoring = restoring

    with patch.object(Applying, "_apply_committed", apply_anyway):
        yield


@contextmanager
def replays_an_entry_twice() -> Planted:
    """The first entry behind a snapshot is applied once more at a start."""
    replayed = Applying._apply_replayed

    def twice(node: Applying, entry: Entry) -> None:
        replayed(node, entry)
        if entry.kind == EntryKind.COMMANDS and not entry.index % 50:
            assert isinstance(node.machine.stamp_ms, int)
            node.machine._runner.apply(entry, None)  # type: ignore[attr-defined]

    with patch.object(Applying, "_apply_replayed", twice):
        yield


# -- what callers are told ---------------------------------------------------------------------------------------------


@contextmanager
def followers_read_their_own_state() -> Planted:
    """Any node answers reads from what it has applied."""

    def let_reads(node: Applying) -> None:
        node.reads_at_once = True

    with patch.object(Applying, "_let_reads_at_once", let_reads):
        yield


@contextmanager
def forwards_twice() -> Planted:
    """What was sent to a leader whose stream broke is sent again."""

    def lose(of: Forwarder, link: Any) -> None:
        for waiting in of._waiting.values():
            if waiting.link is link:
                of._wait_again(waiting)

    with patch.object(Forwarder, "_lose", lose):
        yield


@contextmanager
def answers_callers_out_of_order() -> Planted:
    """The leader answers the newest call of another node's caller first."""
    deliver = RemoteSession.deliver

    def deliver_newest(session: RemoteSession, replies: list[Reply]) -> None:
        session._calls.reverse()
        deliver(session, replies)
        session._calls.reverse()

    with patch.object(RemoteSession, "deliver", deliver_newest):
        yield


@contextmanager
def concludes_too_early_that_nothing_was_applied() -> Planted:
    """What a lost leadership left behind counts as not applied as soon as the leadership is lost."""
    displace = Proposals.displace

    def displace_at_once(proposals: Proposals, _deadline_ticks: int) -> None:
        displace(proposals, 0)

    def expired(proposals: Proposals, _ticks: int) -> list[Refusal]:
        gone = [proposal for _, proposal in proposals._displaced]
        proposals._displaced.clear()
        return [Refusal(batch, size, NotApplied(index, term)) for index, term, size, batch in gone]

    with patch.object(Proposals, "displace", displace_at_once), patch.object(Proposals, "expired", expired):
        yield


@contextmanager
def lets_later_calls_overtake() -> Planted:
    """Calls of one caller go two ways at once."""
    with (
        patch.object(Router, "may_write", lambda _router, _session: True),
        patch.object(router, "NO_LANE", 0),
        patch.object(forwarder, "arrival", lambda item: -item[1].since_ns),
    ):
        yield


@contextmanager
def says_ok_to_writes_it_lost() -> Planted:
    """A write that a lost leadership left behind is answered as if it had been applied."""
    refused = Router.refused

    def pretend(of: Router, batch: Batch, error: ReplicationError) -> None:
        if not isinstance(error, NotApplied):
            refused(of, batch, error)
            return
        for call in batch.calls:
            of._runner.answer(call, [1] * len(call.commands))

    with patch.object(Router, "refused", pretend):
        yield


@contextmanager
def repeats_writes_of_unknown_outcome() -> Planted:
    """A write whose fate was not learnt in time is tried again, as if it were known that nothing has come of it."""

    def try_again(of: Router, batch: Batch, _error: ReplicationError) -> None:
        of.applied(batch)
        of._try_again(batch.calls)

    with patch.object(Router, "refused", try_again):
        yield
