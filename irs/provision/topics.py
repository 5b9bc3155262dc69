"""Topics; who listens subscribes by itself."""

from __future__ import annotations

from functools import partial

from irs.cloud import Cloud
from irs.provision.ledger import Ledger


class Topics:
    """Makes topics one by one; ``arn_prefix`` is what all their ARNs begin with."""

    def __init__(self, cloud: Cloud, ledger: Ledger, tags: dict[str, str], arn_prefix: str) -> None:
        self._sns = cloud.client("sns")
        self._ledger, self._arn_prefix = ledger, arn_prefix
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]

    def make(self, name: str) -> None:
        """Make the topic if it is missing, and correct its tags."""
        resource, arn = f"topic {name}", f"{self._arn_prefix}:{name}"
        try:
            self._sns.get_topic_attributes(TopicArn=arn)
        except self._sns.exceptions.NotFoundException:
            self._ledger.create(resource, partial(self._sns.create_topic, Name=name, Tags=self._tags))
            return
        found = self._sns.list_tags_for_resource(ResourceArn=arn)["Tags"]
        is_same = all(tag in found for tag in self._tags)
        write = partial(self._sns.tag_resource, ResourceArn=arn, Tags=self._tags)
        self._ledger.correct(resource, "tags", None if is_same else write)
