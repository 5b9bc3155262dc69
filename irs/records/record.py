"""One image's options, record and news; what its job was opened and closed with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import ConfigDict, ValidationError

from irs.errors import BadOptions, Cancelled, IrsError, RecognitionFailed
from irs.records._json import _adapter, _Json
from irs.records.keys import split_task_id

VERSION = 1
#: A record is at most this long as JSON; the thumbnail alone may take 32 KiB of it (24 KiB in base64).
MAX_RECORD_BYTES = 64 * 1024
#: SQS counts a message of up to 64 KB as one request; news stay under it.
MAX_NEWS_BYTES = 60_000
MAX_NEWS_RESULTS = 50

Status = Literal["ok", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(_Json):
    """How one image is to be answered: the keyword arguments of the task ``irs.recognize``.

    Attributes:
        top_k: how many labels the record holds, 1 to 100.
        min_confidence: labels below it are left out, 0 to 1.
        include: only these labels, parents ("dog": every breed) or wnids are answered (empty: all).
        exclude: these labels, parents or wnids are never answered.
        hedge: the confidence that ``hedged`` must reach, 0 to 1; 0 turns it off.
        thumbnail: longest side in px of the WebP kept in the record, 0 (none) or 16 to 320.
    """

    top_k: int = 5
    min_confidence: float = 0.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hedge: float = 0.5
    thumbnail: int = 0

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Self:
        """Return the options after checking names, types and ranges.

        Raises:
            BadOptions: the first thing that is wrong, in words.
        """
        unknown = set(values) - {item.name for item in dataclasses.fields(cls)}
        if unknown:
            raise BadOptions(f"unknown option {', '.join(sorted(unknown))}")
        try:
            options: Self = _adapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadOptions(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        for name, ok, range_ in (
            ("top_k", 1 <= options.top_k <= 100, "1 to 100"),
            ("min_confidence", 0 <= options.min_confidence <= 1, "0 to 1"),
            ("hedge", 0 <= options.hedge <= 1, "0 to 1"),
            ("thumbnail", options.thumbnail == 0 or 16 <= options.thumbnail <= 320, "0 or 16 to 320"),
        ):
            if not ok:
                raise BadOptions(f"{name} must be {range_}, not {getattr(options, name)}")
        return options

    def changed(self) -> dict[str, Any]:
        """Return only what differs from the defaults: what a message needs to carry."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            item.name: list(values[item.name]) if isinstance(values[item.name], tuple) else values[item.name]
            for item in dataclasses.fields(self)
            if values[item.name] != item.default
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts(_Json):
    """What was found out about the file; None where it failed before it was known."""

    name: str | None
    key: str
    bytes: int | None = None
    sha256: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(_Json):
    """One answer. ``confidence`` is a calibrated probability; ``wnid`` a WordNet 3.0 id or None."""

    label: str
    wnid: str | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts(_Json):
    """Which model answered; ``digest`` is ``sha256:`` over model.json and the weights."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(_Json):
    """When and how long, in Unix seconds and seconds; ``model`` is the image's share of its batch."""

    submitted: float | None = None
    queued: float | None = None
    fetch: float | None = None
    decode: float | None = None
    batch: float | None = None
    model: float | None = None
    store: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts(_Json):
    """In which model call: the worker's ``number``-th since its start, from 1, of ``size`` images."""

    number: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(_Json):
    """Why an image has no labels: ``code`` for programs, ``message`` one sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(_Json):
    """All that is known of one image. Stored once under :func:`record_key`; the first one stands.

    Attributes:
        labels: by falling confidence; empty unless ``status`` is ``ok``.
        hedged: the most specific label or parent that reaches the option ``hedge``; None without a label tree.
        sure: the first label's confidence reaches the model's ``sure_above``.
        receives: SQS receive count of the message, the first is 1.
        batch: the model call; None without one, as when ``cached``, or when a worker before this field answered.
        cached: the same bytes were answered before by the same worker and model.
        thumbnail: base64 of a WebP, or None.
    """

    __pydantic_config__ = ConfigDict(extra="ignore")

    version: int = VERSION
    task_id: str
    job: str | None = None
    number: int | None = None
    status: Status
    image: ImageFacts
    labels: tuple[Label, ...] = ()
    hedged: Label | None = None
    sure: bool = False
    model: ModelFacts | None = None
    timing: Timing = field(default_factory=Timing)
    worker: str | None = None
    receives: int = 1
    batch: BatchFacts | None = None
    cached: bool = False
    thumbnail: str | None = None
    error: Fault | None = None

    def or_raise(self) -> Self:
        """Return the record if it is ``ok``.

        Raises:
            RecognitionFailed: the record has an error.
        """
        if self.error is not None:
            raise RecognitionFailed(self.task_id, self.error.code, self.error.message)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsItem(_Json):
    """The hint that one record is there."""

    task_id: str
    job: str | None
    number: int | None
    name: str | None
    status: Status
    label: str | None
    confidence: float | None
    sure: bool
    hedged: str | None
    error: str | None

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the news of ``record``."""
        top = record.labels[0] if record.labels else None
        return cls(
            task_id=record.task_id,
            job=record.job,
            number=record.number,
            name=record.image.name,
            status=record.status,
            label=top.label if top else None,
            confidence=top.confidence if top else None,
            sure=record.sure,
            hedged=record.hedged.label if record.hedged else None,
            error=record.error.code if record.error else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class News(_Json):
    """One message of the response queue."""

    version: int = VERSION
    results: tuple[NewsItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOpen(_Json):
    """``jobs/{job}/open.json``: what was asked when the job was opened."""

    version: int = VERSION
    job: str
    options: Options = field(default_factory=Options)
    expected: int | None = None
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(_Json):
    """``jobs/{job}/manifest.json``: the job is closed and holds ``count`` images."""

    version: int = VERSION
    job: str
    count: int
    options: Options = field(default_factory=Options)
    closed: float


def cancelled_record(task_id: str, *, key: str = "") -> Record:
    """Return what readers say of an image of a cancelled job that has no record, and never will; ``key``: its image."""
    return _stand_in(task_id, "cancelled", Cancelled(), key=key)


def unreadable_record(task_id: str, error: IrsError) -> Record:
    """Return what readers say of an image whose record cannot be read; ``error`` names the object."""
    return _stand_in(task_id, "failed", error, key="")


def _stand_in(task_id: str, status: Status, error: IrsError, *, key: str) -> Record:
    job, number = split_task_id(task_id) or (None, None)
    return Record(
        task_id=task_id,
        job=job,
        number=number,
        status=status,
        image=ImageFacts(name=key.rpartition("/")[2] or None, key=key),
        # No worker tells of it.
        receives=0,
        error=Fault(code=error.code, message=str(error)),
    )
