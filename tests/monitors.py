"""Workers that are watched and told what to do, counted at the cloud's door."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import pytest
from faults import FaultProxy
from serving import free_port
from waiting import eventually

from irs.cloud import Cloud
from irs.local import EmbeddedCloud
from irs.provision import provision
from irs.settings import read_settings

FOLDER = Path(__file__).parent / "service"
READY_S = 60.0


@dataclass
class CountingProxy(FaultProxy):
    """Counts each request by its operation and the kind of its queue: ``ReceiveMessage pidbox``, ``Publish events``."""

    counts: Counter[str] = field(default_factory=Counter)

    async def _forward(self, head: bytes, body: bytes, *args: Any, **kwargs: Any) -> bool:
        self.counts[_told(head, body)] += 1
        return await super()._forward(head, body, *args, **kwargs)

    def of(self, operation: str) -> int:
        """How many requests of an operation came, of whatever queue."""
        return sum(count for told, count in self.counts.items() if told.split()[0] == operation)


def _told(head: bytes, body: bytes) -> str:
    target = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"x-amz-target")), b"").decode()
    if target:
        told = json.loads(body or b"{}")
        operation, name = target.rpartition(".")[2], str(told.get("QueueUrl") or told.get("QueueName") or "")
    else:
        form = parse_qs(body.decode(errors="replace"))
        operation = form.get("Action", [head.split(b" ", 1)[0].decode()])[0]
        name = form.get("TopicArn", form.get("Endpoint", [""]))[0]
    name = name.rstrip("/").replace(":", "/").rpartition("/")[2]
    _, is_own, kind = name.partition("-mon-")
    return f"{operation} {kind.split('-')[0] if is_own else name.rpartition('-')[2]}".strip()


@dataclass
class Watched:
    """Workers of ``watched.py`` on one stack; ``with Watched(...)`` ends what is left of them."""

    cloud: Cloud
    environment: dict[str, str]
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    logs: dict[str, Path] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.environment = {
            **self.environment,
            "IRS_MONITORING": "1",
            "IRS_WAIT_SECONDS": "1",
            "IRS_CUT_POLLS": "1",
            "PYTHONPATH": str(FOLDER),
            **{name: self.environment[name] for name in ("IRS_MONITORING",) if name in self.environment},
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for name, log in self.logs.items():
            sys.stdout.write(f"--- {name}\n{log.read_text(errors='replace')[-6000:]}\n")

    def start(self, name: str, *, is_awaited: bool = True, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker under a name; wait until it listens to commands, or without monitoring to tasks."""
        log = self.folder / f"{name}-{len(self.logs)}.log"
        self.logs[log.stem] = log
        command = ["celery", "-A", "watched", "worker", "-n", f"irs@{name}", "--without-mingle", "--without-gossip", "-l", "INFO"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name(command[0])), *command[1:], "--heartbeat-interval", "10"],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes[name] = process
        if is_awaited:
            eventually(lambda: self.is_ready(name), within_s=READY_S, every_s=0.1)
        return process

    def is_ready(self, name: str) -> bool:
        assert self.processes[name].poll() is None, self.said(name)
        return f"irs@{name} ready" in self.said(name)

    def said(self, name: str) -> str:
        return "".join(log.read_text(errors="replace") for stem, log in self.logs.items() if stem.rpartition("-")[0] == name)

    def stop(self, name: str) -> int:
        """End a worker by SIGTERM; return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=40)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def celery(self, *arguments: str, within_s: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``celery -A watched …`` to its end."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("celery")), "-A", "watched", *arguments],
            env={**self.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def inspect(self, *arguments: str) -> Any:
        """Return what ``celery inspect … --json`` prints."""
        done = self.celery("inspect", *arguments, "--json", "--timeout", "10")
        assert 0 == done.returncode, done.stderr + done.stdout
        return json.loads(done.stdout.strip().splitlines()[-1])

    def control(self, *arguments: str) -> Any:
        """Return what ``celery control … --json`` prints."""
        done = self.celery("control", *arguments, "--json", "--timeout", "10")
        assert 0 == done.returncode, done.stderr + done.stdout
        return json.loads(done.stdout.strip().splitlines()[-1])


def own_queues(cloud: Cloud) -> list[str]:
    """The names of all ephemeral queues of a stack."""
    found = cloud.sqs().list_queues(QueueNamePrefix=f"{cloud.settings.stack}-mon-").get("QueueUrls", [])
    return sorted(url.rpartition("/")[2] for url in found)


def subscriptions(cloud: Cloud) -> list[str]:
    """The queues that are subscribed to either topic of a stack."""
    sns = cloud.client("sns")
    pages = sns.get_paginator("list_subscriptions").paginate()
    all_ = [one for page in pages for one in page["Subscriptions"] if f":{cloud.settings.stack}-" in one["TopicArn"]]
    return sorted(one["Endpoint"].rpartition(":")[2] for one in all_)


@dataclass
class Commander:
    """A process that commands workers and watches them: ``commander.do("inspect('ping')")``."""

    environment: dict[str, str]
    folder: Path
    took_s: float = 0.0

    def __enter__(self) -> Self:
        self.log = self.folder / "commander.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(FOLDER / "commander.py")],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        sys.stdout.write(f"--- commander\n{self.log.read_text(errors='replace')[-4000:]}\n")

    def do(self, expression: str) -> Any:
        """Return what an expression is in that process; ``took_s`` tells how long it took there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text(errors="replace")[-4000:]
        answer = json.loads(line)
        self.took_s = answer["took_s"]
        assert "error" not in answer, answer["error"]
        return answer["value"]


