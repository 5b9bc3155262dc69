"""What the policy is told: the price of waiting, the cap, and the priors of what it measures by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from irs.errors import SetupError
from scaler.observation import Pair

if TYPE_CHECKING:
    from irs.settings import Settings

#: Instance-seconds that one image-second of waiting is worth; None: the rule of counts.
POLICIES: dict[str, float | None] = {"classic": None, "latency": 1.0, "balanced": 0.5, "eco": 0.03}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerSettings:
    """The settings of one policy; checked when made.

    Attributes:
        value: instance-seconds that one image-second of waiting is worth; None is ``classic``.
        cap: instances at most, of any phase.
        slots: images one worker has in hand at full load.
        rate_per_s: images/s of one worker before any is measured.
        boot_s: seconds from launch to ready before any is measured.
        hold_s: a level of the fleet is given up when it was not needed for so long.
        base_memory_s: time constant of what the shadow queues charge.
        horizon_s: how far ahead an instance may earn its boot.
        min_age_s: a worker younger than this is not told to retire: its first minute is paid anyway.
        images_per_worker: the count ``classic`` goes by.
        candidates: places a launch may go to; empty: capacity is not looked at.
        budget_per_day_usd: no launches once a day has cost so much; 0: no limit.

    Raises:
        SetupError: a value that no policy can work with.
    """

    value: float | None = 0.5
    cap: int = 19
    min_workers: int = 0
    period_s: float = 5.0
    slots: int = 2
    rate_per_s: float = 1.0
    boot_s: float = 60.0
    hold_s: float = 30.0
    base_memory_s: float = 200.0
    horizon_s: float = 300.0
    min_age_s: float = 55.0
    images_per_worker: int = 10
    candidates: tuple[Pair, ...] = ()
    budget_per_day_usd: float = 0.0

    def __post_init__(self) -> None:
        if self.value is not None and not (math.isfinite(self.value) and self.value > 0):
            raise SetupError("The price of waiting (IRS_SCALER_VALUE) must be above 0: 0.03 saves money, 1 saves time.")
        if self.cap < 1 or self.slots < 1 or self.images_per_worker < 1:
            raise SetupError("The cap, the slots and the images of a worker must be at least 1.")
        if not 0 <= self.min_workers <= self.cap:
            raise SetupError(f"IRS_SCALER_MIN_WORKERS must be between 0 and the cap of {self.cap}.")
        times = (self.period_s, self.rate_per_s, self.boot_s, self.base_memory_s, self.horizon_s)
        if not all(math.isfinite(one) and one > 0 for one in times):
            raise SetupError("Period, rate, boot time, memory and horizon of the scaler must be above 0.")

    @property
    def stale_s(self) -> float:
        """Age from which a reading is not acted on."""
        return 3 * self.period_s


def policy_settings(policy: str, **changes: object) -> ScalerSettings:
    """Return the settings of a policy by its name, or of a price of waiting such as ``0.2``.

    Raises:
        SetupError: no such policy, or a price that is not above 0.
    """
    return replace(ScalerSettings(), value=value_of(policy), **changes)  # type: ignore[arg-type]


def value_of(policy: str) -> float | None:
    """Return the price of waiting that ``policy`` names; None is ``classic``. Raises as :func:`policy_settings`."""
    if policy in POLICIES:
        return POLICIES[policy]
    try:
        return float(policy)
    except ValueError:
        names = ", ".join(POLICIES)
        raise SetupError(f"There is no policy {policy!r}: say {names}, or a price of waiting such as 0.2.") from None


def from_settings(settings: Settings) -> ScalerSettings:
    """Return the scaler's part of the process's settings. Raises as :func:`policy_settings`."""
    return ScalerSettings(
        value=settings.scaler_value or value_of(settings.scaler_policy),
        cap=settings.scaler_cap,
        min_workers=settings.scaler_min_workers,
        period_s=settings.scaler_period_seconds,
        slots=settings.slots,
        rate_per_s=settings.scaler_rate_per_second,
        boot_s=settings.scaler_boot_seconds,
        budget_per_day_usd=settings.budget_per_day,
    )
