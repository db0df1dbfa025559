"""The same scripts are played to us and to a real redis-server, and must read the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.inprocess import InProcess
from tests.harness.oracle import Oracle
from tests.harness.scripts import ALWAYS, SCRIPTS, replies_to, rewritten, steps_of, words_of

FILES = sorted(SCRIPTS.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_commands_follow_the_script(ours: InProcess, path: Path) -> None:
    steps = steps_of(path.read_text())
    for step, reply in zip(steps, replies_to(steps, ours), strict=True):
        assert reply == step.expected, f"{path.name}:{step.line_number}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_real_redis_server_follows_the_script(oracle: Oracle, path: Path) -> None:
    steps = steps_of(path.read_text())
    for step, reply in zip(steps, replies_to(steps, oracle), strict=True):
        assert reply == step.expected or step.since > oracle.version, f"{path.name}:{step.line_number}"


def test_there_are_scripts() -> None:
    assert len(FILES) >= 5


def test_words_are_split_as_redis_cli_splits_them() -> None:
    assert words_of(r'SET a "b c" "\x00\xff\n\"\\" ""') == [b"SET", b"a", b"b c", b'\x00\xff\n"\\', b""]


def test_rewriting_changes_replies_only(ours: InProcess) -> None:
    script = "# Why.\n\n> SET a 1\nwrong\n> MGET a b\n# Then.\n@9.9\n> GET a\nkept\n\n"
    expected = '# Why.\n\n> SET a 1\nOK\n> MGET a b\n1) "1"\n2) (nil)\n# Then.\n@9.9\n> GET a\nkept\n\n'
    assert rewritten(script, ours, (7, 0)) == expected
    assert [step.since for step in steps_of(script)] == [ALWAYS, ALWAYS, (9, 9)]
