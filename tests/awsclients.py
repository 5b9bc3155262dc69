"""Plain boto3 clients for tests that look at the cloud itself, with names no other test uses."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Self

import boto3
from botocore.config import Config


@dataclass
class Aws:
    """Plain clients of one implementation, and names that no other test uses."""

    s3: Any
    sqs: Any
    sns: Any
    _used: int = field(default=0)
    _prefix: str = field(default_factory=lambda: f"t-{secrets.token_hex(4)}")

    def with_new_names(self) -> Self:
        return type(self)(self.s3, self.sqs, self.sns)

    def name(self) -> str:
        self._used += 1
        return f"{self._prefix}-{self._used}"

    def queue(self, **attributes: str) -> str:
        """Make a queue; return its URL."""
        return str(self.sqs.create_queue(QueueName=self.name(), Attributes=attributes)["QueueUrl"])

    def arn(self, queue: str) -> str:
        return str(self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])

    def bucket(self) -> str:
        name = self.name()
        self.s3.create_bucket(Bucket=name)
        return name

    def send(self, queue: str, *bodies: str, **options: Any) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=queue, MessageBody=body, **options)

    def receive(self, queue: str, *, wait_s: int = 0, **options: Any) -> list[dict[str, Any]]:
        """Return up to ten messages with all their attributes."""
        got = self.sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=options.pop("MaxNumberOfMessages", 10),
            WaitTimeSeconds=wait_s,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
            **options,
        )
        return list(got.get("Messages", []))

    def counts(self, queue: str) -> tuple[int, int, int]:
        """Messages visible, in flight, delayed."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
        found = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        visible, in_flight, delayed = (int(found[name]) for name in names)
        return visible, in_flight, delayed


def clients(endpoint: str | None = None) -> Aws:
    """Clients of ``endpoint`` with the keys of the environment; one try a call, so that each answer is seen."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=30, max_pool_connections=64, s3={"addressing_style": "path"})
    # Not the default session: it keeps the keys of whoever came first.
    session = boto3.Session()
    return Aws(*(session.client(name, endpoint_url=endpoint, config=config) for name in ("s3", "sqs", "sns")))
