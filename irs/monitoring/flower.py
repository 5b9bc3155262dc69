"""Flower on SQS: its broker page, its events, who may see it, and how it is started.

:func:`install` replaces what Flower does not know of SQS, and closes what it leaves open. It runs when
:mod:`irs.app` is imported in a process of Flower, so that ``celery -A irs.app flower`` is as ``irs flower``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import flower.app
import flower.command
import flower.events
import flower.urls
import flower.utils.broker
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from flower.views.monitor import Metrics
from flower.views.tasks import TasksDataTable
from prometheus_client import REGISTRY
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.options import options
from tornado.template import Loader
from tornado.web import url

from irs.cloud import Cloud, get_cloud
from irs.errors import MissingResource, QueueUnavailable, SetupError
from irs.monitoring.events import Receiver
from irs.monitoring.metrics import AwsCalls
from irs.monitoring.status import QueueCounts, count_queue, see_workers
from irs.settings import Settings

log = logging.getLogger(__name__)

USER = "irs"
#: A page that is loaded again and again asks SQS no more often.
COUNTED_S = 5.0
#: A wait is told by who received last; after this it is history.
WAIT_TOLD_S = 60.0
_TEMPLATES = Path(__file__).parent / "templates"
_KEY = re.compile(r"jobs/[0-9a-hjkmnp-tv-z]{26}/(\d{6,}/)")
#: How Celery writes out what an image task raises.
_FAULT = re.compile(r"""RecognitionFailed\('[^']*', '(?P<code>\w+)', ["'](?P<message>.*?)["']?\)?""")
_LOOPBACK_NAMES = frozenset(("localhost",))
#: Where Flower adopts a listening socket of who started it.
_FD = "IRS_FLOWER_FD"


class SqsQueues(flower.utils.broker.BrokerBase):  # type: ignore[misc]
    """What Flower's pages and API ask of a broker: here all queues of the stack, whatever names are asked for."""

    _counted: tuple[float, list[dict[str, Any]]] = (float("-inf"), [])

    def __init__(self, broker_url: str, *_: Any, **__: Any) -> None:
        super().__init__(broker_url)
        self._cloud = get_cloud()

    async def queues(self, names: Any) -> list[dict[str, Any]]:
        """Return counts a queue: ``messages`` in all, of them ``messages_ready``, ``messages_unacknowledged``, ``delayed``.

        Raises:
            QueueUnavailable, Unreachable: SQS does not answer.
        """
        counted_at, found = SqsQueues._counted
        if time.monotonic() - counted_at > COUNTED_S:
            found = await asyncio.get_running_loop().run_in_executor(None, read_queues, self._cloud, list(names))
            SqsQueues._counted = (time.monotonic(), found)
        return found


def read_queues(cloud: Cloud, names: list[str]) -> list[dict[str, Any]]:
    """Return the counts of the stack's queues and of those named. Blocks; raises as :func:`count_queue`."""
    settings = cloud.settings
    requests, dead = settings.requests_queue, settings.requests_dead_queue
    counts: dict[str, QueueCounts] = {}
    for name in dict.fromkeys((requests, dead, settings.responses_queue, settings.drops_queue, *names)):
        try:
            counts[name] = count_queue(cloud, name)
        except (MissingResource, QueueUnavailable) as error:
            # One that is not there, or that Flower may not see, must not hide the others.
            if name == requests:
                raise
            log.warning("uncounted", extra={"queue": name, "reason": str(error)})
    waited_s = [seen.beat.queued_s for seen in see_workers(cloud) if seen.age_s < WAIT_TOLD_S and seen.beat.queued_s is not None]
    return [
        {
            "name": name,
            "messages": count.visible + count.in_flight + count.delayed,
            "messages_ready": count.visible,
            "messages_unacknowledged": count.in_flight,
            "delayed": count.delayed,
            # SQS itself tells it to CloudWatch alone: what the workers saw last is as good, and free.
            "oldest_s": max(waited_s, default=None) if name == requests else None,
            "dead_letters": counts[dead].visible if name == requests and dead in counts else None,
        }
        for name, count in counts.items()
    ]


