"""What we rely on of S3, SQS and SNS: one truth table for the embedded cloud and for moto.

moto is the second opinion: where the two differ, one of them differs from AWS, and an ``xfail`` says so. It is
strict, so that an upstream fix is noticed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from awsclients import Aws
from botocore.exceptions import ClientError
from waiting import eventually

MIB = 2**20


def on(*, embedded: str = "", moto: str = "") -> pytest.MarkDecorator:
    """Run on both; an argument says in which way one of them is known not to do what AWS does."""
    params = [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=reason) if reason else ())
        for name, reason in (("embedded", embedded), ("moto", moto))
    ]
    return pytest.mark.parametrize("aws", params, indirect=True)


both = on()


def refusal(call: Callable[[], object]) -> str:
    """The code with which a call is refused."""
    with pytest.raises(ClientError) as refused:
        call()
    return str(refused.value.response["Error"]["Code"]).rpartition(".")[2]


class Background:
    """A call in a thread; ``result()`` waits for it and says how long it took."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        self.value = self._call()
        self.took_s = time.monotonic() - begun

    def result(self) -> tuple[Any, float]:
        self._thread.join(30)
        return self.value, self.took_s


# Objects


@both
def test_s3_refuses_the_second_write_of_a_key_that_must_be_new(aws: Aws) -> None:
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")

    refused = refusal(lambda: aws.s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*"))

    assert "PreconditionFailed" == refused
    assert b"first" == aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()


@both
def test_s3_lets_only_the_holder_of_the_last_etag_replace_an_object(aws: Aws) -> None:
    bucket = aws.bucket()
    old = aws.s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=old)

    refused = refusal(lambda: aws.s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=old))

    assert "PreconditionFailed" == refused
    assert b"2" == aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()


@both
def test_s3_lists_by_key_after_an_offset_and_under_a_prefix(aws: Aws) -> None:
    bucket = aws.bucket()
    for key in ("a/3", "a/1", "b/1", "a/2", "a/10"):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"")

    page = aws.s3.list_objects_v2(Bucket=bucket, Prefix="a/", StartAfter="a/1")

    assert ["a/10", "a/2", "a/3"] == [item["Key"] for item in page["Contents"]]


@both
def test_s3_lists_page_by_page_without_gap_or_repeat(aws: Aws) -> None:
    bucket = aws.bucket()
    keys = [f"k{number:02}" for number in range(7)]
    for key in keys:
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"")

    pages = list(aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3}))

    assert 3 == len(pages)
    assert keys == [item["Key"] for page in pages for item in page["Contents"]]


@both
def test_s3_says_no_such_key_for_an_absent_object_and_nothing_when_it_is_deleted(aws: Aws) -> None:
    bucket = aws.bucket()
    aws.s3.delete_object(Bucket=bucket, Key="none")

    assert "NoSuchKey" == refusal(lambda: aws.s3.get_object(Bucket=bucket, Key="none"))


@both
@pytest.mark.parametrize("key", ["jobs/ä ö+%41/Bär & Søn?.jpg", "a#b=c;d,e", "x" * 1000])
def test_s3_keeps_odd_keys_type_and_checksum(aws: Aws, key: str) -> None:
    bucket, body = aws.bucket(), b"picture"
    aws.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="image/jpeg")

    head = aws.s3.head_object(Bucket=bucket, Key=key)

    assert ("image/jpeg", len(body)) == (head["ContentType"], head["ContentLength"])
    assert hashlib.md5(body, usedforsecurity=False).hexdigest() == head["ETag"].strip('"')
    assert key == aws.s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"]


@on(moto="takes any checksum")
def test_s3_refuses_bytes_that_do_not_fit_their_checksum(aws: Aws) -> None:
    bucket = aws.bucket()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()

    refused = refusal(lambda: aws.s3.put_object(Bucket=bucket, Key="k", Body=b"body", ChecksumSHA256=wrong))

    assert refused in ("BadDigest", "InvalidRequest")


# Queues


@both
def test_a_long_poll_wakes_when_a_message_is_sent(aws: Aws) -> None:
    queue = aws.queue()
    poll = Background(lambda: aws.receive(queue, wait_s=20))

    aws.send(queue, "hello")
    messages, took_s = poll.result()

    assert ["hello"] == [message["Body"] for message in messages]
    assert took_s < 5


@both
def test_an_empty_long_poll_ends_after_its_wait(aws: Aws) -> None:
    queue = aws.queue(ReceiveMessageWaitTimeSeconds="20")

    messages, took_s = Background(lambda: aws.receive(queue, wait_s=1)).result()

    assert [] == messages
    assert 0.9 < took_s < 5


