"""The keys that simulated clients use, the history of each, and its judgment once it is long enough.

A cell is one key, or two that are written and read together. It takes OPERATIONS operations, then no more; when the
last of them has ended, and a last read of it was answered, its history is judged and forgotten. So memory is bounded,
and the judge's work is a sum of small problems.

States of a cell: open → full → (last read) → judged.

Guarantees: a history without an order raises `RuleBroken`; every acknowledged write was in a judged history or is in an
open cell.
Leaves to the caller: asking, and telling the outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from kvservice.simulation.history import Answer, History
from kvservice.simulation.linearizability import check
from kvservice.simulation.models import READS
from kvservice.simulation.rules import RuleBroken

CELLS: Final = 4
"""Keys in use at a time: few, so that clients meet on them."""
OPERATIONS: Final = 40


class Cell:
    """One history. waiting: operations that have not ended."""

    def __init__(self, number: int, keys: tuple[bytes, ...]) -> None:
        self.number = number
        self.keys = keys
        self.history = History()
        self.waiting = 0
        self.taken = 0
        self.acknowledged = 0

    @property
    def is_full(self) -> bool:
        """Whether it takes no more operations."""
        return self.taken >= OPERATIONS


class Asked:
    """An operation that a client waits for."""

    __slots__ = ("args", "cell", "commands", "is_last", "number")

    def __init__(self, cell: Cell, number: int, args: list[bytes], commands: list[list[bytes]], is_last: bool) -> None:
        self.cell = cell
        self.is_last = is_last
        """Whether the cell is judged once this is answered."""
        self.number = number
        self.args = args
        """The command as it is sent."""
        self.commands = commands
        """The same as commands on one key each, for the judge."""

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.commands[0][0] in READS


class Ledger:
    """All cells of a run."""

    def __init__(self, random: Random) -> None:
        self.judged = 0
        self.operations = 0
        self.acknowledged = 0
        """Writes that were acknowledged and whose histories are judged."""
        self.undecided = 0
        self.unknown = 0
        self.answered_writes = 0
        """Writes that were acknowledged, judged or not."""
        self._random = random
        self._order = 0
        self._last_cell = 0
        self._values = 0
        self._open = [self._new_cell() for _ in range(CELLS)]
        self._full: list[Cell] = []

    def _new_cell(self) -> Cell:
        self._last_cell += 1
        tag = b"{k%d}" % self._last_cell
        keys = (tag + b"a", tag + b"b") if self._random.random() < 0.25 else (b"k%d" % self._last_cell,)
        return Cell(self._last_cell, keys)

    def _now(self) -> int:
        # A counter orders calls and returns as they happen, with no two at one moment.
        self._order += 1
        return self._order

    # ---- asking

    def next(self, client: str, *, only_reads: bool = False) -> Asked:
        """Choose an operation and note that a client asks for it now."""
        position = self._random.randrange(len(self._open))
        cell = self._open[position]
        commands = [[b"GET", key] for key in cell.keys] if only_reads else self._commands(cell)
        asked = self._asked(cell, client, commands, is_last=False)
        if cell.is_full:
            self._full.append(cell)
            self._open[position] = self._new_cell()
        return asked

    def last_read(self, client: str) -> Asked | None:
        """Return the read that ends a full cell of which nothing waits, or None."""
        for position, cell in enumerate(self._full):
            if not cell.waiting:
                del self._full[position]
                return self._asked(cell, client, [[b"GET", key] for key in cell.keys], is_last=True)
        return None

    def close_all(self) -> None:
        """Take no more operations in any cell that has one."""
        for position, cell in enumerate(self._open):
            if cell.taken:
                cell.taken = OPERATIONS
                self._full.append(cell)
                self._open[position] = self._new_cell()

    @property
    def is_settled(self) -> bool:
        """Whether every cell that has operations is judged."""
        return not self._full and not any(cell.taken for cell in self._open)

    def _asked(self, cell: Cell, client: str, commands: list[list[bytes]], *, is_last: bool) -> Asked:
        cell.waiting += 1
        cell.taken += 1
        number = cell.history.called(client, commands, self._now())
        return Asked(cell, number, self._joined(commands), commands, is_last)

    def _joined(self, commands: list[list[bytes]]) -> list[bytes]:
        if len(commands) == 1:
            return commands[0]
        if commands[0][0] == b"GET":
            return [b"MGET", *(args[1] for args in commands)]
        return [b"MSET", *(part for args in commands for part in args[1:])]

    def _commands(self, cell: Cell) -> list[list[bytes]]:
        chance = self._random.random()
        if len(cell.keys) > 1 and chance < 0.5:
            if chance < 0.25:
                return [[b"GET", key] for key in cell.keys]
            return [[b"SET", key, self._value()] for key in cell.keys]
        return [self._command(self._random.choice(cell.keys))]

    def _command(self, key: bytes) -> list[bytes]:
        chance = self._random.random()
        if chance < 0.40:
            return [b"GET", key]
        if chance < 0.60:
            return [b"SET", key, self._value()]
        if chance < 0.75:
            return [b"INCR", key]
        if chance < 0.87:
            return [b"APPEND", key, self._value()]
        if chance < 0.93:
            return [b"DEL", key]
        return [self._random.choice((b"GETSET", b"SETNX")), key, self._value()]

    def _value(self) -> bytes:
        self._values += 1
        return b"%d" % self._values

    # ---- outcomes

    def answered(self, asked: Asked, answers: Sequence[Answer]) -> None:
        """Note the answer of an operation."""
        cell = asked.cell
        cell.history.answered(asked.number, answers, self._now())
        if not asked.is_read:
            cell.acknowledged += 1
            self.answered_writes += 1
        cell.waiting -= 1
        if asked.is_last:
            self._judge(cell)

    def not_applied(self, asked: Asked) -> None:
        """Note that an operation was refused, certainly without an effect."""
        cell = asked.cell
        cell.history.not_applied(asked.number)
        # Else a long refusal would fill cells with nothing.
        cell.taken -= not cell.is_full
        self._failed(asked)

    def lost(self, asked: Asked) -> None:
        """Note that a client will not learn the outcome."""
        self.unknown += 1
        asked.cell.history.unknown(asked.number)
        self._failed(asked)

    def _failed(self, asked: Asked) -> None:
        asked.cell.waiting -= 1
        if asked.is_last:
            self._full.append(asked.cell)

    def _judge(self, cell: Cell) -> None:
        verdict = check(cell.history.operations())
        if verdict.violations:
            raise RuleBroken("linearizability", "\n".join(map(str, verdict.violations)))
        self.judged += 1
        self.operations += verdict.operations
        self.acknowledged += cell.acknowledged
        self.undecided += bool(verdict.undecided)
