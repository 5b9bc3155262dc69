"""``irs web`` processes on one stack, asked as programs ask: HTTP requests, and live streams read line by line."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from waiting import eventually

from irs import records
from irs.cloud import Cloud
from irs.local import child
from irs.records import ImageFacts, Label, ModelFacts, News, NewsItem, Record
from irs.results import RecordStore

START_S = 60.0
#: The page looks at the first bytes alone: to it such a body is a JPEG.
JPEG = b"\xff\xd8\xff\xe0" + b"picture" * 20


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class AllDelivered(Exception):
    """The page says with 204 that nothing is left to be told."""


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    kind: str
    id: str
    data: Any


@dataclass
class WebPage:
    """One process of the page."""

    process: subprocess.Popen[bytes]
    log: Path
    host: str = ""
    port: int = 0

    @property
    def said(self) -> str:
        return self.log.read_text()

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.said
        if found := re.search(r"the page is at http://([^:/\s]+):(\d+)", self.said):
            self.host, self.port = found[1], int(found[2])
        return self.port > 0 and self._answers()

    def _answers(self) -> bool:
        try:
            return 200 == self.ask("GET", "/healthz").status
        except OSError:
            return False

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; a dict becomes JSON, ``a_b`` is the header ``a-b``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = self.connect()
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def open_job(self, **body: Any) -> str:
        answer = self.ask("POST", "/api/jobs", body)
        assert 201 == answer.status, answer.body
        return str(answer.json["id"])

    def put(self, job: str, number: int, body: bytes = b"", name: str = "a.jpg") -> Answer:
        return self.ask("PUT", f"/api/jobs/{job}/images/{number}?name={name}", body or JPEG + b"%d" % number)

    def close_job(self, job: str, count: int) -> Answer:
        return self.ask("POST", f"/api/jobs/{job}/close", {"count": count})

    def job(self, job: str) -> Any:
        answer = self.ask("GET", f"/api/jobs/{job}")
        assert 200 == answer.status, answer.body
        return answer.json

    @contextmanager
    def events(self, job: str, last_id: str = "", timeout_s: float = 30.0) -> Iterator[Iterator[Event]]:
        """Follow a job; the stream is cut when the block ends. Raises AllDelivered."""
        connection = self.connect(timeout_s)
        try:
            connection.request("GET", f"/api/jobs/{job}/events", headers={"Last-Event-ID": last_id} if last_id else {})
            answer = connection.getresponse()
            if answer.status == 204:
                raise AllDelivered
            assert 200 == answer.status, (answer.status, answer.read())
            yield read_events(answer)
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The sum of one metric over its labels."""
        text = self.ask("GET", "/metrics").body.decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))

    def peak_bytes(self) -> int:
        """The most memory it had resident at any time."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return 1024 * int(found[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 20.0) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


def read_events(answer: http.client.HTTPResponse) -> Iterator[Event]:
    """Yield events until the stream ends or breaks."""
    kind, id, data = "", "", ""
    while True:
        try:
            line = answer.readline().decode().rstrip("\r\n")
        except (OSError, http.client.HTTPException, ValueError):
            return
        if not line and answer.isclosed():
            return
        name, _, value = line.partition(": ")
        match name:
            case "event":
                kind = value
            case "id":
                id = value
            case "data":
                data += value
            case "" if data:
                yield Event(kind, id, json.loads(data))
                kind, data = "", ""


@dataclass
class WebPages:
    """Starts processes of the page on one stack, and ends what is left of them: ``with WebPages(...) as pages``."""

    cloud: Cloud
    environment: dict[str, str]
    folder: Path
    started: list[WebPage] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for page in self.started:
            page.kill()
        # Shown by pytest beside what went wrong.
        sys.stdout.write("\n".join(page.said for page in self.started))

    def start(self, **environment: str) -> WebPage:
        """Start one process on a free port, and wait until it answers."""
        log = self.folder / f"web-{len(self.started)}.log"
        defaults = {"IRS_WEB_PORT": "0", "IRS_WAIT_SECONDS": "2", "IRS_WEB_JOBS_PER_MINUTE": "10000"}
        with log.open("wb") as output:
            # A run of tests that is killed leaves none behind.
            process = child.start(
                [sys.executable, "-m", "irs.cli", "web"],
                environment={**self.environment, **defaults, **environment},
                at_parents_end=signal.SIGKILL,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        page = WebPage(process, log)
        self.started.append(page)
        eventually(page.is_up, within_s=START_S, every_s=0.1)
        return page


def record_of(job: str, number: int, *, confidence: float = 0.9, **fields: Any) -> Record:
    """A record as a worker stores it."""
    given: dict[str, Any] = {
        "status": "ok",
        "labels": (Label(label="cat", wnid=None, confidence=confidence), Label(label="dog", wnid=None, confidence=0.05)),
        "sure": confidence > 0.5,
        "model": ModelFacts(name="tiny", digest="sha256:0"),
        "image": ImageFacts(name=f"{number}.jpg", key=records.image_key(job, number, f"{number}.jpg"), sha256="ab"),
        **fields,
    }
    return Record(task_id=records.task_id(job, number), job=job, number=number, **given)


class Answers:
    """Answers images as workers do: the record first, then its news."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._store = cloud, RecordStore(cloud)
        self._url = cloud.queue_url(cloud.settings.responses_queue)

    def store(self, record: Record) -> None:
        assert self._store.put(record)

    def tell(self, *told: Record) -> None:
        news = News(results=tuple(NewsItem.of(record) for record in told))
        self._cloud.sqs().send_message(QueueUrl=self._url, MessageBody=news.to_bytes().decode())

    def answer(self, job: str, *numbers: int, is_told: bool = True) -> None:
        made = [record_of(job, number) for number in numbers]
        for record in made:
            self.store(record)
        if is_told:
            for start in range(0, len(made), 10):
                self.tell(*made[start : start + 10])
