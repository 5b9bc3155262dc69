"""The benchmark's numbers against what they should reach: a table for people, JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of the table.

    Attributes:
        number: the row of the design's table of numbers to reach.
        value: None where it could not be measured; then ``note`` says why.
        reach, floor: what is aimed at, and what fails the build; ``better`` says which way is better.
    """

    number: int
    name: str
    value: float | None
    unit: str
    reach: float
    floor: float
    better: Better
    note: str = ""

    @property
    def verdict(self) -> str:
        """``reached``, ``above the floor``, ``below the floor`` or ``not measured``."""
        if self.value is None:
            return "not measured"
        sign = 1 if self.better == "higher" else -1
        if sign * self.value >= sign * self.reach:
            return "reached"
        return "above the floor" if sign * self.value >= sign * self.floor else "below the floor"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the ordered values lie."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def to_json(rows: Sequence[Row], raw: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was measured of one model."""
    return {"rows": [{**asdict(row), "verdict": row.verdict} for row in rows], "raw": raw}


def to_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table's cells, head first."""
    lines = [["#", "number", "measured", "reach", "floor", "verdict"]]
    for row in rows:
        measured = row.note if row.value is None else f"{row.value:.3g} {row.unit}".strip()
        lines.append([str(row.number), row.name, measured, f"{row.reach:g}", f"{row.floor:g}", row.verdict])
    return lines
