"""``irs bench``: the numbers of this service on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irs.cli.outcome import Code, note
from irs.cli.tables import show_table


def bench(
    photos: Annotated[Path, typer.Argument(help="A folder of JPEG photos.", exists=True, file_okay=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model directory or torchvision architecture, may be repeated; else resnet18 with random weights."),
    ] = None,
    images: Annotated[int, typer.Option(min=80, help="Images of one measurement.")] = 2000,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each model; the median counts.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.", show_default=False)] = None,
) -> None:
    """Measure service, bare loop and plain Celery on an embedded cloud in one run; minutes for each model.

    Ends with 1 if a number is below its floor.
    """
    import json

    from irs.cli.operate import require_worker_extra
    from irs.local.bench.report import to_json, to_lines
    from irs.local.bench.run import machine, run

    require_worker_extra("irs bench")
    on, found = machine(), {}
    is_below = False
    # Random weights are as quick as trained ones, and need no download.
    for name, rows, raw in run(model or ["resnet18@random"], photos, images=images, repeats=repeats, say=note):
        found[name] = to_json(rows, raw)
        head, *lines = to_lines(rows)
        note(f"{name}, {raw['pairs'][0]['bare_before']['precision']}, on {on['cpu']}, {on['cores']} cores")
        show_table(head, lines)
        is_below = is_below or any(row.verdict == "below the floor" for row in rows)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": on, "models": found}, indent=1) + "\n")
    if is_below:
        raise typer.Exit(Code.SOME_FAILED)
