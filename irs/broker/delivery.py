"""What SQS tells of one delivery: how often the message was received, and when it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: System attributes asked for with every receive.
ATTRIBUTES = ("ApproximateReceiveCount", "SentTimestamp")
#: Where the intake notes in a message when it was received.
RECEIVED_AT = "irs-received-at"
#: SQS hides a message for at most 12 hours; a task that fails again and again comes back every 15 minutes.
LONGEST_BACKOFF_S = 900


@dataclass(frozen=True, slots=True)
class Delivery:
    """One receive of a message: ``receives`` counts from 1, ``sent_at`` in Unix seconds, ``received_at`` monotonic."""

    receives: int = 1
    sent_at: float | None = None
    received_at: float | None = None


def of_message(message: dict[str, Any]) -> Delivery:
    """Return what the attributes of a received SQS message say."""
    attributes = message.get("Attributes") or {}
    sent_ms = attributes.get("SentTimestamp")
    receives = int(attributes.get("ApproximateReceiveCount", 1))
    return Delivery(receives, int(sent_ms) / 1000 if sent_ms else None, message.get(RECEIVED_AT))


def delivery(request: Any) -> Delivery:
    """Return the delivery behind a Celery task's ``self.request``; the defaults when it did not come by SQS."""
    info = (getattr(request, "properties", None) or {}).get("delivery_info") or {}
    return of_message(info.get("sqs_message") or {})


def backoff_s(receives: int) -> int:
    """Return how long a message stays hidden after a failed attempt: 2ⁿ seconds, at most 15 minutes."""
    return int(min(LONGEST_BACKOFF_S, 2 ** min(receives, 10)))
