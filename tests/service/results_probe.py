"""The shipped Celery app with an engine that needs no model, and a task of a user's own.

Run as ``celery -A results_probe worker`` in a process of its own: how records become results is the same.
"""

from __future__ import annotations

from typing import Any

from irs.app import app
from irs.cloud import get_cloud
from irs.records import Fault, ImageFacts, Label, Record, split_task_id
from irs.results import RecordStore

# Not the step that loads a model.
app.steps["worker"].clear()


class Engine:
    """Answers every image with its own name; ``bad…`` fails."""

    def __init__(self) -> None:
        self._records = RecordStore(get_cloud())

    def drops(self, task_id: str) -> bool:
        return False

    def recognise_task(self, *, task_id: str, image: str, name: str | None, **delivered: Any) -> Record:
        job, number = split_task_id(task_id) or (None, None)
        known: dict[str, Any] = {
            "task_id": task_id,
            "job": job,
            "number": number,
            "image": ImageFacts(name=name, key=image),
            "receives": delivered["receives"],
        }
        if image.startswith("bad"):
            record = Record(**known, status="failed", error=Fault(code="not_an_image", message=f"{image} is no picture."))
        else:
            record = Record(**known, status="ok", labels=(Label(label=image, wnid=None, confidence=0.5),))
        self._records.put(record)
        return record


app.engine = Engine()


@app.task(name="probe.labels")
def labels(records: list[dict[str, Any]]) -> list[str]:
    """Return the labels of the records: a chord's callback."""
    return [record["labels"][0]["label"] for record in records]
