"""The page as a process, ``irs web``, beside real workers: started, killed, started again at the same address."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import eventually
from workers import Workers, workers_on_a_stack

from irs.local import EmbeddedCloud, child

START_S = 60.0
#: A folder of tests opens more jobs a minute than a person.
DEFAULTS = {"IRS_WEB_JOBS_PER_MINUTE": "10000"}


@dataclass
class Site:
    """One page process on the stack of ``workers``."""

    workers: Workers
    folder: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def log(self) -> Path:
        return self.folder / f"web-{self.port}.log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            # A run of tests that is killed leaves none behind.
            self.process = child.start(
                [sys.executable, "-m", "irs.cli", "web"],
                environment={**self.workers.environment, **DEFAULTS, "IRS_WEB_PORT": str(self.port), **self.environment},
                at_parents_end=signal.SIGKILL,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self.is_alive, within_s=START_S, every_s=0.1)

    def is_alive(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    @contextmanager
    def beside(self, **environment: str) -> Iterator[Site]:
        """Another process of the page on the same stack."""
        other = Site(self.workers, self.folder, free_port(), environment)
        try:
            other.start()
            yield other
        finally:
            other.kill()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send one request as a program would; return the JSON of its answer."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def peak_bytes(self) -> int:
        """The most memory its process had resident at any time."""
        assert self.process is not None
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return 1024 * int(found[1])

    def kill(self) -> None:
        """End it at once, as a lost machine would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def site_on_a_stack(embedded: EmbeddedCloud, folder: Path, *, model: str = "", **environment: str) -> Iterator[Site]:
    """The page on a stack of its own; workers are for the caller to start: ``site.workers.start()``."""
    with workers_on_a_stack(embedded, folder, model=model) as workers:
        site = Site(workers, folder, free_port(), environment)
        try:
            site.start()
            yield site
        finally:
            site.kill()
            sys.stdout.write(site.said[-20_000:])


def compressed_bytes(body: bytes) -> int:
    """Return how long a file is on its way when it is compressed."""
    import gzip

    return len(gzip.compress(body, 6))
