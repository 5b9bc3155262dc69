"""The engine: load and warm, stages, micro-batch, drain, readiness, beat."""
