"""The two-minute notice of a spot instance: heard from the metadata service, and told once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.client import HTTPException

from irs.worker.metadata import TAG_PATH, Metadata

log = logging.getLogger(__name__)

PERIOD_S = 5.0
LAUNCH_TAG = "irs:launch"
#: What EC2 says before it takes an instance back: that it will, or that it probably will.
NOTICES = ("meta-data/spot/instance-action", "meta-data/events/recommendations/rebalance")


class Spot:
    """Asks the metadata service from a thread of its own: for this launch at once, for a notice every 5 s.

    Args:
        on_launch: told the scaler's id of this launch, if the instance has a tag of it and its tags may be read.
        on_notice: told the notice, once; from this thread.
    """

    def __init__(self, metadata: Metadata, *, on_launch: Callable[[str], None], on_notice: Callable[[str], None]) -> None:
        self._metadata, self._on_launch, self._on_notice = metadata, on_launch, on_notice
        self._ended = threading.Event()
        self._is_silent = False
        threading.Thread(target=self._watch, name="irs-spot", daemon=True).start()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _watch(self) -> None:
        if launch := self._find(TAG_PATH + LAUNCH_TAG):
            self._on_launch(launch)
        while not self._ended.is_set():
            for path in NOTICES:
                if (notice := self._find(path)) is not None:
                    self._on_notice(f"{path.rpartition('/')[2]}: {notice}")
                    return
            self._ended.wait(PERIOD_S)

    def _find(self, path: str) -> str | None:
        try:
            found = self._metadata.find(path)
        except (OSError, ValueError, HTTPException) as error:
            # Told once: it may be away for long, and the worker works without it.
            if not self._is_silent:
                log.warning("metadata_silent", extra={"path": path, "reason": str(error)})
            self._is_silent = True
            return None
        self._is_silent = False
        return found