@both
def test_a_long_poll_wakes_when_a_lease_ends(aws: Aws) -> None:
    queue = aws.queue(VisibilityTimeout="1")
    aws.send(queue, "m")
    aws.receive(queue)

    messages, took_s = Background(lambda: aws.receive(queue, wait_s=20)).result()

    assert ["2"] == [message["Attributes"]["ApproximateReceiveCount"] for message in messages]
    assert took_s < 5


@both
def test_a_message_given_back_with_visibility_0_goes_to_a_waiting_poll(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "m")
    handle = aws.receive(queue)[0]["ReceiptHandle"]
    poll = Background(lambda: aws.receive(queue, wait_s=20))

    aws.sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=0)
    messages, took_s = poll.result()

    assert ["m"] == [message["Body"] for message in messages]
    assert took_s < 5


@both
def test_a_renewed_lease_hides_its_message_longer_than_the_queue_says(aws: Aws) -> None:
    queue = aws.queue(VisibilityTimeout="1")
    aws.send(queue, "m")
    handle = aws.receive(queue)[0]["ReceiptHandle"]

    entry = {"Id": "0", "ReceiptHandle": handle, "VisibilityTimeout": 60}
    aws.sqs.change_message_visibility_batch(QueueUrl=queue, Entries=[entry])

    assert [] == aws.receive(queue, wait_s=2)


@both
def test_each_of_many_waiting_polls_gets_a_message_of_its_own(aws: Aws) -> None:
    queue = aws.queue()
    polls = [Background(lambda: aws.receive(queue, wait_s=20, MaxNumberOfMessages=1)) for _ in range(10)]

    aws.send(queue, *map(str, range(10)))
    bodies = [message["Body"] for poll in polls for message in poll.result()[0]]

    assert sorted(map(str, range(10))) == sorted(bodies)


@both
def test_counts_tell_visible_in_flight_and_delayed(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "1", "2", "3")
    aws.send(queue, "later", DelaySeconds=60)

    aws.receive(queue, MaxNumberOfMessages=2)

    assert (1, 2, 1) == aws.counts(queue)


@both
def test_a_message_can_be_sent_at_once_to_a_queue_with_a_delay(aws: Aws) -> None:
    queue = aws.queue(DelaySeconds="60")
    aws.send(queue, "later")

    aws.send(queue, "now", DelaySeconds=0)

    assert ["now"] == [message["Body"] for message in aws.receive(queue)]


@both
def test_a_delayed_message_wakes_a_poll_when_its_time_comes(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "later", DelaySeconds=1)

    messages, took_s = Background(lambda: aws.receive(queue, wait_s=20)).result()

    assert ["later"] == [message["Body"] for message in messages]
    assert 0.5 < took_s < 5


@both
def test_a_message_deleted_twice_is_no_error(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "m")
    handle = aws.receive(queue)[0]["ReceiptHandle"]
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)

    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)

    assert (0, 0, 0) == aws.counts(queue)


@both
def test_a_delete_by_the_handle_of_an_earlier_receive_is_no_error(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "m")
    stale = aws.receive(queue, VisibilityTimeout=0)[0]["ReceiptHandle"]
    aws.receive(queue)

    answer = aws.sqs.delete_message_batch(QueueUrl=queue, Entries=[{"Id": "0", "ReceiptHandle": stale}])

    assert ["0"] == [entry["Id"] for entry in answer["Successful"]]


@on(moto="deletes by any handle a message ever had")
def test_a_delete_by_an_earlier_handle_leaves_the_message_to_who_holds_it(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "m")
    stale = aws.receive(queue, VisibilityTimeout=0)[0]["ReceiptHandle"]
    aws.receive(queue)

    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=stale)

    assert (0, 1, 0) == aws.counts(queue)


@both
def test_a_batch_of_deletes_does_what_it_can_and_names_the_rest(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "1", "2")
    good = [message["ReceiptHandle"] for message in aws.receive(queue)]
    entries = [{"Id": str(at), "ReceiptHandle": handle} for at, handle in enumerate([*good, "nonsense"])]

    answer = aws.sqs.delete_message_batch(QueueUrl=queue, Entries=entries)

    assert ["0", "1"] == [entry["Id"] for entry in answer["Successful"]]
    assert [("2", "ReceiptHandleIsInvalid")] == [(entry["Id"], entry["Code"]) for entry in answer["Failed"]]
    assert (0, 0, 0) == aws.counts(queue)


