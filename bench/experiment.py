"""A small measurement behind a decision: run, printed as tables, kept as JSON that docs/decisions.md is filled from.

Guarantees: the same frame for all, so that one renderer knows every result: {"tables": [{title, head, rows}]}, where
cells are texts or numbers. Nothing is asserted about times.
Leaves to the caller: measuring in less than a minute, and in a few seconds with ``quick``.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter_ns
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from bench.report import environment, significant, spelled, table, write

Cell = str | float | int | None
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
APART_SECONDS_MAX: Final = 300.0


class Table(NamedTuple):
    """Figures under a title; a cell that is None was not measured."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def as_json(self) -> dict[str, Any]:
        """Return the table for a result file."""
        return {
            "title": self.title,
            "head": list(self.head),
            "rows": [[significant(cell) if isinstance(cell, float) else cell for cell in row] for row in self.rows],
        }


def cell_text(cell: Cell) -> str:
    """Return a cell as people read it."""
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else spelled(cell)


def table_text(content: dict[str, Any]) -> str:
    """Return a table of a result file as Markdown."""
    rows = [[cell_text(cell) for cell in row] for row in content["rows"]]
    return f"{content['title']}:\n\n{table(content['head'], rows)}"


def run(name: str, measure: Callable[[bool], Sequence[Table]], arguments: Sequence[str] | None = None) -> None:
    """Read the command line (``--quick``), measure, print the tables, write the result."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; results stay apart")
    quick = parser.parse_args(arguments).quick
    machine = environment()
    tables = [each.as_json() for each in measure(quick)]
    path = write(name, {"environment": machine, "tables": tables}, quick=quick)
    print("\n\n".join(map(table_text, tables)))
    print(f"\nWritten: {path}")


def apart(act: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call a function of a module in a fresh process, so that it inherits neither memory nor garbage."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(act, *args, **kwargs).result(APART_SECONDS_MAX)


def ns_each(act: Callable[[], object], operations: int, repeats: int = 3) -> float:
    """Return the ns that one of ``operations`` takes when ``act`` does them all; the best of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        started = perf_counter_ns()
        act()
        best = min(best, (perf_counter_ns() - started) / operations)
    return best
