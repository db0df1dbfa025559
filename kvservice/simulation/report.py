"""One simulated run from its seed, and what is printed about it: a line, and for a failure all that replays it.

Guarantees: whatever ends a run, a broken rule or any other exception, becomes a `Failure` with the newest events of the
run; speed counts processor time, so what else the machine does does not change it.
Leaves to the caller: printing, and the exit code (kvservice/cli_simulate).
"""

from __future__ import annotations

from time import process_time
from traceback import format_exception
from typing import Final, NamedTuple

from kvservice.simulation.faults import FAULTS
from kvservice.simulation.garbage import collecting_rarely
from kvservice.simulation.rules import RuleBroken
from kvservice.simulation.world import ANY, SECOND_US, Conditions, World

HOUR_SECONDS: Final = 3600


class Failure(NamedTuple):
    """What ended a run early. at_seconds: of virtual time. detail: a traceback unless a rule was broken."""

    at_seconds: float
    reason: str
    detail: str
    events: tuple[str, ...]


class Report(NamedTuple):
    """What a run has done. faults: how many of each kind. acknowledged: writes in histories that were judged."""

    seed: int
    nodes: int
    virtual_seconds: float
    processor_seconds: float
    faults: dict[str, int]
    acknowledged: int
    histories: int
    undecided: int
    convergences: int
    entries_applied: int
    states_compared: int
    failure: Failure | None

    @property
    def speed(self) -> float:
        """Virtual seconds for each second of one processor core."""
        return self.virtual_seconds / max(self.processor_seconds, 1e-9)

    def line(self) -> str:
        """Return the report as one line."""
        faults = ", ".join(f"{kind} {count}" for kind, count in self.faults.items()) or "none"
        undecided = f" ({self.undecided} undecided)" if self.undecided else ""
        return (
            f"seed {self.seed}: {'ok' if self.failure is None else 'FAILED'}; "
            f"{self.virtual_seconds / HOUR_SECONDS:.2f} virtual hours of {_counted(self.nodes, 'node')}; "
            f"faults {sum(self.faults.values()):,}: {faults}; "
            f"acknowledged writes checked {self.acknowledged:,}; histories {self.histories:,}{undecided}; "
            f"states compared {self.states_compared:,}; converged {_counted(self.convergences, 'time')}; "
            f"speed {self.speed:,.0f} x real time"
        )


def simulate(seed: int, virtual_seconds: float, conditions: Conditions = ANY) -> Report:
    """Run a seed for so much virtual time, to the end of a cycle of phases."""
    started = process_time()
    world = World(seed, conditions)
    failure: Failure | None = None
    try:
        with collecting_rarely():
            world.run(virtual_seconds)
    except RuleBroken as broken:
        failure = _failure(world, str(broken), "")
    except Exception as error:
        detail = "".join(format_exception(error))
        failure = _failure(world, f"{type(error).__name__}: {error}", detail)
    ledger = world.ledger
    return Report(
        seed=seed,
        nodes=len(world.founders),
        virtual_seconds=world.clock.now_us / SECOND_US,
        processor_seconds=process_time() - started,
        faults={kind: world.counts[kind] for kind in FAULTS if world.counts[kind]},
        acknowledged=ledger.acknowledged,
        histories=ledger.judged,
        undecided=ledger.undecided,
        convergences=world.counts["convergences"],
        entries_applied=world.rules.entries_applied,
        states_compared=world.rules.states_compared,
        failure=failure,
    )


def _failure(world: World, reason: str, detail: str) -> Failure:
    return Failure(world.clock.now_us / SECOND_US, reason, detail, tuple(world.events()))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def total_line(reports: list[Report]) -> str:
    """Return the sums of several runs as one line."""
    virtual = sum(report.virtual_seconds for report in reports)
    processor = sum(report.processor_seconds for report in reports)
    failed = sum(report.failure is not None for report in reports)
    return (
        f"total: {_counted(len(reports), 'run')}, {failed} failed; {virtual / HOUR_SECONDS:.2f} virtual hours; "
        f"faults {sum(sum(report.faults.values()) for report in reports):,}; "
        f"acknowledged writes checked {sum(report.acknowledged for report in reports):,}; "
        f"histories {sum(report.histories for report in reports):,}; "
        f"speed {virtual / max(processor, 1e-9):,.0f} x real time"
    )
