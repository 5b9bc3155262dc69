"""Results as files: CSV for tables, JSON and NDJSON for programs; written as they are read."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

from irs.records import Record
from webui.view import JobView

#: A table program would run such a cell as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_BOM = "\ufeff"


async def as_csv(records: AsyncIterator[Record], top_k: int) -> AsyncIterator[str]:
    """Yield a table with one row an image: ``file,label,confidence,sure,hedged,label_2,…,status,error,model,sha256``."""
    further = [name for n in range(2, top_k + 1) for name in (f"label_{n}", f"confidence_{n}")]
    columns = ["file", "label", "confidence", "sure", "hedged", *further, "status", "error", "model", "sha256"]
    yield _BOM + _row(columns)
    async for record in records:
        yield _row(_cells(record, top_k))


async def as_ndjson(records: AsyncIterator[Record]) -> AsyncIterator[bytes]:
    """Yield one record a line."""
    async for record in records:
        yield record.to_bytes() + b"\n"


async def as_json(records: AsyncIterator[Record], view: JobView) -> AsyncIterator[bytes]:
    """Yield one object: ``job`` and ``results``."""
    yield b'{"job":' + view.to_bytes() + b',"results":['
    separator = b"\n"
    async for record in records:
        yield separator + record.to_bytes()
        separator = b",\n"
    yield b"\n]}\n"


def missing(view: JobView) -> int:
    """Return how many images of a job have no result yet, as far as is known."""
    return max(0, (view.arrived if view.count is None else view.count) - view.done)


def _cells(record: Record, top_k: int) -> list[Any]:
    labels: list[Any] = []
    for n in range(top_k):
        label = record.labels[n] if n < len(record.labels) else None
        labels += [label.label, f"{label.confidence:.4f}"] if label else ["", ""]
    return [
        record.image.name or record.image.key,
        *labels[:2],
        {True: "yes", False: "no"}[record.sure] if record.status == "ok" else "",
        record.hedged.label if record.hedged else "",
        *labels[2:],
        record.status,
        record.error.code if record.error else "",
        record.model.name if record.model else "",
        record.image.sha256 or "",
    ]


def _row(cells: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerow([f"'{cell}" if str(cell).startswith(_FORMULA) else cell for cell in cells])
    return stream.getvalue()
