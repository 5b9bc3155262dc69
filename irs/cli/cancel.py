"""``irs cancel``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from irs.cli.options import AsJson
from irs.cli.outcome import answer, note


def cancel(
    id: Annotated[
        str, typer.Argument(metavar="JOB", help="Id of the job; JOB.NUMBER for one of its images.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Cancel a job: none of its images is begun any more, by no worker. Records that stand stay."""
    from irs.cli.service import find_cloud
    from irs.client import Client

    has_cancelled = Client(find_cloud().settings).cancel(id)
    if as_json:
        answer(json.dumps({"id": id, "cancelled": has_cancelled}))
    elif has_cancelled:
        answer(f"{id} is cancelled.")
    else:
        note(f"irs: {id} has all its records: nothing is left to cancel.")
