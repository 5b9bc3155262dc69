"""Options that several commands have alike."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
InstanceType = Annotated[
    str, typer.Option("--type", help="Instance type of the workers, priced on demand by the table.", show_default=False)
]
PricePerHour = Annotated[
    float | None,
    typer.Option(min=0, help="Dollars for one hour of one worker; else IRS_PRICE_PER_HOUR.", show_default=False),
]
