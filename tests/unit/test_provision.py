"""What provisioning makes and mends, on moto in this process: no endpoint is set, so as on AWS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from irs.cloud import Cloud
from irs.errors import SetupError, Unreachable
from irs.provision import Change, provision
from irs.provision.ledger import Ledger
from irs.settings import read_settings

ALL = {
    "bucket s-input",
    "bucket s-output",
    "bucket s-models",
    "queue s-requests-dead",
    "queue s-requests",
    "queue s-responses",
    "queue s-drops",
    "topic s-control",
    "topic s-events",
}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    """Clients of an empty account, for the settings given."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        yield lambda **settings: Cloud(read_settings(**({"stack": "s"} | settings)))


def actions(changes: list[Change]) -> dict[str, str]:
    # moto does not keep RedriveAllowPolicy, so that queue is mended in every run.
    return {change.resource: change.action for change in changes if change.detail != "RedriveAllowPolicy"}


def attributes(cloud: Cloud, queue: str) -> dict[str, str]:
    url = cloud.sqs().get_queue_url(QueueName=queue)["QueueUrl"]
    return dict(cloud.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])


def rules(cloud: Cloud, bucket: str) -> dict[str, dict[str, Any]]:
    found = cloud.client("s3").get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return {rule["ID"]: rule for rule in found}


def test_provision_makes_all_and_names_each_once(account: Callable[..., Cloud]) -> None:
    cloud = account()

    changes = provision(cloud)

    assert ALL == {change.resource for change in changes}
    assert len(ALL) == len(changes)
    assert {"created"} == {change.action for change in changes}


def test_provision_changes_nothing_the_second_time(account: Callable[..., Cloud]) -> None:
    provision(account())

    again = actions(provision(account()))

    assert {"kept"} == set(again.values())
    assert ALL - {"queue s-requests-dead"} == set(again)


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(account: Callable[..., Cloud]) -> None:
    cloud = account()

    changes = provision(cloud, dry_run=True)

    assert dict.fromkeys(ALL, "would create") == actions(changes)
    assert [] == cloud.client("s3").list_buckets()["Buckets"]
    assert [] == cloud.sqs().list_queues().get("QueueUrls", [])
    assert [] == cloud.client("sns").list_topics()["Topics"]


def test_a_dry_run_says_what_would_be_mended_and_mends_nothing(account: Callable[..., Cloud]) -> None:
    provision(account())

    changes = provision(account(visibility_seconds=77), dry_run=True)

    assert Change("queue s-requests", "would change", "VisibilityTimeout") in changes
    assert "30" == attributes(account(), "s-requests")["VisibilityTimeout"]


def test_the_requests_queue_has_the_lease_the_retention_and_the_dead_letter_queue_of_the_settings(
    account: Callable[..., Cloud],
) -> None:
    cloud = account(max_receives=7, visibility_seconds=40, wait_seconds=10)

    provision(cloud)

    found = attributes(cloud, "s-requests")
    assert ("40", "10", str(14 * 86_400)) == tuple(
        found[name] for name in ("VisibilityTimeout", "ReceiveMessageWaitTimeSeconds", "MessageRetentionPeriod")
    )
    dead = attributes(cloud, "s-requests-dead")
    assert {"deadLetterTargetArn": dead["QueueArn"], "maxReceiveCount": 7} == json.loads(found["RedrivePolicy"])
    assert str(14 * 86_400) == dead["MessageRetentionPeriod"]
    assert str(86_400) == attributes(cloud, "s-responses")["MessageRetentionPeriod"]


def test_buckets_are_private_and_speak_tls_alone_on_aws(account: Callable[..., Cloud]) -> None:
    cloud = account()
    s3 = cloud.client("s3")

    provision(cloud)

    for bucket in ("s-input", "s-output", "s-models"):
        assert {True} == set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        owner = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
        assert [{"ObjectOwnership": "BucketOwnerEnforced"}] == owner
        assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        statement = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]
        assert ("Deny", {"Bool": {"aws:SecureTransport": "false"}}) == (statement["Effect"], statement["Condition"])


def test_images_and_records_expire_by_the_settings_and_models_never(account: Callable[..., Cloud]) -> None:
    cloud = account(input_days=3, output_days=9)

    provision(cloud)

    assert 3 == rules(cloud, "s-input")["irs-images"]["Expiration"]["Days"]
    assert 9 == rules(cloud, "s-output")["irs-records"]["Expiration"]["Days"]
    assert 15 == rules(cloud, "s-output")["irs-cancelled"]["Expiration"]["Days"]
    assert {"irs-abort-uploads"} == set(rules(cloud, "s-models"))


