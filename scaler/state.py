"""What the policy remembers from one decision to the next: under 4 KB of JSON.

Losing it costs one learning period, never correctness. Times are stored as «seconds ago», so that no two machines'
clocks are ever compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

#: Periods of arrivals, rests and boot times that are remembered.
WINDOW, GAPS, BOOTS, BOOT_KINDS = 24, 64, 20, 6
_TIMES = ("at", "idle_from", "last_age_launch")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The memory of the policy.

    Attributes:
        at: when the last decision on a good reading was made; None before the first.
        arrived: images that ever came, as far as noisy counts tell (A of the design).
        completed, busy_s: the counters of the last observation.
        done, held_s: completions, and the image-seconds (or busy seconds) they took, both fading out.
        boots: measured boot times by kind, the last 20 of each.
        arrivals_per_s: arrivals of the last 24 periods.
        shadow, charge: what a fleet of k = 1, 2, … would have waiting, and what that waiting costs.
        needed_at: when a fleet of k = 1, 2, … was last needed.
        gaps_s: lengths of the last 64 rests; ``found`` is the backlog that a rest ends with.
        idle_from: since when the queue is empty; None while it is not.
        empty_readings: consecutive readings of an empty queue.
        last_age_launch: when a launch was last made because images were too old.
    """

    at: float | None = None
    arrived: float = 0.0
    completed: float = 0.0
    busy_s: float | None = None
    done: float = 0.0
    held_s: float = 0.0
    boots: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    arrivals_per_s: tuple[float, ...] = ()
    shadow: tuple[float, ...] = ()
    charge: tuple[float, ...] = ()
    needed_at: tuple[float, ...] = ()
    gaps_s: tuple[float, ...] = ()
    found: float = 6.0
    idle_from: float | None = None
    empty_readings: int = 0
    last_age_launch: float | None = None

    def to_json(self, now: float) -> dict[str, Any]:
        """Return plain JSON values, five digits each; times become ages at ``now``."""
        ages: dict[str, Any] = {name: _age(getattr(self, name), now) for name in _TIMES}
        aged = replace(self, **ages, needed_at=tuple(now - at for at in self.needed_at))
        return {name: _short(value, digits=12 if name in ("arrived", "completed") else 5) for name, value in asdict(aged).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], now: float) -> Self:
        """Return the memory that :meth:`to_json` wrote, its ages counted back from ``now``.

        Raises:
            ValueError: a value is no number, or not finite; the caller starts with an empty memory instead.
        """
        known = {one.name for one in fields(cls)}
        try:
            read = {name: _numbers(value) for name, value in document.items() if name in known}
            read["needed_at"] = tuple(now - age for age in read.get("needed_at", ()))
            ages = {name: _age(read.get(name), now) for name in _TIMES}
            if not isinstance(read.get("boots", {}), Mapping):
                raise TypeError("boots")
            return cls(**{**read, **ages, "empty_readings": int(read.get("empty_readings", 0))})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no memory of the scaler: {error}") from None

    def of_size(self, cap: int, now: float) -> Self:
        """Return the memory for a fleet of up to ``cap``: new levels are thought as busy as the largest one known."""
        return replace(
            self,
            shadow=_resize(self.shadow, cap, 0.0),
            charge=_resize(self.charge, cap, 0.0),
            # An unknown level counts as needed just now: a scaler that woke up among workers stops none of them at once.
            needed_at=_resize(self.needed_at, cap, now, repeat=False),
        )


def _resize(values: tuple[float, ...], size: int, default: float, *, repeat: bool = True) -> tuple[float, ...]:
    more = values[-1] if values and repeat else default
    return values[:size] + (more,) * (size - len(values))


def _age(value: float | None, now: float) -> float | None:
    return None if value is None else now - value


def _short(value: Any, digits: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(one, digits) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_short(one, digits) for one in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_numbers(one) for one in value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return value
