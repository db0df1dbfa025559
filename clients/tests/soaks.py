"""The programs that write through each client, as processes, and what they said.

Guarantees: leaving the context leaves none of them behind.
Leaves to the caller: building them (.ci/build_clients), and a cluster. Tests skip what could not be built.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.harness.process import POLL_S, ROOT

BUILT: Final = ROOT / "build" / "clients"
PROGRAMS: Final = {
    "python": [sys.executable, str(ROOT / "clients" / "python" / "tests" / "soak.py")],
    "go": [str(BUILT / "go" / "soak")],
    "node": ["node", str(BUILT / "node" / "dist" / "tests" / "soak.js")],
}
NEEDED: Final = {"go": "go (1.26 or later)", "node": "node (20 or later) with npm"}
BARE: Final = {"python": "--bare", "go": "-bare", "node": "--bare"}
WAIT_S: Final = 120.0
LONG_S: Final = 600
"""Longer than any test: it ends them before."""
PIPED: Final = 5


def skip_without(*languages: str) -> None:
    """Skip the test unless the programs of these languages are built, which needs the tools of theirs."""
    for language in languages:
        built = Path(PROGRAMS[language][-1])
        if not built.exists():
            pytest.skip(
                f"{built.relative_to(ROOT)} is not there; .ci/build_clients builds it where {NEEDED[language]} is"
            )


class Soak:
    """One program that writes."""

    def __init__(self, name: str, command: Sequence[str], addresses: Sequence[str], folder: Path) -> None:
        self.name = name
        self._said = folder / f"{name}.said"
        with self._said.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, ",".join(addresses), str(LONG_S), name], cwd=folder, stdout=output, stderr=subprocess.STDOUT
            )

    def lines(self) -> list[list[str]]:
        """Return the words of each whole line so far."""
        return [line.split(" ") for line in self._said.read_text(encoding="utf-8").split("\n")[:-1]]

    def wait_for(self, more: int) -> None:
        """Wait for so many more acknowledged writes of each kind."""
        goal = len(self.lines()) + more * (2 + PIPED)
        deadline = time.monotonic() + WAIT_S
        while len(self.lines()) < goal:
            assert self._process.poll() is None, f"{self.name} ended:\n{self._said.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"{self.name} is not served:\n{self._said.read_text()[-2000:]}"
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the process, wherever it is."""
        self._process.kill()
        self._process.wait(WAIT_S)

    def keys(self) -> list[str]:
        """Return the keys whose SET was acknowledged."""
        return [words[1] for words in self.lines() if words[0] == "set"]

    def values(self, kind: str) -> list[int]:
        """Return what increments were answered with, in order."""
        return [int(words[2]) for words in self.lines() if words[0] == kind]

    def failures(self) -> list[str]:
        """Return everything that is no acknowledgement."""
        return [" ".join(words) for words in self.lines() if words[0] not in ("set", "incr", "pipe")]


@contextmanager
def soaks(addresses: Sequence[str], folder: Path, *, bare: bool) -> Iterator[list[Soak]]:
    """Have all languages write, with their clients or with the bare stubs."""
    running: list[Soak] = []
    try:
        for language, command in PROGRAMS.items():
            name, words = (f"{language}-bare", [*command, BARE[language]]) if bare else (language, command)
            running.append(Soak(name, words, addresses, folder))
        yield running
    finally:
        for soak in running:
            soak.stop()
