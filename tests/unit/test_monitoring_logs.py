"""Each line of an image names it, in whichever thread it is written."""

from __future__ import annotations

import io
import json
import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from waiting import eventually

from irs import records
from irs.monitoring.logs import TASK_ID, set_up_logging
from irs.worker.batcher import Batcher, Decoded
from irs.worker.pool import Pool

JOB = records.new_job_id()
ID = records.task_id(JOB, 7)
OF_IMAGE = {"task_id": ID, "job": JOB, "number": 7}
log = logging.getLogger("somebody.elses")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    set_up_logging(as_json=True, stream=stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def told(lines: io.StringIO, event: str) -> dict[str, Any]:
    """Wait for the line of an event; return its fields that tell of which image it is."""
    found = eventually(lambda: [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == event])
    return {name: found[0][name] for name in OF_IMAGE if name in found[0]}


def test_a_task_threads_lines_name_its_image_whoever_writes_them(lines: io.StringIO) -> None:
    pool = Pool(limit=1)
    pool.start()
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work(*_: Any) -> tuple[int, str, float]:
        log.info("worked_on")
        return 0, "", 0.0

    pool.apply_async(work, ("irs.recognize", ID), callback=lambda _: (log.info("settled"), ended.put(None)))
    ended.get(timeout=10)
    pool.stop()

    assert OF_IMAGE == told(lines, "worked_on")
    assert OF_IMAGE == told(lines, "settled")


def test_a_plain_calls_lines_have_its_id_and_no_job(lines: io.StringIO) -> None:
    TASK_ID.set("anything")
    log.info("plain")
    TASK_ID.set(None)
    log.info("nobodys")

    assert {"task_id": "anything"} == told(lines, "plain")
    assert {} == told(lines, "nobodys")


def test_a_line_that_names_its_task_tells_job_and_number_too(lines: io.StringIO) -> None:
    log.info("dropped", extra={"task_id": ID})

    assert OF_IMAGE == told(lines, "dropped")


def test_what_compute_threads_say_of_an_image_names_it_also_beside_others(lines: io.StringIO) -> None:
    """Decoding and a failing model: two images, each decoded and blamed in a thread that works for both."""

    def broken(_: Any) -> Any:
        raise RuntimeError("no model")

    def decode() -> Decoded:
        log.info("decoded_%s" % TASK_ID.get())  # noqa: UP031
        return Decoded(np.zeros((2, 2, 3), np.uint8))

    batcher = Batcher(broken, sizes=(2, 1), threads=1, wait_s=0.0)
    ids = [ID, records.task_id(JOB, 8)]
    futures = []

    def hand_in(id: str) -> None:
        TASK_ID.set(id)
        futures.append(batcher.submit(decode))

    for id in ids:
        thread = threading.Thread(target=hand_in, args=(id,))
        thread.start()
        thread.join()
    for future in futures:
        assert future.exception(timeout=10) is not None
    batcher.close()

    assert OF_IMAGE == told(lines, f"decoded_{ID}")
    blamed = [json.loads(line) for line in lines.getvalue().splitlines() if '"model_failed"' in line]
    assert [7, 8] == sorted(line["number"] for line in blamed)
    assert {1} == {line["size"] for line in blamed}
