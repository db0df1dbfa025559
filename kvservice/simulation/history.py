"""What clients asked for and what they were told, with the order in time: the input of the linearizability checker.

Guarantees: an operation whose command was certainly not applied is not in the history, so whatever it did all the same
makes the history wrong. One whose outcome is unknown stays, and never returns. Times may be of any unit; of equal times
a call counts as earlier than a return, which can only permit more.
Leaves to the caller: one clock for all clients, and as answers the plain values that `kvservice.simulation.models`
gives (an error is its first word).
Layout of a line: JSON [client, called, returned | null, commands, answers | null]; bytes are Latin-1 text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

Answer = bytes | int | None
"""A simple string is its bytes; an error is its first word, such as b"ERR"."""
Args = tuple[bytes, ...]
"""One command on one key, which is its second argument."""
Json = int | str | None | list["Json"]


class Operation(NamedTuple):
    """Commands that take effect together, at one moment between called and returned.

    returned, answers: None when the client never learned the outcome.
    """

    client: str
    called: int
    returned: int | None
    commands: tuple[Args, ...]
    answers: tuple[Answer, ...] | None

    def __str__(self) -> str:
        text = "; ".join(b" ".join(args).decode("latin-1") for args in self.commands)
        outcome = "outcome unknown" if self.answers is None else f"-> {', '.join(map(repr, self.answers))}"
        until = "" if self.returned is None else str(self.returned)
        return f"{self.client} [{self.called}, {until}] {text} {outcome}"


class History:
    """Operations in the order they were called. Open ones count as unknown."""

    def __init__(self) -> None:
        self._open: dict[int, Operation] = {}
        self._closed: dict[int, Operation] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._open) + len(self._closed)

    def called(self, client: str, commands: Iterable[Sequence[bytes]], now: int) -> int:
        """Note that a client sends commands that take effect together; return the number to name the operation by."""
        self._last_id += 1
        self._open[self._last_id] = Operation(client, now, None, tuple(map(tuple, commands)), None)
        return self._last_id

    def answered(self, number: int, answers: Iterable[Answer], now: int) -> None:
        """Note what the client was told."""
        operation = self._open.pop(number)
        answers = tuple(answers)
        assert len(answers) == len(operation.commands), "one answer a command"
        self._closed[number] = operation._replace(returned=now, answers=answers)

    def not_applied(self, number: int) -> None:
        """Note that the client was told that nothing was done."""
        del self._open[number]

    def unknown(self, number: int) -> None:
        """Note that the client will not learn the outcome."""
        self._closed[number] = self._open.pop(number)

    def operations(self) -> list[Operation]:
        """Return all operations in the order of their calls."""
        numbered = [*self._open.items(), *self._closed.items()]
        return [operation for _, operation in sorted(numbered)]


def encode_operation(operation: Operation) -> str:
    """Return an operation as a line of JSON."""
    commands = [[arg.decode("latin-1") for arg in args] for args in operation.commands]
    answers = None if operation.answers is None else [_to_json(answer) for answer in operation.answers]
    return json.dumps([operation.client, operation.called, operation.returned, commands, answers])


def decode_operations(lines: Iterable[str]) -> Iterator[Operation]:
    """Yield the operations of lines of JSON. Raises ValueError."""
    for line in lines:
        client, called, returned, commands, answers = json.loads(line)
        yield Operation(
            str(client),
            int(called),
            None if returned is None else int(returned),
            tuple(tuple(str(arg).encode("latin-1") for arg in args) for args in commands),
            None if answers is None else tuple(_from_json(answer) for answer in answers),
        )


def _to_json(answer: Answer) -> Json:
    return [answer.decode("latin-1")] if isinstance(answer, bytes) else answer


def _from_json(answer: Json) -> Answer:
    if isinstance(answer, list):
        return cast("str", answer[0]).encode("latin-1")
    return cast("int | None", answer)
