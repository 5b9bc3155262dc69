"""One run of ``irs bench service``: each model in full, then the asides; every row of the design's table, and one more.

Where a row is made: 1, 4, 5, 7 to 13, 15 in ``full.py``; 2, 3, 6, 14, 16, 17 in ``asides.py``. What each should reach is in
``bars.py``; the processes they start are ``bare.py``, ``plain.py``, ``agree.py``, ``litserve_app.py`` and a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irs.local.bench.asides import measure_asides
from irs.local.bench.full import full_rows, measure_full
from irs.local.bench.report import Row
from irs.local.bench.stage import Say, open_stage


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a run: its title, its rows, and all raw figures behind them."""

    title: str
    rows: list[Row]
    raw: dict[str, Any]


def run(
    models: Sequence[str],
    photos_dir: Path,
    *,
    images: int,
    repeats: int,
    say: Say,
    labelled: str | None = None,
    is_quick: bool = False,
) -> Iterator[Table]:
    """Yield a table for each model, minutes each, then one of the asides. One cloud serves them all.

    Args:
        labelled: a model with real weights whose labels are compared; None: the bundled one.
        is_quick: no asides.

    Raises:
        BadOptions: the folder holds no JPEG.
        SetupError: something of a model in full did not start.
    """
    with open_stage(photos_dir, images=images, say=say) as stage:
        pairs: dict[str, list[dict[str, Any]]] = {}
        for model in models:
            raw = measure_full(stage, model, repeats=repeats)
            pairs[model] = raw["pairs"]
            yield Table(f"{model}, {raw['pairs'][0]['bare_before']['precision']}", full_rows(model, raw), raw)
        if is_quick:
            return
        found = list(measure_asides(stage, models[0], pairs[models[0]], labelled=labelled))
        rows = sorted((row for aside in found for row in aside.rows), key=lambda row: row.number)
        yield Table("beside it", rows, {name: figures for aside in found for name, figures in aside.raw.items()})
