"""From a data directory to a running node: newest valid snapshot, then the log.

Order: lock → log opened and its tail repaired → snapshot → log read → election → replay.

Guarantees: never wrong in silence: damage raises ``Damaged``; an older snapshot stands in for a damaged one only if the
log reaches back to it. Progress is logged, at most once a second.
Leaves to the caller: answering LOADING meanwhile (service), and time slices: every step yields to the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Final

from kvservice.config import Config
from kvservice.keyspace.image import ImageDamaged
from kvservice.keyspace.machine import Machine
from kvservice.logs import Event, Log
from persistence.disk import Disk
from persistence.errors import Damaged
from persistence.snapshot import SnapshotMeta, SnapshotReader, newest_valid, remove_temporaries
from persistence.wal import Wal, WalOptions
from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.raft import Raft, Settings
from replication.node import Node
from replication.storage import LogEnd

SLICE_SECONDS: Final = 0.02
"""Work between two turns of the event loop while loading: LOADING is answered within this."""
PROGRESS_SECONDS: Final = 1.0

log = Log("recovery")


async def open_log(directory: Path, disk: Disk, config: Config, salt: bytes, *, must_exist: bool) -> Wal:
    """Open the log, in a thread; log what was found."""
    options = WalOptions(config.fsync, config.fsync_interval_ms, config.wal_segment_bytes)
    wal, report = await asyncio.to_thread(Wal.open, directory, disk, options, salt=salt, must_exist=must_exist)
    if report.torn is not None:
        torn = report.torn
        log.warning(Event.LOG_TAIL_CUT, file=str(torn.file), offset=torn.offset, bytes=torn.length)
    log.info(
        Event.DATA_DIRECTORY_OPENED,
        segments=report.segments,
        first_index=report.first_index,
        last_index=report.last_index,
        bytes=report.bytes_on_disk,
    )
    return wal


async def load_snapshot(
    directory: Path,
    disk: Disk,
    machine: Machine,
    log_first_index: int,
    on_damaged: Callable[[Damaged], None] = lambda _error: None,
) -> SnapshotMeta | None:
    """Load the newest valid snapshot into an empty machine; None if the log holds everything from its first entry on.

    ``on_damaged`` is told of each that was passed over. Raises Damaged if no whole snapshot is left from which the log
    goes on.
    """
    remove_temporaries(directory, disk)
    choice = await asyncio.to_thread(newest_valid, directory, disk, log_first_index=log_first_index)
    for error in choice.damaged:
        log.error(Event.DAMAGE_FOUND, error=str(error))
        on_damaged(error)
    return await load_file(choice.newest.path, disk, machine) if choice.newest is not None else None


async def load_file(path: Path, disk: Disk, machine: Machine) -> SnapshotMeta:
    """Load one snapshot into an empty machine: keys, answers to requests, members, position. Raises Damaged."""
    started = perf_counter()
    with SnapshotReader.open(path, disk) as reader:
        meta = reader.meta
        turn = shown = started
        loader = machine.loader()
        try:
            for chunk in reader.chunks():
                loader.load(chunk)
                now = perf_counter()
                if now - turn > SLICE_SECONDS:
                    await asyncio.sleep(0)
                    turn = perf_counter()
                if now - shown > PROGRESS_SECONDS:
                    shown = now
                    log.info(Event.REPLAY_PROGRESS, snapshot=path.name, keys=_keys(machine))
            assert reader.footer is not None, "chunks end with the footer or with an error"
            loader.check(reader.footer.item_count, reader.footer.digest)
        except ImageDamaged as error:
            raise Damaged(str(path), 0, str(error)) from error
    machine.stand_at(meta.last_index, meta.last_term, meta.stamp_ms, loader.chain)
    machine.configuration = meta.configuration
    seconds = round(perf_counter() - started, 3)
    log.info(Event.SNAPSHOT_LOADED, index=meta.last_index, keys=_keys(machine), seconds=seconds)
    return meta


def _keys(machine: Machine) -> int:
    return sum(database.key_count for database in machine.databases)


def new_raft(
    name: str,
    end: LogEnd,
    applied: int,
    *,
    configuration: Configuration | None = None,
    settings: Settings | None = None,
    chance: Callable[[int], int] | None = None,
) -> Raft:
    """Return the consensus core as the disk left it.

    ``applied`` is the snapshot's index and ``configuration`` the members as of there: without it this node is the only
    one. ``chance(n)`` returns a number from 0 to n - 1.
    """
    raft_log = RaftLog(
        end.last_index,
        end.last_term,
        applied,
        committed=max(applied, end.commit_index),
        runs=end.term_runs,
        configuration_indexes=[entry.index for entry in end.configurations],
    )
    return Raft(
        name,
        settings or Settings(),
        end.hard_state,
        configuration or Configuration((name,)),
        raft_log,
        chance or Random().randrange,
    )


async def replay(node: Node) -> None:
    """Apply what the log holds behind the snapshot, as far as it is known to be committed.

    That is everything where there is no other voter: then this returns when the node leads and has applied it. Returns
    early when the node is stopped. Raises StorageError.
    """
    total = node.replay_remaining
    if total:
        log.info(Event.REPLAY_STARTED, entries=total)
    started = shown = perf_counter()
    while not node.is_replayed or (node.raft.is_sole_voter and not node.reads_at_once):
        deadline = perf_counter() + SLICE_SECONDS
        node.replay_some(lambda: perf_counter() > deadline)  # noqa: B023 - called before the loop goes on
        now = perf_counter()
        if now - shown > PROGRESS_SECONDS:
            shown = now
            done = total - node.replay_remaining
            log.info(Event.REPLAY_PROGRESS, entries_done=done, entries=total, seconds=round(now - started, 1))
        if node.is_stopped:
            return
        await asyncio.sleep(0 if not node.is_replayed else 0.001)
    if total:
        log.info(Event.REPLAY_FINISHED, entries=total, seconds=round(perf_counter() - started, 3))
