"""Queues of a process's own, for commands, events and replies: made when needed, gone with their owner.

Each has a name that no queue had before it: AWS refuses a name for a minute after its queue was deleted, and a
worker that starts again must not find the commands its predecessor was sent.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

from ulid import ULID

from irs.cloud import Cloud
from irs.errors import MissingResource, QueueUnavailable

log = logging.getLogger(__name__)

Kind = Literal["pidbox", "events", "reply"]
#: The topic a kind of queue listens to, by what follows the stack in its name; replies are sent to their queue itself.
TOPICS: dict[Kind, str] = {"pidbox": "control", "events": "events"}
#: SQS refuses longer names.
MOST_NAME_CHARACTERS = 80
#: Commands and replies are stale in no time; events are worth a short absence of who reads them.
RETENTION_S: dict[Kind, int] = {"pidbox": 60, "reply": 60, "events": 300}
#: What a dead reader's last poll took comes back after it.
VISIBILITY_S = 30
SEEN_TAG = "irs:seen"
#: How many times within the janitor's patience an owner says that it lives.
SEEN_SHARE = 3
#: The end of a process waits so long for its queues to be removed; the janitor removes what is left.
REMOVE_S = 2.0

_BOOT = str(ULID()).lower()


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """One such queue; ``subscription`` is the ARN of its subscription to its topic."""

    kind: Kind
    name: str
    url: str
    subscription: str | None = None


def prefix(stack: str) -> str:
    """Return what the names of all such queues of a stack begin with, and no other queue's."""
    return f"{stack}-mon-"


def new_name(stack: str, kind: Kind) -> str:
    """Return a name never used before, of at most 80 characters for any stack."""
    return f"{prefix(stack)}{kind}-{str(ULID()).lower()}"


def cloud_errors() -> tuple[type[Exception], ...]:
    """Return what boto3 raises when a cloud refuses, does not answer, or answers what is no answer."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return BotoCoreError, ClientError, ResponseParserError


def is_gone(error: BaseException) -> bool:
    """Whether SQS says by an error that there is no such queue (any more)."""
    return any(code in str(error) for code in ("QueueDoesNotExist", "NonExistentQueue"))


class Places:
    """Names and ARNs of a stack, found without a request of their own: the account stands in a known queue's URL."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._stack, self._region = cloud.settings.stack, cloud.settings.region

    @property
    def _account(self) -> str:
        return self._known_url.rsplit("/", 2)[1]

    @property
    def _known_url(self) -> str:
        return self._cloud.queue_url(self._cloud.settings.requests_queue)

    @property
    def _partition(self) -> str:
        return str(self._cloud.session().get_partition_for_region(self._region))

    def topic_arn(self, topic: str) -> str:
        """Return the ARN of the stack's topic ``control`` or ``events``; raises as :meth:`Cloud.queue_url`."""
        return f"arn:{self._partition}:sns:{self._region}:{self._account}:{self._stack}-{topic}"

    def queue_arn(self, name: str) -> str:
        """Return the ARN of a queue by its name."""
        return f"arn:{self._partition}:sqs:{self._region}:{self._account}:{name}"

    def reply_url(self, name: str) -> str | None:
        """Return the URL of a reply queue by its name; None for the name of any other queue.

        Not asked for: GetQueueUrl lags behind a queue's making, and kombu would make a queue that is gone anew.
        """
        if not name.startswith(f"{prefix(self._stack)}reply-") or "/" in name:
            return None
        return f"{self._known_url.rsplit('/', 1)[0]}/{name}"


