"""The scaler: workers follow the queue, from zero to the cap and back.

``decide`` is the policy: values in, values out, no clock and no network. ``scaler.simulate`` replays a trace of
arrivals against it before anyone pays for it; ``scaler.signals`` reads what it decides on.
"""

from scaler.observation import Boot, Observation, Pair, Phase, Worker
from scaler.policy import Decision, Kind, decide
from scaler.settings import POLICIES, ScalerSettings, policy_settings
from scaler.state import State

__all__ = [
    "POLICIES",
    "Boot",
    "Decision",
    "Kind",
    "Observation",
    "Pair",
    "Phase",
    "ScalerSettings",
    "State",
    "Worker",
    "decide",
    "policy_settings",
]
