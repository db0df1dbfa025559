"""Leadership that goes from node to node all the time, as an operator would move it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.cluster_processes import ClusterProcesses
from tests.harness.process import TIMEOUT_S

BETWEEN_S = 0.1


@contextmanager
def leadership_going_round(cluster: ClusterProcesses) -> Iterator[list[str]]:
    """Hand leadership to each node in turn meanwhile; yield the names of those that had it, as they come.

    Fails at the end if a hand-over was refused.
    """
    done = threading.Event()
    had_it: list[str] = []
    refused: list[Exception] = []

    def go_round() -> None:
        waiting = list(cluster.nodes)
        while not done.wait(BETWEEN_S):
            name = next(name for name in waiting if name != cluster.leader().name)
            waiting.remove(name)
            waiting.append(name)
            try:
                cluster.ctl("transfer", name)
            except RuntimeError as error:
                refused.append(error)
                return
            had_it.append(name)

    going = threading.Thread(target=go_round, daemon=True)
    going.start()
    try:
        yield had_it
    finally:
        done.set()
        going.join(TIMEOUT_S)
    assert not refused, refused
    assert not going.is_alive()
