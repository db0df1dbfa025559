"""Is there an order of all operations that fits time and the sequential specification? The judge of every history.

Guarantees:
- `check` says "not linearizable" only when no order exists, and "linearizable" only when one does. When it gives up
  (CONFIGURATIONS_MAX) it says that, never one of the two.
- An operation of unknown outcome may have happened at any time after its call, or never.
Leaves to the caller: keeping histories short (one key, some hundred operations), and few unknown ones among them: the
problem is NP-complete.

How: operations on keys that no operation joins are independent (Herlihy and Wing: linearizability is local), so each
group of joined keys is judged alone. Its calls and returns are gone through in order of time with the set of all
configurations that are still possible: (values, which pending operations have taken effect). An operation takes effect
no earlier than some return demands it (just in time):

    call of X      X becomes pending.
    return of X    from each configuration where X has not happened yet, let pending operations happen in every order
                   that ends with X. Those that survive had X's answer. None survives: no order exists.

Three cuts keep the set small, and none loses an order:
A  A pending read whose answer fits happens at once: it changes nothing, and it never fits better later.
B  Of unknown operations that are alike (the same commands) the one called first happens first.
C  A configuration that has used more unknown operations than another with the same values allows nothing more: dropped.

Reference: Wing and Gong 1993; Lowe 2017 (just-in-time linearization); Horn and Kroening 2015 (locality).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from kvservice.simulation.history import Args, Operation
from kvservice.simulation.models import READS, STEPS, Value

CONFIGURATIONS_MAX: Final = 200_000
"""Configurations looked at for one return before a key is left undecided: about a second."""

Values = tuple[Value, ...]
"""Values of the keys of a group, in the order of the group."""
Configuration = tuple[Values, int]
"""Values, and a bit mask of the pending operations that have taken effect."""


class Violation(NamedTuple):
    """Keys whose operations have no order: the operation whose answer fits nowhere, and what could be there instead."""

    keys: tuple[bytes, ...]
    operation: Operation
    possible: tuple[Values, ...]
    before: tuple[Operation, ...]

    def __str__(self) -> str:
        keys = b", ".join(self.keys).decode("latin-1")
        values = " or ".join(str(list(values)) for values in self.possible[:5])
        earlier = "\n".join(f"    {operation}" for operation in self.before[-12:])
        return f"{keys} is not linearizable\n{earlier}\n  ! {self.operation}\n    possible values: {values}"


class Verdict(NamedTuple):
    """What `check` found. histories: groups of keys judged. undecided: keys that took too long."""

    histories: int
    operations: int
    violations: tuple[Violation, ...]
    undecided: tuple[bytes, ...]

    @property
    def is_linearizable(self) -> bool:
        """Whether no group of keys is known to have no order."""
        return not self.violations


class _Pending(NamedTuple):
    """An operation of a group: its commands with the place of their key among the values."""

    operation: Operation
    commands: tuple[tuple[int, Args], ...]
    bit: int
    is_read: bool


def check(operations: Iterable[Operation], configurations_max: int = CONFIGURATIONS_MAX) -> Verdict:
    """Judge a history. Raises KeyError for a command without a specification."""
    groups = _groups(operations)
    violations: list[Violation] = []
    undecided: list[bytes] = []
    count = 0
    for keys, members in groups:
        count += len(members)
        try:
            violation = _judge(keys, members, configurations_max)
        except _TooMany:
            undecided.append(keys[0])
            continue
        if violation is not None:
            violations.append(violation)
    return Verdict(len(groups), count, tuple(violations), tuple(undecided))


class _TooMany(Exception):  # noqa: N818 - says what is the case
    """More configurations than allowed."""


def _groups(operations: Iterable[Operation]) -> list[tuple[tuple[bytes, ...], list[Operation]]]:
    """Return the keys and operations of each group of keys that operations join, directly or by others."""
    parents: dict[bytes, bytes] = {}

    def root(key: bytes) -> bytes:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = key = parents.setdefault(parent, parent)
        return key

    listed = list(operations)
    for operation in listed:
        first = root(operation.commands[0][1])
        for args in operation.commands[1:]:
            parents[root(args[1])] = first
    members: dict[bytes, list[Operation]] = defaultdict(list)
    keys: dict[bytes, list[bytes]] = defaultdict(list)
    for key in list(parents):
        keys[root(key)].append(key)
    for operation in listed:
        members[root(operation.commands[0][1])].append(operation)
    return [(tuple(keys[top]), members[top]) for top in members]


def _events(members: list[Operation]) -> list[tuple[int, int, int]]:
    """Return (time, 0 call | 1 return, position in members) in order of time."""
    events = [(operation.called, 0, position) for position, operation in enumerate(members)]
    events += [(operation.returned, 1, at) for at, operation in enumerate(members) if operation.returned is not None]
    events.sort()
    return events


def _judge(keys: tuple[bytes, ...], members: list[Operation], configurations_max: int) -> Violation | None:
    places = {key: place for place, key in enumerate(keys)}
    configurations: list[Configuration] = [((None,) * len(keys), 0)]
    pending: dict[int, _Pending] = {}
    free_bits: list[int] = []
    unknown_bits = 0
    next_bit = 1
    for _, is_return, position in _events(members):
        operation = members[position]
        if not is_return:
            if free_bits:
                bit = free_bits.pop()
            else:
                bit, next_bit = next_bit, next_bit << 1
            if operation.answers is None:
                unknown_bits |= bit
            commands = tuple((places[args[1]], args) for args in operation.commands)
            is_read = all(args[0] in READS for args in operation.commands)
            pending[position] = _Pending(operation, commands, bit, is_read)
            continue
        returning = pending[position]
        survivors = _survivors(configurations, returning, pending, configurations_max)
        if not survivors:
            possible = tuple(dict.fromkeys(values for values, _ in configurations))
            before = tuple(sorted(_seen(members, operation), key=lambda one: one.returned or one.called))
            return Violation(keys, operation, possible, before)
        configurations = _without_dominated(survivors, unknown_bits)
        del pending[position]
        free_bits.append(returning.bit)
    return None


def _seen(members: list[Operation], operation: Operation) -> list[Operation]:
    """Return what was called before an operation returned."""
    assert operation.returned is not None
    return [one for one in members if one.called <= operation.returned and one is not operation]


def _survivors(
    configurations: list[Configuration], returning: _Pending, pending: dict[int, _Pending], configurations_max: int
) -> list[Configuration]:
    """Return the configurations in which an operation has happened, without its bit, as it is no longer pending."""
    bit = returning.bit
    survivors: dict[Configuration, None] = {}
    waiting = list(configurations)
    seen = set(waiting)
    others = [one for one in pending.values() if one is not returning]
    while waiting:
        values, happened = waiting.pop()
        if happened & bit:
            survivors[values, happened ^ bit] = None
            continue
        for following in _following(values, happened, returning, others):
            if following not in seen:
                if len(seen) >= configurations_max:
                    raise _TooMany
                seen.add(following)
                waiting.append(following)
    return list(survivors)


def _following(values: Values, happened: int, returning: _Pending, others: list[_Pending]) -> list[Configuration]:
    """Return the configurations after one more pending operation."""
    after = _happen(values, returning)
    following: list[Configuration] = [] if after is None else [(after, happened | returning.bit)]
    if following and returning.is_read:
        return following  # A
    tried: set[tuple[tuple[int, Args], ...]] = set()
    for one in others:
        if happened & one.bit:
            continue
        is_unknown = one.operation.answers is None
        if is_unknown:
            # B: the others stand in the order of their calls.
            if one.commands in tried:
                continue
            tried.add(one.commands)
        after = _happen(values, one)
        if after is None:
            continue
        if one.is_read and not is_unknown:
            return [(after, happened | one.bit)]  # A
        if not is_unknown or after != values:
            following.append((after, happened | one.bit))
    return following


def _happen(values: Values, pending: _Pending) -> Values | None:
    """Return the values after an operation; None when its answers would have been others."""
    answers = pending.operation.answers
    if len(values) == 1 and len(pending.commands) == 1:
        _, args = pending.commands[0]
        value, answer = STEPS[args[0]](values[0], args)
        return (value,) if answers is None or answers[0] == answer else None
    changed = list(values)
    for number, (place, args) in enumerate(pending.commands):
        changed[place], answer = STEPS[args[0]](changed[place], args)
        if answers is not None and answers[number] != answer:
            return None
    return tuple(changed)


def _without_dominated(configurations: list[Configuration], unknown_bits: int) -> list[Configuration]:
    """Drop configurations that have used up more unknown operations than another that is otherwise equal (C)."""
    if len(configurations) == 1 or not unknown_bits:
        return configurations
    alike: dict[tuple[Values, int], list[int]] = defaultdict(list)
    for values, happened in configurations:
        alike[values, happened & ~unknown_bits].append(happened & unknown_bits)
    kept: list[Configuration] = []
    for (values, known), masks in alike.items():
        masks.sort(key=int.bit_count)
        minimal: list[int] = []
        for mask in masks:
            if not any(smaller & mask == smaller for smaller in minimal):
                minimal.append(mask)
        kept += [(values, known | mask) for mask in minimal]
    return kept
