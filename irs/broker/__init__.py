"""Our SQS transport for kombu: safe polls, leases, batched acknowledgements and sends.

Light on purpose: callers import it, so kombu's SQS transport and boto3 are loaded when a connection is made.
"""

from __future__ import annotations

from irs.broker.delivery import Delivery, delivery
from irs.broker.sends import batch_sends
from irs.broker.switch import Health, health, pause, resume

__all__ = ["Delivery", "Health", "batch_sends", "delivery", "health", "pause", "register", "resume"]


def register() -> None:
    """Put our transport behind the scheme ``sqs://`` of this process.

    The scheme stays kombu's own, so that Celery's and Flower's tests of it hold.
    """
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES["sqs"] = "irs.broker.transport:Transport"