def test_every_resource_carries_the_tag_of_its_stack(account: Callable[..., Cloud]) -> None:
    cloud = account()
    provision(cloud)

    bucket = {tag["Key"]: tag["Value"] for tag in cloud.client("s3").get_bucket_tagging(Bucket="s-input")["TagSet"]}
    url = cloud.sqs().get_queue_url(QueueName="s-requests")["QueueUrl"]
    queue = cloud.sqs().list_queue_tags(QueueUrl=url)["Tags"]
    topics = cloud.client("sns").list_topics()["Topics"]
    topic = cloud.client("sns").list_tags_for_resource(ResourceArn=topics[0]["TopicArn"])["Tags"]

    assert {"irs:system": "s"}.items() <= bucket.items()
    assert bucket == queue == {tag["Key"]: tag["Value"] for tag in topic}


def test_provision_corrects_what_drifted_and_names_it(account: Callable[..., Cloud]) -> None:
    cloud = account()
    provision(cloud)
    s3, sqs = cloud.client("s3"), cloud.sqs()
    url = sqs.get_queue_url(QueueName="s-requests")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1", "RedrivePolicy": ""})
    sqs.untag_queue(QueueUrl=url, TagKeys=["irs:system"])
    s3.delete_public_access_block(Bucket="s-input")
    s3.delete_bucket_lifecycle(Bucket="s-input")
    s3.delete_bucket_policy(Bucket="s-output")

    changes = {change.resource: change for change in provision(cloud)}

    assert Change("queue s-requests", "changed", "VisibilityTimeout, RedrivePolicy, tags") == changes["queue s-requests"]
    assert Change("bucket s-input", "changed", "public access, lifecycle") == changes["bucket s-input"]
    assert Change("bucket s-output", "changed", "policy") == changes["bucket s-output"]
    assert {"kept"} == set(actions(provision(cloud)).values())


