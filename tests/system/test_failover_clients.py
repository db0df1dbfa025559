"""What clients see of a failover: a pause, and an error only for a write that was under way and may have happened.

Each caller has one connection of redis-py that repeats nothing, to one node, and adds one to its key and reads it in
turn. A node that has lost its leader keeps what comes until it has another one; what it had sent to the leader that is
gone may have happened, so that and nothing else is answered with an error. Tests count elections by terms: on a machine
without time for the nodes there may be more of them than were asked for, each of which may cost a caller one answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from select import select
from typing import Any, Final, NamedTuple

import pytest
import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from kvservice.errors import OutcomeUnknownError
from tests.harness.cluster_processes import REDIS_ERRORS, ClusterNode, ClusterProcesses
from tests.harness.process import POLL_S, TIMEOUT_S
from tests.harness.resp2 import encode_command

CALLERS_PER_NODE: Final = 6
PAUSE_S: Final = 0.004
"""Between two commands of a caller, which leaves a shared machine to the nodes."""
SOME: Final = 20
HAND_OVERS: Final = 3


class Failed(NamedTuple):
    """A command that was answered with an error, or not at all."""

    command: str
    began_s: float
    error: Exception


class Caller(threading.Thread):
    """One connection, one command at a time; when it breaks, a new one to the next node that may be tried."""

    def __init__(self, name: str, nodes: Sequence[ClusterNode]) -> None:
        super().__init__(daemon=True, name=name)
        self.failed: list[Failed] = []
        self.acknowledged = 0
        self.answered = 0
        """Commands, also reads."""
        self.wrong: list[tuple[int, int, int]] = []
        """Reads that no order explains: value, and the least and the most that it could have been."""
        self.longest_s = 0.0
        self._nodes = list(nodes)
        self._client: Any = self._nodes[0].client()
        self._stopping = threading.Event()

    @property
    def unknown(self) -> int:
        """Writes that may have happened or not."""
        return sum(failed.command == "INCR" for failed in self.failed)

    def run(self) -> None:
        """Call until told to stop."""
        while not self._stopping.wait(PAUSE_S):
            for command in ("INCR", "GET"):
                began_s = time.monotonic()
                try:
                    value = int(self._client.execute_command(command, self.name) or 0)
                except REDIS_ERRORS as error:
                    self.failed.append(Failed(command, began_s, error))
                    if isinstance(error, redis.ConnectionError):
                        self._nodes = [*self._nodes[1:], self._nodes[0]]
                        self._client = self._nodes[0].client()
                    continue
                self.acknowledged += command == "INCR"
                if not self.acknowledged <= value <= self.acknowledged + self.unknown:
                    self.wrong.append((value, self.acknowledged, self.acknowledged + self.unknown))
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.answered += 1

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self.join(TIMEOUT_S)
        assert not self.is_alive(), f"{self.name} hangs"


@contextmanager
def calling(nodes: Sequence[ClusterNode], *, then: Sequence[ClusterNode] = ()) -> Iterator[list[Caller]]:
    """Have callers on each of some nodes, of which all are served; they go to ``then`` when a connection breaks."""
    callers = [Caller(f"{node.name}-{number}", [node, *then]) for node in nodes for number in range(CALLERS_PER_NODE)]
    for caller in callers:
        caller.start()
    try:
        until_served(callers)
        yield callers
    finally:
        for caller in callers:
            caller.stop()


def until_served(callers: Sequence[Caller]) -> None:
    """Wait until each caller is answered some times more."""
    goals = {caller: caller.answered + SOME for caller in callers}
    deadline = time.monotonic() + TIMEOUT_S
    while late := [caller for caller, goal in goals.items() if caller.answered < goal]:
        assert time.monotonic() < deadline, f"{late[0].name} is not served: {late[0].failed[-3:]}"
        time.sleep(POLL_S)


def until_known(nodes: Sequence[ClusterNode], gone: ClusterNode) -> dict[str, float]:
    """Wait until each node knows that a leader is gone; return when each was seen to."""
    known: dict[str, float] = {}
    with ExitStack() as stack:
        clients = {node.name: stack.enter_context(node.client()) for node in nodes}
        deadline = time.monotonic() + TIMEOUT_S
        while len(known) < len(nodes):
            assert time.monotonic() < deadline, f"only {list(known)} know that {gone.name} is gone"
            for name in clients.keys() - known.keys():
                state: Any = clients[name].info("raft")
                if state["raft_leader"] != gone.name:
                    known[name] = time.monotonic()
    return known


def term_of(node: ClusterNode) -> int:
    """Return the term that a node is in."""
    state: Any = node.client().info("raft")
    return int(state["raft_term"])


def assert_served(callers: Sequence[Caller], *, unknown_max: int) -> None:
    """Check that callers got right answers, and errors for so many writes at most, which may have happened."""
    for caller in callers:
        assert caller.wrong == []
        assert len(caller.failed) <= unknown_max
        for failed in caller.failed:
            assert failed.command == "INCR"
            assert str(failed.error).startswith(OutcomeUnknownError.resp_prefix)


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_clients_of_followers_get_an_error_only_for_a_write_that_was_under_way(tmp_path: Path, how: str) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        leader, followers = cluster.leader(), cluster.followers()
        before = term_of(followers[0])
        with calling(followers) as callers:
            fail = leader.kill if how == "killed" else leader.pause
            fail()
            try:
                known = until_known(followers, leader)
                until_served(callers)
                elections = term_of(followers[0]) - before
            finally:
                leader.resume()
        assert_served(callers, unknown_max=elections)
        if elections == 1:
            for caller in callers:
                assert all(failed.began_s < known[caller.name.partition("-")[0]] for failed in caller.failed)


def test_what_comes_while_nobody_leads_waits_for_the_next_leader(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, "--leader-wait-ms", "30000") as cluster:
        leader, (follower, other) = cluster.leader(), cluster.followers()
        other.pause()
        try:
            leader.kill()
            until_known([follower], leader)
            with ExitStack() as stack:
                commands = [*[encode_command([b"INCR", b"k"])] * 5, encode_command([b"GET", b"other"])]
                sockets = [stack.enter_context(follower.connect()) for _ in commands]
                for one, command in zip(sockets, commands, strict=True):
                    one.sendall(command)
                # What came before is read before: so they are there, and none of them is answered.
                assert follower.client().ping()
                assert select(sockets, [], [], 0)[0] == []
                other.resume()
                answers = [one.recv(100) for one in sockets]
            assert sorted(answers) == [b"$-1\r\n", *(b":%d\r\n" % number for number in range(1, 6))]
        finally:
            other.resume()


def test_clients_of_the_leader_lose_their_connection_and_are_served_by_the_others(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        leader, followers = cluster.leader(), cluster.followers()
        before = term_of(leader)
        with calling([leader], then=followers) as callers:
            leader.kill()
            until_served(callers)
            elections = term_of(followers[0]) - before
        for caller in callers:
            first = caller.failed.pop(0)
            assert isinstance(first.error, redis.ConnectionError)
        assert_served(callers, unknown_max=elections)


def test_a_hand_over_is_no_error_for_anybody(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster, calling(list(cluster.nodes.values())) as callers:
        before = term_of(cluster["n1"])
        for _ in range(HAND_OVERS):
            cluster.ctl("transfer", cluster.followers()[0].name)
            until_served(callers)
        assert_served(callers, unknown_max=term_of(cluster["n1"]) - before - HAND_OVERS)


def test_a_leader_that_stops_in_order_is_no_error_for_clients_of_the_others(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        leader, followers = cluster.leader(), cluster.followers()
        before = term_of(leader)
        with calling(followers) as callers:
            assert leader.stop() == 0
            until_served(callers)
            elections = term_of(followers[0]) - before
        assert_served(callers, unknown_max=elections - 1)


def test_a_cluster_client_that_repeats_what_it_may_sees_no_error(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        host, port = cluster.followers()[0].addresses["resp"]
        client: Any = RedisCluster(host=host, port=port, retry=Retry(ExponentialBackoff(cap=0.2, base=0.01), 20))
        for number in range(3 * SOME):
            if number == SOME:
                cluster.leader().kill()
            assert client.set("k", number)
            assert client.get("k") == b"%d" % number
