"""One model in full: rows 1 to 13 and 15."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from irs.local.bench import bars, load
from irs.local.bench.pairs import measure_pairs, pair_median
from irs.local.bench.plain_run import run_plain
from irs.local.bench.report import Row, median, percentile
from irs.local.bench.stage import Stage

IDLE_IMAGES = 60
PLAIN_IMAGES = 200
#: Actions of the worker; the driver sends with SendMessageBatch, and asks for attributes and listings.
WORKER_SQS = (
    "ReceiveMessage",
    "DeleteMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch",
    "SendMessage",
)
WORKER_S3 = ("GET object", "PUT object")


def measure_full(stage: Stage, model: str, *, repeats: int) -> dict[str, Any]:
    """Return all raw figures of one model; minutes.

    Raises:
        SetupError: a process failed.
    """
    raw: dict[str, Any] = {"model": model, "images": stage.images}
    raw["pairs"] = measure_pairs(stage, model, repeats=repeats)
    stage.say(f"{model}: idle latency, damaged images")
    # A worker of its own, so that its single images do not count into the mean batch under load.
    with load.running_worker(stage.cloud, stage.environment(model), stage.logs / "worker-aside.log") as worker:
        load.drop_news(stage.cloud)
        raw["idle_s"] = load.idle_latencies_s(stage.cloud, stage.photos, IDLE_IMAGES)
        raw["poisoned"] = _poisoned(stage, worker)
    raw["plain"] = measure_plain(stage, model)
    return raw


def measure_plain(stage: Stage, model: str) -> dict[str, Any]:
    """Return what plain Celery took for its own, fewer, images."""
    stage.say(f"{model}: plain Celery, {PLAIN_IMAGES} images")
    log = stage.logs / "plain.log"
    return asdict(run_plain(stage.cloud, stage.environment(model), stage.keys, PLAIN_IMAGES, log))


def full_rows(model: str, raw: dict[str, Any]) -> list[Row]:
    """Return the rows of one model measured in full."""
    pairs: list[dict[str, Any]] = raw["pairs"]
    rate = median([pair["service"]["images_per_s"] for pair in pairs])
    idle_ms = [1000 * one for one in raw["idle_s"]]
    poisoned = raw["poisoned"]
    batch = [pair["worked"]["mean_batch"] for pair in pairs if "mean_batch" in pair["worked"]]

    def requests(actions: tuple[str, ...]) -> float:
        return median([sum(pair["requests"].get(action, 0) for action in actions) / raw["images"] for pair in pairs])

    return [
        by_cpu_row(model, pairs),
        bars.BY_WALL.row(pair_median(pairs, lambda service, bare: service["images_per_s"] / bare["images_per_s"])),
        plain_row(model, pairs, raw["plain"]),
        bars.OVERHEAD.row(pair_median(pairs, lambda service, bare: service["worker_cpu_ms"] - bare["cpu_ms"])),
        bars.RATE.row(rate),
        bars.S3_REQUESTS.row(requests(WORKER_S3)),
        bars.SQS_REQUESTS.row(requests(WORKER_SQS)),
        bars.BATCH.row(median(batch) if batch else None, note="the worker did not say"),
        bars.IDLE_P50.row(percentile(idle_ms, 0.5)),
        bars.IDLE_P95.row(percentile(idle_ms, 0.95)),
        bars.COLD_START.row(median([pair["cold_start_s"] for pair in pairs])),
        bars.PEAK_MEMORY.row(max(pair["peak_rss_mb"] for pair in pairs)),
        bars.POISONED.row(poisoned["alone_s"] / poisoned["together_s"]),
    ]


def by_cpu_row(model: str, pairs: list[dict[str, Any]], *, of: str = "") -> Row:
    """Return the ratio of CPU an image, bare loop to service."""
    bar = bars.by_cpu_bar(model, pairs[0]["bare_before"]["precision"])
    return bar.row(pair_median(pairs, lambda service, bare: bare["cpu_ms"] / service["worker_cpu_ms"]), of=of)


def plain_row(model: str, pairs: list[dict[str, Any]], plain: dict[str, Any], *, of: str = "") -> Row:
    """Return how many times as fast as plain Celery the service was."""
    rate = median([pair["service"]["images_per_s"] for pair in pairs])
    return bars.plain_bar(model).row(rate / plain["images_per_s"], of=of)


def _poisoned(stage: Stage, worker: load.Worker) -> dict[str, Any]:
    """Return the seconds for good images without, and with one damaged in every eight, back to back."""
    key, keys = "bench/damaged.jpg", stage.keys
    body = stage.cloud.input.get(keys[0])
    stage.cloud.input.put(key, body[: len(body) // 2], content_type="image/jpeg")
    good = max(80, stage.images // 4)
    mixed = [key if n % 8 == 7 else keys[n % len(keys)] for n in range(good * 8 // 7)]
    alone = load.run_load(stage.cloud, worker, stage.embedded.pid, keys, good)
    together = load.run_load(stage.cloud, worker, stage.embedded.pid, mixed, len(mixed))
    return {"good_images": good, "alone_s": alone.wall_s, "together_s": together.wall_s}
