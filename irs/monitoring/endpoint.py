"""``/metrics``, ``/healthz`` and ``/readyz`` of a process without a page, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from irs.errors import SetupError

log = logging.getLogger(__name__)

#: Body, content type.
Text = Callable[[], tuple[bytes, str]]
#: Why not, or None.
Why = Callable[[], str | None]
_PLAIN = "text/plain; charset=utf-8"
#: Who connects and then says nothing would keep a thread for ever.
REQUEST_S = 10.0


def serve(
    host: str,
    port: int,
    *,
    metrics: Text,
    why_not_alive: Why = lambda: None,
    why_not_ready: Why = lambda: None,
    setting: str,
) -> ThreadingHTTPServer:
    """Answer until ``shutdown()`` is called; port 0 is a free one, which the log tells.

    Args:
        setting: what to change when the port is taken.

    Raises:
        SetupError: the address cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, *metrics())
            elif self.path in ("/healthz", "/readyz"):
                why = why_not_alive() if self.path == "/healthz" else why_not_ready()
                self._send(503 if why else 200, f"{why or 'ok'}\n".encode(), _PLAIN)
            else:
                self._send(404, b"try /metrics, /healthz or /readyz\n", _PLAIN)

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise SetupError(f"Port {port} on {host} cannot be used ({error.strerror}): set {setting} or IRS_METRICS_HOST.") from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="irs-health", daemon=True).start()
    log.info("health", extra={"address": f"http://{host}:{server.server_port}/readyz"})
    return server
