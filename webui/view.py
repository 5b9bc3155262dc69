"""What the API says of a job and of its images."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, WithJsonSchema

from irs.records import ModelFacts, NewsItem, Options, Record, _Json


def rfc3339(unix_s: float) -> str:
    """Return a moment as the API says it: RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


#: Unix seconds that JSON shows as RFC 3339.
Moment = Annotated[
    float,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
Stage = Literal["open", "waiting_for_worker", "running", "finished", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(_Json):
    """What a tile shows: the news of one image without the ids of its job.

    Attributes:
        label, confidence: the first label and its calibrated probability; None unless ``status`` is ``ok``.
        sure: the confidence reaches the model's ``sure_above``.
        hedged: the most specific label or parent that is likely enough; None without a label tree.
        error: the code of the record's error.
    """

    number: int
    name: str | None
    status: Literal["ok", "failed", "cancelled"]
    label: str | None
    confidence: float | None
    sure: bool
    hedged: str | None
    error: str | None

    @classmethod
    def of(cls, news: NewsItem) -> Summary:
        """Return the summary of news of an image of a job."""
        return cls(
            number=news.number or 0,
            name=news.name,
            status=news.status,
            label=news.label,
            confidence=news.confidence,
            sure=news.sure,
            hedged=news.hedged,
            error=news.error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView(_Json):
    """A job at one moment.

    Attributes:
        stage: ``open`` while more images may come, then ``waiting_for_worker`` until the first result, ``running``,
            ``finished``; ``cancelled`` from any of them but the last.
        count: images of the job; of an open job what was expected, or None.
        arrived: images that are stored, or were refused when they came.
        done: images with a result: ``ok`` + ``failed`` + ``cancelled``.
        unsure: those of ``ok`` whose label is not sure.
        model: what answered the first result; None before.
        rate: results a second over the last ten seconds; None while nothing comes.
        eta_s: seconds until all are done at that rate.
    """

    id: str
    stage: Stage
    count: int | None
    expected: int | None
    arrived: int
    done: int
    ok: int
    failed: int
    cancelled: int
    unsure: int
    created: Moment
    finished_at: Moment | None
    options: Options
    model: ModelFacts | None
    rate: float | None
    eta_s: float | None
    expires_at: Moment

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.stage in ("finished", "cancelled")

    @property
    def counts(self) -> tuple[Any, ...]:
        """What must change for a job to be told again."""
        return (self.stage, self.count, self.arrived, self.done, self.ok, self.failed, self.cancelled, self.unsure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived(_Json):
    """An image of a job that is stored.

    Attributes:
        n: its number.
        name: its full name where this is known (it was sent through this process, or has a result), else ``key_name``.
        key_name: the name as its key holds it: letters, digits and ``._-`` alone.
        bytes: None for an image that was named by its key.
    """

    n: int
    name: str
    key_name: str
    bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a job by number; ``next`` is the ``after`` of the next page, None at the end."""

    records: tuple[Record, ...]
    next: int | None
