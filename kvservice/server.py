"""One node as a process: assembled, started, drained, stopped.

Order of a start: data directory locked → ports bound (LOADING is answered from here on) → log opened → snapshot →
election → replay → ready. Order of a stop (SIGTERM, SIGINT, SHUTDOWN): readiness off → listeners closed → what runs is
finished, up to ``shutdown_timeout_seconds`` → snapshot → log sealed → directory unlocked.

Guarantees: exit code 0 after a clean stop, 1 if a port cannot be had or anything unforeseen happens, 2 if the settings
do not fit the data, 3 if the data directory is damaged, in use, of another format, or a write to it failed. Nothing is
acknowledged after a disk error.
Leaves to the caller: settings (kvservice/config_load).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from time import time_ns
from typing import Final

import uvloop

from kvservice import gc_policy, recovery
from kvservice.cluster.members import Addresses, Members, first_configuration
from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command
from kvservice.config import Config
from kvservice.gateway.listener import Listener
from kvservice.housekeeping import Housekeeping
from kvservice.keyspace.database import TooFewDatabases
from kvservice.keyspace.machine import Machine
from kvservice.keyspace.reaper import reap_slice
from kvservice.logs import Event, Log, configure, set_level
from kvservice.loop_lag import LoopLag
from kvservice.memory_limit import MemoryLimit
from kvservice.planes import Planes
from kvservice.service import Service
from kvservice.snapshots import Snapshots
from kvservice.stats import Stats
from persistence.data_dir import DataDir
from persistence.disk import Disk, RealDisk
from persistence.errors import DiskFailed, StorageError
from persistence.wal import Wal
from replication.node import Node, no_crash
from replication.ports import CrashPoint
from replication.storage import Storage

EXIT_CLEAN: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_STORAGE: Final = 3
SALT_BYTES: Final = 8
REAP_KEYS: Final = 5000
"""Keys of a flushed database that are freed in one turn: about 1 ms."""
REAP_SECONDS: Final = 0.004

log = Log("server")


def run(config: Config) -> int:
    """Serve until told to stop; return the exit code."""
    configure(node=config.name, level=config.log_level, form=config.log_format)
    try:
        return uvloop.run(Server(config).serve())
    except StorageError as error:
        log.error(Event.DATA_DIRECTORY_REFUSED, error=str(error))
        return EXIT_STORAGE
    except TooFewDatabases as error:
        log.error(Event.DATA_DIRECTORY_REFUSED, error=str(error))
        return EXIT_USAGE
    except OSError as error:
        log.error(Event.LISTEN_FAILED, error=str(error))
        return EXIT_FAILURE


class Server:
    """The parts of a node and their life."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.disk: Disk = RealDisk()
        self.is_started = False
        self._exit_code = EXIT_CLEAN
        self._is_draining = False
        self.wal: Wal | None = None
        self._disk_failure: DiskFailed | None = None

    async def serve(self) -> int:
        """Run the node; return the exit code."""
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stop.set)
        log.info(Event.NODE_STARTING, pid=os.getpid(), data_dir=str(self.config.data_dir))
        identity = self.config.name.encode()
        directory = DataDir.open(self.config.data_dir, self.disk, identity=identity, make_salt=_new_salt)
        gc_policy.suspend()
        self._assemble(directory.salt.hex())
        try:
            await self._bind()
            if await self._has_recovered(directory):
                self._ready()
                await self._stop.wait()
                await self._drain()
        finally:
            await self._close_planes()
            directory.close()
        log.info(Event.NODE_STOPPED, exit_code=self._exit_code)
        return self._exit_code

    # -- starting -----------------------------------------------------------------------------------------------------

    def _assemble(self, cluster_id: str) -> None:
        config, loop = self.config, self.loop
        self.stats = Stats(config)
        self.machine = Machine(TABLE, config.databases, random.Random)
        self.machine.on_defect = _log_defect
        self.service = Service(config, TABLE, self.machine, self.stats, loop.call_soon, loop.call_later)
        self.service.begin_shutdown = self._stop.set
        self.service.on_config_changed.append(self._config_changed)
        self.listener = Listener(self.service, loop)
        self.housekeeping = Housekeeping(self.service, self.listener, loop)
        self.lag = LoopLag()
        self.members = Members(config.name, Addresses(str(config.peer_addr)), cluster_id)
        self.members.configuration_changed(first_configuration(config), 0)
        self.planes = Planes(self.service, self, self.members, self.lag)

    async def _bind(self) -> None:
        address = self.config.resp_addr
        port = await self.listener.start(address.host, address.port)
        log.info(Event.LISTENING, plane="resp", address=f"{address.host}:{port}")
        await self.planes.start()
        self.lag.start()

    async def _has_recovered(self, directory: DataDir) -> bool:
        """Recover, unless told to stop before it is done; the log then stays as a kill would leave it."""
        recovering = asyncio.ensure_future(self._recover(directory))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({recovering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not recovering.done():
            recovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await recovering
        if not recovering.cancelled():
            recovering.result()
        if recovering.cancelled() or self.node.is_stopped:
            await self._close_log(seal=False)
            return False
        return True

    async def _close_planes(self) -> None:
        """Close whatever listens; harmless where nothing does."""
        self.lag.stop()
        await self.listener.stop()
        await self.planes.stop_api()
        await self.planes.stop_admin()

    async def _recover(self, directory: DataDir) -> None:
        config, loop = self.config, self.loop
        self.wal = wal = await recovery.open_log(
            directory.wal, self.disk, config, directory.salt, must_exist=directory.log_created
        )
        directory.mark_log_created()
        meta = await recovery.load_snapshot(directory.snapshots, self.disk, self.machine, wal.first_index)
        storage = Storage(wal)
        index, term = (meta.last_index, meta.last_term) if meta is not None else (0, 0)
        end = await asyncio.to_thread(storage.recover, index, term)
        raft = recovery.new_raft(config.name, end, index)
        self.node = Node(
            raft,
            storage,
            self.service.runner,
            wall_clock_ms=_wall_clock_ms,
            crash_point=_crash_point(),
            last_stamp_ms=end.last_stamp_ms,
        )
        self.service.node = self.node
        self.service.wal_stats = wal.stats
        self.snapshots = Snapshots(directory.snapshots, self.disk, config, self.machine, storage, wal.stats, loop)
        self.snapshots.last_index = index
        self.service.snapshots = self.snapshots
        self.service.start_save = self.snapshots.save
        self.planes.log_opened(wal.stats)
        self._start_log(wal)
        self.node.start()
        await recovery.replay(self.node)

    def _start_log(self, wal: Wal) -> None:
        call = self.loop.call_soon_threadsafe
        durable = self.node.durable
        wal.start(lambda token: call(durable, token), lambda error: call(self._disk_failed, error))

    def _ready(self) -> None:
        self.service.refusal = None
        limit = MemoryLimit(self.service)
        self.housekeeping.each_tick += [self.snapshots.start_if_due, limit.refresh, self._reap]
        self.housekeeping.start()
        self.is_started = True
        gc_policy.settle()
        keys = sum(database.key_count for database in self.machine.databases)
        log.info(Event.NODE_READY, term=self.node.term, index=self.node.applied_index, keys=keys)

    def _reap(self) -> None:
        """Free what FLUSHALL dropped, a slice a turn."""
        if reap_slice(self.machine.databases, REAP_KEYS):
            self.loop.call_later(REAP_SECONDS, self._reap)

    def _config_changed(self, fields: frozenset[str]) -> None:
        set_level(self.config.log_level)
        log.info(Event.SETTINGS_CHANGED, fields=sorted(fields))

    # -- health (admin plane) -----------------------------------------------------------------------------------------

    def reasons_not_ready(self) -> list[str]:
        """Return why clients should not be sent here; empty when they should."""
        reasons = []
        if not self.is_started:
            reasons.append("loading")
        elif not self.node.is_leader:
            reasons.append("no leader")
        if self._is_draining:
            reasons.append("draining")
        if self._disk_failure is not None:
            reasons.append("disk failed")
        return reasons

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _disk_failed(self, error: DiskFailed) -> None:
        """Stop at once: nothing that waits is ever acknowledged."""
        if self._disk_failure is not None:
            return
        self._disk_failure = error
        self._exit_code = EXIT_STORAGE
        self.node.stop()
        log.error(Event.DISK_FAILED, error=str(error))
        for session in list(self.service.sessions.values()):
            session.close(after_replies=False)
        self._stop.set()

    async def _drain(self) -> None:
        self._is_draining = True
        log.info(Event.DRAIN_STARTED)
        self.housekeeping.stop()
        await self.listener.stop()
        if self._disk_failure is None:
            self.service.flush()
            self.service.drain()
            await self._finish_pending()
            await self.snapshots.save_and_wait()
        self.node.stop()
        for session in list(self.service.sessions.values()):
            session.close(after_replies=True)
        await self.planes.stop_api()
        await self._close_log(seal=self._disk_failure is None)

    async def _close_log(self, *, seal: bool) -> None:
        if self.wal is None:
            return
        try:
            await asyncio.to_thread(self.wal.close, seal=seal)
        except StorageError as error:
            log.error(Event.DISK_FAILED, error=str(error))
            self._exit_code = EXIT_STORAGE
        else:
            if seal:
                log.info(Event.LOG_SEALED, last_index=self.node.last_index)

    async def _finish_pending(self) -> None:
        deadline = self.loop.time() + self.config.shutdown_timeout_seconds
        while self.node.proposals_pending and self._disk_failure is None:
            if self.loop.time() > deadline:
                log.warning(Event.DRAIN_TIMED_OUT, proposals=self.node.proposals_pending)
                return
            await asyncio.sleep(0.005)


def _new_salt() -> bytes:
    return os.urandom(SALT_BYTES)


def _wall_clock_ms() -> int:
    return time_ns() // 1_000_000


def _log_defect(row: Command, error: BaseException) -> None:
    log.error(Event.COMMAND_DEFECT, command=row.name, error=repr(error), exc_info=error)


def _crash_point() -> CrashPoint:
    """Return the crash point that REDAN_CRASH_POINT=name:count names for tests: the process kills itself there."""
    wanted = os.environ.get("REDAN_CRASH_POINT", "")
    if not wanted:
        return no_crash
    name, _, count = wanted.partition(":")
    left = int(count or "1")
    log.warning(Event.CRASH_POINT_ARMED, point=name, count=left)

    def reached(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached
