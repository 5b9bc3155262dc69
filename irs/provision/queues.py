"""Queues: of tasks, of tasks that failed too often, of news, of dropped files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from irs.cloud import Cloud
from irs.provision.ledger import Ledger

DAY_SECONDS = 86_400
#: The longest that SQS keeps a message.
REQUESTS_DAYS = 14
#: News is a hint; who was away reads the records.
RESPONSES_DAYS = 1
NEWS_VISIBILITY_SECONDS = 30

_POLICIES = ("Policy", "RedrivePolicy", "RedriveAllowPolicy")


class Queues:
    """Makes the queues of one stack; ``arn_prefix`` is what all their ARNs begin with."""

    def __init__(self, cloud: Cloud, ledger: Ledger, tags: dict[str, str], arn_prefix: str) -> None:
        self._sqs = cloud.client("sqs")
        self._settings, self._ledger, self._tags, self._arn_prefix = cloud.settings, ledger, tags, arn_prefix

    def make_dead(self) -> None:
        """Make the dead-letter queue, which must be there before the queue that names it."""
        self._make(self._settings.requests_dead_queue, {"MessageRetentionPeriod": str(REQUESTS_DAYS * DAY_SECONDS)})

    def make_requests(self) -> None:
        """Make the queue of the tasks."""
        settings = self._settings
        redrive = {"deadLetterTargetArn": self._arn(settings.requests_dead_queue), "maxReceiveCount": settings.max_receives}
        self._make(
            settings.requests_queue,
            {
                "MessageRetentionPeriod": str(REQUESTS_DAYS * DAY_SECONDS),
                "VisibilityTimeout": str(settings.visibility_seconds),
                "ReceiveMessageWaitTimeSeconds": str(settings.wait_seconds),
                "RedrivePolicy": json.dumps(redrive),
            },
        )

    def allow_redrive(self) -> None:
        """Let the queue of the tasks, and no other, use the dead-letter queue."""
        source = [self._arn(self._settings.requests_queue)]
        allow = {"redrivePermission": "byQueue", "sourceQueueArns": source}
        self._make(self._settings.requests_dead_queue, {"RedriveAllowPolicy": json.dumps(allow)})

    def make_responses(self) -> None:
        """Make the queue of the news."""
        self._make(
            self._settings.responses_queue,
            {
                "MessageRetentionPeriod": str(RESPONSES_DAYS * DAY_SECONDS),
                "VisibilityTimeout": str(NEWS_VISIBILITY_SECONDS),
                "ReceiveMessageWaitTimeSeconds": str(self._settings.wait_seconds),
            },
        )

    def make_drops(self, sources: Sequence[str]) -> None:
        """Make the queue of what S3 tells about dropped files; ``sources`` are the ARNs of the buckets that may tell."""
        settings = self._settings
        self._make(
            settings.drops_queue,
            {
                "MessageRetentionPeriod": str(REQUESTS_DAYS * DAY_SECONDS),
                "VisibilityTimeout": str(settings.visibility_seconds),
                "ReceiveMessageWaitTimeSeconds": str(settings.wait_seconds),
                "Policy": json.dumps(drops_policy(self._arn(settings.drops_queue), sources, self._arn_prefix.split(":")[4])),
            },
        )

    @property
    def drops_arn(self) -> str:
        """The ARN of the queue of dropped files, known before it is there."""
        return self._arn(self._settings.drops_queue)

    def _arn(self, name: str) -> str:
        return f"{self._arn_prefix}:{name}"

    def _make(self, name: str, want: dict[str, str]) -> None:
        resource = f"queue {name}"
        url = self._find(name)
        if url is None:
            attributes = want | {"SqsManagedSseEnabled": "true"}
            create = partial(self._sqs.create_queue, QueueName=name, Attributes=attributes, tags=self._tags)
            self._ledger.create(resource, create)
            return
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]).get("Attributes", {})
        if not found.get("KmsMasterKeyId"):
            # Unless somebody has chosen keys of their own.
            want = want | {"SqsManagedSseEnabled": "true"}
        for attribute, value in want.items():
            is_same = _comparable(attribute, found.get(attribute)) == _comparable(attribute, value)
            write = partial(self._sqs.set_queue_attributes, QueueUrl=url, Attributes={attribute: value})
            self._ledger.correct(resource, attribute, None if is_same else write)
        tags = self._sqs.list_queue_tags(QueueUrl=url).get("Tags", {})
        write = partial(self._sqs.tag_queue, QueueUrl=url, Tags=self._tags)
        self._ledger.correct(resource, "tags", None if tags | self._tags == tags else write)

    def _find(self, name: str) -> str | None:
        try:
            return str(self._sqs.get_queue_url(QueueName=name)["QueueUrl"])
        except self._sqs.exceptions.QueueDoesNotExist:
            return None


def drops_policy(queue_arn: str, sources: Sequence[str], account: str) -> dict[str, object]:
    """Return what lets S3 send for these buckets of this account, and nobody else for any."""
    statement = {
        "Sid": "irs-s3-events",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {
            "ArnEquals": {"aws:SourceArn": list(sources)},
            "StringEquals": {"aws:SourceAccount": account},
        },
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def _comparable(attribute: str, value: str | None) -> object:
    """An attribute without the forms in which the same value may be written."""
    if attribute not in _POLICIES or not value:
        return value
    policy = json.loads(value)
    # SQS gives the number back as it was written: 5 or "5".
    return policy | {"maxReceiveCount": str(policy["maxReceiveCount"])} if "maxReceiveCount" in policy else policy