class _Broker(BrokerView):  # type: ignore[misc]
    """The broker page, with how many workers take from each queue."""

    def render(self, name: str, **values: Any) -> Any:
        consumers: dict[str, int] = {}
        for info in self.application.workers.values():
            for queue in info.get("active_queues", []):
                consumers[queue["name"]] = consumers.get(queue["name"], 0) + 1
        settings = get_cloud().settings
        values["broker_url"] = f"SQS at {settings.endpoint_url or f'AWS {settings.region}'}, stack {settings.stack}"
        queues = [{**queue, "consumers": consumers.get(queue["name"])} for queue in values.pop("queues")]
        return super().render(name, queues=queues, **values)


class _TaskRows(TasksDataTable):  # type: ignore[misc]
    """The list of tasks, with the code of a fault alone: its sentence, which the task's own page tells, fills two desks."""

    def format_task(self, task: tuple[str, Any]) -> tuple[str, Any]:
        uuid, shown = super().format_task(task)
        if told := _FAULT.fullmatch(str(task[1].exception or "")):
            shown.exception = told["code"]
        return uuid, shown


class _Metrics(Metrics):  # type: ignore[misc]
    """``/metrics`` for who may see the pages; Flower shows it to anybody."""

    @web.authenticated
    async def get(self) -> None:
        await super().get()


class _OursFirst(Loader):
    """Flower's templates, but ours of the same name."""

    def _create_template(self, name: str) -> Any:
        ours = _TEMPLATES / Path(name).name
        if not ours.is_file():
            return super()._create_template(name)
        from tornado.template import Template

        return Template(ours.read_bytes(), name=name, loader=self)


def install() -> None:
    """Make Flower of this process fit SQS. Safe to run twice."""
    if getattr(flower.app.Flower, "fits_sqs", False):
        return
    flower.app.Flower.fits_sqs = True
    stock_broker = flower.utils.broker.Broker.__new__

    def broker(cls: type, broker_url: str, *args: Any, **kwargs: Any) -> Any:
        if urlparse(broker_url).scheme == "sqs":
            return SqsQueues(broker_url)
        return stock_broker(cls, broker_url, *args, **kwargs)

    flower.utils.broker.Broker.__new__ = broker
    # Flower imports Celery's own by name, past the app's.
    flower.events.EventReceiver = Receiver
    ours = {
        r"/broker": url(r"/broker", _Broker, name="broker"),
        r"/metrics": (r"/metrics", _Metrics),
        r"/tasks/datatable": url(r"/tasks/datatable", _TaskRows),
    }
    flower.urls.handlers[:] = [ours.get(_pattern(handler), handler) for handler in flower.urls.handlers]
    flower.urls.settings["template_loader"] = _OursFirst(flower.urls.settings["template_path"])
    flower.app.Flower.start_http_server = _start_http_server(flower.app.Flower.start_http_server)
    BaseHandler.check_xsrf_cookie = _check_origin(BaseHandler.check_xsrf_cookie)
    BaseHandler.get_current_user = _check_host(BaseHandler.get_current_user)
    BaseHandler.set_default_headers = _set_default_headers
    # What Flower shows at /metrics is the registry of its process.
    REGISTRY.register(AwsCalls())
    _set_defaults(get_cloud().settings)


def run(app: Any, settings: Settings, *, arguments: list[str], fd: int | None = None) -> None:
    """Run Flower until SIGTERM or Ctrl-C.

    Args:
        app: the Celery app whose workers it shows.
        arguments: of Flower itself, on top of ours.
        fd: a listening socket to take over.

    Raises:
        SetupError: it would be open to others without a password.
    """
    install()
    check_access(settings.flower_host, has_password=bool(settings.flower_password))
    if fd is not None:
        os.environ[_FD] = str(fd)
    app.start(["flower", *arguments])


