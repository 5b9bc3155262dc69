"""A Celery app with the shipped settings, transport, pool and consumer, and tasks that do what a test asks.

Run as ``celery -A probe worker`` in a process of its own; each run of a task is a line in ``PROBE_LOG``.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject

import irs.broker

irs.broker.register()

app = Celery("probe", set_as_current=False)
app.config_from_object("celeryconfig")
app.conf.update(
    result_backend=None,
    imports=(),
    worker_concurrency=int(os.environ.get("PROBE_SLOTS", "4")),
    worker_prefetch_multiplier=int(os.environ.get("PROBE_MULTIPLIER", "2")),
)
if os.environ.get("PROBE_STOCK"):
    # kombu's and Celery's own, with the same settings: what the tests must fail on.
    import kombu.transport
    from celery.worker.consumer import Consumer

    kombu.transport.TRANSPORT_ALIASES["sqs"] = "kombu.transport.SQS:Transport"
    app.conf.update(
        broker_url=os.environ["AWS_ENDPOINT_URL"].replace("http://", "sqs://"),
        worker_pool="threads",
        worker_consumer=Consumer,
    )


def _log(task: Task, what: str, argument: object) -> None:
    line = f"{what} {task.name.rpartition('.')[2]} {argument} {os.getpid()} {time.time():.3f}\n"
    # One write of one line: appends of several processes do not mix.
    with open(os.environ["PROBE_LOG"], "a", encoding="ascii") as file:
        file.write(line)


@app.task(name="probe.work", bind=True)
def work(self: Any, number: int, seconds: float = 0.0) -> None:
    """Take some time, and say that it is done."""
    _log(self, "start", number)
    time.sleep(seconds)
    _log(self, "end", number)


@app.task(name="probe.fail", bind=True)
def fail(self: Any, number: int) -> None:
    """A fault of ours."""
    _log(self, "start", number)
    raise ValueError("as asked")


@app.task(name="probe.passing", bind=True)
def passing(self: Any, number: int) -> None:
    """A passing fault, as the image task leaves it."""
    _log(self, "start", number)
    raise Reject("as asked", requeue=True)


@app.task(name="probe.leave", bind=True)
def leave(self: Any, number: int) -> None:
    """What is no Exception."""
    _log(self, "start", number)
    raise SystemExit(number)


@app.task(name="probe.again", bind=True)
def again(self: Any, number: int) -> None:
    """Celery's own retry, which sends a new message and acknowledges the old one."""
    _log(self, "start", number)
    raise self.retry(countdown=1, max_retries=5)


@app.task(name="probe.die", bind=True)
def die(self: Any, number: int) -> None:
    """The process dies, as by the kernel's out-of-memory killer."""
    _log(self, "start", number)
    os.kill(os.getpid(), signal.SIGKILL)
