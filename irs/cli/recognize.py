"""``irs recognize``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irs.cli.outcome import Code, answer, note

if TYPE_CHECKING:
    from irs.client import Job
    from irs.records import Record


class Form(Enum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def recognize(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders (without what is named as no picture), s3://bucket/key, or - for standard input.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One record a line, as they come.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line an image, in the given order.")] = False,
    top_k: Annotated[int, typer.Option(help="Labels of an image, 1 to 100.")] = 5,
    min_confidence: Annotated[float, typer.Option(help="Leave out labels below it, 0 to 1.")] = 0.0,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Answer this label, parent (dog: every breed) or wnid only; may be repeated.", show_default=False),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Never answer this label, parent or wnid; may be repeated.", show_default=False)
    ] = None,
    hedge: Annotated[
        float, typer.Option(help="Confidence a label or a parent of it must reach to be called sure, 0 to 1; 0: none.")
    ] = 0.5,
    thumbnail: Annotated[int, typer.Option(help="Longest side in px of a picture kept in the record; 0: none.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait for the answers; else without end.", show_default=False)
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(help="Follow this job; with the images whose handing in broke off: go on with it.", show_default=False),
    ] = None,
) -> None:
    """Recognise images: hand them in, wait, write a label for each.

    Ends with 1 if some image has no label because it failed, or no answer within --timeout.
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    if not (paths or job):
        raise typer.BadParameter("name images, or a job with --job")
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE
    from irs.cli.progress import ProgressShown
    from irs.cli.service import find_cloud
    from irs.client import Client
    from irs.errors import PassingError
    from irs.records import new_job_id

    cloud = find_cloud()
    client = Client(cloud.settings)
    with ProgressShown(cloud, beside_answers=form is not Form.TABLE) as shown:
        if not paths and job:
            found = client.job(job, on_progress=shown.update)
        else:
            # Known before it is opened, to be named if handing in breaks off.
            job = job or new_job_id()
            options: dict[str, Any] = {
                "top_k": top_k,
                "min_confidence": min_confidence,
                "include": tuple(include or ()),
                "exclude": tuple(exclude or ()),
                "hedge": hedge,
                "thumbnail": thumbnail,
            }
            try:
                found = client.recognize(_inputs(paths or ()), job=job, on_progress=shown.update, **options)
            except (KeyboardInterrupt, PassingError):
                note(f"irs: job {job} broke off; `irs recognize --job {job}` with the same images goes on with it.")
                raise
        shown.waiting()
        records: list[Record] = []
        try:
            for record in _written(found, form, timeout):
                records.append(record)  # noqa: PERF402 (what came before an error is shown too)
            code = Code.OK if all(record.status == "ok" for record in records) else Code.SOME_FAILED
        except TimeoutError as error:
            note(f"irs: {error} `irs recognize --job {found.id}` shows its answers.")
            code = Code.SOME_FAILED
        except KeyboardInterrupt:
            note(f"irs: job {found.id} goes on without this; `irs recognize --job {found.id}` shows its answers.")
            code = Code.INTERRUPTED
    if form is Form.TABLE and records:
        from irs.cli.answers import TABLE_TITLES, table_row
        from irs.cli.tables import show_table

        show_table(TABLE_TITLES, [table_row(record) for record in records])
    raise typer.Exit(code)


def _inputs(paths: Sequence[str]) -> Iterator[Any]:
    """Yield what the client takes; ``-`` is read when its turn comes."""
    for path in paths:
        yield ("stdin", sys.stdin.buffer) if path == "-" else path


def _written(job: Job, form: Form, timeout: float | None) -> Iterator[Record]:
    """Yield each record once it is written; for a table each one, to be written at the end."""
    from irs.cli.answers import csv_line, csv_titles, json_line

    if form is Form.CSV:
        answer(csv_titles(job.options.top_k))
    came = job.as_completed(timeout=timeout)
    for record in came if form is Form.JSON else _ordered(came):
        if form is Form.JSON:
            answer(json_line(record))
        elif form is Form.CSV:
            answer(csv_line(record, job.options.top_k))
        yield record


def _ordered(came: Iterator[Record]) -> Iterator[Record]:
    """Yield records by number, each as soon as all before it are there; those after a gap when no more will come."""
    early: dict[int, Record] = {}
    expected = 0
    try:
        for record in came:
            early[record.number or 0] = record
            while expected in early:
                yield early.pop(expected)
                expected += 1
    except (TimeoutError, KeyboardInterrupt):
        yield from (early[number] for number in sorted(early))
        raise
