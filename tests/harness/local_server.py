"""A whole node in this process, on the real disk, which a test can break.

Guarantees: ``connect`` waits until the node is ready; every wait has a bound.
Leaves to the caller: ending the node with ``stopped`` or ``ended``.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from errno import EIO
from pathlib import Path
from typing import Final

from kvservice.config import Config
from kvservice.config_values import HostPort
from kvservice.server import Server
from persistence.disk import RealDisk
from persistence.errors import DiskFailed

WAIT_SECONDS: Final = 60.0


class FailingDisk(RealDisk):
    """The real disk until ``is_failing``; then every call that has to reach the platter fails.

    ``is_failing_frames`` fails the frames of the log alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_failing = self.is_failing_frames = False
        self.failures = 0

    def _check(self, call: str) -> None:
        if self.is_failing or (self.is_failing_frames and call == "frame"):
            self.failures += 1
            raise DiskFailed(call, "a test's disk", EIO)

    def pwritev_durable(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        self._check("frame")
        super().pwritev_durable(handle, buffers, offset)

    def fdatasync(self, handle: int) -> None:
        self._check("fdatasync")
        super().fdatasync(handle)

    def fsync(self, handle: int) -> None:
        self._check("fsync")
        super().fsync(handle)


class LocalServer:
    """A whole node in this process on a disk that a test can break."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self._signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        here = HostPort("127.0.0.1", 0)
        self.config = Config.model_validate(
            {
                "data_dir": folder,
                "resp_addr": here,
                "grpc_addr": here,
                "peer_addr": here,
                "admin_addr": here,
                **settings,
            }
        )
        self.disk = FailingDisk()
        self.server = Server(self.config)
        self.server.disk = self.disk
        self._task: asyncio.Task[int] = asyncio.create_task(self.server.serve())

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Wait until the node is ready and connect."""
        await until(lambda: self.server.is_started or self._task.done())
        listening = self.server.listener._server
        assert listening is not None
        port = listening.sockets[0].getsockname()[1]
        return await asyncio.open_connection("127.0.0.1", port)

    async def ended(self) -> int:
        """Wait until the node ends by itself, give back the signals it took, and return the exit code."""
        try:
            return await asyncio.wait_for(self._task, WAIT_SECONDS)
        finally:
            for number, handler in self._signals.items():
                signal.signal(number, handler)

    async def stopped(self) -> int:
        """Ask for an orderly stop and return the exit code."""
        self.server.service.shutdown()
        return await self.ended()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)
