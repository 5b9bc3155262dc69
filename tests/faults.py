"""A proxy in front of the embedded cloud that counts requests and does what networks and clouds do.

It speaks HTTP/1.1 in plain bytes, so that any client goes through it: boto3, pycurl, obstore.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Mode = Literal["500", "503", "400", "403", "409", "412", "hang", "drop", "cut", "html"]

_HEAD_LIMIT = 256 * 1024


@dataclass
class Fault:
    """What happens to a share of the requests of some actions (``ReceiveMessage``, ``PUT``, ``*`` for all)."""

    mode: Mode
    actions: frozenset[str] = frozenset({"*"})
    share: float = 1.0

    def hits(self, action: str) -> bool:
        return bool(self.actions & {action, "*"}) and random.random() < self.share


@dataclass
class FaultProxy:
    """``with FaultProxy(endpoint) as proxy: proxy.endpoint``; ``proxy.fault`` may change at any time."""

    upstream: str
    fault: Fault | None = None
    requests: Counter[str] = field(default_factory=Counter)
    delay_s: float = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.refuse()

        async def settle() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._do(settle)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def endpoint(self) -> str:
        """The address clients use instead of the cloud's."""
        return f"http://127.0.0.1:{self._port}"

    def refuse(self) -> None:
        """Refuse new connections and break those that are open."""

        async def stop() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()

        self._do(stop)

    def accept(self) -> None:
        """Take connections, on the same port as before."""

        async def start() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_HEAD_LIMIT)
            self._port = self._server.sockets[0].getsockname()[1]

        self._do(start)

    def break_connections(self) -> None:
        """Break what is open: polls under way fail, the next ones connect."""

        async def cut() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._do(cut)

    def _do(self, what: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(what(), self._loop).result(10)  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"expect: 100-continue" in head.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
                body = await reader.readexactly(int(_header(head, b"content-length") or 0))
                action = (_header(head, b"x-amz-target") or head.split(b" ", 1)[0]).decode().rpartition(".")[2]
                self.requests[action] += 1
                fault = self.fault if self.fault and self.fault.hits(action) else None
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if fault and await self._misbehave(fault, action, writer):
                    continue
                if upstream is None:
                    address = urlsplit(self.upstream)
                    upstream = await asyncio.open_connection(address.hostname, address.port, limit=_HEAD_LIMIT)
                    self._writers.add(upstream[1])
                if not await self._forward(head, body, reader, writer, upstream, is_cut=bool(fault and fault.mode == "cut")):
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            for one in (writer, *(upstream[1:] if upstream else ())):
                self._writers.discard(one)
                with suppress(Exception):
                    one.transport.abort()

    async def _misbehave(self, fault: Fault, action: str, writer: asyncio.StreamWriter) -> bool:
        """Answer for the cloud; False if the request is to be forwarded."""
        if fault.mode == "cut":
            return False
        if fault.mode == "drop":
            raise ConnectionResetError
        if fault.mode == "hang":
            await asyncio.sleep(3600)
        if fault.mode == "html":
            body = b"<html>maintenance</html>"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        else:
            # An action in capitals is a method of S3, which says by 403 that a bucket's policy forbids it.
            refusal = "AccessDenied" if action.isupper() else "ExpiredToken"
            code = {"400": "ThrottlingException", "403": refusal, "409": "ConditionalRequestConflict"}.get(
                fault.mode, "InternalFailure"
            )
            body = b'{"__type":"com.amazonaws.sqs#%b","message":"injected"}' % code.encode()
            writer.write(
                b"HTTP/1.1 %b injected\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-query-error: %b;Sender\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (fault.mode.encode(), code.encode(), len(body), body)
            )
        await writer.drain()
        return True

    async def _forward(
        self,
        head: bytes,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        is_cut: bool,
    ) -> bool:
        """Pass a request on and its answer back; False when the client left meanwhile."""
        up_reader, up_writer = upstream
        host = urlsplit(self.upstream).netloc.encode()
        lines = [b"Host: " + host if line.lower().startswith(b"host:") else line for line in head.split(b"\r\n")]
        up_writer.write(b"\r\n".join(lines) + body)
        await up_writer.drain()
        answer = asyncio.ensure_future(_read_answer(up_reader, is_head=head.startswith(b"HEAD")))
        # A client that leaves during a long poll must be seen by the cloud too.
        gone = asyncio.ensure_future(_until_gone(reader))
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answer.done():
            answer.cancel()
            return False
        data = answer.result()
        if is_cut:
            writer.write(data[: len(data) // 2])
            await writer.drain()
            raise ConnectionResetError
        writer.write(data)
        await writer.drain()
        return True


async def _until_gone(reader: asyncio.StreamReader) -> None:
    # at_eof() alone tells without taking bytes of a next request.
    while not reader.at_eof():
        await asyncio.sleep(0.02)


async def _read_answer(reader: asyncio.StreamReader, *, is_head: bool) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if is_head or status in (204, 304):
        return head
    if (_header(head, b"transfer-encoding") or b"").lower() == b"chunked":
        data = head
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size, 16) + 2)
            data += size + chunk
            if int(size, 16) == 0:
                return data
    return head + await reader.readexactly(int(_header(head, b"content-length") or 0))


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None
