"""`redan dev`: a cluster in one command, which says how to talk to it and what ends, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from tests.harness.process import POLL_S, ROOT

WAIT_S: Final = 90.0
TOLD = "Ctrl-C stops all of them"
NODE = re.compile(r"^  (n\d)  pid (\d+)  redis ([\d.]+):(\d+)", re.MULTILINE)


class Dev:
    """A running `redan dev` and what it has said."""

    def __init__(self, output: Path, *arguments: str) -> None:
        self._output = output
        with output.open("wb") as written:
            command = [sys.executable, "-m", "kvservice", "dev", *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=written, stderr=subprocess.STDOUT)

    def said(self) -> str:
        """Return all that it has said."""
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> str:
        """Wait until it has said something, and return all that it has said."""
        deadline = time.monotonic() + WAIT_S
        while text not in (said := self.said()):
            assert time.monotonic() < deadline, f"{text!r} was not said:\n{said}"
            assert self.process.poll() is None or text in self.said(), f"it ended:\n{self.said()}"
            time.sleep(POLL_S)
        return said

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT_S)


@contextmanager
def dev(folder: Path, *arguments: str) -> Iterator[Dev]:
    """Run `redan dev`; on the way out it is stopped as a terminal would, with all its nodes."""
    running = Dev(folder / "said", *arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def is_alive(pid: int) -> bool:
    """Tell whether a process of this id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_three_nodes_start_say_how_to_talk_to_them_and_stop_together(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    with dev(tmp_path, "--nodes", "3", "--dir", str(place)) as cluster:
        said = cluster.wait_for(TOLD)
        nodes = NODE.findall(said)
        assert [name for name, *_ in nodes] == ["n1", "n2", "n3"]
        assert f"3 nodes, data in {place}\n" in said
        told = re.findall(r"^  redis-cli -p (\d+) (SET greeting hello|GET greeting)$", said, re.MULTILINE)
        answers = []
        for port, words in told:
            with redis.Redis(port=int(port), decode_responses=True) as client:
                answers.append(client.execute_command(*words.split()))
        assert answers in ([True, "hello"], ["OK", "hello"])
        endpoint = re.search(r"redan ctl status --endpoint (\S+)", said)
        assert endpoint is not None
        status = [sys.executable, "-m", "kvservice", "ctl", "status", "-o", "json", "--endpoint", endpoint[1]]
        shown = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)

        os.kill(int(nodes[0][1]), signal.SIGKILL)
        cluster.wait_for(f"n1 has ended with exit code -9; {place}/n1/node.log ends with")
        with redis.Redis(port=int(nodes[1][3]), decode_responses=True, socket_timeout=WAIT_S) as client:
            assert client.get("greeting") == "hello"

        assert cluster.interrupt() == 0
        assert cluster.said().endswith("stopping\n")
        assert not any(is_alive(int(pid)) for _, pid, *_ in nodes)

    with dev(tmp_path, "--nodes", "3", "--dir", str(place)) as again:
        nodes_again = NODE.findall(again.wait_for(TOLD))
        assert [(name, port) for name, _, _, port in nodes_again] == [(name, port) for name, _, _, port in nodes]
        with redis.Redis(port=int(nodes_again[0][3]), decode_responses=True, socket_timeout=WAIT_S) as client:
            assert client.get("greeting") == "hello"

        second = Dev(tmp_path / "second", "--nodes", "3", "--dir", str(place))
        assert second.process.wait(WAIT_S) == 1
        assert "holds a cluster whose addresses are in use" in second.said()


def test_a_setting_that_is_refused_ends_it_and_the_reason_is_shown(tmp_path: Path) -> None:
    with dev(tmp_path, "--nodes", "1", "--dir", str(tmp_path / "kept"), "--read-mode", "sometimes") as cluster:
        assert cluster.process.wait(WAIT_S) == 2
    said = cluster.said()
    assert "n1 has ended with exit code 2" in said
    assert "read-mode" in said or "read_mode" in said


def test_what_was_not_named_is_removed_at_the_end(tmp_path: Path) -> None:
    with dev(tmp_path, "--nodes", "1") as cluster:
        said = cluster.wait_for(TOLD)
        place = re.search(r"data in (\S+) \(removed at the end\)", said)
        assert place is not None
        assert Path(place[1], "n1", "data").is_dir()
        assert cluster.interrupt() == 0
    assert not Path(place[1]).exists()
