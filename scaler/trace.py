"""A trace: how many images came in which second."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from irs.errors import SetupError

TITLES = ("second", "arrivals")
#: A trace ends with the full hour that holds its last image.
HOUR_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Arrivals in order: ``arrivals[i]`` images come at ``seconds[i]``; the load is over at ``horizon_s``."""

    name: str
    seconds: tuple[int, ...]
    arrivals: tuple[int, ...]
    horizon_s: float

    @property
    def images(self) -> int:
        """All images of the trace."""
        return sum(self.arrivals)


def make_trace(name: str, counts: dict[int, int], *, horizon_s: float | None = None) -> Trace:
    """Return the trace of ``counts`` images by second; it ends at the next full hour unless a horizon is given."""
    seconds = tuple(sorted(second for second, count in counts.items() if count))
    last = seconds[-1] if seconds else 0
    return Trace(
        name=name,
        seconds=seconds,
        arrivals=tuple(counts[second] for second in seconds),
        horizon_s=HOUR_S * math.ceil((last + 1) / HOUR_S) if horizon_s is None else horizon_s,
    )


def read_trace(path: Path) -> Trace:
    """Return the trace of a CSV file with the columns ``second,arrivals``; seconds without arrivals may be left out.

    Raises:
        SetupError: the file is not there or holds something else; says which line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            if tuple(cell.strip() for cell in next(rows, [])) != TITLES:
                raise SetupError(f"{path} is no trace: its first line must be `{','.join(TITLES)}`.")
            counts: dict[int, int] = {}
            for row in filter(None, rows):
                second, arrivals = _numbers(path, rows.line_num, row)
                counts[second] = counts.get(second, 0) + arrivals
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise SetupError(f"{path} cannot be read as a trace: {said}.") from None
    return make_trace(path.stem, counts)


def write_trace(counts: dict[int, int]) -> str:
    """Return the CSV text that :func:`read_trace` reads."""
    lines = [",".join(TITLES), *(f"{second},{counts[second]}" for second in sorted(counts) if counts[second])]
    return "\n".join(lines) + "\n"


def _numbers(path: Path, line: int, row: list[str]) -> tuple[int, int]:
    try:
        second, arrivals = (int(cell) for cell in row)
    except ValueError:
        raise SetupError(
            f"{path}, line {line}: `{','.join(row)}` are not two whole numbers, a second and its arrivals."
        ) from None
    if second < 0 or arrivals < 0:
        raise SetupError(f"{path}, line {line}: a second and its arrivals must not be below 0.")
    return second, arrivals