def check_access(address: str, *, has_password: bool) -> None:
    """Refuse an address that others reach while nobody is asked who they are.

    Raises:
        SetupError: so it is.
    """
    if has_password or is_loopback(address):
        return
    raise SetupError(
        f"Flower on {address or 'all addresses'} would let anybody stop workers: set IRS_FLOWER_PASSWORD, such as"
        " `openssl rand -hex 16` makes, or leave it on 127.0.0.1."
    )


def is_loopback(host: str) -> bool:
    """Whether a host, an address or a name, is this machine and no other."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def _set_defaults(settings: Settings) -> None:
    """Set what Flower's own command line may still change."""
    folder = settings.home / "flower"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "address": settings.flower_host,
        "port": settings.flower_port,
        # Workers come and go: those that ended are not kept for ever.
        "purge_offline_workers": 600,
        "inspect_timeout": 5000.0,
        "max_tasks": 20_000,
        "persistent": True,
        "db": str(folder / settings.stack),
        "state_save_interval": 60_000,
        "tasks_columns": "uuid,state,exception,args,runtime,worker,received",
        "format_task": format_task,
        # Our receiver renews its lease by itself; Flower would do it every 5 s.
        "enable_events": False,
    }.items():
        setattr(options, name, value)
    if settings.flower_password:
        options.basic_auth = [f"{USER}:{settings.flower_password}"]
    else:
        # Else the pages show buttons that all fail; who may press them is checked by :func:`_check_origin`.
        os.environ.setdefault("FLOWER_UNAUTHENTICATED_API", "true")


def format_task(task: Any) -> Any:
    """Show an image by its number and file's name, and a fault by its code first: the job stands in the task's id."""
    if task.args:
        task.args = _KEY.sub(r"\1", str(task.args))
    if told := _FAULT.fullmatch(str(task.exception or "")):
        task.exception = f"{told['code']}: {told['message']}"
    return task


def _pattern(handler: Any) -> str:
    return handler.regex.pattern.rstrip("$") if isinstance(handler, url) else str(handler[0])


def _start_http_server(stock: Any) -> Any:
    def start(self: Any) -> Any:
        asked = bool(self.options.basic_auth or self.options.auth)
        try:
            if not get_cloud().settings.monitoring:
                raise SetupError("Flower sees nothing without IRS_MONITORING=1: set it here and for the workers.")
            if not self.options.unix_socket:
                check_access(self.options.address, has_password=asked)
        except SetupError as error:
            print(f"irs: {error}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        fd = os.environ.pop(_FD, None)
        if fd is None:
            return stock(self)
        listener = socket.socket(fileno=int(fd))
        listener.setblocking(False)
        HTTPServer(self, ssl_options=self.ssl_options, xheaders=self.options.xheaders).add_sockets([listener])
        return listener.getsockname()[1]

    return start


def _check_origin(stock: Any) -> Any:
    """Without a password Flower checks nothing: any page in the operator's browser could stop his workers."""

    def check(self: Any) -> None:
        if self.application.options.basic_auth or self.application.options.auth:
            stock(self)
            return
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        if site not in (None, "same-origin", "none") or (origin and urlparse(origin).netloc != self.request.host):
            raise web.HTTPError(403, "Requests from other pages are refused")

    return check


def _check_host(stock: Any) -> Any:
    """A foreign name may be made to lead here: then what a page of it asks looks like our own."""

    def user(self: Any) -> Any:
        asked = self.application.options
        if not (asked.basic_auth or asked.auth or asked.unix_socket) and not is_loopback(self.request.host_name):
            raise web.HTTPError(403, "Open Flower by 127.0.0.1 or localhost")
        return stock(self)

    return user


def _set_default_headers(self: Any) -> None:
    self.set_header("X-Content-Type-Options", "nosniff")
    self.set_header("X-Frame-Options", "DENY")
    self.set_header("Referrer-Policy", "same-origin")
