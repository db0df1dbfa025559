"""The command table: one row a command, the only place that knows what commands exist.

A row names the command, its arity, flags, key positions, documentation and function; dispatch, admission, COMMAND,
COMMAND DOCS, snapshots and the reference pages all read it. A container (CLIENT, OBJECT …) is a row with subcommands.

Guarantees: rows are immutable; names are unique; ``find`` accepts any letter case and costs one dict look-up for the
spellings ``GET`` and ``get``.
Leaves to the caller: running the functions. ``Plane.DATA`` functions are deterministic and get a ``Context``;
``Plane.SERVER`` functions look at or change this node or connection only and get a ``ServerCall``.
Reference: Redis command metadata (arity, flags, key specifications) as COMMAND INFO shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter
from typing import Any, Final

from kvservice.commands.reply import Reply
from kvservice.errors import RequestError

Args = Sequence[bytes]
"""A command as clients send it: the name at position 0, then its arguments."""

Handler = Callable[[Any, Args], Reply]
GroupHandler = Callable[[Any, list[Args]], list[Reply] | None]
"""Runs a group of commands of one row and one length; raises nothing. None leaves the group to ``run``: nothing was
changed or counted then."""
KeyFinder = Callable[[Args], Sequence[bytes]]
GrowthCheck = Callable[[Args, Callable[[bytes], int], int], None]
"""Raises RequestError if the command would make a value longer than so many bytes; the function in between tells how
long the value at a key is now. Says nothing of arguments that the command itself refuses."""


NAME_OF: Final = itemgetter(0)


def are_alike(commands: Sequence[Args]) -> bool:
    """Tell whether all commands have the same name and number of arguments; C speed."""
    return len(set(map(NAME_OF, commands))) == 1 and len(set(map(len, commands))) == 1


class Plane(Enum):
    """Where a command runs."""

    DATA = "data"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Positions of the keys among the arguments, as COMMAND INFO gives them; ``last`` < 0 counts from the end."""

    first: int
    last: int
    step: int = 1


NO_KEYS: Final = KeySpec(0, 0, 0)
ONE_KEY: Final = KeySpec(1, 1, 1)
TWO_KEYS: Final = KeySpec(1, 2, 1)
ALL_KEYS: Final = KeySpec(1, -1, 1)
PAIRS: Final = KeySpec(1, -1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One row. ``arity`` counts the name; negative means at least that many."""

    name: str
    run: Handler
    arity: int
    flags: frozenset[str] = frozenset()
    keys: KeySpec = NO_KEYS
    group: str = "generic"
    since: str = "1.0.0"
    summary: str = ""
    complexity: str = "O(1)"
    categories: frozenset[str] = frozenset()
    plane: Plane = Plane.DATA
    find_keys: KeyFinder | None = None
    run_group: GroupHandler | None = None
    """Does what ``run`` does for each of many; only where the calls in between would cost more than the work."""
    quick: bool | None = None
    """Whether the work depends on nothing but the bytes of the command itself; None: what the flag ``fast`` says."""
    check_growth: GrowthCheck | None = None
    """Where a value can become longer than the longest argument: asked before the command is proposed."""
    subcommands: dict[bytes, Command] = field(default_factory=dict)
    arity_min: int = field(init=False)
    arity_max: int = field(init=False)
    is_write: bool = field(init=False)
    is_data: bool = field(init=False)
    is_plain: bool = field(init=False)
    """Of the data plane, without subcommands and without a check of its own: what the hot path takes."""
    needs_leader: bool = field(init=False)
    """Whether it reads or changes data, so that a round or the leader decides when it runs; PING does not."""
    deny_oom: bool = field(init=False)
    is_quick: bool = field(init=False)
    """As ``quick`` says, so that a group of them is timed as one, and each counts as an equal part of it."""

    def __post_init__(self) -> None:
        fixed = object.__setattr__
        fixed(self, "arity_min", abs(self.arity))
        fixed(self, "arity_max", self.arity if self.arity > 0 else 1 << 31)
        fixed(self, "is_write", "write" in self.flags)
        fixed(self, "is_data", self.plane is Plane.DATA)
        fixed(self, "is_plain", self.is_data and not self.subcommands and self.check_growth is None)
        fixed(self, "needs_leader", self.is_write or "readonly" in self.flags)
        fixed(self, "deny_oom", "denyoom" in self.flags)
        fixed(self, "is_quick", "fast" in self.flags if self.quick is None else self.quick)

    def keys_of(self, args: Args) -> Sequence[bytes]:
        """Return the keys that ``args`` names."""
        if self.find_keys is not None:
            return self.find_keys(args)
        spec = self.keys
        if spec.first == 0:
            return ()
        last = spec.last if spec.last >= 0 else len(args) + spec.last
        return args[spec.first : last + 1 : spec.step]

    def arity_error(self) -> RequestError:
        """Return Redis's error for a wrong number of arguments."""
        return RequestError(f"wrong number of arguments for '{self.name.lower()}' command")


class CommandTable:
    """All rows by name, in any letter case."""

    def __init__(self, rows: Iterable[Command]) -> None:
        self.rows: list[Command] = []
        self.by_name: dict[bytes, Command] = {}
        for row in rows:
            upper = row.name.upper().encode()
            assert upper not in self.by_name, f"two rows for {row.name}"
            self.rows.append(row)
            self.by_name[upper] = row
            self.by_name[upper.lower()] = row
        self._internal: dict[bytes, Command] = {}

    def add_internal(self, rows: Iterable[Command]) -> None:
        """Add rows that only nodes may name: they stand in the log, and no client finds them."""
        self._internal.update((row.name.upper().encode(), row) for row in rows)

    def find_any(self, name: bytes) -> Command | None:
        """Return the row of a command of the log or of a trusted caller, or None."""
        row = self.by_name.get(name)
        return row if row is not None else self._internal.get(name) or self.find(name)

    def find(self, name: bytes) -> Command | None:
        """Return the row of a command in any letter case, or None."""
        row = self.by_name.get(name)
        return row if row is not None else self.by_name.get(bytes(name).upper())


def flags(words: str) -> frozenset[str]:
    """Return the flags of a row, written as one blank-separated string."""
    return frozenset(words.split())
