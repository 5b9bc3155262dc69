"""The engine: load and warm, stages, micro-batch, drain, readiness, beat."""

from __future__ import annotations

from irs.settings import Settings


def run(settings: Settings) -> int:
    """Run one worker until it is told to stop; return its exit code.

    Blocks. SIGTERM and the first Ctrl-C drain, the second Ctrl-C ends at once.

    Raises:
        SetupError: the model, the queue or a package is missing; said before Celery starts.
    """
    from irs.app import app
    from irs.monitoring.events import WATCHED_BEAT_S

    worker = app.Worker(
        hostname=f"irs@{settings.instance_id}",
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        # Heartbeats are events: with nobody who could see them they are not sent.
        without_heartbeat=not settings.monitoring,
        heartbeat_interval=WATCHED_BEAT_S,
    )
    worker.start()
    return int(worker.exitcode or 0)
