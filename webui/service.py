"""How the service stands, for the page and for probes; asked at most every five seconds, however many ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Generic, TypeVar

import anyio
from anyio import to_thread

from irs.cloud import Cloud
from irs.errors import IrsError, NotFound
from irs.monitoring.beats import read_beats
from irs.monitoring.decisions import find_scaler
from irs.monitoring.status import count_queue
from irs.records import ModelCard, ModelFacts, Phase, _Json, card_key
from irs.records.beat import SILENT_S
from webui.formats import FORMATS
from webui.view import Moment

T = TypeVar("T")

KEPT_S = 5.0
#: The last that is heard of a worker.
GONE: frozenset[Phase] = frozenset({"stopped", "drained"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue(_Json):
    """Tasks by SQS's own count: approximate on AWS."""

    visible: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCounts(_Json):
    """Workers by what they do; those silent for long are not counted."""

    ready: int
    busy: int
    starting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView(_Json):
    """What is known of a model besides its name.

    Attributes:
        kinds: how many labels it tells apart; it names nothing else.
        sure_above: the least confidence that is shown without doubt.
        dated: when the file of its weights was made; None if unknown.
        why: why this model serves, as the end of a sentence; "" where a person named it.
    """

    kinds: int
    sure_above: float
    dated: Moment | None
    why: str

    @classmethod
    def of(cls, card: ModelCard) -> CardView:
        """Return a card without its labels."""
        return cls(kinds=len(card.labels), sure_above=card.sure_above, dated=card.dated, why=card.why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(_Json):
    """Bytes of one image, images of one job."""

    max_bytes: int
    max_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView(_Json):
    """What ``GET /api/status`` says.

    Attributes:
        model: of the worker that spoke last; None while none has one.
        card: what is known of that model; None until a worker of it has said so.
        scaled: whether a scaler starts workers when images come.
        typical_start_s: what a start takes until the worker takes images: from the launch on, as the scaler has measured
            it, or without one the median of what the last workers took by themselves; None if nothing is known.
        flower_url: where Flower runs, None if it does not.
        formats: pictures that may be handed in.
    """

    queue: Queue
    workers: WorkerCounts
    scaled: bool
    model: ModelFacts | None
    card: CardView | None
    typical_start_s: float | None
    flower_url: str | None
    limits: Limits
    formats: tuple[str, ...] = FORMATS


class Kept(Generic[T]):
    """An answer that is kept for some seconds; who asks meanwhile waits for the same question."""

    def __init__(self, ask: Callable[[], T], for_s: float = KEPT_S) -> None:
        self._ask, self._for_s = ask, for_s
        self._lock = anyio.Lock()
        self._limiter = anyio.CapacityLimiter(1)
        self._value: T | None = None
        self._asked_s = float("-inf")

    async def get(self) -> T:
        """Return the answer; raises what asking raises, which is not kept."""
        async with self._lock:
            if self._value is None or time.monotonic() - self._asked_s > self._for_s:
                asked_s = time.monotonic()
                self._value = await to_thread.run_sync(self._ask, limiter=self._limiter)
                self._asked_s = asked_s
            return self._value


class Service:
    """The service of one stack. Every call may raise an error of the cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cards = Cards(cloud)
        self._status = Kept(lambda: read_service(cloud, self._cards))
        self._reason = Kept(lambda: why_not_ready(cloud))

    async def status(self) -> ServiceView:
        """Return how the service stands."""
        return await self._status.get()

    async def card(self) -> ModelCard | None:
        """Return what is known of the model that serves now; None if nothing is."""
        model = (await self.status()).model
        return await self.card_of(model.digest) if model else None

    async def card_of(self, digest: str) -> ModelCard | None:
        """Return what is known of a model; None if nothing is."""
        return await to_thread.run_sync(self._cards.find, digest)

    async def why_not_ready(self) -> str:
        """Return why no image can be taken now; "" when one can."""
        return await self._reason.get()


class Cards:
    """Cards of models, each read once: a model of one digest never changes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._known: dict[str, ModelCard] = {}

    def find(self, digest: str) -> ModelCard | None:
        """Return the card of a model; None where no worker has stored one that can be read."""
        if digest not in self._known:
            try:
                self._known[digest] = ModelCard.from_json(self._cloud.output.get(card_key(digest)))
            except (NotFound, ValueError):
                return None
        return self._known[digest]


def read_service(cloud: Cloud, cards: Cards) -> ServiceView:
    """Return how the service stands now: one count of the queue, one LIST, a GET for the scaler and one a worker."""
    settings = cloud.settings
    counts = count_queue(cloud, settings.requests_queue)
    now = time.time()
    beats = read_beats(cloud)
    alive = [beat for beat in beats if now - beat.at <= SILENT_S and beat.phase not in GONE]
    # A worker that starts has no model yet: then what the last ones served will be served again.
    spoke = max((beat for beat in beats if beat.model), key=lambda beat: (beat in alive, beat.at), default=None)
    scaler = find_scaler(cloud)
    is_scaled = scaler is not None and scaler.is_leading
    starts = [beat.ready_after_s for beat in beats if beat.ready_after_s is not None]
    start_s = scaler.numbers.get("boot_s") if scaler and is_scaled else None
    if start_s is None and starts:
        start_s = median(starts)

    def count(*phases: Phase) -> int:
        return sum(beat.phase in phases for beat in alive)

    card = cards.find(spoke.model.digest) if spoke and spoke.model else None
    return ServiceView(
        queue=Queue(visible=counts.visible, in_flight=counts.in_flight, delayed=counts.delayed),
        workers=WorkerCounts(
            ready=count("ready", "paused"), busy=count("busy", "retiring"), starting=count("starting", "warming")
        ),
        scaled=is_scaled,
        model=spoke.model if spoke else None,
        card=CardView.of(card) if card else None,
        typical_start_s=None if start_s is None else round(start_s, 1),
        flower_url=settings.flower_url or None,
        limits=Limits(max_bytes=settings.max_bytes, max_images=settings.web_max_images),
    )


def why_not_ready(cloud: Cloud) -> str:
    """Return the first reason why images cannot be taken: a bucket or a queue that does not answer; "" if all do."""
    try:
        for bucket in (cloud.input, cloud.output):
            next(iter(islice(bucket.list("jobs/"), 1)), None)
        for queue in (cloud.settings.requests_queue, cloud.settings.responses_queue):
            count_queue(cloud, queue)
    except NotFound as error:
        return f"{error.key} is not there: run `irs provision`."
    except IrsError as error:
        return str(error)
    return ""
