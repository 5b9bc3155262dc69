"""One process of the page: uvicorn, with a limit on how long the head of a request may take, and a clean stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import signal
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from irs.cloud import Cloud
from irs.errors import SetupError
from irs.settings import Settings
from webui.app import create_app
from webui.onewrite import OneWrite
from webui.proxies import Proxies

#: Idle connections are kept for longer than proxies keep them, so that they and not we close first.
KEEP_ALIVE_S = 75
#: Running requests are given so long at the end; streams end at once, and go on at another process.
STOP_S = 10
CONNECTIONS = 1000
BACKLOG = 512


class PatientToAPoint(H11Protocol):
    """HTTP/1.1 that closes a connection on which no request head came in time: uvicorn itself waits for ever."""

    header_s = 10.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self.transport = OneWrite(transport, self.loop)  # type: ignore[assignment]
        self._start()

    def data_received(self, data: bytes) -> None:
        """Start the clock at the first bytes of a further request; stop it when a head is whole."""
        before = self.cycle
        if self._clock is None and (before is None or before.response_complete):
            self._start()
        super().data_received(data)
        if self.cycle is not before:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._clock = self.loop.call_later(self.header_s, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def serve(cloud: Cloud, say: Callable[[str], None], *, fd: int | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; blocks.

    Args:
        fd: a listening socket to take over, in place of ``IRS_WEB_HOST`` and ``IRS_WEB_PORT``.

    Raises:
        SetupError: the address cannot be bound, or others than this machine could reach it without a token.
    """
    settings = cloud.settings
    check_reach(settings)
    allow_files(2 * CONNECTIONS)
    listener = socket.socket(fileno=fd) if fd is not None else listen(settings.web_host, settings.web_port)
    with listener:
        config = uvicorn.Config(
            Proxies(create_app(cloud), settings.web_trusted_proxies),
            http=type("Http", (PatientToAPoint,), {"header_s": settings.web_header_seconds}),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            root_path=settings.web_root_path,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
        )
        # Its lines are sentences with values baked in; ours are events.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        # uvicorn raises the signal anew at its end: a stop that was asked for is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
        say(address_of(listener, settings))
        uvicorn.Server(config).run(sockets=[listener])


def allow_files(count: int) -> None:
    """Let this process have ``count`` files and connections open, or as many as it may: the usual 1,024 are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_reach(settings: Settings) -> None:
    """Refuse to offer the page to others without a token.

    Raises:
        SetupError: ``IRS_WEB_HOST`` is no loopback address and no ``IRS_WEB_TOKEN`` is set.
    """
    if not settings.web_token and not is_loopback(settings.web_host):
        raise SetupError(
            f"IRS_WEB_HOST={settings.web_host} would open the page to everyone: set IRS_WEB_TOKEN to a secret of 32"
            " characters or more, such as `openssl rand -hex 32` makes, or bind 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Return whether an address to bind can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int, *, or_any: bool = False) -> socket.socket:
    """Return a listening socket.

    Args:
        or_any: take a free port where ``port`` is taken.

    Raises:
        SetupError: the address cannot be bound.
    """
    host = host.strip("[]")
    for wanted in (port, 0) if or_any else (port,):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, wanted), family=family, backlog=BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
    raise SetupError(f"The page cannot listen on {host}:{port} ({reason}): name another IRS_WEB_PORT, or 0 for a free one.")


def address_of(listener: socket.socket, settings: Settings) -> str:
    """Return what a person opens."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}{settings.web_root_path}/"
