"""How long followers take to replace a leader that has fallen silent: the shipped core on random disks and networks.

Run ``python -m bench.elections [--trials 5000]``; prints JSON and writes it to bench/results/elections.json.

A trial: the leader's last heartbeat has reached all, its last entry some of them. Then time passes: ticks of the nodes
are out of step, messages take 0.3 to 1.3 ms, and a durable write takes 0.7 times its mean and more (exponential,
without bound). The figure is when a node leads. Compared: numbers of nodes, disks, the longest election timeout, and
followers in no hurry (``replication.core.candidate``): after an election that failed they wait for another timeout,
and who has the longer log for its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from random import Random
from statistics import mean
from typing import Any, Final
from unittest.mock import patch

from bench.report import percentile, write
from replication.core import candidate, follower
from replication.core.log import RaftLog
from replication.core.membership import Configuration
from replication.core.messages import AppendEntries, Entry, EntryKind, HardState, Heartbeat, Message
from replication.core.raft import Raft, Role, Settings

TICK_MS: Final = 10.0
TRIAL_MS_MAX: Final = 60_000.0
LAST_ENTRY_SHARE: Final = 0.3
"""How many of the followers have the leader's last entry."""
TRIALS: Final = 5000
Outgoing = list[tuple[str, Message]]
CASES: Final = tuple(
    (nodes, disk_ms, ticks_max, is_hurried)
    for nodes in (3, 5)
    for disk_ms in (2.0, 30.0, 100.0)
    for ticks_max in (60, 80)
    for is_hurried in (True, False)
)


class Trial:
    """The followers n1, n2 … of a silent leader n0. disk_ms: mean time of a durable write."""

    def __init__(self, nodes: int, disk_ms: float, settings: Settings, seed: int) -> None:
        self._random = Random(seed)
        self._disk_ms = disk_ms
        voters = tuple(f"n{number}" for number in range(nodes))
        self._rafts = {name: self._follower(name, voters, settings) for name in voters[1:]}
        self._disk_free_ms = dict.fromkeys(self._rafts, 0.0)
        self._order = count()
        self._events: list[tuple[float, int, str, Callable[[], None]]] = []

    def _follower(self, name: str, voters: tuple[str, ...], settings: Settings) -> Raft:
        log = RaftLog(0, 0, 0)
        log.append(Entry(1, 1, EntryKind.NOOP, 0, b""))
        raft = Raft(name, settings, HardState(1, voters[0]), Configuration(voters), log, self._random.randrange)
        raft.step(voters[0], Heartbeat(1, 0, 0))
        if self._random.random() < LAST_ENTRY_SHARE:
            raft.step(voters[0], AppendEntries(1, 1, 1, 0, [Entry(1, 2, EntryKind.COMMANDS, 0, b"x")], 0))
        raft.ready()
        raft.persisted(1, log.last_index, 0, 1)
        return raft

    def milliseconds(self) -> float:
        """Run until a node leads, and return when."""
        for name in self._rafts:
            self._tick(name, self._random.random() * TICK_MS)
        while self._events:
            now_ms, _, name, act = heapq.heappop(self._events)
            act()
            self._advance(name, now_ms)
            if self._rafts[name].role is Role.LEADER or now_ms > TRIAL_MS_MAX:
                return now_ms
        raise AssertionError("ticks never end")

    def _at(self, at_ms: float, name: str, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_ms, next(self._order), name, act))

    def _tick(self, name: str, at_ms: float) -> None:
        def tick() -> None:
            self._rafts[name].tick()
            self._tick(name, at_ms + TICK_MS)

        self._at(at_ms, name, tick)

    def _send(self, sender: str, messages: Outgoing, now_ms: float) -> None:
        for peer, message in messages:
            if peer in self._rafts:
                arrival_ms = now_ms + 0.3 + self._random.random()
                self._at(arrival_ms, peer, partial(self._rafts[peer].step, sender, message))

    def _advance(self, name: str, now_ms: float) -> None:
        """Do the driver's duties for a node (``replication.core.raft``)."""
        raft = self._rafts[name]
        while (ready := raft.ready()) is not None:
            self._send(name, ready.messages, now_ms)
            durable_ms = max(now_ms, self._disk_free_ms[name])
            if ready.hard_state is not None or ready.entries:
                durable_ms += self._disk_ms * (0.7 + self._random.expovariate(1 / 0.3))
                self._disk_free_ms[name] = durable_ms
            position = raft.term, raft.log.last_index, raft.log.last_term
            self._at(durable_ms, name, partial(self._durable, name, durable_ms, ready.messages_after, *position))

    def _durable(
        self, name: str, now_ms: float, promises: Outgoing, term: int, last_index: int, last_term: int
    ) -> None:
        raft = self._rafts[name]
        if raft.term == term:
            self._send(name, promises, now_ms)
        raft.persisted(term, last_index, 0, last_term)


@contextmanager
def in_no_hurry() -> Iterator[None]:
    """Have silence be no reason for a hurry."""
    with (
        patch.object(candidate, "HURRIED_ELECTIONS_MAX", 0),
        patch.object(follower, "is_leader_missed", lambda _raft: False),
    ):
        yield


def measure(nodes: int, disk_ms: float, ticks_max: int, is_hurried: bool, trials: int) -> dict[str, Any]:
    """Return a case and the percentiles of its trials, in ms."""
    settings = Settings(election_ticks_max=ticks_max)
    with nullcontext() if is_hurried else in_no_hurry():
        found = sorted(Trial(nodes, disk_ms, settings, seed).milliseconds() for seed in range(trials))
    return {
        "nodes": nodes,
        "disk_ms": disk_ms,
        "longest_timeout_ms": ticks_max * TICK_MS,
        "hurried": is_hurried,
        "mean_ms": round(mean(found)),
        "p50_ms": round(percentile(found, 50)),
        "p99_ms": round(percentile(found, 99)),
        "longest_ms": round(found[-1]),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    trials = parser.parse_args().trials
    cases = [measure(*case, trials) for case in CASES]
    write("elections", {"trials": trials, "cases": cases}, quick=trials < TRIALS)
    sys.stdout.write(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
