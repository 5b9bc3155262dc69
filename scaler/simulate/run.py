"""One run, or the mean of several: the same seed gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterable

from scaler.settings import ScalerSettings
from scaler.simulate.contenders import contender
from scaler.simulate.score import Score, average, score
from scaler.simulate.world import Assumptions, Outcome, World
from scaler.trace import Trace


def simulate(
    trace: Trace, policy: str, *, seed: int = 1, assumed: Assumptions | None = None, settings: ScalerSettings | None = None
) -> Outcome:
    """Play ``trace`` under a policy, or under a contender such as ``keda:10``.

    Args:
        assumed: what the world is like; the defaults are those of the published tables.
        settings: what our policies are told beforehand, its price of waiting left aside.

    Raises:
        SetupError: there is no such policy.
    """
    world = assumed or Assumptions()
    return World(trace, world, contender(policy, world, settings), seed).run()


def mean_score(
    trace: Trace, policy: str, seeds: Iterable[int], *, assumed: Assumptions | None = None, settings: ScalerSettings | None = None
) -> Score:
    """Return the mean score of runs with several seeds. Raises as :func:`simulate`."""
    return average([score(simulate(trace, policy, seed=seed, assumed=assumed, settings=settings)) for seed in seeds])
