"""Provisioning on the embedded cloud: what was made works together, and stays as it is."""

from __future__ import annotations

import threading

import pytest
from faults import Fault, FaultProxy
from waiting import eventually

from irs.cloud import Cloud
from irs.errors import SetupError, StorageUnavailable, Unreachable
from irs.provision import Change, provision
from irs.settings import read_settings


def test_a_stack_that_stands_is_kept_in_all_its_parts(cloud: Cloud) -> None:
    changes = provision(cloud)

    assert 9 == len(changes)
    assert {("kept", "")} == {(change.action, change.detail) for change in changes}


def test_provision_run_by_many_at_once_makes_one_stack(stack: str) -> None:
    done: list[list[Change]] = []
    threads = [threading.Thread(target=lambda: done.append(provision(Cloud(read_settings())))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert 4 == len(done)
    assert {"kept"} == {change.action for change in provision(Cloud(read_settings()))}


def test_a_task_received_too_often_reaches_the_dead_letter_queue_of_its_stack(cloud: Cloud) -> None:
    settings, sqs = cloud.settings, cloud.sqs()
    requests, dead = cloud.queue_url(settings.requests_queue), cloud.queue_url(settings.requests_dead_queue)
    sqs.send_message(QueueUrl=requests, MessageBody="poison")

    for receive in range(settings.max_receives):
        got = sqs.receive_message(QueueUrl=requests, VisibilityTimeout=0, WaitTimeSeconds=1)
        assert got.get("Messages"), receive
    sqs.receive_message(QueueUrl=requests, WaitTimeSeconds=0)

    moved = eventually(lambda: sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages"))
    assert ["poison"] == [message["Body"] for message in moved]


def test_a_queue_made_by_hand_with_other_settings_is_corrected_and_keeps_its_messages(stack: str) -> None:
    cloud = Cloud(read_settings())
    url = cloud.sqs().create_queue(QueueName=cloud.settings.requests_queue, Attributes={"VisibilityTimeout": "5"})["QueueUrl"]
    cloud.sqs().send_message(QueueUrl=url, MessageBody="kept")

    changes = {change.resource: change for change in provision(cloud)}

    assert "changed" == changes[f"queue {stack}-requests"].action
    assert "VisibilityTimeout" in changes[f"queue {stack}-requests"].detail
    assert ["kept"] == [message["Body"] for message in cloud.sqs().receive_message(QueueUrl=url)["Messages"]]


def test_a_dry_run_makes_nothing_in_an_empty_stack(stack: str) -> None:
    cloud = Cloud(read_settings())

    changes = provision(cloud, dry_run=True)

    assert {"would create"} == {change.action for change in changes}
    assert [] == cloud.sqs().list_queues(QueueNamePrefix=stack).get("QueueUrls", [])


def test_a_foreign_key_is_told_in_one_sentence(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFOREIGN")

    with pytest.raises(SetupError) as told:
        provision(Cloud(read_settings()))

    assert Unreachable is type(told.value)
    assert "\n" not in str(told.value)


def test_objects_and_news_pass_through_what_was_made(cloud: Cloud) -> None:
    """irs.cloud's own clients (obstore for objects, boto3 for queues) on a stack that provisioning made."""
    assert cloud.output.put("jobs/a/000000.json", b"{}", content_type="application/json", create=True)
    assert not cloud.output.put("jobs/a/000000.json", b"{1}", content_type="application/json", create=True)
    cloud.output.put("jobs/a/000001.json", b"{}", content_type="application/json")

    listed = [item.key for item in cloud.output.list("jobs/a/", after="jobs/a/000000.json")]

    assert ["jobs/a/000001.json"] == listed
    assert b"{}" == cloud.output.get("jobs/a/000000.json")


def test_a_key_that_the_object_store_cannot_spell_hides_no_other(cloud: Cloud) -> None:
    keys = ["jobs/a/1", "jobs/a//2", "jobs/b/../3", "jobs/c/4"]
    for key in keys:
        cloud.client("s3").put_object(Bucket=cloud.input.name, Key=key, Body=b"x")

    assert sorted(keys) == [listed.key for listed in cloud.input.list("jobs/")]
    assert ["jobs/c/4"] == [listed.key for listed in cloud.input.list("jobs/", after="jobs/b/../3")]


@pytest.mark.parametrize("is_forked", [False, True], ids=["obstore", "boto3"])
def test_a_page_in_place_of_an_object_is_no_answer_of_s3(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, is_forked: bool) -> None:
    monkeypatch.setattr("irs.cloud._FORKED", is_forked)
    cloud.output.put("k", b"{}", content_type="application/json")
    with FaultProxy(cloud.settings.endpoint_url) as proxy:
        there = Cloud(cloud.settings.model_copy(update={"endpoint_url": proxy.endpoint}))
        assert b"{}" == there.output.get("k")
        proxy.fault = Fault("html", frozenset({"GET"}))

        with pytest.raises(StorageUnavailable, match="not S3"):
            there.output.get("k")
