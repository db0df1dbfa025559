"""The ledger asks, takes note and judges."""

from __future__ import annotations

from random import Random

from kvservice.simulation.history import Answer
from kvservice.simulation.ledger import Asked, Ledger
from kvservice.simulation.models import STEPS, Value
from kvservice.simulation.rules import RuleBroken


class Memory:
    """A store that does what it is asked."""

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}

    def run(self, asked: Asked) -> list[Answer]:
        answers = []
        for args in asked.commands:
            self.values[args[1]], answer = STEPS[args[0]](self.values.get(args[1]), tuple(args))
            answers.append(answer)
        return answers


def settle(ledger: Ledger, memory: Memory) -> None:
    ledger.close_all()
    while (asked := ledger.last_read("r")) is not None:
        ledger.answered(asked, memory.run(asked))


def test_what_was_done_as_asked_is_judged_right() -> None:
    random = Random(1)
    ledger, memory = Ledger(random), Memory()
    acknowledged = 0
    for _ in range(2000):
        asked = ledger.next("c")
        chance = random.random()
        if chance < 0.05:
            ledger.not_applied(asked)
        elif chance < 0.1:
            if random.random() < 0.5:
                memory.run(asked)
            ledger.lost(asked)
        else:
            acknowledged += not asked.is_read
            ledger.answered(asked, memory.run(asked))
    assert ledger.judged == 0
    settle(ledger, memory)
    assert ledger.is_settled
    assert ledger.judged > 40
    assert ledger.acknowledged == acknowledged
    assert ledger.undecided == 0


def finds_a_write_that_vanished(after: int) -> bool:
    ledger, memory = Ledger(Random(1)), Memory()
    vanished = False
    for number in range(400):
        asked = ledger.next("c")
        before = dict(memory.values)
        answers = memory.run(asked)
        if number > after and not vanished and not asked.is_read:
            memory.values, vanished = before, True
        ledger.answered(asked, answers)
    try:
        settle(ledger, memory)
    except RuleBroken as broken:
        return broken.rule == "linearizability"
    return False


def test_a_write_that_vanished_is_found_unless_nobody_could_know() -> None:
    # About half of all writes are overwritten before anybody reads them.
    assert sum(finds_a_write_that_vanished(after) for after in range(100, 160)) > 20


def test_a_last_read_that_failed_is_asked_again() -> None:
    ledger, memory = Ledger(Random(1)), Memory()
    asked = ledger.next("c")
    ledger.answered(asked, memory.run(asked))
    ledger.close_all()
    for give_up in (ledger.not_applied, ledger.lost):
        last = ledger.last_read("r")
        assert last is not None
        assert ledger.last_read("r") is None
        give_up(last)
        assert not ledger.is_settled
    settle(ledger, memory)
    assert ledger.is_settled


def test_a_cell_waits_for_its_operations_before_its_last_read() -> None:
    ledger, memory = Ledger(Random(1)), Memory()
    asked = ledger.next("c")
    ledger.close_all()
    assert ledger.last_read("r") is None
    ledger.answered(asked, memory.run(asked))
    assert ledger.last_read("r") is not None


def test_who_only_reads_is_given_reads_of_whole_cells() -> None:
    ledger = Ledger(Random(2))
    for _ in range(200):
        asked = ledger.next("c", only_reads=True)
        assert asked.is_read
        assert [args[1] for args in asked.commands] == list(asked.cell.keys)
        ledger.answered(asked, [None] * len(asked.commands))
