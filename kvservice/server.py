"""One node as a process: assembled, started, drained, stopped.

Order of a start: data directory locked → ports bound (LOADING is answered from here on, and other nodes learn who this
is) → cluster founded, joined or found again → log opened → snapshot → replay → clients are served → ready, once a
leader is known. Order of a stop (SIGTERM, SIGINT, SHUTDOWN): readiness off → ``shutdown_delay_seconds`` → leadership
handed over → listeners closed → what runs is finished → snapshot → log sealed → replies have left → directory unlocked.
What runs and who reads is waited for until ``shutdown_timeout_seconds`` after the delay.

Guarantees: exit code 0 after a clean stop, 1 if a port cannot be had or anything unforeseen happens, 2 if the settings
do not fit the data or the other nodes, 3 if the data directory is damaged, in use, of another format, or a write to it
failed. Nothing is acknowledged after a disk error, or after a defect that cut the consensus driver short.
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

from kvservice import gc_policy
from kvservice.cluster.bootstrap import BootstrapRefused
from kvservice.cluster.group import Group
from kvservice.cluster.members import Addresses, Members
from kvservice.cluster.opening import open_directory
from kvservice.cluster.peer_plane import PeerPlane
from kvservice.cluster.view import GroupView
from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command
from kvservice.config import Config
from kvservice.config_values import HostPort
from kvservice.defects import watch_loop
from kvservice.gateway.listener import Listener
from kvservice.housekeeping import Housekeeping
from kvservice.keyspace.database import TooFewDatabases
from kvservice.keyspace.machine import Machine
from kvservice.keyspace.reaper import reap_slice
from kvservice.logs import Event, Log, configure, set_level
from kvservice.loop_lag import LoopLag
from kvservice.loop_meter import LoopMeter
from kvservice.memory_limit import MemoryLimit
from kvservice.planes import Planes
from kvservice.service import Service
from kvservice.stats import Stats
from persistence.data_dir import DataDir
from persistence.disk import Disk, RealDisk
from persistence.errors import StorageError
from replication.node import no_crash
from replication.ports import CrashPoint

EXIT_CLEAN: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_STORAGE: Final = 3
DRAIN_POLL_SECONDS: Final = 0.005
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
    except BootstrapRefused as error:
        log.error(Event.CLUSTER_REFUSED, error=str(error))
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
        self._is_announced = False
        self._disk_failure: StorageError | None = None
        self._has_failed = False
        """Whether nothing may be acknowledged, snapshotted or sealed any more."""

    async def serve(self) -> int:
        """Run the node; return the exit code."""
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._failed = asyncio.Event()
        watch_loop(self.loop, self._broken)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stop.set)
        log.info(Event.NODE_STARTING, pid=os.getpid(), data_dir=str(self.config.data_dir))
        directory, is_unreadable = open_directory(self.config, self.disk)
        gc_policy.suspend()
        self._assemble(directory)
        self.group.is_unreadable = is_unreadable
        try:
            await self._bind()
            if await self._has_recovered():
                self._ready()
                await self._stop.wait()
                await self._drain()
        finally:
            await self._close_planes()
            directory.close()
        log.info(Event.NODE_STOPPED, exit_code=self._exit_code)
        return self._exit_code

    # -- starting -----------------------------------------------------------------------------------------------------

    def _assemble(self, directory: DataDir) -> None:
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
        self.members = Members(config.name, Addresses(""))
        self.planes = Planes(self.service, self, self.members, self.lag)
        incarnation = directory.count_start(time_ns())
        self.peers = PeerPlane(config, self.members, directory.snapshots, self.disk, directory.salt.hex(), incarnation)
        self.service.group = GroupView(self.service, self.members, self.peers.hearing)
        self.stats.loop_counts = LoopMeter(loop).read
        self.stats.peer_traffic = self.peers.traffic
        self.group = Group(
            config,
            directory,
            self.disk,
            self.service,
            self.members,
            self.peers,
            loop,
            wall_clock_ms=_wall_clock_ms,
            crash_point=_crash_point(),
            on_failed=self._disk_failed,
        )

    async def _bind(self) -> None:
        address = self.config.resp_addr
        port = await self.listener.start(address.host, address.port)
        log.info(Event.LISTENING, plane="resp", address=f"{address.host}:{port}")
        await self.planes.start()
        await self.peers.start(HostPort(address.host, port), self.planes.grpc_address)
        self.lag.start()

    async def _has_recovered(self) -> bool:
        """Recover, unless told to stop before it is done; the log then stays as a kill would leave it."""
        recovering = asyncio.ensure_future(self._recover())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({recovering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not recovering.done():
            recovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await recovering
        if not recovering.cancelled():
            recovering.result()
        if recovering.cancelled() or self.group.is_stopped:
            await self._close_log(seal=False)
            return False
        return True

    async def _recover(self) -> None:
        await self.group.open(self.planes)
        await self.group.replay()

    async def _close_planes(self) -> None:
        """Close whatever listens; harmless where nothing does."""
        self.lag.stop()
        self.group.stop()
        await self.listener.stop()
        await self.peers.stop()
        await self.planes.stop_api()
        await self.planes.stop_admin()

    def _ready(self) -> None:
        self.service.refusal = self.group.refusal
        limit = MemoryLimit(self.service)
        snapshots = self.group.snapshots
        self.housekeeping.each_tick += [snapshots.start_if_due, limit.tick, self._reap, self._announce]
        self.housekeeping.start()
        self.is_started = True
        gc_policy.settle()
        self._announce()

    def _announce(self) -> None:
        """Log once that clients may come."""
        if self._is_announced or self.reasons_not_ready():
            return
        self._is_announced = True
        node = self.service.node
        keys = sum(database.key_count for database in self.machine.databases)
        log.info(Event.NODE_READY, term=node.term, index=node.applied_index, leader=node.leader_id, keys=keys)

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
        else:
            reasons += self.group.reasons_not_ready()
        if self._is_draining:
            reasons.append("draining")
        if self._disk_failure is not None:
            reasons.append("disk failed")
        return reasons

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _disk_failed(self, error: StorageError) -> None:
        """Stop at once: nothing that waits is ever acknowledged."""
        if self._disk_failure is not None:
            return
        self._disk_failure = error
        self._exit_code = EXIT_STORAGE
        log.error(Event.DISK_FAILED, error=str(error))
        self._end_at_once()

    def _broken(self) -> None:
        """Stop at once after a defect in the consensus driver: what it would say next could be wrong."""
        self._exit_code = self._exit_code or EXIT_FAILURE
        self._end_at_once()

    def _end_at_once(self) -> None:
        self._has_failed = True
        self._failed.set()
        self.group.stop()
        for session in list(self.service.sessions.values()):
            session.close(after_replies=False)
        self._stop.set()

    async def _drain(self) -> None:
        self._is_draining = True
        log.info(Event.DRAIN_STARTED)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._failed.wait(), self.config.shutdown_delay_seconds)
        deadline_s = self.loop.time() + self.config.shutdown_timeout_seconds
        self.housekeeping.stop()
        if not self._has_failed:
            await self.group.hand_over()
        await self.listener.stop()
        if not self._has_failed:
            self.service.flush()
            self.service.drain()
            await self._finish_pending(deadline_s)
        if not self._has_failed:
            await self.group.snapshots.save_and_wait()
        self.service.end_waits()
        self.group.stop()
        for session in list(self.service.sessions.values()):
            session.close(after_replies=True)
        await self.planes.stop_api()
        await self._close_log(seal=not self._has_failed)
        await self._send_replies(deadline_s)

    async def _close_log(self, *, seal: bool) -> None:
        has_log = self.group.wal is not None
        try:
            await self.group.close(seal=seal)
        except StorageError as error:
            log.error(Event.DISK_FAILED, error=str(error))
            self._exit_code = EXIT_STORAGE
        else:
            if seal and has_log:
                log.info(Event.LOG_SEALED, last_index=self.service.node.last_index)

    async def _finish_pending(self, deadline_s: float) -> None:
        node, forwarder, router = self.service.node, self.service.forwarder, self.service.router
        while (left := router.calls_open + node.proposals_pending + forwarder.calls_pending) and not self._has_failed:
            if self.loop.time() > deadline_s:
                log.warning(Event.DRAIN_TIMED_OUT, proposals=left)
                return
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    async def _send_replies(self, deadline_s: float) -> None:
        while self.listener.is_sending:
            if self.loop.time() > deadline_s:
                return
            await asyncio.sleep(DRAIN_POLL_SECONDS)


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
