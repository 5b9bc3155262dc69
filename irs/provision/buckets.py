"""Buckets: private, owned by us alone, encrypted, emptied by age."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from irs.cloud import Cloud
from irs.provision.ledger import Ledger
from irs.provision.queues import REQUESTS_DAYS

#: Rules and statements of ours; those of others are left as they are.
OURS = "irs-"

_ALL_BLOCKED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
_UNSET = frozenset(
    (
        "NoSuchPublicAccessBlockConfiguration",
        "OwnershipControlsNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
        "NoSuchBucketPolicy",
        "NoSuchLifecycleConfiguration",
        "NoSuchTagSet",
    )
)

Json = dict[str, Any]


class Buckets:
    """Makes buckets one by one."""

    def __init__(self, cloud: Cloud, ledger: Ledger, tags: dict[str, str], partition: str) -> None:
        self._s3 = cloud.client("s3")
        self._settings, self._ledger, self._tags, self._partition = cloud.settings, ledger, tags, partition

    def make(self, name: str) -> None:
        """Make the bucket if it is missing, and correct what differs."""
        resource = f"bucket {name}"
        if not self._exists(name) and not self._ledger.create(resource, partial(self._create, name)):
            return
        for aspect, correct in (
            ("public access", self._block_public),
            ("ownership", self._own),
            ("encryption", self._encrypt),
            ("tags", self._tag),
            ("lifecycle", self._expire),
            ("policy", self._require_tls),
        ):
            self._ledger.correct(resource, aspect, correct(name))

    def arn(self, name: str) -> str:
        """Return the ARN of a bucket."""
        return f"arn:{self._partition}:s3:::{name}"

    def tell(self, name: str, prefix: str, queue_arn: str) -> None:
        """Let S3 tell the queue, which must be there, of each object that is put under ``prefix``."""
        if self._exists(name):
            self._ledger.correct(f"bucket {name}", "events", self._notify(name, prefix, queue_arn))

    def _notify(self, name: str, prefix: str, queue_arn: str) -> Callable[[], object] | None:
        found = self._s3.get_bucket_notification_configuration(Bucket=name)
        found.pop("ResponseMetadata", None)
        of_queues = found.get("QueueConfigurations", [])
        want = {
            "Id": f"{OURS}drops",
            "QueueArn": queue_arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
        }
        # CloudFormation chooses ids itself.
        ours = [one for one in of_queues if one.get("Id", "").startswith(OURS) or _told(one) == _told(want)]
        if [_told(one) for one in ours] == [_told(want)]:
            return None
        # The whole set is replaced, so that of others goes along.
        others = [one for one in of_queues if one not in ours]
        whole = found | {"QueueConfigurations": [*others, want]}
        return partial(self._s3.put_bucket_notification_configuration, Bucket=name, NotificationConfiguration=whole)

    def _exists(self, name: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._s3.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket", "NotFound"):
                raise
            return False
        return True

    def _create(self, name: str) -> None:
        region = self._settings.region
        # us-east-1 is the one region that must not be named.
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with suppress(self._s3.exceptions.BucketAlreadyOwnedByYou):
            self._s3.create_bucket(Bucket=name, ObjectOwnership="BucketOwnerEnforced", **place)

    def _block_public(self, name: str) -> Callable[[], object] | None:
        found = _read(self._s3.get_public_access_block, name).get("PublicAccessBlockConfiguration")
        if found == _ALL_BLOCKED:
            return None
        return partial(self._s3.put_public_access_block, Bucket=name, PublicAccessBlockConfiguration=_ALL_BLOCKED)

    def _own(self, name: str) -> Callable[[], object] | None:
        want = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        if _read(self._s3.get_bucket_ownership_controls, name).get("OwnershipControls") == want:
            return None
        return partial(self._s3.put_bucket_ownership_controls, Bucket=name, OwnershipControls=want)

    def _encrypt(self, name: str) -> Callable[[], object] | None:
        # Any encryption will do: somebody may have chosen keys of their own.
        if _read(self._s3.get_bucket_encryption, name).get("ServerSideEncryptionConfiguration"):
            return None
        want = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
        return partial(self._s3.put_bucket_encryption, Bucket=name, ServerSideEncryptionConfiguration=want)

    def _tag(self, name: str) -> Callable[[], object] | None:
        found = {tag["Key"]: tag["Value"] for tag in _read(self._s3.get_bucket_tagging, name).get("TagSet", ())}
        if found | self._tags == found:
            return None
        # The whole set is replaced, so that of others goes along.
        want = [{"Key": key, "Value": value} for key, value in (found | self._tags).items()]
        return partial(self._s3.put_bucket_tagging, Bucket=name, Tagging={"TagSet": want})

    def _expire(self, name: str) -> Callable[[], object] | None:
        found = _read(self._s3.get_bucket_lifecycle_configuration, name).get("Rules", [])
        want = {rule["ID"]: rule for rule in self._rules(name)}
        ours = {rule["ID"]: _comparable(rule) for rule in found if rule.get("ID", "").startswith(OURS)}
        if ours == {key: _comparable(rule) for key, rule in want.items()}:
            return None
        others = [rule for rule in found if not rule.get("ID", "").startswith(OURS)]
        rules = {"Rules": [*others, *want.values()]}
        return partial(self._s3.put_bucket_lifecycle_configuration, Bucket=name, LifecycleConfiguration=rules)

    def _rules(self, name: str) -> list[Json]:
        settings = self._settings
        rules = [_rule("abort-uploads", "", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})]
        if name == settings.input_bucket:
            rules.append(_rule("images", "", Expiration={"Days": settings.input_days}))
        if name == settings.output_bucket:
            rules.append(_rule("records", "", Expiration={"Days": settings.output_days}))
            # A cancelled job's last task may wait in its queue for so long.
            rules.append(_rule("cancelled", "cancelled/", Expiration={"Days": REQUESTS_DAYS + 1}))
        return rules

    def _require_tls(self, name: str) -> Callable[[], object] | None:
        if self._settings.endpoint_url:
            return None
        arn = self.arn(name)
        want = {
            "Sid": f"{OURS}tls-only",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        policy = json.loads(_read(self._s3.get_bucket_policy, name).get("Policy", "{}")) or {"Version": "2012-10-17"}
        statements = policy.get("Statement", [])
        if want in statements:
            return None
        policy["Statement"] = [each for each in statements if each.get("Sid") != want["Sid"]] + [want]
        return partial(self._s3.put_bucket_policy, Bucket=name, Policy=json.dumps(policy))


def _read(read: Callable[..., Json], name: str) -> Json:
    """Return what is set on a bucket, or nothing."""
    from botocore.exceptions import ClientError

    try:
        return read(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _UNSET:
            raise
        return {}


def _rule(name: str, prefix: str, **action: Json) -> Json:
    return {"ID": f"{OURS}{name}", "Status": "Enabled", "Filter": {"Prefix": prefix}, **action}


def _comparable(rule: Json) -> Json:
    """A rule without the forms in which the same filter may be written."""
    prefix = rule.get("Prefix", rule.get("Filter", {}).get("Prefix", ""))
    return {key: value for key, value in rule.items() if key not in ("Filter", "Prefix")} | {"prefix": prefix}


def _told(one: Json) -> tuple[object, ...]:
    """What one notification says, however S3 spells it: it gives ``prefix`` back as ``Prefix``."""
    rules = one.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    filters = sorted((rule["Name"].lower(), rule["Value"]) for rule in rules)
    return one["QueueArn"], sorted(one["Events"]), filters
