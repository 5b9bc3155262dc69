"""``irs models list|show``; what moves models is in :mod:`irs.cli.share`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli import share
from irs.cli.outcome import answer, note
from irs.cli.tables import show_table

if TYPE_CHECKING:
    from irs.models.catalog import Entry
    from irs.models.speeds import Speed

app = typer.Typer(help="The models a worker can use.", no_args_is_help=True)
app.command("push")(share.push)
app.command("pull")(share.pull)
app.command("roll")(share.roll)

#: Of the bucket, when it was not asked for: nobody waits long for what may not be there.
_LOOK_SECONDS = 3.0


@app.command("list")
def list_(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders that hold model directories; else `models` under IRS_HOME.", show_default=False),
    ] = None,
    bucket: Annotated[
        bool | None,
        typer.Option(
            "--bucket/--no-bucket",
            help="The models bucket alone, or all but it; else all, the bucket where a service is set or runs.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each model.")] = False,
) -> None:
    """List the models bundled, local, cached and in the bucket, then torchvision's; nothing is downloaded."""
    from irs.cli.service import join_running_up

    if bucket is not False:
        join_running_up()
    from irs.settings import get_settings

    _require_torch()
    from irs.models.catalog import list_models
    from irs.models.shared import cache_folder
    from irs.models.speeds import read_speeds

    home = get_settings().home
    speeds = read_speeds(home)
    entries: list[Entry] = []
    if not bucket:
        entries = list_models(folders or [home / "models"], cache=cache_folder(home), speeds=speeds)
    if bucket is not False:
        entries = _in_bucket(speeds, is_wanted=bool(bucket)) + entries
    for entry in entries if as_json else ():
        answer(json.dumps(dataclasses.asdict(entry), ensure_ascii=False))
    if not as_json:
        show_table(
            ("model", "place", "classes", "size", "accuracy", "images/s", "license", "where"),
            [(one.name, _place(one), one.classes or None, *_figures(one), one.license, _where(one)) for one in entries],
        )


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Model directory, s3:// address, bundled model or torchvision architecture.")],
    labels: Annotated[
        bool, typer.Option("--labels", help="All its labels with it, as a tree where their parents are known.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show one model, its digest and parents with it; checks its files, and may download torchvision's weights."""
    _require_torch()
    if model.startswith("s3://"):
        from irs.cli.service import join_running_up

        join_running_up()
    from irs.models.catalog import measured, show_model
    from irs.models.parents import drawn, summed_up
    from irs.models.speeds import read_speeds
    from irs.settings import get_settings

    entry = measured(show_model(model), read_speeds(get_settings().home))
    if as_json:
        answer(json.dumps(dataclasses.asdict(entry), ensure_ascii=False))
        return
    facts = {**dataclasses.asdict(entry), "size_bytes": _size(entry), "accuracy": _share(entry)}
    del facts["labels"]
    facts["is_current"] = entry.is_current or None
    facts["parents"] = summed_up(entry.parents) or None
    show_table(("fact", "value"), [(name.removesuffix("_bytes"), fact) for name, fact in facts.items() if fact is not None])
    for line in drawn(entry.parents, entry.labels) if labels else ():
        answer(line)


def _in_bucket(speeds: Mapping[str, Speed], *, is_wanted: bool) -> list[Entry]:
    """Return the models of the bucket; none where no service is set, or none answers and nobody asked for it."""
    from irs.cloud import get_cloud
    from irs.errors import SetupError
    from irs.models.catalog import list_shared
    from irs.models.registry import Registry

    cloud = get_cloud()
    has_keys = any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"))
    if not is_wanted and not cloud.settings.endpoint_url and not has_keys:
        return []
    try:
        if is_wanted:
            return list_shared(Registry(cloud), speeds=speeds)
        return list_shared(Registry(cloud, read_seconds=_LOOK_SECONDS, attempts=1), speeds=speeds)
    except SetupError as error:
        if is_wanted:
            raise
        note(f"irs: the models bucket is not listed: {error}")
        return []


def _place(entry: Entry) -> str:
    return f"{entry.place}, current" if entry.is_current else entry.place


def _where(entry: Entry) -> str:
    return entry.problem or entry.path or "to download"


def _figures(entry: Entry) -> tuple[str | None, ...]:
    return _size(entry), _share(entry), f"{entry.images_per_s:.0f}" if entry.images_per_s else None


def _size(entry: Entry) -> str | None:
    return f"{entry.size_bytes / 2**20:.1f} MiB" if entry.size_bytes else None


def _share(entry: Entry) -> str | None:
    return f"{entry.accuracy:.1%}" if entry.accuracy is not None else None


def _require_torch() -> None:
    from irs.cli.operate import require_worker_extra

    require_worker_extra("irs models")
