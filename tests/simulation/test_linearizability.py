"""The checker against histories known good and known bad, and against a naive second checker."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from kvservice.simulation.history import Answer, History, Operation, decode_operations, encode_operation
from kvservice.simulation.linearizability import check
from kvservice.simulation.models import STEPS, Value

UNKNOWN = "?"


def history(text: str) -> list[Operation]:
    """Read operations: one a line, ``client called returned|? COMMAND [; COMMAND] [-> answer [; answer]]``."""
    operations = []
    for line in filter(None, map(str.strip, text.splitlines())):
        left, _, right = line.partition("->")
        client, called, returned, rest = left.split(maxsplit=3)
        commands = tuple(tuple(word.encode() for word in part.split()) for part in rest.split(";"))
        answers = None if returned == UNKNOWN else tuple(answer(part.strip()) for part in right.split(";"))
        operations.append(
            Operation(client, int(called), None if returned == UNKNOWN else int(returned), commands, answers)
        )
    return operations


def answer(text: str) -> Answer:
    if text == "nil":
        return None
    return int(text[1:]) if text.startswith(":") else text.encode()


GOOD = {
    "nothing happened": "",
    "a read of a key that nobody wrote": "a 1 2 GET k -> nil",
    "a read after a write": "a 1 2 SET k 1 -> OK\n b 3 4 GET k -> 1",
    "a read while a write runs sees the old value": "a 1 5 SET k 1 -> OK\n b 2 3 GET k -> nil",
    "a read while a write runs sees the new value": "a 1 5 SET k 1 -> OK\n b 2 3 GET k -> 1",
    "reads while a write runs change once": """
        a 1 9 SET k 1 -> OK
        b 2 3 GET k -> nil
        b 4 5 GET k -> 1
        c 6 7 GET k -> 1""",
    "two writes at a time end in either order": "a 1 5 SET k 1 -> OK\n b 2 6 SET k 2 -> OK\n c 7 8 GET k -> 1",
    "two writes at a time end in the other order": "a 1 5 SET k 1 -> OK\n b 2 6 SET k 2 -> OK\n c 7 8 GET k -> 2",
    "an unknown write that happened": "a 1 ? SET k 1\n b 3 4 GET k -> 1",
    "an unknown write that did not happen": "a 1 ? SET k 1\n b 3 4 GET k -> nil",
    "an unknown write that happened late": """
        a 1 ? SET k 1
        b 2 3 GET k -> nil
        b 100 101 GET k -> 1""",
    "an unknown write that happened after another": """
        a 1 ? SET k 1
        b 2 3 SET k 2 -> OK
        b 4 5 GET k -> 2
        b 6 7 GET k -> 1""",
    "increments": "a 1 2 INCR k -> :1\n b 3 4 INCR k -> :2\n a 5 6 GET k -> 2",
    "increments at a time": "a 1 5 INCR k -> :2\n b 2 6 INCR k -> :1\n c 3 4 INCR k -> :3",
    "an unknown increment that happened": "a 1 ? INCR k\n b 2 3 INCR k -> :2",
    "an unknown increment that did not": "a 1 ? INCR k\n b 2 3 INCR k -> :1",
    "of three unknown increments two happened": """
        a 1 ? INCR k
        b 1 ? INCR k
        c 1 ? INCR k
        d 2 3 GET k -> 2
        d 4 5 GET k -> 2""",
    "appends in the order that the value shows": """
        a 1 9 APPEND k a -> :1
        b 1 9 APPEND k b -> :3
        c 1 9 APPEND k c -> :2
        d 10 11 GET k -> acb""",
    "an unknown append between two": "a 1 2 APPEND k a -> :1\n b 3 ? APPEND k b\n a 4 5 APPEND k c -> :3",
    "a key comes back after its end": """
        a 1 2 SET k 1 -> OK
        a 3 4 DEL k -> :1
        a 5 6 GET k -> nil
        a 7 8 INCR k -> :1""",
    "one of two at a time takes a lock": "a 1 5 SETNX k a -> :0\n b 2 6 SETNX k b -> :1\n c 7 8 GET k -> b",
    "exchanges form a chain": "a 1 9 GETSET k 1 -> 2\n b 1 9 GETSET k 2 -> nil\n c 10 11 GETDEL k -> 1",
    "keys are independent": "a 1 9 SET k 1 -> OK\n b 2 3 GET k -> 1\n b 4 5 GET m -> nil\n a 10 11 SET m 1 -> OK",
    "a transaction is seen whole": """
        a 1 9 SET k 1; SET m 1 -> OK; OK
        b 2 3 GET k; GET m -> nil; nil
        b 4 5 GET k; GET m -> 1; 1""",
    "an unknown transaction happened whole": "a 1 ? SET k 1; SET m 1\n b 2 3 GET k -> 1\n b 4 5 GET m -> 1",
    "a write of the present value may have come first": """
        a 1 2 SET k v -> OK
        a 3 9 SET k v -> OK
        b 4 8 SET k w -> OK
        c 10 11 GET k -> w""",
    "a write of the present value may have come last": """
        a 1 2 SET k v -> OK
        a 3 9 SET k v -> OK
        b 4 8 SET k w -> OK
        c 10 11 GET k -> v""",
    "an increment of a word is refused": "a 1 2 SET k word -> OK\n a 3 4 INCR k -> ERR\n a 5 6 GET k -> word",
    "a call at the moment of a return may come before it": "a 1 2 SET k 1 -> OK\n b 2 3 GET k -> nil",
}

BAD = {
    "a stale read": "a 1 2 SET k 1 -> OK\n a 3 4 SET k 2 -> OK\n b 5 6 GET k -> 1",
    "an empty read": "a 1 2 SET k 1 -> OK\n b 3 4 GET k -> nil",
    "a read of the future": "b 1 2 GET k -> 1\n a 3 4 SET k 1 -> OK",
    "a read of nothing that was ever written": "a 1 2 SET k 1 -> OK\n b 3 4 GET k -> 7",
    "a lost update": "a 1 2 INCR k -> :1\n b 3 4 INCR k -> :1",
    "an update lost at a time": "a 1 5 INCR k -> :1\n b 2 6 INCR k -> :1",
    "an acknowledged write that vanished": "a 1 2 SET k 1 -> OK\n b 3 4 GET k -> 1\n b 5 6 GET k -> nil",
    "reads that go back while a write runs": "a 1 9 SET k 1 -> OK\n b 2 3 GET k -> 1\n c 4 5 GET k -> nil",
    "a refused write that was applied": "b 1 2 GET k -> 1",
    "an unknown write that happened and unhappened": """
        a 1 2 SET k 0 -> OK
        a 3 ? SET k 1
        b 4 5 GET k -> 1
        b 6 7 GET k -> 0""",
    "an unknown write that happened twice": """
        a 1 ? SET k 1
        b 2 3 GET k -> 1
        b 4 5 SET k 2 -> OK
        b 6 7 GET k -> 2
        b 8 9 GET k -> 1""",
    "an unknown write before its call": "b 1 2 GET k -> 1\n a 3 ? SET k 1",
    "an unknown increment that happened twice": "a 1 ? INCR k\n b 2 3 GET k -> 2",
    "an unknown increment that both did and did not": "a 1 ? INCR k\n b 2 3 INCR k -> :2\n b 4 5 GET k -> 1",
    "a write that ran twice": "a 1 2 APPEND k a -> :1\n b 3 4 GET k -> aa",
    "appends out of order": "a 1 2 APPEND k a -> :1\n b 3 4 APPEND k b -> :2\n c 5 6 GET k -> ba",
    "a reply of another client": "a 1 2 SET k 1 -> OK\n a 3 4 SET m 2 -> OK\n b 5 6 GET k -> 2",
    "two holders of one lock": "a 1 5 SETNX k a -> :1\n b 2 6 SETNX k b -> :1",
    "a deleted key that comes back": "a 1 2 SET k 1 -> OK\n a 3 4 DEL k -> :1\n b 5 6 GET k -> 1",
    "a transaction seen in part": "a 1 9 SET k 1; SET m 1 -> OK; OK\n b 2 3 GET k; GET m -> 1; nil",
    "an unknown transaction that happened in part": """
        a 1 ? SET k 1; SET m 1
        b 2 3 GET k -> 1
        b 4 5 GET m -> nil""",
    "two values for readers of one moment": """
        a 1 2 SET k 1 -> OK
        b 3 9 SET k 2 -> OK
        c 10 11 GET k -> 2
        d 10 11 GET k -> 1""",
    "writes in two orders": """
        a 1 9 SET k 1 -> OK
        b 1 9 SET k 2 -> OK
        c 2 3 GET k -> 1
        c 4 5 GET k -> 2
        d 6 7 GET k -> 1""",
    "an exchange that saw what was never there": "a 1 9 GETSET k 1 -> 2\n b 1 9 GETSET k 2 -> 1",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_has_an_order_is_accepted(name: str) -> None:
    verdict = check(history(GOOD[name]))
    assert verdict.violations == ()
    assert verdict.undecided == ()


@pytest.mark.parametrize("name", BAD)
def test_a_history_without_an_order_is_refused(name: str) -> None:
    verdict = check(history(BAD[name]))
    assert len(verdict.violations) == 1
    assert verdict.undecided == ()


def test_enough_histories_are_known_good_and_known_bad() -> None:
    assert len(GOOD) + len(BAD) >= 50


def test_a_violation_names_the_operation_that_fits_nowhere() -> None:
    (violation,) = check(history(BAD["a stale read"])).violations
    assert violation.operation.client == "b"
    assert violation.possible == ((b"2",),)
    assert "GET k -> b'1'" in str(violation)


def has_order(operations: list[Operation]) -> bool:
    """Try every order of every subset that leaves out only unknown operations."""
    known = [operation for operation in operations if operation.answers is not None]
    unknown = [operation for operation in operations if operation.answers is None]
    for mask in range(1 << len(unknown)):
        chosen = known + [operation for bit, operation in enumerate(unknown) if mask >> bit & 1]
        if any(fits(order) for order in permutations(chosen)):
            return True
    return False


def fits(order: tuple[Operation, ...]) -> bool:
    values: dict[bytes, Value] = {}
    latest_call = 0
    for operation in order:
        if operation.returned is not None and operation.returned < latest_call:
            return False
        latest_call = max(latest_call, operation.called)
        for number, args in enumerate(operation.commands):
            values[args[1]], found = STEPS[args[0]](values.get(args[1]), args)
            if operation.answers is not None and operation.answers[number] != found:
                return False
    return True


def random_operation(random: Random, number: int, moment: int) -> Operation:
    commands: list[tuple[bytes, ...]] = []
    answers: list[Answer] = []
    for _ in range(random.choice((1, 1, 1, 2))):
        key = random.choice((b"k", b"k", b"m"))
        name = random.choice((b"GET", b"SET", b"INCR", b"DEL", b"SETNX"))
        if name in (b"SET", b"SETNX"):
            commands.append((name, key, b"%d" % random.randrange(3)))
            answers.append(b"OK" if name == b"SET" else random.randrange(2))
        else:
            commands.append((name, key))
            choices: tuple[Answer, ...] = (None, b"0", b"1", b"2") if name == b"GET" else (0, 1, 2)
            answers.append(random.choice(choices))
    if random.random() < 0.2:
        return Operation(f"c{number}", moment, None, tuple(commands), None)
    return Operation(f"c{number}", moment, moment + random.randrange(1, 6), tuple(commands), tuple(answers))


def test_it_agrees_with_trying_every_order() -> None:
    random = Random(7)
    found = {True: 0, False: 0}
    for _ in range(3000):
        moment = 0
        operations = []
        for number in range(random.randrange(2, 6)):
            moment += random.randrange(1, 4)
            operations.append(random_operation(random, number, moment))
        expected = has_order(operations)
        found[expected] += 1
        assert check(operations).is_linearizable == expected, "\n".join(map(str, operations))
    assert min(found.values()) > 100, found


def test_it_gives_up_instead_of_answering_wrongly() -> None:
    operations = [Operation(f"c{n}", 1, None, ((b"APPEND", b"k", b"%d" % n),), None) for n in range(9)]
    operations.append(Operation("r", 2, 3, ((b"GET", b"k"),), (b"no such value",)))
    verdict = check(operations, configurations_max=1000)
    assert verdict.undecided == (b"k",)
    assert verdict.violations == ()


def test_many_unknown_increments_cost_little() -> None:
    operations = [Operation(f"c{n}", n, None, ((b"INCR", b"k"),), None) for n in range(1, 200)]
    operations.append(Operation("r", 300, 301, ((b"GET", b"k"),), (b"150",)))
    assert check(operations, configurations_max=1000).undecided == ()
    assert check(operations).is_linearizable


def test_a_history_keeps_what_is_unknown_and_drops_what_was_not_applied() -> None:
    record = History()
    first = record.called("a", [(b"SET", b"k", b"1")], 1)
    second = record.called("b", [(b"SET", b"k", b"2")], 2)
    third = record.called("c", [(b"GET", b"k")], 3)
    record.called("d", [(b"GET", b"k")], 4)
    record.not_applied(second)
    record.unknown(first)
    record.answered(third, [b"1"], 5)
    operations = record.operations()
    assert [operation.client for operation in operations] == ["a", "c", "d"]
    assert [operation.returned for operation in operations] == [None, 5, None]
    assert check(operations).is_linearizable


def test_operations_survive_being_written_as_lines() -> None:
    operations = [
        Operation("a", 1, None, ((b"SET", b"k\xff", b"\x00"),), None),
        Operation("b", 2, 3, ((b"GET", b"k\xff"), (b"INCR", b"n"), (b"GET", b"m")), (b"\x00", 1, None)),
    ]
    assert list(decode_operations(map(encode_operation, operations))) == operations
