"""Removes what processes that were killed have left, and tells the end of images whose workers died over them.

Only queues that say by their tags that they are some process's own, and only when that process has not said for
``IRS_MONITORING_LEASE_SECONDS`` that it lives. Never a queue of tasks. Any number of janitors may run.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from irs.broker.ephemeral import SEEN_TAG, TOPICS, Kind, cloud_errors, is_gone, prefix, queues_of
from irs.cloud import Cloud
from irs.errors import IrsError, MissingResource, QueueUnavailable
from irs.monitoring.dead_letters import record_poisoned
from irs.monitoring.status import count_queue

log = logging.getLogger(__name__)

#: The dead-letter queue is counted so often: who waits for a poisoned image waits no longer.
LOOK_S = 30.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round did: names of queues, names of the gone queues of subscriptions, task ids."""

    queues: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    poisoned: tuple[str, ...] = ()


class Janitor:
    """Goes its rounds; what one does not manage the next one does.

    Attributes:
        queues: queues of processes' own by kind, as of the last round.
        reaped: queues by kind, and ``subscription``, removed since the start.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._prefix = prefix(cloud.settings.stack)
        #: Subscriptions whose queue was missing in the last round, by their ARN.
        self._orphans: frozenset[str] = frozenset()
        self._dead = 0
        self.queues: Counter[str] = Counter()
        self.reaped: Counter[str] = Counter()

    def run(self, wait: Callable[[float], bool]) -> None:
        """Go on until ``wait`` (which waits so many seconds) returns True."""
        swept_at = float("-inf")
        while True:
            try:
                if time.monotonic() - swept_at >= self._cloud.settings.janitor_seconds:
                    swept_at = time.monotonic()
                    _tell(self.sweep())
                    # As many as before need not be the same.
                    self._dead = 0
                _tell(Swept(poisoned=self.record_poisoned()))
            except IrsError as error:
                log.warning("round_failed", extra={"reason": str(error)})
            except Exception:  # the edge of a main loop: the next round does what this one did not
                log.exception("round_broken")
            if wait(min(LOOK_S, self._cloud.settings.janitor_seconds)):
                return

    def sweep(self, *, now: float | None = None) -> Swept:
        """Remove the queues of owners that are silent, and subscriptions whose queue was missing twice in a row.

        Args:
            now: Unix seconds.

        Raises:
            QueueUnavailable: SQS or SNS does not answer.
            MissingResource: there are no such topics.
        """
        try:
            # Subscriptions first: a queue made meanwhile must not look as if it were missing.
            subscribed = dict(self._subscriptions())
            names = dict(self._queues())
            silent = [name for name, url in names.items() if self._is_silent(url, time.time() if now is None else now)]
            for name in silent:
                for arn in [arn for arn, queue in subscribed.items() if queue == name]:
                    self._sns.unsubscribe(SubscriptionArn=arn)
                self._delete(names[name])
            orphans = tuple(self._forget_orphans(subscribed, names))
            self.queues = Counter(self._kind(name) for name in names if name not in silent)
            self.reaped.update(self._kind(name) for name in silent)
            self.reaped["subscription"] += len(orphans)
            return Swept(tuple(silent), orphans)
        except cloud_errors() as error:
            if "NotFound" in str(error):
                raise MissingResource("The topics of the stack are not there: run `irs provision` first.") from None
            raise QueueUnavailable(f"The cloud does not let the janitor work: {error}") from None

    def record_poisoned(self) -> tuple[str, ...]:
        """Tell the end of what is new in the dead-letter queue; return the task ids. Raises as its reading does."""
        counts = count_queue(self._cloud, self._cloud.settings.requests_dead_queue)
        if counts.visible in (0, self._dead):
            self._dead = counts.visible
            return ()
        recorded = record_poisoned(self._cloud)
        self._dead = counts.visible
        return tuple(letter.task_id or letter.message_id for letter in recorded)

    @property
    def _sns(self) -> Any:
        return queues_of(self._cloud).sns()

    def _queues(self) -> Iterator[tuple[str, str]]:
        pages = (
            self._cloud.sqs()
            .get_paginator("list_queues")
            .paginate(
                # Without a page size SQS names the first thousand, and says of no more.
                QueueNamePrefix=self._prefix,
                PaginationConfig={"PageSize": 1000},
            )
        )
        for page in pages:
            for url in page.get("QueueUrls", []):
                yield url.rpartition("/")[2], url

    def _subscriptions(self) -> Iterator[tuple[str, str]]:
        places = queues_of(self._cloud).places
        for topic in TOPICS.values():
            pages = self._sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=places.topic_arn(topic))
            for one in (one for page in pages for one in page.get("Subscriptions", [])):
                name = one["Endpoint"].rpartition(":")[2]
                if name.startswith(self._prefix) and one["SubscriptionArn"].startswith("arn:"):
                    yield one["SubscriptionArn"], name

    def _kind(self, name: str) -> str:
        # Anyone's name that begins like ours: a label must not grow without end.
        kind = name.removeprefix(self._prefix).partition("-")[0]
        return kind if kind in get_args(Kind) else "other"

    def _is_silent(self, url: str, now: float) -> bool:
        try:
            tags = self._cloud.sqs().list_queue_tags(QueueUrl=url).get("Tags", {})
        except self._cloud.sqs().exceptions.QueueDoesNotExist:
            return False
        # Of another stack, whose name begins like this one's, or nobody's own: not ours to remove.
        if "irs:kind" not in tags or tags.get("irs:system") != self._cloud.settings.stack:
            return False
        seen = tags.get(SEEN_TAG, "")
        return seen.isdecimal() and now - int(seen) > self._cloud.settings.monitoring_lease_seconds

    def _delete(self, url: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self._cloud.sqs().delete_queue(QueueUrl=url)
        except ClientError as error:
            if not is_gone(error):
                raise

    def _forget_orphans(self, subscribed: dict[str, str], names: dict[str, str]) -> Iterator[str]:
        orphans = frozenset(arn for arn, name in subscribed.items() if name not in names)
        # Twice: a queue is listed later than it is made.
        for arn in orphans & self._orphans:
            self._sns.unsubscribe(SubscriptionArn=arn)
            yield subscribed[arn]
        self._orphans = orphans


def _tell(swept: Swept) -> None:
    for what in ("queues", "subscriptions", "poisoned"):
        for name in getattr(swept, what):
            log.info("swept", extra={"what": what, "id": name})
