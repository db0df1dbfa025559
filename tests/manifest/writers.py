"""Clients that write all the time while pods come and go, and note what was acknowledged, and when.

Guarantees: a write is noted only when its client said that it is done; nothing is written twice under one key. Every
    wait has a bound. Programs run with the lowest priority: it is the nodes that are looked at.
Leaves to the caller: saying when a step begins and ends, and comparing with what the nodes have in the end.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.helm.pods import PASSWORD, Pod, with_names
from tests.manifest.kubelet import Kubelet

ANSWER_SECONDS: Final = 30.0
PROGRESS_SECONDS: Final = 120.0
PAUSE_SECONDS: Final = 0.01
"""Between two writes: the cores of the machine are for the nodes."""
PIPED: Final = 5
"""Increments in one pipeline of a program."""


class Writer(threading.Thread):
    """One client that writes until it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True, name=name)
        self.acknowledged: dict[str, bytes] = {}
        """Keys and the values that they must have in the end."""
        self.counted: dict[str, list[int]] = {}
        """What increments answered, by the key of the counter."""
        self.failures: list[str] = []
        self._times: list[float] = []
        """When acknowledgements came."""
        self._stopping = threading.Event()

    def note(self, key: str, value: bytes) -> None:
        """Note an acknowledged write."""
        self.acknowledged[key] = value
        self._times.append(time.monotonic())

    def note_count(self, key: str, value: int) -> None:
        """Note what an increment answered."""
        self.counted.setdefault(key, []).append(value)
        self._times.append(time.monotonic())

    @property
    def count(self) -> int:
        """How many writes were acknowledged."""
        return len(self._times)

    def wait_for(self, more: int) -> None:
        """Wait until so many more writes are acknowledged."""
        goal, deadline = self.count + more, time.monotonic() + PROGRESS_SECONDS
        while self.count < goal:
            assert time.monotonic() < deadline, f"{self.name} writes no more: {self.failures[-3:]}"
            assert self.is_alive(), f"{self.name} has ended: {self.failures[-3:]}"
            time.sleep(PAUSE_SECONDS)

    def gap_seconds(self, begin: float, end: float) -> float:
        """Return the longest time without an acknowledgement that began or ended between two moments."""
        pairs = itertools.pairwise(list(self._times))
        return max((after - before for before, after in pairs if after >= begin and before <= end), default=0.0)

    @abstractmethod
    def run(self) -> None:
        """Write until told to stop."""

    def stop(self) -> None:
        """End, after the write that is under way."""
        self._stopping.set()
        self.join(2 * ANSWER_SECONDS)
        assert not self.is_alive(), f"{self.name} does not end"


class _RespWriter(Writer):
    """A client behind the client service: each new connection goes to a pod that is ready."""

    def __init__(self, name: str, kubelet: Kubelet) -> None:
        super().__init__(name)
        self._kubelet = kubelet

    @abstractmethod
    def write(self, pod: Pod, key: str, value: str) -> None:
        """Write one key; raise an error unless it was acknowledged."""

    def run(self) -> None:
        """Write until told to stop."""
        for number in itertools.count(1):
            if self._stopping.wait(PAUSE_SECONDS):
                return
            pods = self._kubelet.endpoints()
            if not pods:
                continue
            key, value = f"{self.name}:{number}", str(number)
            try:
                self.write(pods[number % len(pods)], key, value)
            except (redis.RedisError, subprocess.SubprocessError, RuntimeError) as error:
                self.failures.append(str(error))
            else:
                self.note(key, value.encode())


class RedisPyWriter(_RespWriter):
    """redis-py, with a connection to each pod."""

    def __init__(self, kubelet: Kubelet) -> None:
        super().__init__("redis-py", kubelet)
        self._clients: dict[str, redis.Redis] = {}

    def write(self, pod: Pod, key: str, value: str) -> None:
        """Write one key, and repeat nothing."""
        client = self._clients.get(pod.name) or self._clients.setdefault(
            pod.name,
            redis.Redis(
                host=pod.address, password=PASSWORD, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0)
            ),
        )
        if not client.set(key, value):
            raise RuntimeError("SET answers nothing")


class RedisCliWriter(_RespWriter):
    """redis-cli, once for each write."""

    def __init__(self, kubelet: Kubelet) -> None:
        super().__init__("redis-cli", kubelet)

    def write(self, pod: Pod, key: str, value: str) -> None:
        """Write one key."""
        ended = subprocess.run(
            ["redis-cli", "-h", pod.address, "SET", key, value],
            env={**os.environ, "REDISCLI_AUTH": PASSWORD},
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        if ended.stdout.strip() != "OK":
            raise RuntimeError(ended.stdout.strip() or ended.stderr.strip() or f"exit code {ended.returncode}")


class ProgramWriter(Writer):
    """A program of a client's own language that writes over gRPC and prints what was acknowledged.

    Its lines: ``set KEY`` (PREFIX:N has the value N), ``incr KEY VALUE``, ``pipe KEY VALUE`` and ``failed TEXT``.
    """

    def __init__(
        self, name: str, folder: Path, addresses: Sequence[str], command: Sequence[str], place: Path, seconds: float
    ) -> None:
        # folder: of the pods, for their names. place: the directory that the program runs in.
        super().__init__(name)
        with (folder / f"{name}.log").open("wb") as complaints:
            self._process = subprocess.Popen(
                [*with_names(folder), "nice", "-n", "10", *command, ",".join(addresses), str(seconds), name],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, "REDAN_PASSWORD": PASSWORD},
                text=True,
            )
        self._log_path = folder / f"{name}.log"

    def run(self) -> None:
        """Read what the program says, until it ends."""
        assert self._process.stdout is not None
        takers: dict[str, Callable[[list[str]], None]] = {
            "set": lambda words: self.note(words[0], words[0].rpartition(":")[2].encode()),
            "incr": lambda words: self.note_count(words[0], int(words[1])),
            "pipe": lambda words: self.note_count(words[0], int(words[1])),
            "failed": lambda words: self.failures.append(" ".join(words)),
        }
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):
                    kind, *words = line.split()
                    takers[kind](words)
        if not self._stopping.is_set():
            self.failures.append(f"ended by itself: {self._log_path.read_text()[-2000:]}")

    def stop(self) -> None:
        """End the program; the write that is under way may be applied or not."""
        self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(ANSWER_SECONDS)
        finally:
            self._process.kill()
        self.join(ANSWER_SECONDS)
        assert not self.is_alive(), f"{self.name} does not end"
