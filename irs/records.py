"""What travels: options, record, news, beat, and the ids and keys they hang on.

Frozen dataclasses with JSON both ways, pure: nothing here reads a clock or the network except
:func:`new_job_id`. Times are Unix seconds, durations seconds, sizes bytes or pixels.
"""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from ulid import ULID

from irs.errors import BadOptions, RecognitionFailed

VERSION = 1
#: A record is at most this long as JSON; the thumbnail alone may take 32 KiB of it (24 KiB in base64).
MAX_RECORD_BYTES = 64 * 1024
#: SQS counts a message of up to 64 KB as one request; news stay under it.
MAX_NEWS_BYTES = 60_000
MAX_NEWS_RESULTS = 50
MAX_NAME_CHARACTERS = 100

Status = Literal["ok", "failed", "cancelled"]
Phase = Literal["starting", "warming", "ready", "busy", "paused", "draining", "stopped"]


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    # Built once: pydantic compiles a validator for each.
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


class _Json:
    """JSON both ways for a dataclass; unknown fields of a newer version are ignored."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, every field present."""
        # pydantic's serialiser is compiled: a fifth of what dataclasses.asdict takes.
        return _adapter(type(self)).dump_python(self, mode="json")  # type: ignore[no-any-return]

    def to_bytes(self) -> bytes:
        """Return the UTF-8 JSON text that is stored."""
        return _adapter(type(self)).dump_json(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the value behind JSON text (bytes, str) or plain JSON values.

        Raises:
            ValueError: the text is no JSON or does not fit the fields.
        """
        adapter = _adapter(cls)
        if isinstance(value, bytes | str):
            return adapter.validate_json(value)  # type: ignore[no-any-return]
        return adapter.validate_python(value)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(_Json):
    """How one image is to be answered: the keyword arguments of the task ``irs.recognize``.

    Attributes:
        top_k: how many labels the record holds, 1 to 100.
        min_confidence: labels below it are left out, 0 to 1.
        include: only these labels or wnids are answered (empty: all).
        exclude: these labels or wnids are never answered.
        hedge: the confidence a more general label must reach to be named as ``hedged``, 0 to 1; 0 turns it off.
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
class Fault(_Json):
    """Why an image has no labels: ``code`` for programs, ``message`` one sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(_Json):
    """All that is known of one image. Stored once under :func:`record_key`; the first one stands.

    Attributes:
        labels: by falling confidence; empty unless ``status`` is ``ok``.
        hedged: the most precise general label that reaches the option ``hedge``; None without a label tree.
        sure: the first label's confidence reaches the model's ``sure_above``.
        receives: SQS receive count of the message, the first is 1.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat(_Json):
    """``workers/{instance}.json``: a worker says how it is (every change of phase, 5 s busy, 15 s idle).

    Attributes:
        boot: differs at each start of the same instance, so that counters are not compared across restarts.
        at, started, idle_since: Unix seconds.
        slots: images it works on at once; ``busy_slots`` of them are taken.
        completed, failed: records stored since ``started``.
        busy_s: seconds with at least one image in hand since ``started``.
        queued_s: how long the last received message had waited.
    """

    version: int = VERSION
    instance: str
    boot: str
    host: str
    pid: int
    phase: Phase
    at: float
    started: float
    ready_after_s: float | None = None
    model: ModelFacts | None = None
    slots: int = 0
    busy_slots: int = 0
    completed: int = 0
    failed: int = 0
    busy_s: float = 0.0
    idle_since: float | None = None
    queued_s: float | None = None


def new_job_id() -> str:
    """Return a fresh job id: a ULID in lower case, so ids sort by time."""
    return str(ULID()).lower()


def task_id(job: str, number: int) -> str:
    """Return the task id of image ``number`` (from 0) of ``job``."""
    return f"{job}.{number:06d}"


_TASK_ID = re.compile(r"([0-9a-hjkmnp-tv-z]{26})\.(\d{6,})")


def split_task_id(value: str) -> tuple[str, int] | None:
    """Return job and number of a job's task id, or None for the id of a plain call."""
    match = _TASK_ID.fullmatch(value)
    return (match[1], int(match[2])) if match else None


def record_key(task_id: str) -> str:
    """Return the key of the task's record in the output bucket.

    Task ids of plain calls are chosen by callers: what is unsafe in a key is percent-encoded.
    """
    if split := split_task_id(task_id):
        return f"jobs/{split[0]}/{split[1]:06d}.json"
    safe = re.sub(r"[^A-Za-z0-9_.-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), task_id)
    return f"tasks/{safe if safe.strip('.') else '%2E' * len(safe)}.json"


def job_prefix(job: str) -> str:
    """Return the prefix of all that belongs to ``job``, in either bucket."""
    return f"jobs/{job}/"


def open_key(job: str) -> str:
    """Return the key of the job's :class:`JobOpen`."""
    return f"jobs/{job}/open.json"


def manifest_key(job: str) -> str:
    """Return the key of the job's :class:`Manifest`."""
    return f"jobs/{job}/manifest.json"


def beat_key(instance: str) -> str:
    """Return the key of a worker's :class:`Beat`."""
    return f"workers/{instance}.json"


def image_key(job: str, number: int, name: str) -> str:
    """Return the input key of image ``number``; two files of one name never meet."""
    return f"jobs/{job}/{number:06d}/{safe_name(name)}"


_NUMBERED = re.compile(r"jobs/[^/]+/(\d{6,})\.json")


def number_of_record_key(key: str) -> int | None:
    """Return the image number behind a record's key, None for the job's other objects."""
    match = _NUMBERED.fullmatch(key)
    return int(match[1]) if match else None


def safe_name(name: str) -> str:
    """Return the last part of ``name`` fit for a key: letters, digits, ``._-``, at most 100 characters.

    The ending survives the cut; an empty result becomes ``image``.
    """
    last = re.split(r"[/\\]", name)[-1]
    ascii_ = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    clean = re.sub(r"[^A-Za-z0-9._-]+", "_", ascii_).strip("._") or "image"
    if len(clean) <= MAX_NAME_CHARACTERS:
        return clean
    stem, dot, ending = clean.rpartition(".")
    if not dot or len(ending) > 10:
        return clean[:MAX_NAME_CHARACTERS]
    return f"{stem[: MAX_NAME_CHARACTERS - len(ending) - 1]}.{ending}"


def fingerprint(value: object) -> str:
    """Return the canonical JSON of ``value``: equal values give equal text, for hashes and comparisons."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
