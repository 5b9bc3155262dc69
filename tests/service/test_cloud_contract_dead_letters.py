"""What we rely on of dead-letter queues and topics: one truth table for the embedded cloud and for moto.

moto is the second opinion: where the two differ, one of them differs from AWS, and an ``xfail`` says so. It is
strict, so that an upstream fix is noticed.
"""

from __future__ import annotations

import json
from typing import Any

from awsclients import Aws
from contract import Background, both, on, refusal
from waiting import eventually


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
