"""What trusted proxies say of a request: ``Forwarded`` (RFC 7239), or else ``X-Forwarded-*`` as uvicorn reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

#: One pair of an element: a token, or a string in quotes, which may hold commas.
_PAIR = re.compile(r'\s*([\w!#$%&\'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*([;,]?)')
_NODE = re.compile(r"\[([^\]]*)\](?::(\d+))?|([^:]*)(?::(\d+))?")


class Proxies(ProxyHeadersMiddleware):
    """Tells the app the client, scheme and host that the outermost trusted proxy saw; of others nothing is believed."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        super().__init__(app, list(trusted))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Answer."""
        if scope["type"] == "http" and (scope.get("client") or ("",))[0] in self.trusted_hosts:
            said = ",".join(Headers(scope=scope).getlist("forwarded"))
            if elements := read_forwarded(said):
                self._take(scope, elements)
                await self.app(scope, receive, send)  # type: ignore[arg-type]
                return
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]

    def _take(self, scope: Scope, elements: Sequence[dict[str, str]]) -> None:
        # Each proxy adds its element at the end: the first from there that names no proxy of ours names the client.
        # What stands before it the client may have said itself.
        seen = next((one for one in reversed(elements) if _node(one)[0] not in self.trusted_hosts), elements[0])
        if "for" in seen:
            scope["client"] = _node(seen)
        if seen.get("proto") in ("http", "https"):
            scope["scheme"] = seen["proto"]
        if host := seen.get("host"):
            scope["headers"] = [*_without(b"host", scope["headers"]), (b"host", host.encode("latin-1", "replace"))]


def read_forwarded(said: str) -> list[dict[str, str]]:
    """Return the elements of ``Forwarded``, names in lower case; nothing at all of one that is malformed."""
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(said):
        match = _PAIR.match(said, at)
        if match is None or (not match[3] and match.end() < len(said)):
            return []
        value = re.sub(r"\\(.)", r"\1", match[2][1:-1]) if match[2].startswith('"') else match[2]
        elements[-1][match[1].lower()] = value
        if match[3] == ",":
            elements.append({})
        at = match.end()
    return [element for element in elements if element]


def _node(element: dict[str, str]) -> tuple[str, int]:
    match = _NODE.fullmatch(element.get("for", ""))
    if match is None:
        return element["for"], 0
    return match[1] or match[3] or "", int(match[2] or match[4] or 0)


def _without(name: bytes, headers: Iterable[tuple[bytes, bytes]]) -> list[Any]:
    return [pair for pair in headers if pair[0] != name]
