"""Records as a person or a program wants them: JSON lines, CSV, rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from irs.records import Record

#: A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t")
TABLE_TITLES = ("file", "label", "confidence", "remark")


def json_line(record: Record) -> str:
    """Return the record as one line of JSON."""
    return record.to_bytes().decode()


def csv_titles(top_k: int) -> str:
    """Return the first line of the CSV: ``top_k`` labels, the second and later ones with their number."""
    more = [f"{title}_{rank}" for rank in range(2, top_k + 1) for title in ("label", "confidence")]
    return _csv_line(["file", "label", "confidence", "sure", "hedged", *more, "status", "error", "model", "sha256"])


def csv_line(record: Record, top_k: int) -> str:
    """Return the record as a line under :func:`csv_titles`; what is unknown is an empty cell."""
    labels = [(label.label, f"{label.confidence:.4f}") for label in record.labels[:top_k]]
    labels += [("", "")] * (top_k - len(labels))
    is_ok = record.status == "ok"
    return _csv_line(
        [
            file_of(record),
            *labels[0],
            str(record.sure).lower() if is_ok else "",
            record.hedged.label if record.hedged else "",
            *(cell for label in labels[1:] for cell in label),
            record.status,
            record.error.code if record.error else "",
            record.model.name if record.model else "",
            record.image.sha256 or "",
        ]
    )


def table_row(record: Record) -> tuple[str, str, str, str]:
    """Return the record under :data:`TABLE_TITLES`."""
    file = file_of(record)
    if record.error is not None:
        return file, "", "", f"{record.error.code}: {record.error.message}"
    if not record.labels:
        return file, "", "", "no label is wanted and likely enough"
    top = record.labels[0]
    # A model may want more of a sure label than the caller wants of a hedged one: then both are the same.
    says_more = record.hedged is not None and record.hedged.label != top.label
    hedged = f", surely {record.hedged.label} {percent(record.hedged.confidence)}" if record.hedged and says_more else ""
    return file, top.label, percent(top.confidence), "" if record.sure else f"not sure{hedged}"


def file_of(record: Record) -> str:
    """Return the file's own name, the key where it has none, or the task's id where neither is known."""
    return record.image.name or record.image.key or record.task_id


def percent(confidence: float) -> str:
    """Return a probability for people: nothing is certain, and nothing impossible."""
    if confidence > 0.995:
        return ">99 %"
    return f"{confidence:.0%}".replace("%", " %") if confidence >= 0.01 else "<1 %"


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    # Only what stands in the line's end is quoted in a cell.
    csv.writer(line, lineterminator="\r\n").writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return line.getvalue().removesuffix("\r\n")
