"""Task messages of images that are stored: sent by name, as many in one request as wait."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from irs import broker, records
from irs.cloud import Cloud
from irs.records import Options

TASK = "irs.recognize"
#: Sent in one go: what was sent stands when a later one fails.
MOST_SENDS = 200


class Sendable(Protocol):
    """One image to be recognised: ``image`` is a key of the input bucket or ``s3://bucket/key``."""

    @property
    def id(self) -> str:
        """The task's id."""

    @property
    def image(self) -> str:
        """Where it is."""

    @property
    def name(self) -> str:
        """The file's own name."""


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image of a job."""

    job: str
    number: int
    image: str
    name: str

    @property
    def id(self) -> str:
        """The task's id."""
        return records.task_id(self.job, self.number)


@dataclass(frozen=True, slots=True)
class SingleTask:
    """One image of no job, under an id of its own."""

    id: str
    image: str
    name: str


def send_tasks(cloud: Cloud, tasks: Sequence[Sendable], options: Options) -> None:
    """Send the tasks, ten in a request. Sending one again is harmless: it keeps its id, and the first record stands.

    Raises:
        QueueUnavailable: SQS did not take them all.
        MissingResource, Unreachable: the queue is not there, or SQS does not answer.
    """
    # Celery costs 0.3 s at import: not before there is something to send.
    from irs.app import app

    queue = cloud.settings.requests_queue
    # A connection is an object here, not a socket; one of our own is safe for threads and after fork.
    with app.connection_for_write() as connection, app.amqp.Producer(connection, auto_declare=False) as producer:
        # Else the transport would take the settings of the environment, and this client may have others.
        producer.channel.cloud = cloud
        with broker.batch_sends(producer):
            for task in tasks:
                app.send_task(
                    TASK,
                    [task.image],
                    {"name": task.name, **options.changed()},
                    task_id=task.id,
                    queue=queue,
                    producer=producer,
                )


class Sender:
    """Sends from a thread of its own: while one request is on its way, the next tasks gather.

    ``with Sender(...) as sender``: at the end of the block all is sent, or the error of a send is raised.
    """

    def __init__(self, cloud: Cloud, options: Options) -> None:
        self._cloud, self._options = cloud, options
        self._waiting: list[ImageTask] = []
        self._is_closing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="irs-sender", daemon=True)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        if kind is None:
            self.check()

    def put(self, task: ImageTask) -> None:
        """Queue a task whose image is stored; never blocks."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()

    def check(self) -> None:
        """Raise what a send has raised."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while tasks := self._take():
            try:
                send_tasks(self._cloud, tasks, self._options)
            except Exception as error:  # the edge of a main loop: raised where the images are handed in
                self._error = error
                return
            self.sent += len(tasks)

    def _take(self) -> list[ImageTask]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            taken, self._waiting = self._waiting[:MOST_SENDS], self._waiting[MOST_SENDS:]
            return taken
