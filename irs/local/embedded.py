"""The embedded cloud, seen from the process that starts it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from irs.errors import SetupError
from irs.local.emulator import require_emulator
from irs.local.guard import HEALTH_PATH
from irs.local.home import RC_IN_USE, Endpoint, Home

START_SECONDS = 20.0
STOP_SECONDS = 8.0
#: As the settings have it: what a worker has to finish what it holds, and some seconds beyond.
DRAIN_SECONDS, GRACE_SECONDS = 25.0, 5.0
_LOG_LINES = 20
_LOG_BYTES = 2**20


@dataclass
class EmbeddedCloud:
    """A running embedded cloud; leaving its context stops it, unless another process started it.

    ``is_ours`` is False when it was running on this home already: then :meth:`stop` leaves it alone.
    """

    endpoint: str
    environment: dict[str, str]
    pid: int
    is_ours: bool
    _drain_s: float
    _home: Home
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def lost_queues(self) -> bool:
        """Whether an earlier run's queues are gone (killed, or on another port) and not yet made up for."""
        return self._home.lost_queues.exists()

    def queues_restored(self) -> None:
        """Say that what the lost queues held is queued again; until then every run says ``lost_queues``."""
        self._home.lost_queues.unlink(missing_ok=True)

    def poll(self) -> int | None:
        """Return None while it runs, else its exit code (0 for one that is not ours)."""
        if self._process is not None:
            return self._process.poll()
        return None if self._home.is_locked() else 0

    def stop(self) -> None:
        """End it, its state kept, and wait for the end: about 0.4 s, or the drain of the workers it runs. May be called twice."""
        if self._process is None:
            return
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS + (self._drain_s if self._home.machines.read() else 0.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def start_embedded_cloud(
    home: Path,
    *,
    region: str = "us-east-1",
    port: int = 0,
    die_with_thread: bool = True,
    boot_seconds: float = 0.0,
    drain_seconds: float = DRAIN_SECONDS,
    checks_rights: bool = False,
) -> EmbeddedCloud:
    """Start an embedded cloud on ``home``, or find the one that runs there; it answers when this returns.

    Args:
        region: ignored, as all but ``home``, when one is found.
        port: on 127.0.0.1; 0: the one of the last run on this home, or a free one.
        die_with_thread: it ends with the calling *thread*, even by SIGKILL; else when this process closes
            its pipe, which SIGKILL does too.
        boot_seconds: how long its instances stay ``pending``.
        drain_seconds: what a worker that it runs has to finish what it holds.
        checks_rights: every call needs an IAM policy that allows it, but those with the run's own key.

    Raises:
        MissingExtra: the extra ``local`` is not installed.
        SetupError: it did not start; the sentence holds the last lines of its log.
    """
    require_emulator()
    place = Home(home)
    options = [
        "--region",
        region,
        "--port",
        str(port),
        "--boot-seconds",
        str(boot_seconds),
        "--drain-seconds",
        str(drain_seconds),
    ]
    options += ["--checks-rights"] if checks_rights else []
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if (found := _find_running(place)) is not None:
            return found
        if not place.is_locked():
            started = _start(place, options, die_with_thread=die_with_thread, drain_s=drain_seconds, end=end)
            if started is not None:
                return started
        # Another one starts or stops at this moment.
        time.sleep(0.05)
    raise SetupError(f"Another embedded cloud holds {place.path} and does not answer: end it, or name another IRS_HOME.")


def _find_running(home: Home) -> EmbeddedCloud | None:
    endpoint = home.read_endpoint()
    if endpoint is None or endpoint.pid is None or not home.is_locked():
        return None
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(endpoint.url + HEALTH_PATH, timeout=2):
            pass
    except OSError:
        return None
    return EmbeddedCloud(endpoint.url, client_environment(endpoint), endpoint.pid, False, DRAIN_SECONDS, home)


def _start(home: Home, options: list[str], *, die_with_thread: bool, drain_s: float, end: float) -> EmbeddedCloud | None:
    """Start a child and wait until it is ready; None if another one was quicker."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "IRS_PARENT_PID")}
    if die_with_thread:
        environment["IRS_PARENT_PID"] = str(os.getpid())
    # -P: a file of the caller's folder must not stand in for a module.
    command = [sys.executable, "-P", "-m", "irs.local.cloud", "--home", str(home.path), *options]
    is_long = home.log.exists() and home.log.stat().st_size > _LOG_BYTES
    with open(home.log, "wb" if is_long else "ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=home.path,
            # Ctrl-C at the terminal is for the starter, which ends its children in order.
            start_new_session=True,
        )
    cloud = EmbeddedCloud("", {}, process.pid, True, drain_s + GRACE_SECONDS, home, process)
    try:
        said = _first_line(process, end)
    except BaseException:
        cloud.stop()
        raise
    if not said.get("ready"):
        cloud.stop()
        if process.returncode == RC_IN_USE:
            return None
        raise SetupError(str(said.get("error") or _post_mortem(home, log_start, process.returncode)))
    endpoint = home.read_endpoint()
    if endpoint is None:
        cloud.stop()
        raise SetupError(f"{home.path}/endpoint.json cannot be read: remove it, or name another IRS_HOME.")
    cloud.endpoint, cloud.environment = endpoint.url, client_environment(endpoint)
    return cloud


def _first_line(process: subprocess.Popen[bytes], end: float) -> dict[str, object]:
    """Return what the child says of itself; nothing if it died or says nothing in time."""
    assert process.stdout is not None
    with process.stdout as out:
        is_readable, _, _ = select.select([out], [], [], max(0.0, end - time.monotonic()))
        line = out.readline() if is_readable else b""
    return dict(json.loads(line)) if line else {}


def _post_mortem(home: Home, log_start: int, returncode: int) -> str:
    with open(home.log, "rb") as log:
        log.seek(log_start)
        lines = log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    said = "\n".join(lines) or "(nothing)"
    return f"The embedded cloud did not start (exit code {returncode}); the end of {home.log} says:\n{said}"


def client_environment(endpoint: Endpoint, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what leads a process to ``endpoint``; hosts that ``inherited`` reaches without a proxy stay such."""
    hosts = [host for host in inherited.get("NO_PROXY", inherited.get("no_proxy", "")).split(",") if host]
    no_proxy = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    return {
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_REGION": endpoint.region,
        "AWS_DEFAULT_REGION": endpoint.region,
        "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "4",
        "AWS_RETRY_MODE": "standard",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # An abandoned poll is ended here, so a drain need not wait for it.
        "IRS_CUT_POLLS": "true",
    }
