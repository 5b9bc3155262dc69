"""The simulator: a trace of arrivals against the real policy, on a clock and a fleet that cost nothing."""

from scaler.simulate.contenders import CONTENDERS, contender
from scaler.simulate.run import simulate
from scaler.simulate.score import Score, average
from scaler.simulate.world import Assumptions, Outcome
from scaler.trace import Trace, read_trace

__all__ = [
    "CONTENDERS",
    "Assumptions",
    "Outcome",
    "Score",
    "Trace",
    "average",
    "contender",
    "read_trace",
    "simulate",
]
