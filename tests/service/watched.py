"""A Celery app with the shipped settings, transport, pool, control and events, and tasks without a model.

Run as ``celery -A watched worker`` in a process of its own: what it watches and obeys is what ``irs worker`` does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from celery import Celery, signals

import irs.broker
from irs.settings import get_settings

irs.broker.register(broadcasts=get_settings().monitoring)
app = Celery(
    "watched",
    set_as_current=False,
    control="irs.monitoring.control:Control",
    events="irs.monitoring.events:Events" if get_settings().monitoring else None,
)
app.config_from_object("celeryconfig")
app.conf.update(
    result_backend=None,
    imports=("irs.monitoring.commands",),
    worker_concurrency=int(os.environ.get("WATCHED_SLOTS", "4")),
)


@app.task(name="watched.work", bind=True)
def work(self: Any, image: str, seconds: float = 0.0) -> str:
    """Take some time."""
    time.sleep(seconds)
    if log := os.environ.get("WATCHED_LOG"):
        with open(log, "a", encoding="ascii") as file:
            file.write(f"{self.request.id} {image}\n")
    return image


@app.task(name="watched.fail", throws=(ValueError,), acks_on_failure=True)
def fail(image: str) -> None:
    """End as a broken image does."""
    raise ValueError(f"not_an_image: {image}")


@signals.setup_logging.connect
def _log(**_: Any) -> None:
    logging.basicConfig(level=logging.INFO, format="%(threadName)s %(name)s %(message)s")


def threads_of_publishes() -> None:
    """Log in which thread each call to SNS is made."""
    from irs.broker import fanout

    publish = fanout.publish

    def told(*args: Any) -> None:
        logging.getLogger("watched").info("publish in %s", threading.current_thread().name)
        publish(*args)

    fanout.publish = told


threads_of_publishes()
