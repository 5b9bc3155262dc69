"""A metadata service as EC2 has it: version 2, under a path of its own for each instance, what it says up to the test."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/of/i-0abc"
_TOKEN, _TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"


class MetadataService(ThreadingHTTPServer):
    """Answers what ``says`` holds by path; ``asked`` counts the paths that came with a good token.

    While it ``is_cut`` an answer ends before the length that it announces.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.says: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.is_cut = False
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{PREFIX}/"


class _Handler(BaseHTTPRequestHandler):
    server: MetadataService

    def do_PUT(self) -> None:
        if self.path != f"{PREFIX}/latest/api/token" or not 1 <= int(self.headers.get(_TTL, 0)) <= 21_600:
            self._answer(400, "")
            return
        token = secrets.token_hex(8)
        self.server.tokens.add(token)
        self._answer(200, token)

    def do_GET(self) -> None:
        if self.headers.get(_TOKEN) not in self.server.tokens:
            self._answer(401, "")
            return
        path = self.path.removeprefix(f"{PREFIX}/latest/")
        self.server.asked[path] += 1
        found = self.server.says.get(path)
        self._answer(404 if found is None else 200, found or "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) + self.server.is_cut))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def metadata_service() -> Iterator[MetadataService]:
    """A running service on a free port."""
    with MetadataService() as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield service
        service.shutdown()
        thread.join()
