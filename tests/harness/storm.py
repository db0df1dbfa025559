"""Faults of several nodes at once, that begin and end whenever chance says so, while a majority stays well.

Guarantees: never more nodes ail than leave a majority, and one counts as ailing until it has everything again; after
each step the cluster acknowledges writes, or the load raises.
Leaves to the caller: the cluster and its load (tests/harness/failovers), and its judgment.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from tests.harness.cluster_processes import ClusterNode
from tests.harness.failovers import Fault, Trial, Undo, raft_of

LEADER_SHARE: Final = 0.5
"""Of the faults, those that befall whoever leads then."""
ACKNOWLEDGED: Final = 10
"""Writes after each step."""


class Storm:
    """What ails in a cluster of which nobody waits until it is whole."""

    def __init__(self, trial: Trial, kinds: Mapping[str, Fault], random: Random) -> None:
        self.faults = 0
        self.faults_of_leaders = 0
        self._trial = trial
        self._kinds = dict(kinds)
        self._random = random
        self._ailing: list[tuple[ClusterNode, str, Undo]] = []

    def __str__(self) -> str:
        return f"{self.faults} faults, {self.faults_of_leaders} of them of leaders"

    def step(self) -> None:
        """Let one more node fail, or one that ails come back; then wait until writes are acknowledged."""
        ailing_max = (len(self._trial.cluster.nodes) - 1) // 2
        if self._ailing and (len(self._ailing) == ailing_max or self._random.random() < 0.5):
            self._end(self._random.randrange(len(self._ailing)))
        else:
            self._begin()
        self._trial.load.wait_for(ACKNOWLEDGED)

    def calm(self) -> None:
        """Let all come back."""
        while self._ailing:
            self._end(0)

    def _begin(self) -> None:
        well = [node for node in self._trial.cluster.nodes.values() if node.name not in self._trial.away]
        leader = next((node for node in well if raft_of(node).get("raft_leader") == node.name), None)
        node = self._random.choice(well)
        if leader is not None and self._random.random() < LEADER_SHARE:
            node = leader
        self.faults += 1
        self.faults_of_leaders += node is leader
        fault = self._random.choice(list(self._kinds))
        print(f"{node.name}{' leads and' if node is leader else ''} is {fault}, {len(self._ailing)} ail already")
        self._trial.away.add(node.name)
        self._ailing.append((node, fault, self._kinds[fault](node)))

    def _end(self, position: int) -> None:
        node, fault, undo = self._ailing.pop(position)
        print(f"{node.name} is {fault} no more")
        undo()
        self._trial.wait_until_well(node)
        self._trial.away.discard(node.name)
