"""Failovers of a cluster of real processes under load: what is done to it, and what must be true afterwards.

A failover: the leader is made to lead no more, and another node leads in a later term and acknowledges writes, while
clients go on through all nodes. Then what was done is undone and the cluster becomes whole.

Guarantees: every wait has a bound; on the way out of ``Trial`` by an error the logs of the nodes are kept in build/.
Leaves to the caller: which faults, in which order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, NamedTuple

import grpc

from kvservice.cluster.client import ClusterClient
from kvservice.server import EXIT_STORAGE
from redan.cluster.v1 import cluster_pb2
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses
from tests.harness.history import Connection, Load, Lost, Refused, keep
from tests.harness.links import Links
from tests.harness.process import POLL_S, TIMEOUT_S

SMALL: Final = ("--wal-segment-bytes", "64kb", "--snapshot-every-bytes", "64kb")
"""A log so short that nodes which were away for long come back by a snapshot."""
ASK_S: Final = 1.0
FILLERS: Final = 1000
"""Values of some kilobytes that are written at most until a disk without room is full."""
DAMAGED_BYTES: Final = range(4096, 48 * 1024)
"""Of a log segment that is damaged, neither just begun nor about to be full."""
PROMOTION_S: Final = 0.03
"""About as long as a promotion takes, from the dialing on."""
SOME: Final = 25
"""Writes that show that the cluster serves."""

Undo = Callable[[], None]
Fault = Callable[[ClusterNode], Undo]
"""Does something to the leader and returns what undoes it."""


class Failover(NamedTuple):
    """One that happened. gap_s: the longest time without an acknowledged write until the new leader served."""

    fault: str
    old: str
    new: str
    term: int
    gap_s: float

    def __str__(self) -> str:
        return f"{self.fault}: {self.old} -> {self.new} in term {self.term}, {self.gap_s * 1000:.0f} ms without a write"


def raft_of(node: ClusterNode) -> dict[str, str]:
    """Return what a node says of itself in INFO raft; nothing if it does not answer within a second."""
    try:
        connection = Connection(node, ASK_S)
    except (OSError, KeyError):
        return {}
    try:
        text = connection.ask([b"INFO", b"raft"])
    except (Refused, Lost):
        return {}
    finally:
        connection.close()
    assert isinstance(text, bytes)
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


class Trial:
    """A cluster under load; use it as a context manager, and call ``conclude`` at the end."""

    def __init__(self, name: str, cluster: ClusterProcesses, seed: int = 1) -> None:
        self.name = name
        self.cluster = cluster
        self.failovers: list[Failover] = []
        self.away: set[str] = set()
        """Nodes that are not expected to answer now."""
        self.load = Load(name, self.serving, seed)

    def __enter__(self) -> Trial:
        self.cluster.__enter__()
        self.load.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.load.stop()
        finally:
            self.cluster.__exit__(kind, error, trace)
            if kind is not None:
                for node in self.cluster.nodes.values():
                    for path in sorted(node.log_path.parent.glob("*.log")):
                        kept = keep(f"{self.name}-{node.name}-{path.name}", path.read_text())
                        print(f"a log of {node.name} is in {kept}")
            print(self)

    def __str__(self) -> str:
        gaps = sorted(one.gap_s for one in self.failovers)
        middle = f", {gaps[len(gaps) // 2] * 1000:.0f} ms in the middle, at most {gaps[-1] * 1000:.0f}" if gaps else ""
        return f"{self.name}: {len(self.failovers)} failovers{middle}; {self.load}"

    # ---- who leads

    def serving(self) -> list[ClusterNode]:
        """Return the nodes that clients try; also called by other threads."""
        return [node for node in list(self.cluster.nodes.values()) if node.is_running and "resp" in node.addresses]

    def reachable(self) -> list[ClusterNode]:
        """Return the nodes that are expected to answer."""
        return [node for node in self.cluster.running() if node.name not in self.away]

    def leader(self, after_term: int = 0) -> tuple[ClusterNode, int]:
        """Wait until a node leads in a later term, and all that are reachable follow it; return it and its term."""
        deadline = time.monotonic() + TIMEOUT_S
        seen: Sequence[dict[str, str]] = ()
        while time.monotonic() < deadline:
            self.load.raise_failure()
            nodes = self.reachable()
            seen = [raft_of(node) for node in nodes]
            named = {(state.get("raft_leader", ""), int(state.get("raft_term", 0))) for state in seen}
            if len(named) == 1:
                name, term = named.pop()
                if term > after_term and name in {node.name for node in nodes}:
                    return self.cluster[name], term
            time.sleep(POLL_S)
        raise TimeoutError(f"no leader after term {after_term}: {seen}")

    def followers(self) -> list[ClusterNode]:
        """Return the nodes that are expected to answer and do not lead."""
        leader, _ = self.leader()
        return [node for node in self.reachable() if node is not leader]

    # ---- what is done

    def joining(self, name: str) -> ClusterNode:
        """Return a node, not started, that will join."""
        nodes = dict(self.cluster.nodes)
        node = self.cluster.joining(name)
        # Callers look at the nodes meanwhile, so they get new ones instead of more.
        self.cluster.nodes = {**nodes, name: node}
        return node

    def start(self, node: ClusterNode) -> None:
        """Start a node that does not run, and wait until it is as far as the others."""
        _start(node)
        self.wait_until_whole()

    def fail_over(self, fault: str, act: Fault) -> Failover:
        """Make the leader fail under load, wait for another one to serve, undo, and wait until all is whole."""
        old, term = self.leader()
        self.load.wait_for(SOME)
        self.load.gap_s = 0.0
        undo = act(old)
        self.away.add(old.name)
        try:
            new, later = self.leader(after_term=term)
            self.load.wait_for(SOME)
            failover = Failover(fault, old.name, new.name, later, self.load.gap_s)
        finally:
            undo()
        print(failover)
        self.away.discard(old.name)
        self.failovers.append(failover)
        self.wait_until_whole()
        return failover

    def disturb(self, trouble: str, act: Fault) -> None:
        """Make a follower fail under load while the others serve, undo, and wait until all is whole."""
        follower = self.followers()[0]
        _, term = self.leader()
        self.load.gap_s = 0.0
        undo = act(follower)
        self.away.add(follower.name)
        try:
            self.load.wait_for(SOME)
            gap_ms = self.load.gap_s * 1000
        finally:
            undo()
        self.away.discard(follower.name)
        self.wait_until_whole()
        _, later = self.leader()
        print(f"follower {trouble}: {follower.name}, {later - term} later terms, {gap_ms:.0f} ms without a write")

    def wait_until_whole(self) -> None:
        """Wait until every running node has applied what the leader had committed, while the load goes on."""
        leader, _ = self.leader()
        goal = int(raft_of(leader).get("raft_commit_index", 0))
        for node in self.reachable():
            self._until(lambda node=node: self._has_applied(node, goal), f"{node.name} to apply {goal}")  # type: ignore[misc]

    def wait_until_well(self, node: ClusterNode) -> None:
        """Wait until a node follows the log of others again, whoever leads them."""
        goal = max(int(raft_of(one).get("raft_commit_index", 0)) for one in self.reachable())
        self._until(lambda: self._has_applied(node, goal), f"{node.name} to apply {goal}")

    def _has_applied(self, node: ClusterNode, goal: int) -> bool:
        state = raft_of(node)
        return int(state.get("raft_applied_index", 0)) >= goal and state.get("raft_quarantined") == "0"

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        self.load.raise_failure()
        self.cluster.until(condition, what)
        self.load.raise_failure()

    # ---- what must be true

    def conclude(self, failovers: int) -> None:
        """End the load and judge: histories, journals, whether all nodes are in the same state, and the count."""
        assert len(self.failovers) == failovers
        self.wait_until_whole()
        self.load.settle()
        leader, _ = self.leader()
        goal = int(raft_of(leader)["raft_last_index"])
        states: dict[int, dict[str, str]] = {}

        def agree() -> bool:
            # A state gets a digest when a second of the log's time begins: something has to be written for that.
            connection = Connection(leader)
            try:
                connection.ask([b"INCR", b"compared"])
            finally:
                connection.close()
            for node in self.reachable():
                state = raft_of(node)
                assert "diverged" not in state.get("raft_digest_state", ""), state
                index = int(state.get("raft_digest_index", 0))
                if index > goal:
                    states.setdefault(index, {})[node.name] = state["raft_digest"]
                    assert len(set(states[index].values())) == 1, f"other states at {index}: {states[index]}"
            return any(len(known) == len(self.reachable()) for known in states.values())

        self._until(agree, "the digests of all nodes at one index")


# ---- faults of the leader


def kill(node: ClusterNode) -> Undo:
    """End its process with SIGKILL; it is started again."""
    node.kill()
    return lambda: _start(node)


def pause(node: ClusterNode) -> Undo:
    """Stop its process without ending it; it goes on where it was, and believes that it leads."""
    node.pause()
    return node.resume


def stop_in_order(node: ClusterNode) -> Undo:
    """Ask it to end; it is started again."""
    assert node.stop() == 0
    return lambda: _start(node)


def kill_in_promotion(name: str, random: Random) -> Fault:
    """Return a fault: let the leader give a learner its vote, and kill it somewhere in that; it is started again."""

    def act(node: ClusterNode) -> Undo:
        asking = threading.Thread(target=_promote, args=(node, name), daemon=True)
        asking.start()
        # Nothing is waited for: this says how far the change gets, from not at all to the answer.
        time.sleep(PROMOTION_S * random.random())
        node.kill()
        asking.join(TIMEOUT_S)
        return lambda: _start(node)

    return act


def _promote(node: ClusterNode, name: str) -> None:
    with suppress(grpc.RpcError):
        client = ClusterClient([node.grpc_endpoint])
        client.ask(node.grpc_endpoint, "PromoteMember", cluster_pb2.PromoteMemberRequest(name=name), TIMEOUT_S)


def transfer(cluster: ClusterProcesses) -> Fault:
    """Return what is no fault: the leader hands over to another node, as an operator asks it to."""

    def act(node: ClusterNode) -> Undo:
        successor = next(other for other in cluster.running() if other is not node)
        cluster.ctl("transfer", successor.name, at=node)
        return lambda: None

    return act


def lose_disk(cluster: ClusterProcesses) -> Fault:
    """Return a fault: kill the leader and remove its directory; it is started on an empty one."""

    def act(node: ClusterNode) -> Undo:
        node.kill()
        cluster.lose_disk(node)
        return lambda: _start(node)

    return act


def isolate(links: Links, cluster: ClusterProcesses, *, hears: bool = False, is_heard: bool = False) -> Fault:
    """Return a fault: cut the leader from all other nodes, both ways or one way."""

    def act(node: ClusterNode) -> Undo:
        for other in cluster.nodes:
            if other != node.name:
                if not is_heard:
                    links.cut(node.name, other)
                if not hears:
                    links.cut(other, node.name)
        return links.heal

    return act


def split(links: Links, trial: Trial) -> Fault:
    """Return a fault: cut the leader and one follower, which go on hearing each other, from all the others."""

    def act(node: ClusterNode) -> Undo:
        beside = next(other for other in trial.reachable() if other is not node)
        trial.away.add(beside.name)
        fewer = {node.name, beside.name}
        for one in fewer:
            for other in trial.cluster.nodes.keys() - fewer:
                links.cut(one, other)
                links.cut(other, one)

        def heal() -> None:
            links.heal()
            trial.away.discard(beside.name)

        return heal

    return act


def damage_log(trial: Trial) -> Fault:
    """Return a fault: kill the node and flip a bit in the middle of its log; it is started again and repairs itself."""

    def act(node: ClusterNode) -> Undo:
        # A flip in the last record of a log looks like a write that the crash tore, so there have to be more.
        trial.cluster.until(
            lambda: len(_newest_segment(node)[1]) in DAMAGED_BYTES,
            f"some kilobytes in the newest segment of {node.name}",
        )
        node.kill()
        flip_newest_segment(node)

        def repair() -> None:
            _start(node)
            assert node.has_said("damage_set_aside")
            # It says so with its next tick, and may be ready before.
            trial.cluster.until(lambda: node.has_said("quarantine_ended"), f"{node.name} to end its quarantine")

        return repair

    return act


def flip_newest_segment(node: ClusterNode) -> None:
    """Flip a bit in the middle of the log segment that a stopped node wrote last."""
    path, written = _newest_segment(node)
    with path.open("r+b") as file:
        file.seek(len(written) // 2)
        file.write(bytes([written[len(written) // 2] ^ 1]))


def _newest_segment(node: ClusterNode) -> tuple[Path, bytes]:
    """Return the path of the segment that a node writes to, and what is written of it."""
    path = max((node.data_dir / "wal").glob("*.wal"))
    return path, path.read_bytes().rstrip(b"\0")


def remove(cluster: ClusterProcesses) -> Fault:
    """Return a fault: take the leader out of the cluster, as an operator does."""

    def act(node: ClusterNode) -> Undo:
        members = cluster.ctl("remove", node.name, at=node)
        assert node.name not in {row["name"] for row in members}
        return lambda: _forget(cluster, node)

    return act


def _forget(cluster: ClusterProcesses, node: ClusterNode) -> None:
    node.kill()
    # Callers look at the nodes meanwhile, so they get new ones instead of fewer.
    cluster.nodes = {name: one for name, one in cluster.nodes.items() if one is not node}


def fill_disk(disk: Path) -> Fault:
    """Return a fault: leave the leader, whose data is on a small disk, no room, and write until it ends by that."""

    def act(node: ClusterNode) -> Undo:
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        connection = Connection(node)
        with suppress(Lost, Refused):
            for number in range(FILLERS):
                connection.ask([b"SET", b"filler", b"%d" % number * 1000])
        connection.close()
        assert node.wait() == EXIT_STORAGE
        return lambda: _start_with_room(node, ballast)

    return act


def _start_with_room(node: ClusterNode, ballast: Path) -> None:
    ballast.unlink()
    _start(node)


def _start(node: ClusterNode) -> None:
    # Another process may have its old ports by now, and callers must not take that for the node.
    node.addresses = {}
    if node.log_path.exists():
        runs = len(list(node.log_path.parent.glob("*.log")))
        node.log_path.replace(node.log_path.with_name(f"run{runs}.log"))
    node.start()
