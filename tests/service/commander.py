"""Obeys the lines it is given: evaluates each, and answers with a line of JSON. It commands and watches ``watched.py``.

One process for many commands: starting ``celery`` anew for each would take a second.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from watched import app, fail, work

control = app.control
_events: list[dict[str, Any]] = []


def inspect(method: str, *arguments: Any, **options: Any) -> Any:
    return getattr(app.control.inspect(**{"timeout": 10.0, **options}), method)(*arguments)


def ask_from_threads(commands: int, threads: int) -> list[Any]:
    """Ask each worker for the state of a task of a name of one's own; return name and answer of each command."""

    def ask(number: int) -> Any:
        worker = f"irs@w{number % 2}"
        return [worker, control.broadcast("clock", reply=True, timeout=20.0, destination=[worker])]

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, range(commands)))


_receivers: list[Any] = []


def watch(*, is_renewing: bool = True) -> None:
    """Capture events from now on, in a thread, in place of a watch before; renew the lease or let it end."""
    unwatch()

    def capture() -> None:
        with app.connection() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": _events.append}, app=app)
            if not is_renewing:
                receiver.renew = lambda: None
            _receivers.append(receiver)
            receiver.capture()

    threading.Thread(target=capture, daemon=True).start()


def unwatch() -> None:
    """End the watch: at its next event or within 20 s."""
    while _receivers:
        _receivers.pop().should_stop = True


def is_watching() -> bool:
    return bool(_receivers)


def seen(*types: str) -> list[dict[str, Any]]:
    return [event for event in list(_events) if event["type"] in types]


def forget() -> None:
    _events.clear()


def send(count: int, seconds: float = 0.0, first: int = 0) -> list[str]:
    """Send tasks, each with its own image; return their ids."""
    with app.producer_or_acquire() as producer:
        return [work.apply_async([f"image-{first + n}", seconds], producer=producer).id for n in range(count)]


def send_failing(count: int) -> list[str]:
    return [fail.apply_async([f"bad-{n}"]).id for n in range(count)]


def publish_raw(exchange: str, body: Any, **headers: Any) -> None:
    """Publish anything, as anyone may who knows the topic."""
    from kombu import Exchange

    with app.connection_for_write() as connection, app.amqp.Producer(connection, auto_declare=False) as producer:
        kind = Exchange(exchange, type="fanout", durable=False)
        producer.publish(body, exchange=exchange, declare=[kind], headers=headers, serializer="json", retry=False)


def publish_twice(exchange: str, body: Any) -> None:
    """Publish one message twice, as SNS may deliver it."""
    from irs.broker import fanout

    once = fanout.publish

    def twice(*args: Any) -> None:
        once(*args)
        once(*args)

    fanout.publish = twice
    try:
        publish_raw(exchange, body)
    finally:
        fanout.publish = once


def drain_on_an_empty_queue(timeout: float) -> float:
    """Return how long one ``drain_events`` lasts when nothing comes."""
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, app=app)
        with receiver.consumer_context(wakeup=False) as (consuming, _, _):
            while True:
                began = time.monotonic()
                try:
                    # Returns when an event came: then it was not empty.
                    consuming.drain_events(timeout=timeout)
                except TimeoutError:
                    return time.monotonic() - began


def main() -> None:
    names = dict(globals())
    for line in sys.stdin:
        began = time.monotonic()
        try:
            answer: dict[str, Any] = {"value": eval(line, names)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer["took_s"] = time.monotonic() - began
        sys.stdout.write(f"{json.dumps(answer, default=str)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
