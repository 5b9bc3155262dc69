"""What each step of a training does: a pure function of its number, fixed before the first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: Shares of the time at half, three quarters and all of the side. Small pictures teach most of it at a quarter of the cost.
_SHARES = (0.40, 0.35, 0.25)
_SIDES = (0.5, 0.75, 1.0)
_SIDE_STEP_PX = 8
#: Time of a picture goes with its side to this power, as measured from 32 to 64 px: some of it is the optimizer's.
_COST_POWER = 1.6
#: From so many passes on the net sees through weak augmentation.
_MANY_EPOCHS = 30
_MIXED_SHARE = 0.6
_WARM_UP = 0.03


@dataclass(frozen=True, slots=True)
class Stage:
    """``steps`` steps with ``batch`` pictures of ``side_px`` each."""

    side_px: int
    batch: int
    steps: int


@dataclass(frozen=True, slots=True)
class Moment:
    """One step: ``first`` counts the pictures before it; ``rate`` is the share of the peak learning rate."""

    side_px: int
    batch: int
    first: int
    rate: float
    is_mixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole training from random weights.

    Attributes:
        asked: what the caller set, as plain values: a run goes on only under the same.
        pictures: in one epoch.
        peak: relative change of a convolution's weight in one step at the highest learning rate.
        is_strong: stronger augmentation, with pictures mixed in the first part.
    """

    asked: Mapping[str, Any]
    seed: int
    pictures: int
    stages: tuple[Stage, ...]
    peak: float
    is_strong: bool

    @property
    def steps(self) -> int:
        """Number of steps."""
        return sum(stage.steps for stage in self.stages)

    @property
    def epochs(self) -> float:
        """Passes over the pictures."""
        return sum(stage.steps * stage.batch for stage in self.stages) / self.pictures

    def at(self, step: int) -> Moment:
        """Return what step ``step`` does, counted from 0.

        Raises:
            IndexError: there are fewer steps.
        """
        before, first = 0, 0
        for stage in self.stages:
            if step < before + stage.steps:
                first += (step - before) * stage.batch
                return Moment(stage.side_px, stage.batch, first, self._rate(step), self._is_mixed(step))
            before, first = before + stage.steps, first + stage.steps * stage.batch
        raise IndexError(step)

    def _rate(self, step: int) -> float:
        """Return the share of the peak rate: up within the first steps, then straight down to nearly 0."""
        done, warm = (step + 0.5) / self.steps, _WARM_UP
        return done / warm if done < warm else (1 - done) / (1 - warm)

    def _is_mixed(self, step: int) -> bool:
        # Odd steps: half of the batches.
        return self.is_strong and step < _MIXED_SHARE * self.steps and step % 2 == 1

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the plan that :meth:`to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "stages": tuple(Stage(**stage) for stage in fields["stages"])})


def stage_sides(side_px: int) -> tuple[int, ...]:
    """Return the sides of a training for ``side_px``: rising, the last is ``side_px``."""
    return tuple(round(side_px * part / _SIDE_STEP_PX) * _SIDE_STEP_PX for part in _SIDES)


def stage_batch(batch: int, side_px: int, full_side_px: int) -> int:
    """Return the batch at ``side_px``: twice as many small pictures halve what the optimizer costs each."""
    return batch * 2 if side_px * 2 <= full_side_px else batch


def relative_cost(side_px: int) -> float:
    """Return what a picture costs, in no unit: to be compared with other sides."""
    return float(side_px**_COST_POWER)


def make_plan(
    *,
    asked: Mapping[str, Any],
    seed: int,
    pictures: int,
    sides_px: tuple[int, ...],
    batch: int,
    epochs: float | None = None,
    budget_s: float | None = None,
    cost_s: Mapping[int, float] | None = None,
) -> Plan:
    """Return the plan that takes ``epochs`` passes, or ``budget_s`` seconds.

    Args:
        cost_s: measured seconds a picture by side, needed with ``budget_s``; without it typical ones.
    """
    batch = min(batch, pictures)
    cost_s = cost_s or {side_px: relative_cost(side_px) for side_px in sides_px}
    # Pictures a second of the whole plan, by stage.
    speeds = [share / cost_s[side_px] for share, side_px in zip(_SHARES, sides_px, strict=True)]
    if budget_s is not None:
        counts = [budget_s * speed for speed in speeds]
    else:
        counts = [(epochs or 0) * pictures * speed / sum(speeds) for speed in speeds]
    batches = [min(stage_batch(batch, side_px, sides_px[-1]), pictures) for side_px in sides_px]
    stages = tuple(
        Stage(side_px, size, max(1, round(count / size))) for side_px, size, count in zip(sides_px, batches, counts, strict=True)
    )
    is_many = sum(counts) / pictures >= _MANY_EPOCHS
    return Plan(asked=asked, seed=seed, pictures=pictures, stages=stages, peak=0.04 if is_many else 0.05, is_strong=is_many)
