"""The scaler's last decision, as it stands in the output bucket: for ``irs status``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from irs.cloud import Cloud
from irs.errors import NotFound
from irs.records import SCALER_STATE_KEY

#: Longer than a standby takes to lead.
SILENT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerSeen:
    """What the scaler decided last, and why.

    Attributes:
        holder: who leads; "" when nobody does.
        age_s: how old the decision is; a scaler that works decides every few seconds.
        kind: for programs, such as ``backlog`` or ``blind``; ``reason`` is the sentence.
        numbers: what the decision rests on: ``need``, ``rate_per_s``, ``boot_s`` and others.
        spent_usd, instance_s: of the day ``day`` (UTC); dollars are 0 without ``IRS_PRICE_PER_HOUR``.
    """

    holder: str
    epoch: int
    age_s: float
    policy: str
    cap: int
    kind: str
    reason: str
    numbers: dict[str, float]
    day: str
    spent_usd: float
    instance_s: float

    @property
    def is_leading(self) -> bool:
        """Whether a scaler works now."""
        return bool(self.holder) and self.age_s < SILENT_S


def find_scaler(cloud: Cloud, *, now: float | None = None) -> ScalerSeen | None:
    """Return the last decision; None if no scaler has ever decided here.

    Raises:
        StorageUnavailable: S3 does not answer.
    """
    try:
        document: dict[str, Any] = json.loads(cloud.output.get(SCALER_STATE_KEY))
        said, lease, money = document["said"], document["lease"], document["money"]
        return None if said is None else ScalerSeen(
            holder=str(lease["holder"]),
            epoch=int(lease["epoch"]),
            age_s=round(max(0.0, (time.time() if now is None else now) - float(said["wall"])), 1),
            policy=str(said["policy"]),
            cap=int(said["cap"]),
            kind=str(said["kind"]),
            reason=str(said["reason"]),
            numbers={str(name): float(value) for name, value in said["numbers"].items()},
            day=str(money["day"]),
            spent_usd=float(money["usd"]),
            instance_s=float(money["instance_s"]),
        )  # fmt: skip
    except (NotFound, ValueError, KeyError, TypeError, AttributeError):
        # None yet, or of a version that is not ours.
        return None
