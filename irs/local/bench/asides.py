"""Rows beside the main model's: float32 (2), quick models (3, 6), labels (14), LitServe (16), the bundled model (17).

One that cannot be measured says why in its row, and the others go on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from irs.errors import SetupError
from irs.local.bench import bars
from irs.local.bench.apart import images_per_s
from irs.local.bench.bars import Bar
from irs.local.bench.full import by_cpu_row, measure_plain, plain_row
from irs.local.bench.litserve_run import run_litserve
from irs.local.bench.pairs import measure_pairs, run_program
from irs.local.bench.report import Row, median
from irs.local.bench.stage import Stage
from irs.models.choice import BUNDLED, find_bundled

QUICK, QUICKEST = "mobilenet_v2@random", "mobilenet_v3_small@random"


@dataclass(frozen=True, slots=True)
class Aside:
    """Rows of one measurement, and its raw figures."""

    rows: list[Row]
    raw: dict[str, Any] = field(default_factory=dict)


def measure_asides(stage: Stage, model: str, pairs: list[dict[str, Any]], *, labelled: str | None) -> Iterator[Aside]:
    """Yield each aside when it is measured; minutes in all.

    Args:
        model: the main one, and ``pairs`` what it was measured at.
        labelled: a model with real weights for row 14; None: the bundled one.
    """
    yield _or_note(lambda: _fp32(stage, model), [bars.BY_CPU_FP32], f"{model} fp32")
    yield _or_note(lambda: _quick(stage), [bars.BY_CPU_QUICK], QUICK)
    yield _or_note(lambda: _quickest(stage), [bars.BY_CPU_QUICKEST, bars.PLAIN_QUICKEST], QUICKEST)
    yield _or_note(lambda: _labels(stage, labelled), [bars.AGREEMENT, bars.AGREEMENT_FAR], labelled or BUNDLED)
    yield _or_note(lambda: _litserve(stage, model, pairs), [bars.LITSERVE], model)
    yield _or_note(lambda: _bundled(stage, model), [bars.BUNDLED], "")


def _or_note(measure: Callable[[], Aside], missing: list[Bar], of: str) -> Aside:
    try:
        return measure()
    except SetupError as error:
        return Aside([bar.row(None, of=of, note=f"not measured: {error}") for bar in missing])


def _fp32(stage: Stage, model: str) -> Aside:
    pairs = measure_pairs(stage, model, repeats=1, precision="fp32")
    ratio = by_cpu_row(model, pairs, of=f"{model} fp32")
    return Aside([ratio], {"fp32": pairs})


def _quick(stage: Stage) -> Aside:
    pairs = measure_pairs(stage, QUICK, repeats=1)
    return Aside([by_cpu_row(QUICK, pairs, of=QUICK)], {QUICK: pairs})


def _quickest(stage: Stage) -> Aside:
    pairs = measure_pairs(stage, QUICKEST, repeats=1)
    plain = measure_plain(stage, QUICKEST)
    rows = [by_cpu_row(QUICKEST, pairs, of=QUICKEST), plain_row(QUICKEST, pairs, plain, of=QUICKEST)]
    return Aside(rows, {QUICKEST: pairs, f"plain {QUICKEST}": plain})


def _labels(stage: Stage, labelled: str | None) -> Aside:
    if labelled is None and find_bundled(BUNDLED) is None:
        raise SetupError(f"{BUNDLED} does not come with this install; name a model with real weights by --labels")
    model = labelled or BUNDLED
    stage.say(f"{model}: labels against eager float32 and torchvision's transform, {len(stage.photos)} photos")
    command = [sys.executable, "-m", "irs.local.bench.agree", "--model", model, "--photos", str(stage.photos[0].parent)]
    found = run_program(command, "The labels could not be compared")
    of = f"{found['model']} {found['precision']}"
    rows = [bars.AGREEMENT.row(found["equal"], of=of), bars.AGREEMENT_FAR.row(found["far"], of=of)]
    return Aside(rows, {"labels": found})


def _litserve(stage: Stage, model: str, pairs: list[dict[str, Any]]) -> Aside:
    precision = pairs[0]["bare_before"]["precision"]
    stage.say(f"{model} {precision}: LitServe, {stage.images} images")
    environment = stage.environment(model, precision)
    took = run_litserve(environment, model, precision, stage.photos, stage.images, stage.logs / "litserve.log")
    service_ms = median([pair["service"]["worker_cpu_ms"] for pair in pairs])
    return Aside([bars.LITSERVE.row(service_ms / took.cpu_ms, of=f"{model} {precision}")], {"litserve": asdict(took)})


def _bundled(stage: Stage, model: str) -> Aside:
    if not model.startswith("resnet18"):
        raise SetupError(f"the main model is {model}, not resnet18")
    # As many more images as it should be quicker, so that beginning and end weigh as little.
    counts = {model: stage.images, BUNDLED: 3 * stage.images}
    rates: dict[str, float] = {}
    for one, images in counts.items():
        stage.say(f"{one}: a worker on a core of its own, {images} images")
        rates[one] = images_per_s(stage, one, images)
    return Aside([bars.BUNDLED.row(rates[BUNDLED] / rates[model])], {"images_per_s_of_a_core": rates})
