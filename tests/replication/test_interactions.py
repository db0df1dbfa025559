"""Every story of tests/scripts/raft, played on the shipped core: what happens must be what the script says.

With ``REDAN_REWRITE=1`` in the environment the scripts are written anew with what happens; then read every line.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.raft_scripts import Story, cut, rewritten

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts" / "raft").glob("*.txt"))
STORIES_MIN = 24


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_members_say_and_do_what_the_story_tells(path: Path) -> None:
    told = path.read_text(encoding="utf-8")
    happened = rewritten(told)
    if os.environ.get("REDAN_REWRITE") == "1":
        path.write_text(happened, encoding="utf-8")
    else:
        assert happened.split("\n") == told.split("\n")


def test_no_story_is_missing() -> None:
    assert len(SCRIPTS) >= STORIES_MIN


def test_every_story_says_in_its_first_lines_what_it_is_about() -> None:
    assert [path.name for path in SCRIPTS if not path.read_text(encoding="utf-8").startswith("# ")] == []


def test_every_command_of_the_language_is_used_by_some_story() -> None:
    used = {
        cut(line[2:].removeprefix("quietly ")).name
        for path in SCRIPTS
        for line in path.read_text(encoding="utf-8").split("\n")
        if line.startswith("> ")
    }
    assert set(Story().commands) == used


def test_a_line_that_tells_something_else_fails_the_story() -> None:
    script = "# Two.\n> add-nodes 1\n\n> campaign n1\n> stabilize\nn1 leads term 2\n"
    assert rewritten(script) != script
    assert rewritten(rewritten(script)) == rewritten(script)
