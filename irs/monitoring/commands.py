"""Commands a worker obeys, beyond or in place of Celery's own. Imported by workers alone (``imports`` of celeryconfig).

Each answers with ``{"ok": sentence}`` or ``{"error": sentence}``, as Celery's do. They run in the worker's event
loop: none may wait for anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from celery import signals
from celery.utils.functional import maybe_list
from celery.worker import state as worker_state
from celery.worker.control import Panel

from irs.monitoring.events import LEASE_S

log = logging.getLogger(__name__)

Answer = dict[str, str]


Command = TypeVar("Command", bound=Callable[..., Answer | None])


def _command(**options: Any) -> Callable[[Command], Command]:
    return Panel.register(type="control", **options)  # type: ignore[no-any-return]


@_command()
def enable_events(state: Any) -> Answer:
    """Tell worker(s) to send task-related events for a minute: who watches says so again and again."""
    dispatcher = state.consumer.event_dispatcher
    if dispatcher is None or not hasattr(dispatcher, "watch"):
        return {"error": "this worker sends no events"}
    if not dispatcher.is_watched:
        log.info("watched", extra={"for_s": LEASE_S})
    dispatcher.watch()
    return {"ok": f"task events enabled for {LEASE_S:g} s"}


@_command()
def disable_events(state: Any) -> Answer:
    """Tell worker(s) to stop sending task-related events."""
    dispatcher = state.consumer.event_dispatcher
    if dispatcher is None or not hasattr(dispatcher, "unwatch"):
        return {"error": "this worker sends no events"}
    dispatcher.unwatch()
    return {"ok": "task events disabled"}


@_command()
def heartbeat(state: Any) -> None:
    """Tell worker(s) to send event heartbeat immediately."""
    dispatcher, heart = state.consumer.event_dispatcher, state.consumer.heart
    if dispatcher is not None and heart is not None:
        dispatcher.beat_soon()
        heart._send("worker-heartbeat")


@_command()
def shutdown(state: Any, msg: str = "told by remote control", **_: Any) -> Answer:
    """Drain and end worker(s), as SIGTERM does."""
    log.warning("leaving", extra={"why": msg})
    # As Celery's handler of SIGTERM, and unlike its own command, so that the worker drains and this answer is sent.
    signals.worker_shutting_down.send(sender=state.hostname, sig="shutdown", how="Warm", exitcode=os.EX_OK)
    worker_state.should_stop = os.EX_OK
    return {"ok": "draining, then ending"}


@_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: str | Collection[str], terminate: bool = False, **_: Any) -> Answer:
    """Revoke task by task id (or list of ids); of a job by its id, all its tasks."""
    ids = {str(id) for id in maybe_list(task_id) or ()}
    # Celery's own asks the result backend for each, and waits for it: who revokes has stored what lasts.
    worker_state.revoked.update(ids)
    cancelled = getattr(state.app, "cancelled", None)
    if cancelled is not None:
        cancelled.add(ids)
    log.info("revoked", extra={"ids": len(ids)})
    sentence = f"tasks {', '.join(sorted(ids))} flagged as revoked"
    return {"ok": f"{sentence}; what runs is not ended: a thread cannot be" if terminate else sentence}


@_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: Any, signal: str, task_id: str | Collection[str], **_: Any) -> Answer:
    """Revoke tasks; what runs ends by itself, as a thread cannot be ended."""
    del signal
    return revoke(state, task_id, terminate=True)
