"""``irs bench service|model|start``: the numbers of this service, of its models and its start on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from irs.cli.outcome import Code, note
from irs.cli.tables import show_table

app = typer.Typer(help="Measure the service or its models on this machine.", no_args_is_help=True)
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.", show_default=False)]


@app.command("service")
def service(
    photos: Annotated[Path, typer.Argument(help="A folder of JPEG photos.", exists=True, file_okay=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model directory or torchvision architecture, may be repeated; else resnet18 with random weights."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Model with real weights whose labels are compared; else the bundled one.", show_default=False),
    ] = None,
    images: Annotated[int, typer.Option(min=80, help="Images of one measurement.")] = 2000,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each model; the median counts.")] = 3,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="The named models alone: no float32, no quick models, no labels, no LitServe, no bundled model."
        ),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Measure service, bare loop and plain Celery on an embedded cloud in one run; minutes for each model.

    Ends with 1 if a number is below its floor.
    """
    from irs.cli.operate import require_worker_extra
    from irs.local.bench.report import to_json, to_lines
    from irs.local.bench.run import run
    from irs.local.bench.stage import machine

    require_worker_extra("irs bench service")
    on, found = machine(), {}
    is_below = False
    # Random weights are as quick as trained ones, and need no download.
    names = model or ["resnet18@random"]
    for table in run(names, photos, images=images, repeats=repeats, say=note, labelled=labels, is_quick=quick):
        found[table.title] = to_json(table.rows, table.raw)
        head, *lines = to_lines(table.rows)
        note(f"{table.title}, on {on['cpu']}, {on['cores']} cores")
        show_table(head, lines)
        is_below = is_below or any(row.verdict == "below the floor" for row in table.rows)
        # Each time: what was measured stands, whatever becomes of the rest.
        _write(json_file, {"machine": on, "tables": found})
    if is_below:
        raise typer.Exit(Code.SOME_FAILED)


@app.command("model")
def model(
    names: Annotated[
        list[str] | None, typer.Argument(help="Model directories or torchvision architectures.", show_default=False)
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="The architectures of docs/models.md with random weights, and the bundled model.")
    ] = False,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="A folder of JPEG photos to compare labels over; else speed alone.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of one measurement; each model has up to twelve.")] = 1.0,
    json_file: JsonFile = None,
) -> None:
    """Measure models alone in eager float32 and as graphs; `irs models list` shows the quickest."""
    from irs.cli.operate import require_worker_extra
    from irs.errors import BadOptions
    from irs.local.bench.models import HEAD, all_models, bench_models, to_cells
    from irs.local.bench.stage import machine
    from irs.settings import get_settings

    require_worker_extra("irs bench model")
    wanted = [*(all_models() if every else []), *(names or [])]
    if not wanted:
        raise BadOptions("no model is named: name some, or say --all")
    on = machine()
    found: list[dict[str, Any]] = []
    cells: list[list[str]] = []
    for figures in bench_models(wanted, photos=photos, seconds=seconds, home=get_settings().home):
        note(f"{figures['model']} is measured, {len(found) + 1} of {len(wanted)}")
        found.append(figures)
        cells += to_cells(figures)
        _write(json_file, {"machine": on, "models": found})
    note(f"On {on['cpu']}, {on['cores']} cores")
    show_table(HEAD, cells)


@app.command("start")
def start(
    photos: Annotated[Path, typer.Argument(help="A folder of JPEG photos; one is handed in.", exists=True, file_okay=False)],
    model: Annotated[str, typer.Option(help="Model directory or torchvision architecture.")] = "resnet18@random",
    repeats: Annotated[int, typer.Option(min=1, help="Starts; the median of each stage counts.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """Measure, stage by stage, how long the first photo waits for its answer while no worker runs."""
    from irs.cli.operate import require_worker_extra
    from irs.local.bench.report import median
    from irs.local.bench.stage import machine, open_stage
    from irs.local.bench.start import STAGES, measure_starts

    require_worker_extra("irs bench start")
    on = machine()
    with open_stage(photos, images=1, say=note) as stage:
        found = list(measure_starts(stage, model, repeats=repeats))
    note(f"{model}, {repeats} starts, on {on['cpu']}, {on['cores']} cores")
    rows = [(title, f"{median([one[name] for one in found]):.2f} s") for title, name in (*STAGES, ("all", "total"))]
    show_table(("stage", "median"), rows)
    _write(json_file, {"machine": on, "model": model, "starts": found})


def _write(file: Path | None, figures: dict[str, Any]) -> None:
    import json

    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n")