@both
def test_a_batch_of_renewals_names_the_messages_that_are_gone(aws: Aws) -> None:
    queue = aws.queue()
    aws.send(queue, "1", "2")
    kept, gone = (message["ReceiptHandle"] for message in aws.receive(queue))
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=gone)
    entries = [{"Id": str(at), "ReceiptHandle": handle, "VisibilityTimeout": 9} for at, handle in enumerate([kept, gone])]

    answer = aws.sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)

    assert ["0"] == [entry["Id"] for entry in answer["Successful"]]
    assert ["1"] == [entry["Id"] for entry in answer["Failed"]]


@both
@pytest.mark.parametrize(
    ("ids", "code"),
    [
        ([], "EmptyBatchRequest"),
        (["1", "1"], "BatchEntryIdsNotDistinct"),
        ([str(number) for number in range(11)], "TooManyEntriesInBatchRequest"),
    ],
    ids=["empty", "same-ids", "eleven"],
)
def test_a_batch_of_wrong_form_is_refused_as_a_whole(aws: Aws, ids: list[str], code: str) -> None:
    queue = aws.queue()
    entries = [{"Id": id, "MessageBody": "m"} for id in ids]

    assert code == refusal(lambda: aws.sqs.send_message_batch(QueueUrl=queue, Entries=entries))
    assert (0, 0, 0) == aws.counts(queue)


@both
def test_a_message_holds_one_mebibyte_and_not_a_byte_more(aws: Aws) -> None:
    queue = aws.queue()

    aws.send(queue, "x" * MIB)
    refused = refusal(lambda: aws.send(queue, "x" * (MIB + 1)))

    assert "InvalidParameterValue" == refused
    assert [MIB] == [len(message["Body"]) for message in aws.receive(queue)]


@both
def test_a_batch_holds_one_mebibyte_in_all(aws: Aws) -> None:
    queue = aws.queue()
    entries = [{"Id": str(number), "MessageBody": "x" * (MIB // 2 + 1)} for number in range(2)]

    assert "BatchRequestTooLong" == refusal(lambda: aws.sqs.send_message_batch(QueueUrl=queue, Entries=entries))


@both
def test_bodies_and_attributes_come_back_as_they_were_sent(aws: Aws) -> None:
    queue = aws.queue()
    attributes = {
        "text": {"DataType": "String", "StringValue": "größer"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }

    aws.send(queue, '{"emoji": "🐶"}', MessageAttributes=attributes)
    message = aws.receive(queue)[0]

    assert '{"emoji": "🐶"}' == message["Body"]
    assert ("größer", b"\x00\xff") == (
        message["MessageAttributes"]["text"]["StringValue"],
        message["MessageAttributes"]["bytes"]["BinaryValue"],
    )
    assert abs(time.time() - int(message["Attributes"]["SentTimestamp"]) / 1000) < 60


@on(moto="takes any character")
def test_characters_outside_of_xml_are_refused(aws: Aws) -> None:
    queue = aws.queue()

    assert "InvalidMessageContents" == refusal(lambda: aws.send(queue, "a\x07b"))


@both
def test_a_queue_that_is_not_there_is_named_as_such(aws: Aws) -> None:
    assert "NonExistentQueue" == refusal(lambda: aws.sqs.get_queue_url(QueueName=aws.name()))


@both
def test_a_queue_made_again_with_other_attributes_is_refused(aws: Aws) -> None:
    queue = aws.queue(VisibilityTimeout="30")
    name = queue.rpartition("/")[2]

    assert queue == aws.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "30"})["QueueUrl"]
    assert refusal(lambda: aws.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "31"})) in (
        "QueueAlreadyExists",
        "QueueNameExists",
    )


@both
def test_a_waiting_poll_of_a_deleted_queue_ends(aws: Aws) -> None:
    queue = aws.queue()
    poll = Background(lambda: _or_code(lambda: aws.receive(queue, wait_s=4)))

    aws.sqs.delete_queue(QueueUrl=queue)
    _, took_s = poll.result()

    assert took_s < 10