def test_provision_keeps_rules_statements_and_tags_of_others(account: Callable[..., Cloud]) -> None:
    cloud = account()
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="s-input")
    rule = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 2}}
    stale = {"ID": "irs-old", "Status": "Enabled", "Filter": {"Prefix": "y/"}, "Expiration": {"Days": 2}}
    s3.put_bucket_lifecycle_configuration(Bucket="s-input", LifecycleConfiguration={"Rules": [rule, stale]})
    s3.put_bucket_tagging(Bucket="s-input", Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})
    statement = {
        "Sid": "theirs",
        "Effect": "Allow",
        "Principal": {"AWS": "123456789012"},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::s-input/*",
    }
    s3.put_bucket_policy(Bucket="s-input", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    changes = provision(cloud)

    assert "changed" == changes[0].action
    assert {"theirs", "irs-images", "irs-abort-uploads"} == set(rules(cloud, "s-input"))
    assert {"team": "a", "irs:system": "s"}.items() <= {
        tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket="s-input")["TagSet"]
    }.items()
    policy = json.loads(s3.get_bucket_policy(Bucket="s-input")["Policy"])
    assert ["theirs", "irs-tls-only"] == [each["Sid"] for each in policy["Statement"]]


def test_encryption_with_keys_of_their_own_is_left_to_them(account: Callable[..., Cloud]) -> None:
    cloud = account()
    provision(cloud)
    s3, url = cloud.client("s3"), cloud.sqs().get_queue_url(QueueName="s-requests")["QueueUrl"]
    own = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}]}
    s3.put_bucket_encryption(Bucket="s-input", ServerSideEncryptionConfiguration=own)
    cloud.sqs().set_queue_attributes(QueueUrl=url, Attributes={"KmsMasterKeyId": "k", "SqsManagedSseEnabled": "false"})

    assert {"kept"} == set(actions(provision(cloud)).values())


def test_a_bucket_outside_us_east_1_is_made_in_its_region(account: Callable[..., Cloud]) -> None:
    cloud = account(region="eu-central-1")

    provision(cloud)

    assert "eu-central-1" == cloud.client("s3").get_bucket_location(Bucket="s-input")["LocationConstraint"]
    assert {"kept"} == set(actions(provision(account(region="eu-central-1"))).values())


def test_names_set_alone_are_used_and_nothing_else_is_made(account: Callable[..., Cloud]) -> None:
    cloud = account(input_bucket="other-input", requests_queue="other-queue")

    changes = {change.resource for change in provision(cloud)}

    renamed = {"bucket other-input", "queue other-queue", "queue other-queue-dead"}
    assert (ALL - {"bucket s-input", "queue s-requests", "queue s-requests-dead"}) | renamed == changes


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        ("403", Unreachable, "HeadBucket on bucket s-input is forbidden"),
        ("AccessDenied", Unreachable, "HeadBucket on bucket s-input is forbidden"),
        ("301", SetupError, "bucket s-input is in another region"),
        ("BucketAlreadyExists", SetupError, "bucket s-input belongs to somebody else"),
        ("ExpiredToken", Unreachable, "credentials are refused"),
        ("SlowDown", Unreachable, "HeadBucket on bucket s-input is refused"),
    ],
)
def test_provision_says_in_one_sentence_why_it_is_refused(
    account: Callable[..., Cloud], code: str, kind: type[SetupError], sentence: str
) -> None:
    cloud = account()

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "said so."}, "ResponseMetadata": {}}, "HeadBucket")

    cloud.client("s3").meta.events.register("before-call.s3.HeadBucket", refuse)

    with pytest.raises(SetupError, match=sentence) as told:
        provision(cloud)

    assert kind is type(told.value)
    assert "\n" not in str(told.value)
    assert ".." not in str(told.value)


def test_provision_without_credentials_says_which_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match="No AWS credentials were found"):
        provision(Cloud(read_settings(stack="s")))


def test_provision_names_an_endpoint_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        provision(Cloud(read_settings(stack="s", endpoint_url="http://127.0.0.1:9")))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["create", "differs", "same"])), max_size=12), st.booleans())
def test_a_ledger_names_each_resource_once_and_writes_only_outside_of_a_dry_run(
    notes: list[tuple[str, str]], dry_run: bool
) -> None:
    ledger, writes = Ledger(dry_run=dry_run), []

    for resource, what in notes:
        write = partial(writes.append, what)
        if what == "create":
            ledger.create(resource, write)
        else:
            ledger.correct(resource, "x", write if what == "differs" else None)

    assert list(dict.fromkeys(resource for resource, _ in notes)) == [change.resource for change in ledger.changes]
    assert (0 if dry_run else sum(what != "same" for _, what in notes)) == len(writes)
    kept = {change.resource for change in ledger.changes if change.action == "kept"}
    assert kept == {resource for resource, _ in notes} - {resource for resource, what in notes if what != "same"}


def events(cloud: Cloud, bucket: str) -> list[dict[str, Any]]:
    found = cloud.client("s3").get_bucket_notification_configuration(Bucket=bucket)
    return list(found.get("QueueConfigurations", ()))


def test_s3_tells_the_drops_queue_of_dropped_files_and_of_records_of_single_tasks(account: Callable[..., Cloud]) -> None:
    cloud = account()

    provision(cloud)

    queue = attributes(cloud, "s-drops")
    told = [one for bucket in ("s-input", "s-output") for one in events(cloud, bucket)]
    assert [queue["QueueArn"]] * 2 == [one["QueueArn"] for one in told]
    assert ["drop/", "tasks/"] == [one["Filter"]["Key"]["FilterRules"][0]["Value"] for one in told]
    assert [] == events(cloud, "s-models")
    statement = json.loads(queue["Policy"])["Statement"][0]
    assert {"Service": "s3.amazonaws.com"} == statement["Principal"]
    assert ["arn:aws:s3:::s-input", "arn:aws:s3:::s-output"] == statement["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert queue["QueueArn"].split(":")[4] == statement["Condition"]["StringEquals"]["aws:SourceAccount"]


def test_provision_mends_its_events_and_keeps_those_of_others(account: Callable[..., Cloud]) -> None:
    cloud = account()
    provision(cloud)
    ours = events(cloud, "s-input")[0]
    theirs = {**ours, "Id": "theirs", "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "x/"}]}}}
    stale = {**ours, "Events": ["s3:ObjectCreated:Copy"]}
    cloud.client("s3").put_bucket_notification_configuration(
        Bucket="s-input", NotificationConfiguration={"QueueConfigurations": [theirs, stale]}
    )

    changes = {change.resource: change for change in provision(cloud)}

    assert Change("bucket s-input", "changed", "events") == changes["bucket s-input"]
    assert {"theirs": ["s3:ObjectCreated:*"], "irs-drops": ["s3:ObjectCreated:*"]} == {
        one["Id"]: one["Events"] for one in events(cloud, "s-input")
    }
    assert {"kept"} == set(actions(provision(cloud)).values())


def test_events_that_cloudformation_has_set_are_kept_under_its_own_ids(account: Callable[..., Cloud]) -> None:
    """S3 would refuse a second notification that says the same."""
    cloud = account()
    provision(cloud)
    named = {**events(cloud, "s-input")[0], "Id": "OGNhNzFiZTUt"}
    cloud.client("s3").put_bucket_notification_configuration(
        Bucket="s-input", NotificationConfiguration={"QueueConfigurations": [named]}
    )

    changes = provision(cloud)

    assert {"kept"} == set(actions(changes).values())
    assert [named] == events(cloud, "s-input")
