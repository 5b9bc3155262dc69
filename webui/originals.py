"""Images as they were handed in, sent back: under our own type by content, shown in place only where that is safe."""

from __future__ import annotations

import logging
from urllib.parse import quote

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from webui.budget import ByteBudget
from webui.formats import HEAD_BYTES, served_type
from webui.guard import SANDBOX
from webui.jobs import Jobs, Original

log = logging.getLogger(__name__)

SLICE_BYTES = 64 * 1024
#: A client that takes no slice for this long is left.
STALL_S = 30.0


class OriginalResponse(Response):
    """Holds the bytes within the budget until the last is sent, and reads them no sooner."""

    def __init__(self, jobs: Jobs, original: Original, budget: ByteBudget) -> None:
        super().__init__()
        self._jobs, self._original, self._budget = jobs, original, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer.

        Raises:
            Problem, IrsError: it has expired, may not be read, or there is no room; nothing was sent yet.
        """
        # Of an image that is not ours the length is unknown before it is asked for: room for the largest.
        async with self._budget.hold(self._original.bytes or self._jobs.max_bytes):
            body = await self._jobs.load(self._original.image)
            kind, is_inline = served_type(body[:HEAD_BYTES])
            place = "inline" if is_inline else "attachment"
            self.init_headers(
                {
                    "Content-Type": kind,
                    "Content-Length": str(len(body)),
                    "Content-Disposition": f"{place}; filename*=UTF-8''{quote(self._original.name, safe='')}",
                    "Content-Security-Policy": SANDBOX,
                    "Cache-Control": "private, max-age=3600",
                }
            )
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for start in range(0, len(body) or 1, SLICE_BYTES):
                more = start + SLICE_BYTES < len(body)
                with anyio.move_on_after(STALL_S) as waited:
                    await send({"type": "http.response.body", "body": body[start : start + SLICE_BYTES], "more_body": more})
                if waited.cancelled_caught:
                    log.info("download_frozen", extra={"after_s": STALL_S})
                    return
