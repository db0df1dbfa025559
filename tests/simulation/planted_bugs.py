"""Bugs that are planted to see whether the simulator finds them, as a table: each a context in which one is there.

Guarantees: they patch classes of the shipped code while a context is open, and are part of the tests only: nothing in
the program can switch one on.
Leaves to the caller: running simulations (`catch`), and what counts as quick enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from time import process_time
from types import ModuleType
from typing import Final, NamedTuple

from kvservice.simulation.report import Failure, simulate
from tests.simulation import planted_around_core, planted_in_elections, planted_in_replication

Plant = Callable[[], AbstractContextManager[None]]


def _plants(module: ModuleType) -> dict[str, Plant]:
    return {
        name.replace("_", " "): plant
        for name, plant in vars(module).items()
        if not name.startswith("_") and hasattr(plant, "__wrapped__") and plant.__module__ == module.__name__
    }


PLANTED_BUGS: Final[dict[str, Plant]] = (
    _plants(planted_in_elections) | _plants(planted_in_replication) | _plants(planted_around_core)
)


class Catch(NamedTuple):
    """How a planted bug was found; or not: failure is None."""

    name: str
    runs: int
    seed: int
    virtual_seconds: float
    processor_seconds: float
    failure: Failure | None


def catch(name: str, seeds: Iterable[int], virtual_seconds: float) -> Catch:
    """Run seeds with a bug until one fails."""
    runs = seed = 0
    virtual = 0.0
    started = process_time()
    failure: Failure | None = None
    with PLANTED_BUGS[name]():
        for seed in seeds:
            report = simulate(seed, virtual_seconds)
            runs += 1
            virtual += report.virtual_seconds
            failure = report.failure
            if failure is not None:
                break
    return Catch(name, runs, seed, virtual, process_time() - started, failure)