def _or_code(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ClientError as error:
        return error.response["Error"]["Code"]


# Dead letters


def dead_letters(aws: Aws, *, receives: int = 1, **attributes: str) -> tuple[str, str]:
    """A queue and its dead-letter queue."""
    dead = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": aws.arn(dead), "maxReceiveCount": receives})
    return aws.queue(RedrivePolicy=policy, **attributes), dead


def fail(aws: Aws, queue: str, *, receives: int) -> None:
    """Receive what is there and give it back, until it is gone from the queue."""
    for _ in range(receives):
        aws.receive(queue, VisibilityTimeout=0)
    assert [] == aws.receive(queue)


@both
def test_a_message_received_too_often_is_found_in_the_dead_letter_queue(aws: Aws) -> None:
    queue, dead = dead_letters(aws, receives=2)
    aws.send(queue, "poison")

    fail(aws, queue, receives=2)

    assert (0, 0, 0) == aws.counts(queue)
    assert ["poison"] == [message["Body"] for message in aws.receive(dead)]


@on(moto="does not name the source")
def test_a_dead_letter_says_where_it_came_from(aws: Aws) -> None:
    queue, dead = dead_letters(aws)
    aws.send(queue, "poison")

    fail(aws, queue, receives=1)

    assert [aws.arn(queue)] == [message["Attributes"]["DeadLetterQueueSourceArn"] for message in aws.receive(dead)]


@both
def test_a_dead_letter_queue_must_be_there_before_it_is_named(aws: Aws) -> None:
    missing = aws.arn(aws.queue()) + "-none"

    policy = json.dumps({"deadLetterTargetArn": missing, "maxReceiveCount": 1})

    assert refusal(lambda: aws.queue(RedrivePolicy=policy)) in (
        "InvalidAttributeValue",
        "InvalidParameterValue",
        "NonExistentQueue",
    )


@both
def test_the_sources_of_a_dead_letter_queue_are_listed(aws: Aws) -> None:
    queue, dead = dead_letters(aws)

    assert [queue] == aws.sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"]


@on(moto="has no move tasks")
def test_a_move_task_brings_dead_letters_back_as_new_messages(aws: Aws) -> None:
    queue, dead = dead_letters(aws)
    aws.send(queue, "1", "2")
    fail(aws, queue, receives=1)

    aws.sqs.start_message_move_task(SourceArn=aws.arn(dead))
    task = eventually(lambda: _ended(aws, dead))

    assert ("COMPLETED", 2) == (task["Status"], task["ApproximateNumberOfMessagesMoved"])
    assert ["1", "1"] == [message["Attributes"]["ApproximateReceiveCount"] for message in aws.receive(queue)]
    assert (0, 0, 0) == aws.counts(dead)


def _ended(aws: Aws, dead: str) -> dict[str, Any] | None:
    task = aws.sqs.list_message_move_tasks(SourceArn=aws.arn(dead))["Results"][0]
    return dict(task) if task["Status"] != "RUNNING" else None


@on(moto="has no move tasks")
def test_a_move_task_wakes_a_poll_at_the_queue_it_is_told(aws: Aws) -> None:
    queue, dead = dead_letters(aws)
    aws.send(queue, "m")
    fail(aws, queue, receives=1)
    other = aws.queue()
    poll = Background(lambda: aws.receive(other, wait_s=20))

    aws.sqs.start_message_move_task(SourceArn=aws.arn(dead), DestinationArn=aws.arn(other))

    assert ["m"] == [message["Body"] for message in poll.result()[0]]


@on(moto="has no move tasks")
def test_a_move_task_from_a_queue_that_holds_no_dead_letters_is_refused(aws: Aws) -> None:
    queue = aws.queue()

    assert refusal(lambda: aws.sqs.start_message_move_task(SourceArn=aws.arn(queue))) in (
        "InvalidParameterValue",
        "ResourceNotFoundException",
    )


# Topics


def subscribe(aws: Aws, topic: str, **attributes: str) -> str:
    queue = aws.queue()
    raw = {"RawMessageDelivery": "true", **attributes}
    aws.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=aws.arn(queue), Attributes=raw)
    return queue


@both
def test_a_topic_made_again_is_the_same(aws: Aws) -> None:
    name = aws.name()

    assert aws.sns.create_topic(Name=name)["TopicArn"] == aws.sns.create_topic(Name=name)["TopicArn"]


@both
def test_a_topic_delivers_raw_to_each_queue_and_wakes_its_poll(aws: Aws) -> None:
    topic = aws.sns.create_topic(Name=aws.name())["TopicArn"]
    queues = [subscribe(aws, topic) for _ in range(2)]
    polls = [Background(lambda queue=queue: aws.receive(queue, wait_s=20)) for queue in queues]

    aws.sns.publish(TopicArn=topic, Message='{"a": 1}')
    got = [poll.result() for poll in polls]

    assert [['{"a": 1}']] * 2 == [[message["Body"] for message in messages] for messages, _ in got]
    assert max(took_s for _, took_s in got) < 5


@both
def test_a_topic_delivers_only_what_a_subscriptions_filter_lets_through(aws: Aws) -> None:
    topic = aws.sns.create_topic(Name=aws.name())["TopicArn"]
    queue = subscribe(aws, topic, FilterPolicy=json.dumps({"kind": ["wanted"]}))

    for kind in ("other", "wanted"):
        attributes = {"kind": {"DataType": "String", "StringValue": kind}}
        aws.sns.publish(TopicArn=topic, Message=kind, MessageAttributes=attributes)

    assert ["wanted"] == [message["Body"] for message in aws.receive(queue, wait_s=5)]
