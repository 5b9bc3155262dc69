"""One ReceiveMessage: a long poll that ends in time, or is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irs.broker.delivery import ATTRIBUTES
from irs.cloud import Cloud
from irs.errors import QueueUnavailable
from irs.sqs import SqsConnection

#: Beyond the long poll itself: an answer that is later than this will not come.
GRACE_S = 5.0


class Receiver:
    """The connection of one poller thread; not for several threads at once.

    Args:
        is_cut: asked once a second while a receive waits, with the seconds it was to last; True breaks it off.
    """

    def __init__(self, cloud: Cloud, *, is_cut: Callable[[int], bool]) -> None:
        self._wait_s = 0
        self._ask_cut = is_cut
        self._connection = SqsConnection(cloud, is_cut=self._is_cut)

    def receive(self, url: str, *, count: int, wait_s: int, visibility_s: int) -> list[dict[str, Any]]:
        """Return 0 to ``count`` (at most 10) messages, waiting up to ``wait_s`` for the first; none when it is cut.

        Raises:
            QueueUnavailable: no answer in time, or any answer but messages.
        """
        self._wait_s = wait_s
        request = {
            "QueueUrl": url,
            "MaxNumberOfMessages": count,
            "WaitTimeSeconds": wait_s,
            "VisibilityTimeout": visibility_s,
            "MessageSystemAttributeNames": ATTRIBUTES,
        }
        try:
            messages = self._connection.call("ReceiveMessage", request, within_s=wait_s + GRACE_S).get("Messages") or []
        except QueueUnavailable:
            if self._is_cut():
                return []
            raise
        if not isinstance(messages, list):
            raise QueueUnavailable(f"ReceiveMessage was answered no messages: {str(messages)[:100]}")
        return [message for message in messages if isinstance(message, dict)]

    def _is_cut(self) -> bool:
        return self._ask_cut(self._wait_s)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
