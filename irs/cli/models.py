"""``irs models list|show``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.outcome import answer
from irs.cli.tables import show_table

if TYPE_CHECKING:
    from irs.models import Entry

app = typer.Typer(help="The models a worker can use.", no_args_is_help=True)


@app.command("list")
def list_(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders that hold model directories; else `models` under IRS_HOME.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each model.")] = False,
) -> None:
    """List model directories, then torchvision's architectures; nothing is downloaded."""
    from irs.settings import get_settings

    _require_torch()
    from irs.models import list_models

    for entry in (entries := list_models(folders or [get_settings().home / "models"])):
        if as_json:
            answer(json.dumps(dataclasses.asdict(entry), ensure_ascii=False))
    if not as_json:
        show_table(
            ("model", "classes", "size", "accuracy", "license", "where"),
            [
                (one.name, one.classes or None, _size(one), _share(one), one.license, one.problem or one.path or "to download")
                for one in entries
            ],
        )


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Model directory or torchvision architecture.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show one model, its digest with it; checks its files, and may download torchvision's weights."""
    _require_torch()
    from irs.models import show_model

    entry = show_model(model)
    if as_json:
        answer(json.dumps(dataclasses.asdict(entry), ensure_ascii=False))
        return
    facts = {**dataclasses.asdict(entry), "size_bytes": _size(entry), "accuracy": _share(entry)}
    show_table(("fact", "value"), [(name.removesuffix("_bytes"), fact) for name, fact in facts.items() if fact is not None])


def _size(entry: Entry) -> str | None:
    return f"{entry.size_bytes / 2**20:.1f} MiB" if entry.size_bytes else None


def _share(entry: Entry) -> str | None:
    return f"{entry.accuracy:.1%}" if entry.accuracy is not None else None


def _require_torch() -> None:
    from irs.cli.operate import require_worker_extra

    require_worker_extra("irs models")
