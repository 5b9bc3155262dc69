"""``irs up``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from irs.cli.outcome import note


def up(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="Run it in the service's environment, then end.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="auto, a model directory, s3://bucket/name[/digest], imagenet200 or a torchvision architecture; else IRS_MODEL.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, max=64, help="How many workers run all the time; else the scaler decides.", show_default=False),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the embedded cloud's state; else IRS_HOME.", show_default=False)
    ] = None,
) -> None:
    """Run the whole service on this machine, until Ctrl-C or while COMMAND runs.

    Without IRS_ENDPOINT_URL an embedded cloud is started, and a scaler that starts workers when images come and ends
    them when none do; with it only what is missing there is made, and one worker runs. The model `auto`
    is torchvision's resnet18 where its weights are here or come within seconds, else the bundled one.
    """
    # The environment is how children, Celery's settings and COMMAND are told.
    if model is not None:
        os.environ["IRS_MODEL"] = model
    if home is not None:
        os.environ["IRS_HOME"] = str(home.absolute())
    from irs.local.processes import WorkerEnded
    from irs.local.up import up as bring_up

    try:
        raise typer.Exit(bring_up(workers=workers, command=command or (), say=note))
    except WorkerEnded as error:
        note(f"irs: {error}")
        raise typer.Exit(error.exit_code) from None
