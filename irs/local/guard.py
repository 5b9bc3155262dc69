"""The door of the embedded cloud: who may call it, and what happens when a caller leaves.

An emulator answers everybody: without this door any web page open in a browser on this machine could
create queues, list buckets and wipe all state (measured).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from irs.local.home import Endpoint

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH_PATH = "/_ministack/health"
#: How many calls of each action were let in since the start: what the benchmark counts requests by.
COUNTS_PATH = "/_irs/requests"
#: Metadata of instances, and what goes wrong with them on demand.
IMDS_PATH, EC2_PATH = "/_irs/imds/", "/_irs/ec2/"

#: Whether the caller of the request at hand has hung up; asked before messages are taken out for it.
caller_has_left: ContextVar[Callable[[], bool]] = ContextVar("caller_has_left", default=lambda: False)
#: Breaks the connection of the request at hand, which ends the call as well.
hang_up: ContextVar[Callable[[], None]] = ContextVar("hang_up", default=lambda: None)

_CREDENTIAL = re.compile(rb"Credential=([^/,\s]+)/")
_FORM = b"application/x-www-form-urlencoded"


class Reply(NamedTuple):
    """An answer to a request that the emulator does not see."""

    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


#: Answers a request by its method, path, headers (names in lower case) and body.
Routes = Callable[[str, str, Mapping[str, str], bytes], Reply]


class Guard:
    """ASGI app around the emulator that lets only this run's own callers in.

    With ``checks_rights`` the emulator itself knows more keys, and what each may do. A long poll whose caller leaves
    is ended with it: what arrives later goes to someone who is there.
    """

    def __init__(self, app: App, endpoint: Endpoint, routes: Routes, *, checks_rights: bool = False) -> None:
        self._app, self._routes, self._checks_rights = app, routes, checks_rights
        self._requests: Counter[str] = Counter()
        self._access_key = endpoint.access_key_id.encode()
        self._hosts = {f"{name}:{endpoint.port}".encode() for name in ("127.0.0.1", "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 403 and one sentence, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if reason := self._refusal(scope["path"], headers):
            await _answer(send, reason, headers)
            return
        if scope["path"] == COUNTS_PATH:
            await _send(send, 200, json.dumps(self._requests).encode(), b"application/json")
            return
        if scope["path"].startswith((IMDS_PATH, EC2_PATH)):
            await self._answer_by_routes(scope, headers, receive, send)
            return
        self._requests[_action(scope, headers)] += 1
        if _may_wait(headers):
            await self._until_gone(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> str | None:
        if headers.get(b"host", b"").lower() not in self._hosts:
            # A name that a stranger points at 127.0.0.1 makes a page's calls same-origin (DNS rebinding).
            return "This address is for 127.0.0.1 and localhost alone."
        if headers.get(b"origin", b"").lower() not in {b"", *self._origins} or headers.get(b"sec-fetch-site") == b"cross-site":
            return "Web pages of other origins may not call the embedded cloud."
        # An instance has no key to ask for its metadata with, only its id, which nobody guesses.
        if path == HEALTH_PATH or path.startswith(IMDS_PATH):
            return None
        if path.startswith("/_") and path != COUNTS_PATH and not path.startswith(EC2_PATH):
            return f"{path} is closed: the embedded cloud offers its health alone."
        # The header alone: the emulator checks neither expiry nor signature of a presigned address.
        found = _CREDENTIAL.search(headers.get(b"authorization", b""))
        is_emulators = self._checks_rights and not path.startswith("/_")
        if found is None or not (is_emulators or hmac.compare_digest(found[1], self._access_key)):
            return "Calls must be signed with the access key of this run: start the program by `irs up -- COMMAND`."
        return None

    async def _answer_by_routes(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if (body := await _read(receive)) is None:
            return
        told = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        reply = self._routes(scope["method"], scope["path"], told, body)
        more = [(name.encode(), value.encode()) for name, value in reply.headers]
        await _send(send, reply.status, reply.body.encode(), b"text/plain", more)

    async def _until_gone(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (body := await _read(receive)) is None:
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await asyncio.Future()

        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        caller_has_left.set(partial(_is_closed, transport))
        if transport is not None:
            hang_up.set(transport.abort)
        work = asyncio.ensure_future(self._app(scope, replay, send))
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        if not work.cancelled():
            await asyncio.gather(work, return_exceptions=gone.done())


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body; None when the caller left before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _is_closed(transport: asyncio.Transport | None) -> bool:
    """Whether the other end has closed, as the kernel knows it: the event loop reads it only later.

    A caller may send its request and hang up before the request is even read.
    """
    if transport is None or transport.is_closing():
        return transport is not None
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as probe:
        try:
            return probe.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def _may_wait(headers: dict[bytes, bytes]) -> bool:
    """Whether a request may be a long poll, in the JSON or in the older form of the protocol."""
    return headers.get(b"x-amz-target", b"").endswith(b".ReceiveMessage") or headers.get(b"content-type", b"").startswith(_FORM)


def _action(scope: Scope, headers: dict[bytes, bytes]) -> str:
    """Return what a request asks for: ``ReceiveMessage``, or for S3 ``PUT object``, ``GET bucket``."""
    if target := headers.get(b"x-amz-target"):
        return target.decode("latin-1").rpartition(".")[2]
    _, _, key = scope["path"].lstrip("/").partition("/")
    return f"{scope['method']} {'object' if key else 'bucket'}"


async def _answer(send: Send, reason: str, headers: dict[bytes, bytes]) -> None:
    if b"x-amz-target" in headers:
        kind, body = b"application/x-amz-json-1.0", json.dumps({"__type": "AccessDenied", "message": reason}).encode()
    else:
        kind = b"application/xml"
        error = f"<Error><Code>AccessDenied</Code><Message>{escape(reason)}</Message></Error>"
        # S3 answers with the error alone, the form protocol of the others with a cover around it.
        is_form = headers.get(b"content-type", b"").startswith(_FORM)
        body = (f"<ErrorResponse>{error}</ErrorResponse>" if is_form else error).encode()
    # The body of a refused request is left unread, so the connection cannot be used again.
    await _send(send, 403, body, kind, [(b"connection", b"close")])


async def _send(send: Send, status: int, body: bytes, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
