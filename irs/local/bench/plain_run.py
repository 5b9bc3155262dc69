"""Plain Celery under the same load: prefork, one process a core, its own queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irs.cloud import Cloud
from irs.errors import SetupError
from irs.local import child
from irs.local.bench import usage

START_S = 120.0
LOOK_S = 0.05
QUEUE = "bench-plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What plain Celery took; CPU of all its processes."""

    images: int
    images_per_s: float
    cpu_ms: float


def run_plain(cloud: Cloud, environment: dict[str, str], keys: list[str], images: int, log: Path) -> Plain:
    """Start workers, let them load the model on some images, then measure ``images``.

    Raises:
        SetupError: they do not answer.
    """
    sqs = cloud.sqs()
    cores = os.cpu_count() or 1
    url = sqs.create_queue(QueueName=QUEUE, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    responses = sqs.create_queue(QueueName=f"{QUEUE}-responses")["QueueUrl"]
    own = {**environment, "PLAIN_QUEUE": QUEUE, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "celery", "-A", "irs.local.bench.plain", "worker", "-P", "prefork", "-c", str(cores)]
    with log.open("wb") as output:
        process = child.start(
            [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"],
            environment=own,
            at_parents_end=signal.SIGTERM,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        # Each process loads the model with its first image.
        _send(own, cloud, keys, 8 * cores, responses, "warm")
        _wait_empty(sqs, url, process, log)
        cpu_ms, began = usage.cpu_ms(process.pid), time.monotonic()
        # Its own prefix: what an earlier run stored must not count.
        name = f"run-{time.monotonic_ns()}"
        _send(own, cloud, keys, images, responses, name)
        _wait_empty(sqs, url, process, log)
        wall_s = time.monotonic() - began
        stored = sum(1 for _ in cloud.output.list(f"bench-plain/{name}/"))
        if stored != images:
            raise SetupError(
                f"Plain Celery answered {stored} of {images} images: {log.read_text(errors='replace')[-500:].strip()}"
            )
        return Plain(images=images, images_per_s=images / wall_s, cpu_ms=(usage.cpu_ms(process.pid) - cpu_ms) / images)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _send(own: dict[str, str], cloud: Cloud, keys: list[str], images: int, responses: str, name: str) -> None:
    # In a process of its own: this one's transport is ours, and the comparison sends with kombu's too.
    program = (
        "import sys, json; from irs.local.bench.plain import recognize\n"
        "for args in json.load(sys.stdin): recognize.delay(*args)\n"
    )
    settings = cloud.settings
    calls = [
        (settings.input_bucket, keys[n % len(keys)], settings.output_bucket, f"bench-plain/{name}/{n}.json", responses)
        for n in range(images)
    ]
    subprocess.run([sys.executable, "-c", program], env=own, input=json.dumps(calls), text=True, check=True)


def _wait_empty(sqs: Any, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    end = time.monotonic() + START_S
    while True:
        got = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        if not any(int(got[name]) for name in names):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SetupError(f"Plain Celery does not answer: {log.read_text(errors='replace')[-500:].strip()}")
        time.sleep(LOOK_S)
