"""Bodies of requests, read as they come: each within its length, its time, and not too slowly."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
from starlette.requests import ClientDisconnect, Request

from webui.problems import Problem

#: Who sends fewer bytes than this over the window is cut off.
FLOOR_BYTES_PER_S = 1024
FLOOR_WINDOW_S = 30.0


async def chunks(request: Request, stall_s: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes.

    Raises:
        Problem: nothing came for ``stall_s`` seconds, or less than 1 KiB/s over half a minute (408).
        ClientDisconnect: the client has left.
    """
    stream = request.stream().__aiter__()
    window_from_s, window_bytes = time.monotonic(), 0
    while True:
        chunk: bytes | None = None
        with anyio.move_on_after(stall_s):
            chunk = await anext(stream, b"")
            if not chunk:
                return
        if chunk is None:
            raise Problem("timeout", f"Nothing came for {stall_s:g} s: send the image again.")
        window_bytes += len(chunk)
        passed_s = time.monotonic() - window_from_s
        if passed_s >= FLOOR_WINDOW_S:
            if window_bytes < FLOOR_BYTES_PER_S * passed_s:
                raise Problem("timeout", "The upload was slower than 1 KiB a second: send the image again.")
            window_from_s, window_bytes = time.monotonic(), 0
        yield chunk


async def read_exactly(request: Request, size_bytes: int, stall_s: float) -> bytearray:
    """Return the body, which must be ``size_bytes`` long, in one buffer; raises as :func:`chunks`."""
    body = bytearray(size_bytes)
    at = 0
    async for chunk in chunks(request, stall_s):
        body[at : at + len(chunk)] = chunk
        at += len(chunk)
        if at > size_bytes:
            break
    if at != size_bytes:
        # h11 sees to it that a body is as long as was said; another server may not.
        raise Problem("bad_request", f"The body does not have the {size_bytes} bytes that Content-Length says.")
    return body


async def read_up_to(request: Request, most_bytes: int, stall_s: float) -> bytes:
    """Return a small body.

    Raises:
        Problem: it is longer than ``most_bytes``.
    """
    body = b""
    async for chunk in chunks(request, stall_s):
        body += chunk
        if len(body) > most_bytes:
            raise Problem("bad_request", f"The body is longer than {most_bytes:,} bytes.")
    return body


async def pass_over(request: Request, most_bytes: int, stall_s: float) -> None:
    """Read and drop what is left of a refused body, so that the client hears the answer rather than a reset.

    Not for who asked first (``Expect: 100-continue``): it sends nothing before it hears.
    """
    if "expect" in request.headers:
        return
    passed = 0
    try:
        async for chunk in chunks(request, stall_s):
            passed += len(chunk)
            if passed > most_bytes:
                return
    except (Problem, ClientDisconnect):
        return


def content_length(request: Request) -> int | None:
    """Return what Content-Length says; None when it is not there or is no number."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() and len(said) < 16 else None
