"""One service under load or idle: a worker process on the embedded cloud, images handed in, what it took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irs import records
from irs.cloud import Cloud
from irs.errors import NotFound, SetupError
from irs.local.bench import usage
from irs.records import Beat

START_S = 120.0
LOOK_S = 0.05
#: Below the time that the quickest model takes for one.
LOOK_S_AN_IMAGE = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run took. Milliseconds of CPU are for each image, counted in whole ticks of 10 ms."""

    images: int
    wall_s: float
    worker_cpu_ms: float
    cloud_cpu_ms: float

    @property
    def images_per_s(self) -> float:
        """Wall-clock rate."""
        return self.images / self.wall_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A running ``irs worker``; ``cold_start_s`` from the start of the process to ready."""

    process: subprocess.Popen[bytes]
    cold_start_s: float
    log: Path


@contextmanager
def running_worker(cloud: Cloud, environment: dict[str, str], log: Path) -> Iterator[Worker]:
    """Start one worker and wait until it is ready; drain it at the end.

    Raises:
        SetupError: it ended, or was not ready in two minutes; with what it said last.
    """
    name = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "irs.cli", "worker"],
            # The photos are handed in again and again: remembered answers would be no measurement.
            env={**environment, "IRS_INSTANCE_ID": name, "IRS_CACHE_ENTRIES": "0", "IRS_LOG_JSON": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while (beat := _beat(cloud, name)) is None or beat.phase not in ("ready", "busy"):
            if process.poll() is not None or time.monotonic() - began > START_S:
                raise SetupError(f"The worker did not start: {log.read_text(errors='replace')[-500:].strip()}")
            time.sleep(LOOK_S)
        yield Worker(process=process, cold_start_s=time.monotonic() - began, log=log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def upload(cloud: Cloud, photos: list[Path]) -> list[str]:
    """Put the photos into the input bucket once; return their keys."""
    keys = [f"bench/{path.name}" for path in photos]
    for path, key in zip(photos, keys, strict=True):
        cloud.input.put(key, path.read_bytes(), content_type="image/jpeg")
    return keys


def run_load(cloud: Cloud, worker: Worker, cloud_pid: int, keys: list[str], images: int) -> Load:
    """Send ``images`` tasks over ``keys`` and wait until every record is stored and every message deleted."""
    job = records.new_job_id()
    pid = worker.process.pid
    worker_ms, cloud_ms, began = usage.cpu_ms(pid), usage.cpu_ms(cloud_pid), time.monotonic()
    send(job, [keys[n % len(keys)] for n in range(images)])
    while left := sum(depth(cloud)):
        if worker.process.poll() is not None:
            raise SetupError(f"The worker ended: {worker.log.read_text(errors='replace')[-500:].strip()}")
        # Seldom while much is left: each look costs the cloud as much as a receive.
        time.sleep(min(1.0, max(LOOK_S, left * LOOK_S_AN_IMAGE)))
    wall_s = time.monotonic() - began
    stored = sum(1 for _ in cloud.output.list(records.job_prefix(job)))
    if stored != images:
        raise SetupError(f"{images} images were handed in and {stored} records stand: nothing measured.")
    return Load(
        images=images,
        wall_s=wall_s,
        worker_cpu_ms=(usage.cpu_ms(pid) - worker_ms) / images,
        cloud_cpu_ms=(usage.cpu_ms(cloud_pid) - cloud_ms) / images,
    )


def send(job: str, keys: list[str]) -> None:
    """Send a task for each key; image numbers count from 0."""
    from irs import broker
    from irs.app import app

    with app.producer_pool.acquire(block=True) as producer, broker.batch_sends(producer):
        for number, key in enumerate(keys):
            app.send_task("irs.recognize", [key], task_id=records.task_id(job, number), producer=producer)


def depth(cloud: Cloud) -> tuple[int, int]:
    """Return the messages of the request queue that are visible and in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    url = cloud.queue_url(cloud.settings.requests_queue)
    got = cloud.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(got[names[0]]), int(got[names[1]])


def idle_latencies_s(cloud: Cloud, photos: list[Path], images: int) -> list[float]:
    """Return, for one image at a time, the seconds from its PUT to its news."""
    url = cloud.queue_url(cloud.settings.responses_queue)
    sqs = cloud.client("sqs", read_seconds=25.0)
    taken: list[float] = []
    for number in range(images):
        body = photos[number % len(photos)].read_bytes()
        job = records.new_job_id()
        key = records.image_key(job, 0, "idle.jpg")
        began = time.monotonic()
        cloud.input.put(key, body, content_type="image/jpeg")
        send(job, [key])
        while not _receive_news(sqs, url, job):
            continue
        taken.append(time.monotonic() - began)
    return sorted(taken)


def drop_news(cloud: Cloud) -> None:
    """Empty the response queue."""
    cloud.sqs().purge_queue(QueueUrl=cloud.queue_url(cloud.settings.responses_queue))


def _receive_news(sqs: Any, url: str, job: str) -> bool:
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20).get("Messages", [])
    for message in got:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return any(item["job"] == job for message in got for item in json.loads(message["Body"])["results"])


def _beat(cloud: Cloud, name: str) -> Beat | None:
    try:
        return Beat.from_json(cloud.output.get(records.beat_key(name)))
    except NotFound:
        return None