@dataclass
class Crew:
    """Two workers, who commands and watches them, and the counting door to their cloud."""

    cloud: Cloud
    proxy: CountingProxy
    watched: Watched
    commander: Commander

    def do(self, expression: str) -> Any:
        return self.commander.do(expression)


@contextmanager
def crew_on_a_stack(embedded: EmbeddedCloud, folder: Path, **environment: str) -> Iterator[Crew]:
    """A crew on a stack of its own that outlives one test: for a module."""
    with watched_on_a_stack(embedded, folder, **environment) as (cloud, proxy, watched):
        watched.start("w0", is_awaited=False)
        watched.start("w1", is_awaited=False)
        with Commander(watched.environment, folder) as commander:
            for name in ("w0", "w1"):
                eventually(lambda name=name: watched.is_ready(name), within_s=READY_S, every_s=0.1)
            yield Crew(cloud, proxy, watched, commander)


@contextmanager
def watched_on_a_stack(
    embedded: EmbeddedCloud, folder: Path, **environment: str
) -> Iterator[tuple[Cloud, CountingProxy, Watched]]:
    """A stack of its own behind a counting door, with no worker yet."""
    stack = f"t-{secrets.token_hex(4)}"
    with pytest.MonkeyPatch.context() as patch, CountingProxy(embedded.endpoint) as proxy:
        shared = {**embedded.environment, "IRS_ENDPOINT_URL": embedded.endpoint, "IRS_STACK": stack, "IRS_HOME": str(folder)}
        for name, value in shared.items():
            patch.setenv(name, value)
        cloud = Cloud(read_settings())
        provision(cloud)
        door = {"IRS_ENDPOINT_URL": proxy.endpoint, "AWS_ENDPOINT_URL": proxy.endpoint}
        with Watched(cloud, {**os.environ, **door, **environment}, folder) as watched:
            yield cloud, proxy, watched


@dataclass
class FlowerSite:
    """One Flower process, ``irs flower``; ``command`` may name another way to start it."""

    environment: dict[str, str]
    folder: Path
    command: tuple[str, ...] = ("irs", "flower")
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "flower.log"

    def start(self, **environment: str) -> None:
        """Start it, and wait until it answers."""
        self.port = self.port or free_port()
        own = {"IRS_MONITORING": "1", "IRS_FLOWER_PORT": str(self.port)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name(self.command[0])), *self.command[1:]],
                env={**self.environment, **own, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self.is_up, within_s=READY_S, every_s=0.1)

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("/healthcheck")[0] == 200
        except OSError:
            return False

    def ask(self, path: str, *, method: str = "GET", password: str = "", **headers: str) -> tuple[int, str]:
        """Return status and text of an answer."""
        if password:
            headers["Authorization"] = f"Basic {base64.b64encode(f'irs:{password}'.encode()).decode()}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = b"" if method == "POST" else None
        request = urllib.request.Request(f"{self.url}{path}", body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        status, text = self.ask(path)
        assert 200 == status, text
        return json.loads(text)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """What its API holds of all tasks, by their id."""
        return dict(self.json("/api/tasks"))

    def stop(self) -> int:
        """End it by SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self.process = None
        return code

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        sys.stdout.write(f"--- flower\n{self.log.read_text(errors='replace')[-4000:]}\n")
