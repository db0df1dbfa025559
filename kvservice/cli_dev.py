"""`redan dev`: a cluster on this machine to try things on, until Ctrl-C.

Guarantees: exit code 0 after Ctrl-C or SIGTERM, 1 when every node has ended by itself, 2 for settings that were
refused. A node that ends is named, with the last lines of its log, and not started again: that is what one wants to
see. A directory that was not named is removed at the end.
Leaves to the caller: the processes (kvservice/local_cluster).
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from kvservice.cli_settings import EXIT_CLEAN, EXIT_FAILURE, EXIT_USAGE
from kvservice.local_cluster import HOST, LocalCluster, LocalNode, NoCluster, PortsTaken

POLL_SECONDS: Final = 0.1
READY_SECONDS: Final = 60.0


def dev_command(count: int | None, directory: Path | None, arguments: Sequence[str]) -> int:
    """Run a cluster of ``count`` nodes, or of what a kept directory holds; return the exit code.

    ``arguments`` are further flags of ``redan serve``.
    """
    place = directory if directory is not None else Path(tempfile.mkdtemp(prefix="redan-dev-"))
    try:
        cluster = LocalCluster(place, count)
    except NoCluster as error:
        print(f"redan: {error}", file=sys.stderr)
        return EXIT_FAILURE if isinstance(error, PortsTaken) else EXIT_USAGE
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    try:
        cluster.start(arguments)
        return _watch(cluster, stopping, is_kept=directory is not None)
    finally:
        _say("stopping")
        cluster.stop()
        if directory is None:
            shutil.rmtree(place, ignore_errors=True)


def _watch(cluster: LocalCluster, stopping: threading.Event, *, is_kept: bool) -> int:
    """Say when the cluster is ready, and what happens to its nodes, until all have ended or a stop is asked for."""
    count = len(cluster.nodes)
    _say(f"{count} node{'s' * (count > 1)}, data in {cluster.directory}{'' if is_kept else ' (removed at the end)'}")
    running = list(cluster.nodes)
    deadline = monotonic() + READY_SECONDS
    is_told = False
    while running and not stopping.wait(POLL_SECONDS):
        for node in [node for node in running if node.exit_code() is not None]:
            running.remove(node)
            _say(f"{node.name} has ended with exit code {node.exit_code()}; {node.log_path} ends with")
            for line in node.last_lines():
                _say(f"  {line}")
        if not is_told and running and all(node.is_ready() for node in running):
            is_told = True
            _introduce(cluster)
        elif not is_told and monotonic() > deadline:
            is_told = True
            _say(f"not all nodes are ready after {READY_SECONDS:.0f} s; their logs are in {cluster.directory}")
    if stopping.is_set():
        return EXIT_CLEAN
    codes = {node.exit_code() for node in cluster.nodes}
    return EXIT_USAGE if codes == {EXIT_USAGE} else EXIT_FAILURE


def _introduce(cluster: LocalCluster) -> None:
    rows = [_row(node) for node in cluster.nodes]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    _say("ready")
    for row in rows:
        _say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    first, last = cluster.nodes[0].ports, cluster.nodes[-1].ports
    _say("try")
    _say(f"  redis-cli -p {first['resp']} SET greeting hello")
    _say(f"  redis-cli -p {last['resp']} GET greeting")
    _say(f"  redan ctl status --endpoint {HOST}:{first['grpc']}")
    _say("Ctrl-C stops all of them; kill -9 one of the process ids to see what the others do")


def _row(node: LocalNode) -> tuple[str, ...]:
    ports = node.ports
    return (
        node.name,
        f"pid {node.pid}",
        f"redis {HOST}:{ports['resp']}",
        f"gRPC {HOST}:{ports['grpc']}",
        f"http://{HOST}:{ports['admin']}/metrics",
    )


def _say(text: str) -> None:
    print(text, flush=True)
