"""A transport that sends what is written in one turn of the loop together: a small answer is one packet, not three."""

from __future__ import annotations

import asyncio
from typing import Any


class OneWrite:
    """Stands in for a transport; all but writing and closing it gives on.

    uvicorn writes the head of an answer, its body and its end each by themselves. With TCP_NODELAY, which asyncio sets
    so that nothing waits for the other side, each became a packet and a wake-up there.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it at the end of this turn."""
        if not data:
            return
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Close once all is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
