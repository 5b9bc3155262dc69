"""Our SQS transport for kombu: safe polls, leases, batched acknowledgements and sends.

Light on purpose: callers import it, so kombu's SQS transport and boto3 are loaded when a connection is made.
"""

from __future__ import annotations

from irs.broker.delivery import Delivery, delivery
from irs.broker.sends import batch_sends
from irs.broker.switch import Health, hasten, health, pause, relax, resume

__all__ = ["Delivery", "Health", "batch_sends", "delivery", "hasten", "health", "pause", "register", "relax", "resume"]


def register(*, broadcasts: bool = False) -> None:
    """Put our transport behind the scheme ``sqs://`` of this process.

    The scheme stays kombu's own, so that Celery's and Flower's tests of it hold.

    Args:
        broadcasts: also carry events and remote control, over SNS.
    """
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES["sqs"] = "irs.broker.fanout:Transport" if broadcasts else "irs.broker.transport:Transport"