class EphemeralQueues:
    """Makes and removes the queues of this process, and says that their owner lives. Safe for threads."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.places = Places(cloud)
        self._made: dict[str, Ephemeral] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._is_over = False
        self._keeper: threading.Thread | None = None
        atexit.register(self.remove_all)

    def sns(self) -> Any:
        """Return the client of SNS: short of patience, for nothing that is broadcast is worth waiting for."""
        return self._cloud.client("sns", read_seconds=5.0, attempts=2)

    def make(self, kind: Kind) -> Ephemeral:
        """Make a queue, subscribed to its topic if it has one. Blocks for two requests.

        Raises:
            QueueUnavailable: SQS or SNS does not answer, or refuses.
            MissingResource: there is no such topic.
        """
        if self._is_over:
            # Else a thread that still polls would make anew what its process has just removed.
            raise QueueUnavailable("no queue is made while the process ends")
        stack = self._cloud.settings.stack
        name, topic = new_name(stack, kind), TOPICS.get(kind)
        attributes = {"MessageRetentionPeriod": str(RETENTION_S[kind]), "VisibilityTimeout": str(VISIBILITY_S)}
        if topic is not None:
            # Before the subscription: what SNS may not deliver is dropped without a word.
            attributes["Policy"] = json.dumps(self._policy(name, topic))
        subscription = None
        try:
            url = self._cloud.sqs().create_queue(QueueName=name, Attributes=attributes, tags=self._tags(kind))["QueueUrl"]
            if topic is not None:
                subscription = self._subscribe(name, topic)
        except cloud_errors() as error:
            if "NotFound" in str(error):
                raise MissingResource(f"Topic {stack}-{topic} is not there: run `irs provision` first.") from None
            raise QueueUnavailable(f"Queue {name} cannot be made: {error}") from None
        queue = Ephemeral(kind, name, str(url), subscription)
        with self._lock:
            self._made[name] = queue
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="irs-seen", daemon=True)
                self._keeper.start()
        return queue

    def remove(self, *queues: Ephemeral) -> None:
        """Unsubscribe and delete queues in a thread of their own; waits 2 s at most, and never raises."""
        with self._lock:
            for queue in queues:
                self._made.pop(queue.name, None)
        if not queues:
            return
        remover = threading.Thread(target=self._remove, args=(queues,), name="irs-remove", daemon=True)
        try:
            remover.start()
        except RuntimeError:
            # The interpreter ends and starts no more threads.
            self._remove(queues)
            return
        remover.join(REMOVE_S)

    def remove_all(self) -> None:
        """Remove all that is left of this process; those of a parent process are its own."""
        if os.getpid() == self._pid:
            self._is_over = True
            self.remove(*self._made.values())

    def _subscribe(self, name: str, topic: str) -> str:
        answer = self.sns().subscribe(
            TopicArn=self.places.topic_arn(topic),
            Protocol="sqs",
            Endpoint=self.places.queue_arn(name),
            Attributes={"RawMessageDelivery": "true"},
            ReturnSubscriptionArn=True,
        )
        return str(answer["SubscriptionArn"])

    def _policy(self, name: str, topic: str) -> dict[str, Any]:
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": self.places.queue_arn(name),
                    "Condition": {"ArnEquals": {"aws:SourceArn": self.places.topic_arn(topic)}},
                }
            ],
        }

    def _tags(self, kind: Kind) -> dict[str, str]:
        now = str(int(time.time()))
        owner = f"{socket.gethostname()[:200]}:{os.getpid()}"
        own = {"irs:kind": kind, "irs:boot": _BOOT, "irs:owner": owner, "irs:born": now, SEEN_TAG: now}
        return {"irs:system": self._cloud.settings.stack, **own}

    def _remove(self, queues: tuple[Ephemeral, ...]) -> None:
        for queue in queues:
            try:
                if queue.subscription:
                    self.sns().unsubscribe(SubscriptionArn=queue.subscription)
                self._cloud.sqs().delete_queue(QueueUrl=queue.url)
            except Exception as error:  # the edge of a stage: the janitor removes what is left
                if not is_gone(error):
                    log.warning("left_behind", extra={"queue": queue.name, "reason": str(error)})

    def _keep(self) -> None:
        while True:
            # The only sign by which the janitor tells a living owner's queue from a dead one's.
            time.sleep(self._cloud.settings.monitoring_lease_seconds / SEEN_SHARE)
            for queue in list(self._made.values()):
                try:
                    self._cloud.sqs().tag_queue(QueueUrl=queue.url, Tags={SEEN_TAG: str(int(time.time()))})
                except Exception as error:  # the edge of a main loop: said again in the next round
                    log.debug("unseen", extra={"queue": queue.name, "reason": str(error)})


_queues: dict[int, EphemeralQueues] = {}
_lock = threading.Lock()


def queues_of(cloud: Cloud) -> EphemeralQueues:
    """Return what makes and removes this process's queues in ``cloud``."""
    with _lock:
        found = _queues.get(id(cloud))
        if found is None or found._pid != os.getpid():
            found = _queues[id(cloud)] = EphemeralQueues(cloud)
        return found
