"""One figure of both servers, or of one: the values of all rounds, their medians, the ratio, the target.

Guarantees: a median is that of values which were measured in alternation with those of the other side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.report import median, significant, spelled, table
from bench.servers import Side

Better = Literal["higher", "lower"]


@dataclass
class Comparison:
    """A figure of both servers. ``target`` bounds the ratio of Redan to Redis, ``limit`` the figure of Redan itself."""

    section: str
    name: str
    unit: str
    better: Better
    target: float | None = None
    limit: float | None = None
    note: str = ""
    values: dict[Side, list[float]] = field(default_factory=lambda: {"redis": [], "redan": []})

    def add(self, side: Side, value: float) -> None:
        """Add the value of one round."""
        self.values[side].append(significant(value, 6))

    @property
    def medians(self) -> dict[Side, float]:
        """Return the medians of the sides that have values."""
        return {side: median(values) for side, values in self.values.items() if values}

    @property
    def ratio(self) -> float | None:
        """Return Redan's median divided by Redis's, or None if there are not both."""
        medians = self.medians
        if "redan" not in medians or not medians.get("redis"):
            return None
        return significant(medians["redan"] / medians["redis"], 3)

    @property
    def met(self) -> bool | None:
        """Tell whether the target is met; None without a target or without the figures."""
        if self.limit is not None:
            ours = self.medians.get("redan")
            return None if ours is None else _holds(ours, self.limit, self.better)
        if self.target is None or self.ratio is None:
            return None
        return _holds(self.ratio, self.target, self.better)

    def as_json(self) -> dict[str, Any]:
        """Return everything, for a result file."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "better": self.better,
            "redis": {"median": self.medians.get("redis"), "values": self.values["redis"]},
            "redan": {"median": self.medians.get("redan"), "values": self.values["redan"]},
            "ratio": self.ratio,
            "target": self.target,
            "limit": self.limit,
            "met": self.met,
            "note": self.note,
        }


class Figures:
    """The comparisons of a run, made when first asked for, kept in that order."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str, str], Comparison] = {}

    def add(
        self,
        side: Side,
        value: float,
        *,
        section: str,
        name: str,
        unit: str,
        better: Better = "lower",
        target: float | None = None,
        limit: float | None = None,
        note: str = "",
    ) -> None:
        """Add the value of one round to the figure of that name."""
        key = (section, name, unit)
        if key not in self._by_name:
            self._by_name[key] = Comparison(section, name, unit, better, target, limit, note)
        self._by_name[key].add(side, value)

    def as_json(self) -> list[dict[str, Any]]:
        """Return all figures."""
        return [figure.as_json() for figure in self._by_name.values()]


def figure_table(figures: Iterable[dict[str, Any]]) -> str:
    """Return figures, as they stand in a result file, as a table."""
    rows = [
        [
            f"{figure['name']}, {figure['unit']}",
            _spelled(figure["redis"]["median"]),
            _spelled(figure["redan"]["median"]),
            _spelled(figure["ratio"]),
            _target(figure),
            {True: "met", False: "missed", None: ""}[figure["met"]],
        ]
        for figure in figures
    ]
    return table(["Figure", "Redis", "Redan", "Ratio", "Target", ""], rows)


def _holds(value: float, bound: float, better: Better) -> bool:
    return value >= bound if better == "higher" else value <= bound


def _spelled(value: float | None) -> str:
    return "–" if value is None else spelled(value)


def _target(figure: dict[str, Any]) -> str:
    sign = "≥" if figure["better"] == "higher" else "≤"
    if figure["limit"] is not None:
        return f"{sign} {figure['limit']:g} {figure['unit']}"
    return "" if figure["target"] is None else f"{sign} {figure['target']:g}"
