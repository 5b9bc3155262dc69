"""The simulator: a trace of arrivals against the real policy, on a clock and a fleet that cost nothing."""

from scaler.simulate.run import simulate
from scaler.simulate.score import Score, average
from scaler.simulate.world import Assumptions
from scaler.trace import read_trace

__all__ = ["Assumptions", "Score", "average", "read_trace", "simulate"]
