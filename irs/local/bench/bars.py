"""What each number should reach, and the floor below which the build fails: the design's table, row by row."""

from __future__ import annotations

from dataclasses import dataclass

from irs.local.bench.report import Better, Row


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the table; ``number`` is the design's."""

    number: int
    name: str
    reach: float
    floor: float
    better: Better = "higher"
    unit: str = ""

    def row(self, value: float | None, *, of: str = "", note: str = "") -> Row:
        """Return the row with what was measured ``of`` a model, or a note that says why it was not."""
        return Row(
            number=self.number,
            name=f"{self.name}, {of}" if of else self.name,
            value=value,
            unit=self.unit,
            reach=self.reach,
            floor=self.floor,
            better=self.better,
            note=note,
        )


BY_CPU = Bar(1, "service / bare loop, worker CPU", 0.95, 0.90)
BY_CPU_FP32 = Bar(2, "service / bare loop, worker CPU", 0.96, 0.92)
BY_CPU_QUICK = Bar(3, "service / bare loop, worker CPU", 0.85, 0.75)
BY_CPU_QUICKEST = Bar(3, "service / bare loop, worker CPU", 0.80, 0.70)
BY_WALL = Bar(4, "service / bare loop, wall", 0.88, 0.80)
PLAIN = Bar(5, "service / plain Celery, wall", 2.8, 2.5)
PLAIN_QUICKEST = Bar(6, "service / plain Celery, wall", 6, 5)
OVERHEAD = Bar(7, "overhead above decode and model", 1.0, 1.5, "lower", "ms")
RATE = Bar(8, "rate", 80, 70, unit="images/s")
S3_REQUESTS = Bar(9, "S3 requests an image", 2.0, 2.05, "lower")
SQS_REQUESTS = Bar(9, "SQS requests an image", 0.25, 0.35, "lower")
BATCH = Bar(10, "mean batch", 7.5, 6)
IDLE_P50 = Bar(11, "idle latency p50", 60, 150, "lower", "ms")
IDLE_P95 = Bar(11, "idle latency p95", 90, 300, "lower", "ms")
COLD_START = Bar(12, "cold start", 4.0, 8.0, "lower", "s")
PEAK_MEMORY = Bar(13, "peak memory of the worker", 600, 700, "lower", "MB")
AGREEMENT = Bar(14, "first labels as the reference's", 0.99, 0.98)
AGREEMENT_FAR = Bar(14, "largest change of a first label's probability", 0.15, 0.25, "lower")
POISONED = Bar(15, "good images' rate beside one damaged in eight", 0.97, 0.9)
LITSERVE = Bar(16, "service / LitServe, CPU", 1.0, 1.05, "lower")
#: Not of that table: what the bundled model is asked to be.
BUNDLED = Bar(17, "images a second of a core, imagenet200 / resnet18", 3.0, 3.0)


def by_cpu_bar(model: str, precision: str) -> Bar:
    """Return the bar of the ratio to the bare loop: the quicker a model, the more a service weighs beside it."""
    if "v3_small" in model:
        return BY_CPU_QUICKEST
    if "mobilenet" in model or "squeezenet" in model:
        return BY_CPU_QUICK
    return BY_CPU_FP32 if precision == "fp32" else BY_CPU


def plain_bar(model: str) -> Bar:
    """Return the bar of the ratio to plain Celery, which the model's own time hides the more the slower it is."""
    return PLAIN_QUICKEST if "v3_small" in model else PLAIN
