"""Conversations as text files: commands and what is answered, as redis-cli shows it.

Layout of a script::

    # A comment.
    > SET greeting "hello\\x00world"
    OK
    > GET greeting
    "hello\\x00world"

A line ``@7.2`` before a command says that only servers from that version on answer so. Every script begins with an
empty keyspace in database 0.

Guarantees: ``rewritten`` changes nothing but replies. ``python -m tests.harness.scripts FILE…`` rewrites files with
what a real redis-server answers; replies to commands marked for a newer version are left alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from tests.harness.oracle import Conversation, Oracle
from tests.harness.resp2 import shown

SCRIPTS = Path(__file__).parent.parent / "scripts" / "commands"
ALWAYS = (0,)

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}


class Step(NamedTuple):
    """A command of a script and the reply that the script shows."""

    line_number: int
    command: list[bytes]
    expected: str
    since: tuple[int, ...]


def words_of(line: str) -> list[bytes]:
    """Return the words of a command line; double quotes hold blanks and the escapes of redis-cli."""
    words: list[bytes] = []
    for match in _WORD.finditer(line):
        quoted_text, plain = match.groups()
        text = plain if quoted_text is None else _ESCAPE.sub(_unescaped, quoted_text)
        words.append(text.encode("latin-1"))
    return words


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 3 else _ESCAPED.get(code, code)


def steps_of(text: str) -> list[Step]:
    """Return the steps of a script."""
    steps: list[Step] = []
    since: tuple[int, ...] = ALWAYS
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("@"):
            since = tuple(map(int, line[1:].split(".")))
        elif line.startswith("> "):
            steps.append(Step(number + 1, words_of(line[2:]), "\n".join(_reply_after(lines, number)), since))
            since = ALWAYS
    return steps


def _reply_after(lines: list[str], number: int) -> list[str]:
    end = number + 1
    while end < len(lines) and lines[end] and not lines[end].startswith(("> ", "#", "@")):
        end += 1
    return lines[number + 1 : end]


def replies_to(steps: list[Step], conversation: Conversation) -> list[str]:
    """Hold the conversation from an empty keyspace on; return the replies as text."""
    opening = [[b"FLUSHALL"], [b"SELECT", b"0"]]
    replies = conversation.send([*opening, *(step.command for step in steps)])
    return [shown(reply) for reply in replies[len(opening) :]]


def rewritten(text: str, conversation: Conversation, version: tuple[int, ...]) -> str:
    """Return a script with the replies of ``conversation``, a server of this version."""
    steps = steps_of(text)
    replies = {
        step.line_number: reply if step.since <= version else step.expected
        for step, reply in zip(steps, replies_to(steps, conversation), strict=True)
    }
    lines = text.split("\n")
    out: list[str] = []
    position = 0
    while position < len(lines):
        out.append(lines[position])
        position += 1
        if lines[position - 1].startswith("> "):
            out.append(replies[position])
            position += len(_reply_after(lines, position - 1))
    return "\n".join(out)


def main(paths: list[str]) -> None:
    """Rewrite scripts with what a real redis-server answers."""
    with Oracle() as oracle:
        for path in map(Path, paths):
            path.write_text(rewritten(path.read_text(), oracle, oracle.version))


if __name__ == "__main__":
    main(sys.argv[1:])
