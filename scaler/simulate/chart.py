"""Backlog and fleet over time, one row of panels for each policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from irs.errors import SetupError
from scaler.simulate.world import Outcome

ENDINGS = (".png", ".svg")


def check(path: Path) -> None:
    """Make sure, before minutes of simulation, that a chart may be called so and has a folder. Raises SetupError."""
    if path.suffix.lower() not in ENDINGS:
        raise SetupError(f"{path} must end in {' or '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise SetupError(f"{path} cannot be written: there is no folder {path.parent}.")


def draw(outcomes: Mapping[str, Outcome], path: Path, *, title: str) -> None:
    """Write a PNG or SVG of the runs, by the name's ending. Raises SetupError as :func:`check`, or when it cannot be written."""
    check(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.2 * len(outcomes) + 0.8), layout="constrained")
    figure.suptitle(title)
    rows = figure.subplots(len(outcomes), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (name, outcome) in zip(rows, outcomes.items(), strict=True):
        hours = [second / 3600 for second, *_ in outcome.timeline]
        panel.fill_between(hours, [row[1] for row in outcome.timeline], color="#c9d6e8", step="post", linewidth=0)
        panel.set_ylabel(f"{name}\nimages waiting")
        panel.set_ylim(bottom=0)
        fleet = panel.twinx()
        fleet.step(hours, [row[2] + row[3] for row in outcome.timeline], color="#d98324", linewidth=0.8, where="post")
        fleet.step(hours, [row[2] for row in outcome.timeline], color="#22577a", linewidth=0.9, where="post")
        fleet.set_ylabel("instances")
        fleet.set_ylim(bottom=0)
    rows[-1].set_xlabel("hours   (blue: ready, orange: with those that boot, area: images waiting or in work)")
    try:
        figure.savefig(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}.") from None
