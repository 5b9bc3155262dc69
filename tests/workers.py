"""Real ``irs worker`` processes on one stack, with a small model made on the spot, and pictures for them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image
from waiting import eventually

from irs import records
from irs.client import Client
from irs.client.sender import ImageTask
from irs.cloud import Cloud
from irs.errors import NotFound
from irs.local import EmbeddedCloud
from irs.provision import provision
from irs.records import Beat, Options, Record, beat_key
from irs.results import RecordStore
from irs.results.news import NewsReader
from irs.settings import read_settings

IRS = str(Path(sys.executable).with_name("irs"))
READY_S = 60.0
LABELS = ("ant", "bear", "cat", "dog", "eel", "fox", "goat", "hare", "ibis", "jay")


def picture(seed: int, form: str = "JPEG", size: tuple[int, int] = (96, 72)) -> bytes:
    """Return a file of blurred patches of colour; other seeds, other bytes."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


def write_model(directory: Path) -> Path:
    """Write a model of ten labels whose order depends on the picture, and is the same on each machine."""
    import torch
    from safetensors.torch import save_file

    from irs.models.architectures import build

    torch.manual_seed(7)
    state = dict(build("squeezenet1_1", len(LABELS)).state_dict())
    # Apart from each other, so that no rounding changes their order; above zero, where the last layer cuts off.
    state["classifier.1.bias"] = torch.linspace(4.0, 1.0, len(LABELS))
    directory.mkdir()
    save_file(state, directory / "weights.safetensors")
    (directory / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (directory / "wnids.txt").write_text("".join(f"n{number:08d}\n" for number in range(len(LABELS))))
    description = {
        "name": "tiny",
        "architecture": "squeezenet1_1",
        "preprocess": {"resize": 72, "crop": 64, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3},
        "sha256": hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest(),
    }
    (directory / "model.json").write_text(json.dumps(description))
    return directory


@dataclass
class Running:
    """One worker process."""

    cloud: Cloud
    instance: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def beat(self) -> Beat | None:
        """What it said last of itself; of an earlier process of its name nothing counts."""
        with suppress(NotFound):
            beat = Beat.from_json(self.cloud.output.get(beat_key(self.instance)))
            return beat if beat.pid == self.process.pid else None
        return None

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said
        beat = self.beat()
        return beat is not None and beat.phase in ("ready", "busy", "paused")

    def readyz(self) -> tuple[int, str]:
        """Status and text of its ``/readyz``; it was started with ``IRS_HEALTH_PORT=0``."""
        address = re.search(r"health address=(\S+)", self.said)
        assert address, self.said
        try:
            with urllib.request.urlopen(address[1], timeout=10) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode().strip()

    def peak_bytes(self) -> int:
        """The most memory it had resident at any time."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return 1024 * int(found[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Workers:
    """Starts workers on one stack, and ends what is left of them: ``with Workers(...) as workers``."""

    cloud: Cloud
    environment: dict[str, str]
    folder: Path
    model: str = ""
    started: list[Running] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.model = self.model or str(write_model(self.folder / "tiny"))
        self.client = Client(self.cloud.settings)
        self.store = RecordStore(self.cloud)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in self.started:
            one.kill()
        # Shown by pytest beside what went wrong.
        sys.stdout.write("\n".join(one.said for one in self.started))

    def start(self, *, is_awaited: bool = True, **environment: str) -> Running:
        """Start a worker, and wait until it takes messages."""
        instance = environment.get("IRS_INSTANCE_ID", f"w{len(self.started)}")
        log = self.folder / f"{len(self.started)}.log"
        defaults = {"IRS_MODEL": self.model, "IRS_INSTANCE_ID": instance, "IRS_WAIT_SECONDS": "2", "IRS_CUT_POLLS": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [IRS, "worker"],
                env={**self.environment, **defaults, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Running(self.cloud, instance, process, log)
        self.started.append(running)
        if is_awaited:
            eventually(running.is_ready, within_s=READY_S)
        return running

    def ran(self, program: str, *arguments: str) -> Any:
        """Return what a caller's program prints as JSON, run in a process of its own on this stack."""
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)

    def sent(self, *bodies: bytes, names: tuple[str, ...] = (), **options: Any) -> list[str]:
        """Store images and send their tasks in one request a ten, all options at once; return the task ids.

        Past the client's own checks: what a worker is to refuse must reach it.
        """
        job = records.new_job_id()
        named = names or tuple(f"{number}.jpg" for number in range(len(bodies)))
        pairs = enumerate(zip(named, bodies, strict=True))
        tasks = [self.client.upload(job, number, name, body) for number, (name, body) in pairs]
        self.send(tasks, **options)
        return [records.task_id(task.job, task.number) for task in tasks]

    def send(self, tasks: list[ImageTask], **options: Any) -> None:
        self.client.send(tasks, Options.checked(options))

    def answered(self, ids: list[str], *, within_s: float = 30.0) -> list[Record]:
        """Wait for the records of tasks; return them in order."""
        eventually(lambda: all(self.store.find_many(ids)), within_s=within_s, every_s=0.1)
        return [self.store.get(id) for id in ids]

    def answer(self, *bodies: bytes, **options: Any) -> list[Record]:
        return self.answered(self.sent(*bodies, **options))

    def depth(self, *, is_dead: bool = False) -> tuple[int, int]:
        """Messages of the tasks visible and in flight; or of the dead-letter queue."""
        settings = self.cloud.settings
        url = self.cloud.queue_url(settings.requests_dead_queue if is_dead else settings.requests_queue)
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.cloud.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return int(got[names[0]]), int(got[names[1]])

    def is_empty(self) -> bool:
        return self.depth() == (0, 0)


@contextmanager
def workers_on_a_stack(embedded: EmbeddedCloud, folder: Path, *, model: str = "", **environment: str) -> Iterator[Workers]:
    """Workers on a stack of their own that outlives one test: for a module, whose tests share a worker."""
    stack = f"t-{secrets.token_hex(4)}"
    with pytest.MonkeyPatch.context() as patch:
        shared = {**embedded.environment, "IRS_ENDPOINT_URL": embedded.endpoint, "IRS_STACK": stack, "IRS_HOME": str(folder)}
        for name, value in {**shared, **environment}.items():
            patch.setenv(name, value)
        cloud = Cloud(read_settings())
        provision(cloud)
        with Workers(cloud, dict(os.environ), folder, model=model) as made:
            yield made


def news_of(cloud: Cloud, ids: list[str]) -> list[str]:
    """Take all news that wait; return the task ids of those about ``ids``."""
    reader = NewsReader(cloud)
    told: list[str] = []
    while items := reader.receive(wait_s=1):
        told += [item.task_id for item in items if item.task_id in ids]
    return told


def through(endpoint: str) -> dict[str, str]:
    """The environment of a process that is to reach the cloud by another address: a proxy's."""
    return {"IRS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL": endpoint}
