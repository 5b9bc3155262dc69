"""One run: the same seed gives the same numbers."""

from __future__ import annotations

from scaler.settings import ScalerSettings
from scaler.simulate.contenders import contender
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
