"""LitServe under the same load: photos by HTTP, 32 in flight, and what its processes took."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import urllib3

from irs.errors import MissingExtra, SetupError
from irs.local import child
from irs.local.bench import usage

#: It starts four interpreters one after another; a busy machine takes minutes for them.
START_S = 300.0
LOOK_S = 0.1
IN_FLIGHT = 32
WARM_IMAGES = 100
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LitServe:
    """What LitServe took; CPU of all its processes, the client's apart."""

    images: int
    images_per_s: float
    cpu_ms: float
    peak_rss_mb: float


def run_litserve(environment: dict[str, str], model: str, precision: str, photos: list[Path], images: int, log: Path) -> LitServe:
    """Serve ``model`` by LitServe, warm it, then measure ``images``.

    Raises:
        MissingExtra: it is not installed.
        SetupError: it does not start, or fails an image.
    """
    if find_spec("litserve") is None:
        raise MissingExtra("install irs[bench]")
    bodies = [photo.read_bytes() for photo in photos]
    with _serving(environment, model, precision, log) as (pid, address):
        _post_all(address, bodies, WARM_IMAGES, log)
        cpu_ms, began_s = usage.cpu_ms(pid), time.monotonic()
        _post_all(address, bodies, images, log)
        wall_s = time.monotonic() - began_s
        took_ms = usage.cpu_ms(pid) - cpu_ms
        return LitServe(images=images, images_per_s=images / wall_s, cpu_ms=took_ms / images, peak_rss_mb=usage.peak_rss_mb(pid))


@contextmanager
def _serving(environment: dict[str, str], model: str, precision: str, log: Path) -> Iterator[tuple[int, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "irs.local.bench.litserve_app", "--model", model, "--precision", precision]
    with log.open("wb") as output:
        process = child.start(
            [*command, "--port", str(port)],
            environment=environment,
            at_parents_end=signal.SIGINT,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: its processes outlive their parent if that is killed alone.
            start_new_session=True,
        )
    try:
        _wait_healthy(process, f"http://127.0.0.1:{port}/health", log)
        yield process.pid, f"http://127.0.0.1:{port}/predict"
    finally:
        _end(process)


def _wait_healthy(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end_s = time.monotonic() + START_S
    with urllib3.PoolManager(retries=False, timeout=2.0) as pool:
        while True:
            with suppress(urllib3.exceptions.HTTPError):
                if pool.request("GET", address).status == 200:
                    return
            if process.poll() is not None or time.monotonic() > end_s:
                raise SetupError(f"LitServe did not start: {_last_line(log)}")
            time.sleep(LOOK_S)


def _post_all(address: str, bodies: list[bytes], images: int, log: Path) -> None:
    with (
        urllib3.PoolManager(maxsize=IN_FLIGHT, retries=False, timeout=ANSWER_S) as pool,
        ThreadPoolExecutor(IN_FLIGHT) as threads,
    ):

        def post(number: int) -> str | None:
            """Return what went wrong with an image, or None."""
            try:
                body, headers = bodies[number % len(bodies)], {"Content-Type": "image/jpeg"}
                status = pool.request("POST", address, body=body, headers=headers).status
            except urllib3.exceptions.HTTPError as error:
                return str(error)
            return None if status == 200 else f"status {status}"

        for failed in threads.map(post, range(images)):
            if failed:
                threads.shutdown(cancel_futures=True)
                raise SetupError(f"LitServe failed an image ({failed}): {_last_line(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    # It ends in order by SIGINT alone; SIGTERM would leave its workers behind.
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it said nothing"
