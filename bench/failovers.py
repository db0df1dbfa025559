"""How long a cluster takes no writes when its leader is killed, goes silent, or hands over in order.

One client program (``bench/grpc_load -trace``) writes to every node at a steady pace and prints each write that was
acknowledged. A gap is the time from the moment of the fault to the answer of the first write that was sent after it;
for a planned hand-over, in which writes may go on, it is the longest time without an answer around it.

Guarantees: both sides meet the same faults under the same client; a node that was killed or stopped is whole again
before the next fault. Percentiles are of all faults of a kind.
Leaves to the caller: how many faults there are.
Reference: shared by both sides, the client's own pace bounds the resolution: 5 ms for each node.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from threading import Lock, Thread
from time import monotonic, sleep, time_ns
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self

from bench.clusters import Cluster
from bench.report import percentile

Fault = Literal["killed", "silent", "planned"]
FAULTS: Final[tuple[Fault, ...]] = ("killed", "silent", "planned")
GAP_SECONDS_MAX: Final = 30.0
STEADY_SECONDS: Final = 0.3
AROUND_NS: Final = 1_000_000_000
"""How far around a planned hand-over the longest pause is looked for."""
LEADER_SECONDS_MAX: Final = 20.0


class Gaps(NamedTuple):
    """Gaps of one kind of fault, in ms."""

    fault: Fault
    milliseconds: list[float]

    def at(self, percent: float) -> float:
        """Return a percentile."""
        return percentile(sorted(self.milliseconds), percent)


class Writer:
    """The steady client of a cluster: (sent, answered) of each acknowledged write, in ns, newest last."""

    def __init__(self, program: Path, cluster: Cluster, seconds: float) -> None:
        target = "etcd" if cluster.side == "etcd" else "redan"
        command = [str(program), "-trace", "-target", target, "-endpoints", ",".join(cluster.endpoints)]
        self._process = subprocess.Popen([*command, "-seconds", str(seconds)], stdout=subprocess.PIPE)
        self._writes: list[tuple[int, int]] = []
        self._lock = Lock()
        self._thread = Thread(target=self._read, name="trace-reader", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            sent, answered, _endpoint = line.split()
            with self._lock:
                self._writes.append((int(sent), int(answered)))

    def forget(self) -> None:
        """Drop what was seen so far: the list stays as short as one fault."""
        with self._lock:
            self._writes.clear()

    def first_answer_after(self, moment_ns: int) -> int | None:
        """Return when the first write that was sent after a moment was answered."""
        with self._lock:
            return min((answered for sent, answered in self._writes if sent > moment_ns), default=None)

    def longest_pause(self, start_ns: int, end_ns: int) -> int:
        """Return the longest time in ns between two answers that follow each other, or the ends of the window."""
        with self._lock:
            answers = sorted(answered for _, answered in self._writes if start_ns < answered < end_ns)
        moments = [start_ns, *answers, end_ns]
        return max(later - earlier for earlier, later in pairwise(moments))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(5)


def measure_faults(program: Path, cluster: Cluster, fault: Fault, count: int) -> Gaps:
    """Cause one kind of fault ``count`` times and return the gaps."""
    with Writer(program, cluster, seconds=count * GAP_SECONDS_MAX) as writer:
        return Gaps(fault, [_one_gap(cluster, writer, fault) / 1e6 for _ in range(count)])


def _one_gap(cluster: Cluster, writer: Writer, fault: Fault) -> int:
    """Cause a fault and heal it; return the gap in ns."""
    cluster.wait_until_whole()
    leader = _leader(cluster)
    sleep(STEADY_SECONDS)
    writer.forget()
    if fault == "planned":
        return _hand_over_gap(cluster, writer, leader)
    struck_ns = time_ns()
    if fault == "killed":
        cluster.kill(leader)
    else:
        cluster.signal(leader, signal.SIGSTOP)
    gap = _wait_for_answer(writer, struck_ns) - struck_ns
    if fault == "killed":
        cluster.start_node(leader)
    else:
        cluster.signal(leader, signal.SIGCONT)
    return gap


def _hand_over_gap(cluster: Cluster, writer: Writer, leader: int) -> int:
    before_ns = time_ns()
    sleep(STEADY_SECONDS)
    cluster.hand_over(leader, (leader + 1) % len(cluster.numbers))
    sleep(AROUND_NS / 1e9)
    return writer.longest_pause(before_ns, before_ns + AROUND_NS)


def _leader(cluster: Cluster) -> int:
    deadline = monotonic() + LEADER_SECONDS_MAX
    while monotonic() < deadline:
        if (leader := cluster.leader()) is not None:
            return leader
        sleep(0.02)
    raise RuntimeError(f"{cluster.side} has no leader")


def _wait_for_answer(writer: Writer, moment_ns: int) -> int:
    deadline = monotonic() + GAP_SECONDS_MAX
    while monotonic() < deadline:
        if (answered := writer.first_answer_after(moment_ns)) is not None:
            return answered
        sleep(0.01)
    raise RuntimeError(f"no write was acknowledged within {GAP_SECONDS_MAX:g} s of the fault")


def gap_rows(side: str, found: Sequence[Gaps]) -> list[list[str | float | int | None]]:
    """Return one row a kind of fault: side, kind, number, p50, p90, p99, longest, in ms."""
    return [
        [side, gaps.fault, len(gaps.milliseconds), gaps.at(50), gaps.at(90), gaps.at(99), max(gaps.milliseconds)]
        for gaps in found
        if gaps.milliseconds
    ]
