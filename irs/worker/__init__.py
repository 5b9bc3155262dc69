"""The engine: load and warm, stages, micro-batch, drain, readiness, beat."""

from __future__ import annotations

from irs.settings import Settings

INTERRUPTED = 130


def run(settings: Settings) -> int:
    """Run one worker until it is told to stop; return its exit code.

    Blocks. SIGTERM and the first Ctrl-C drain, the second Ctrl-C ends at once. After Ctrl-C the code is 130, as a shell
    expects it; Celery's own would be 1.

    Raises:
        SetupError: the model, the queue or a package is missing; said before Celery starts.
    """
    from celery.signals import worker_shutting_down

    from irs.app import app
    from irs.monitoring.events import WATCHED_BEAT_S

    asked_by: set[str] = set()
    worker_shutting_down.connect(lambda sig, **_: asked_by.add(sig), weak=False)
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
    return INTERRUPTED if "SIGINT" in asked_by else int(worker.exitcode or 0)
