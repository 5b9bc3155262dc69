"""The base fleet: for each size of fleet, a shadow queue that gets the real arrivals tells what would have waited.

It stands for headroom percentages, targets an instance and staffing formulas: how bursty the real arrivals are, and in
what batches they come, is in its charge.
"""

from __future__ import annotations

import math

from scaler.settings import ScalerSettings

#: A base worker saves more than the waiting: the elastic one that would do its work has to be paid as well.
ELASTIC_PRICE = 1.5


def follow(
    shadow: tuple[float, ...],
    charge: tuple[float, ...],
    arrivals: float,
    *,
    settings: ScalerSettings,
    value: float,
    rate: float,
    boot_s: float,
    elapsed_s: float,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the shadow queues and their charges after ``arrivals`` images in ``elapsed_s``.

    Both hold one number for each fleet of 1, 2, … workers: images, and the mean number of images waiting.
    """
    recent = 1.0 - math.exp(-elapsed_s / settings.base_memory_s)
    queues, charges = [], []
    for workers, (waiting, known) in enumerate(zip(shadow, charge, strict=True), start=1):
        capacity = workers * rate
        backlog = waiting + arrivals
        busy_s = min(elapsed_s, backlog / capacity)
        cost = (backlog * busy_s - capacity * busy_s**2 / 2) / elapsed_s
        left = max(0.0, backlog - capacity * elapsed_s)
        # What is more than a boot's work is taken by elastic workers, a boot later.
        excess = max(0.0, left - capacity * boot_s)
        elastic = min(excess, settings.cap * rate * elapsed_s)
        cost += elastic * boot_s / elapsed_s + ELASTIC_PRICE * elastic / (rate * value * elapsed_s)
        queues.append(left - excess)
        charges.append(known + (cost - known) * recent)
    return tuple(queues), tuple(charges)


def base_workers(charge: tuple[float, ...], value: float) -> int:
    """Return the fleet whose instances and waiting cost least together; the smaller one if two do."""
    return min(range(1, len(charge) + 1), key=lambda workers: workers + value * charge[workers - 1])
