"""``irs sync``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from irs.cli.options import AsJson
from irs.cli.outcome import Code, answer, note


def sync(
    folder: Annotated[
        Path, typer.Argument(help="Folder with pictures; those in folders of it are sent too.", show_default=False)
    ],
    prefix: Annotated[str, typer.Option(help="Folder under drop/ to put them in.", show_default=False)] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the pictures of a folder into the drop box, only those that are new; results/NAME.json appears for each.

    Ends with 1 if some file could not be sent.
    """
    from irs.cli.service import find_cloud
    from irs.drops import sync as send_new

    cloud = find_cloud()
    done = send_new(cloud, folder, prefix=prefix, dry_run=dry_run, on_sent=None if as_json else answer)
    for name, reason in done.refused.items():
        note(f"irs: {name}: {reason}")
    if as_json:
        answer(json.dumps(asdict(done)))
    else:
        place = f"s3://{cloud.settings.output_bucket}/results/"
        would = "would be sent" if dry_run else "sent"
        note(f"irs: {len(done.sent)} {would}, {len(done.known)} were there; results come under {place}")
    raise typer.Exit(Code.SOME_FAILED if done.refused else Code.OK)
