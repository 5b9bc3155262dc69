"""What a run is judged by: how long images took, and what the instances cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from scaler.simulate.world import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Seconds from arrival to answer (by linear interpolation), and the fleet that it took."""

    p50_s: float
    p95_s: float
    p99_s: float
    mean_s: float
    max_s: float
    instance_hours: float
    launches: float
    cap_violations: float
    unfinished: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def score(outcome: Outcome) -> Score:
    """Return the score of one run; images that were never finished count in ``unfinished`` alone."""
    times = np.asarray(outcome.sojourns_s or [0.0])
    p50_s, p95_s, p99_s = np.percentile(times, [50, 95, 99]).tolist()
    return Score(
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        mean_s=float(times.mean()),
        max_s=float(times.max()),
        instance_hours=outcome.billed_s / 3600,
        launches=outcome.launches,
        cap_violations=outcome.cap_violations,
        unfinished=outcome.unfinished,
    )


def average(scores: Sequence[Score]) -> Score:
    """Return the mean of each number over several seeds."""
    return Score(**{one.name: sum(getattr(score, one.name) for score in scores) / len(scores) for one in fields(Score)})
