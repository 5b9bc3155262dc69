"""What runs beside the workers of ``irs up``, each a process of its own: page, Flower, janitor, drop box, scaler."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irs.cloud import Cloud
from irs.local.daemon import Daemon, ListeningDaemon, Say, last_sentence
from irs.local.processes import WorkerEnded
from irs.settings import Settings

#: How the command of `irs up` learns the address of the page; not set where there is none.
WEB_URL = "IRS_WEB_URL"
#: What each needs besides this package.
_NEEDS = {
    "web": ("anyio", "jinja2", "prometheus_client", "python_multipart", "sse_starlette", "starlette", "uvicorn"),
    "flower": ("flower",),
    "scaler": ("prometheus_client",),
}
#: On one machine a look costs nothing, and a worker boots in seconds.
LOCAL_PERIOD_S, LOCAL_BOOT_S = 1.0, 5.0


def find_page(settings: Settings, say: Say, *, at_parents_end: signal.Signals) -> ListeningDaemon | None:
    """Return the page; None, and a line that says why, where its extra is not installed. Raises SetupError."""
    if not _has("web", "page", say):
        return None
    page = _listening("page", "web", settings.web_host, settings.web_port, settings, say, at_parents_end)
    os.environ[WEB_URL] = page.address
    return page


def find_flower(settings: Settings, say: Say, *, at_parents_end: signal.Signals) -> ListeningDaemon | None:
    """Return Flower, to which the page links; None, and a line, where its extra is not installed. Raises SetupError."""
    if not _has("flower", "flower", say):
        return None
    flower = _listening("flower", "flower", settings.flower_host, settings.flower_port, settings, say, at_parents_end)
    if not settings.flower_url:
        os.environ["IRS_FLOWER_URL"] = flower.address
    return flower


def janitor(settings: Settings, say: Say, *, at_parents_end: signal.Signals) -> Daemon:
    """Return the janitor."""
    return Daemon("janitor", ["janitor"], say, log=_log(settings, "janitor"), at_parents_end=at_parents_end)


def drops(settings: Settings, say: Say, *, at_parents_end: signal.Signals) -> Daemon:
    """Return the bridge of the drop box."""
    return Daemon("drops ", ["drops"], say, log=_log(settings, "drops"), at_parents_end=at_parents_end)


def find_scaler(cloud: Cloud, say: Say, *, at_parents_end: signal.Signals) -> ScalerDaemon | None:
    """Return the scaler of the embedded cloud's workers; None, and a line, where its extra is not installed."""
    if not _has("scaler", "scaler", say):
        return None
    from irs.local.ec2.environment import machine_quota
    from irs.local.ec2.worker import make_template

    settings = cloud.settings
    told = {
        "IRS_LOG_JSON": "1",
        "IRS_SCALER_TEMPLATE": settings.scaler_template or make_template(cloud),
        "IRS_SCALER_CAP": str(cap := min(settings.scaler_cap, machine_quota())),
    }
    # What somebody chose stays.
    if "scaler_period_seconds" not in settings.model_fields_set:
        told["IRS_SCALER_PERIOD_SECONDS"] = str(LOCAL_PERIOD_S)
    if "scaler_boot_seconds" not in settings.model_fields_set:
        told["IRS_SCALER_BOOT_SECONDS"] = str(LOCAL_BOOT_S + settings.local_boot_seconds)
    say(f"scaler starts workers when images come, {cap} at most on this machine, and ends them")
    log = _log(settings, "scaler")
    return ScalerDaemon("scaler", ["scaler", "run"], say, log=log, at_parents_end=at_parents_end, environment=told)


class Check(Daemon):
    """Whether a worker could start here, found out once, beside everything else: at rest none runs that could tell."""

    def __init__(self, settings: Settings, say: Say, *, at_parents_end: signal.Signals) -> None:
        super().__init__("check ", ["worker", "--check"], say, log=_log(settings, "check"), at_parents_end=at_parents_end)

    def drain(self) -> None:
        """Kill it: it holds nothing."""
        self.kill()

    def _ended(self, code: int) -> None:
        self.has_given_up = True
        if code:
            raise WorkerEnded(f"A worker could not start: {self._last_words()} (log {self.log})", code)


class ScalerDaemon(Daemon):
    """The scaler, whose log says what becomes of the workers: that is passed on.

    Attributes:
        failures: workers that did not start since one was ready; ``failed`` is the last words of the last one.
    """

    failures, failed = 0, ""
    _read_to = -1

    def tend(self) -> None:
        """As :meth:`Daemon.tend`, and pass on what the log says anew."""
        super().tend()
        for line in self._new_lines():
            self._pass_on(line)

    def _pass_on(self, line: dict[str, Any]) -> None:
        event, instance = line.get("event"), line.get("instance")
        if event == "decided" and line.get("launch"):
            self._say(f"scaler {line['reason']}")
        elif event == "ready":
            self.failures = 0
            self._say(f"worker {instance}  ready after {line['after_s']} s")
        elif event == "gone":
            self._say(f"worker {instance}  has ended")
        elif event == "boot failed":
            self.failures += 1
            self.failed = last_sentence(str(line.get("console", "")))
            self._say(f"worker {instance}  could not start: {self.failed}")

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            # What an earlier process of our id has left is not news; a shorter log is a new one.
            if self._read_to < 0 or os.fstat(log.fileno()).st_size < self._read_to:
                self._read_to = self._log_from
            log.seek(self._read_to)
            for raw in log:
                if not raw.endswith(b"\n"):
                    return
                self._read_to += len(raw)
                try:
                    line = json.loads(raw)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line


def _listening(
    name: str, command: str, host: str, port: int, settings: Settings, say: Say, at_parents_end: signal.Signals
) -> ListeningDaemon:
    made = ListeningDaemon(
        f"{name:6}", [command], say, host=host, port=port, log=_log(settings, name), at_parents_end=at_parents_end
    )
    say(f"{name:6} {made.address}")
    return made


def _log(settings: Settings, name: str) -> Path:
    return settings.home / "logs" / f"{name}-{os.getpid()}.log"


def _has(extra: str, name: str, say: Say) -> bool:
    missing: Sequence[str] = [module for module in _NEEDS[extra] if find_spec(module) is None]
    if missing:
        say(f"{name:6} not here, it needs {', '.join(missing)}: pip install 'irs[{extra}]'")
    return not missing
