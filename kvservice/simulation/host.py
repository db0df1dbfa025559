"""One simulated machine: a disk that outlives its processes, a clock that may be wrong, and at most one process.

States: off → running ⇄ paused; running → off by a kill (the disk keeps what was written), a power cut (the disk keeps
what was synced, and some of the rest), or an end of its own (a failed disk).

Guarantees: what a process does happens inside `enter`: so a crash point, a power cut or a failed disk ends it there and
then, and nothing of it runs afterwards. Anything else that it raises is a defect and ends the run.
Leaves to the caller: when what happens (`kvservice.simulation.faults`), and the process itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from kvservice.simulation.clients import Client, ClientSession
from kvservice.simulation.disk import PowerCut, SimulatedDisk
from kvservice.simulation.rules import DurableLog
from persistence.errors import StorageError
from replication.core.messages import HardState
from replication.core.settings import Settings

if TYPE_CHECKING:
    from kvservice.simulation.process import Process
    from kvservice.simulation.world import World

EPOCH_MS: Final = 1_700_000_000_000


class Killed(BaseException):
    """The process is killed at a crash point."""


def _nothing() -> None:
    """Let a process only catch up."""


class Host:
    """A machine. must_have_log: a log was made here, so none is damage. is_damaged: the disk has lost something."""

    def __init__(self, name: str, world: World, random: Random) -> None:
        self.name = name
        self.world = world
        self.random = random
        self.disk = SimulatedDisk()
        self.directory = Path("/") / name
        self.durable = DurableLog()
        self.process: Process | None = None
        self.incarnation = 0
        self.must_have_log = False
        self.is_damaged = False
        self.has_rotted = False
        """Some of its bytes were changed, and may be found at any later time."""
        self.was_member = False
        self.quarantine: HardState | None = None
        """What the directory says beside its log: the log has to begin anew, in quarantine."""
        self.is_retired = False
        """Removed from the cluster: it is not started again."""
        self.is_paused = False
        self.offset_ms = 0
        """What its clock is wrong by."""
        self.drift = 1.0 + (2 * random.random() - 1) * world.drift
        self.disk_factor = 1
        self.crash_point: tuple[str, int] | None = None
        """Where the process is killed: at the nth time it gets to a point."""
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._starts = 0
        """Counts wishes to start, so that an old one is not granted after another crash."""

    @property
    def settings(self) -> Settings:
        """The numbers that its processes go by."""
        settings = self.world.settings
        if self.name not in self.world.patient:
            return settings
        return settings._replace(
            election_ticks_min=2 * settings.election_ticks_min, election_ticks_max=2 * settings.election_ticks_max
        )

    @property
    def is_sound(self) -> bool:
        """Whether it counts in every majority: its disk has lost nothing, or has it back."""
        return not self.is_damaged and not self.durable.is_doubtful

    # ---- time

    def wall_clock_ms(self) -> int:
        """Return what this machine takes for the time."""
        return EPOCH_MS + self.world.clock.now_us // 1000 + self.offset_ms

    # ---- life

    @property
    def is_running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self.process is not None

    def start(self) -> None:
        """Start a process, unless one runs."""
        if self.process is not None or self.is_retired:
            return
        from kvservice.simulation.process import Process

        self._starts += 1
        self.incarnation += 1
        self.is_paused = False
        self.world.trace("%s starts, incarnation %d", self.name, self.incarnation)
        self.process = process = Process(self)
        self.enter(process, process.boot)

    def start_later(self, delay_us: int) -> None:
        """Start a process after a while, unless one was started or ended meanwhile."""
        self._starts += 1
        self.world.clock.after(delay_us, self._start_if, self._starts)

    def _start_if(self, starts: int) -> None:
        if starts == self._starts:
            self.start()

    def enter(self, process: Process, act: Callable[..., object], *arguments: object) -> None:
        """Let a process do something; hot."""
        if self.process is not process:
            return
        if self.is_paused:
            self._inbox.append((act, arguments))
            return
        try:
            process.catch_up()
            act(*arguments)
            process.settle()
        except PowerCut:
            self.lose_power(is_off=True)
        except Killed:
            self.world.count("killed at a crash point")
            self.kill()
        except StorageError as error:
            self.world.trace("%s stops: %s", self.name, error)
            self.world.count("stopped by its disk")
            self.kill()

    def kill(self) -> None:
        """End the process; its disk keeps everything that was written."""
        self._end(resets=True)
        self.disk.close_all()
        self.world.trace("%s is killed", self.name)
        self.start_later(self._pause_us())

    def lose_power(self, *, is_off: bool = False) -> None:
        """Cut the power: in the middle of a write if one is due, and keep any part of what was not synced."""
        process = self.process
        if process is not None and not is_off:
            self._tear(process)
        chance = self.random.random
        self._end(resets=False)
        share = self.random.choice((0.0, 0.5, 0.9, 1.0))
        self.disk.power_returns(lambda: chance() < share, self.random.randrange(self.disk.names_pending + 1))
        self.world.trace("%s loses power", self.name)
        self.start_later(self._pause_us())

    def _tear(self, process: Process) -> None:
        """Let the log begin to write what is queued, and the power fail at one of its calls."""
        self.disk.cut_power_at(1 + self.random.randrange(3), after=self.random.random() < 0.5)
        try:
            process.write_queued()
        except (PowerCut, StorageError):
            return

    def _end(self, *, resets: bool) -> None:
        process, self.process = self.process, None
        self._starts += 1
        self.is_paused = False
        self._inbox.clear()
        self.crash_point = None
        if process is not None:
            self.world.network.detach(self.name, resets=resets)
            process.end(resets=resets)

    def _pause_us(self) -> int:
        return 20_000 + self.random.randrange(self.random.choice((300_000, 3_000_000, 20_000_000)))

    def wipe(self) -> None:
        """Put an empty disk in the place of the old one. Nobody runs."""
        assert self.process is None
        self.disk.wipe()
        self.must_have_log = self.has_rotted = False
        self.quarantine = HardState(0, "")
        self.durable.is_doubtful = True

    def retire(self) -> None:
        """Take the machine away for good."""
        self.is_retired = True
        self._end(resets=True)

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: what arrives waits."""
        if self.process is not None:
            self.enter(self.process, _nothing)
        self.is_paused = self.process is not None

    def resume(self) -> None:
        """Let a paused process go on."""
        if self.is_paused:
            self.is_paused = False
            inbox, self._inbox = self._inbox, deque()
            process = self.process
            if process is not None:
                process.skip_ticks()
            for act, arguments in inbox:
                if process is not None:
                    self.enter(process, act, *arguments)

    def reach(self, point: str) -> None:
        """Be at a crash point: the process is killed there if that was asked for."""
        wanted = self.crash_point
        if wanted is not None and wanted[0] == point:
            if wanted[1] <= 1:
                self.crash_point = None
                raise Killed
            self.crash_point = point, wanted[1] - 1

    # ---- clients

    @property
    def is_listening(self) -> bool:
        """Whether a process would accept a connection."""
        return self.process is not None

    def connect(self, client: Client) -> ClientSession:
        """Open a session of the process that runs."""
        assert self.process is not None
        return self.process.open_session(client)

    def submit(self, session: ClientSession, commands: list[list[bytes]]) -> None:
        """Give commands to the process of a session, at once or when it runs again."""
        process = self.process
        if process is not None and process.incarnation == session.incarnation:
            self.enter(process, process.submit, session, commands)
