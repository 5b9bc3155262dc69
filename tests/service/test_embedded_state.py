"""What of the embedded cloud outlives a stop, and what a kill."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from awsclients import clients
from waiting import eventually

from irs.local import EmbeddedCloud

Start = Callable[..., EmbeddedCloud]


def kill(running: EmbeddedCloud) -> None:
    os.kill(running.pid, signal.SIGKILL)
    eventually(lambda: running.poll() is not None)
    running.stop()


def test_a_restart_keeps_address_and_keys(start: Start) -> None:
    first = start()
    first.stop()

    second = start()

    assert (first.endpoint, first.environment, False) == (second.endpoint, second.environment, second.lost_queues)


def test_a_restart_keeps_messages_their_counts_and_leases(start: Start) -> None:
    start_1 = start()
    aws = clients()
    queue = aws.queue()
    aws.send(queue, "1", "2", "3")
    aws.send(queue, "later", DelaySeconds=600)
    handle = aws.receive(queue, MaxNumberOfMessages=1, VisibilityTimeout=600)[0]["ReceiptHandle"]
    # A poll has waited here: its list of messages must be saved as any other.
    aws.receive(aws.queue(), wait_s=1)
    start_1.stop()

    start()
    aws = clients()

    assert (2, 1, 1) == aws.counts(queue)
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)
    assert (2, 0, 1) == aws.counts(queue)


def test_a_restart_keeps_objects_rules_dead_letters_and_subscriptions(start: Start) -> None:
    start_1 = start()
    aws = clients()
    bucket, dead = aws.bucket(), aws.queue()
    queue = aws.queue(RedrivePolicy=json.dumps({"deadLetterTargetArn": aws.arn(dead), "maxReceiveCount": 1}))
    rule = {"ID": "irs-x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    aws.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    aws.s3.put_object(Bucket=bucket, Key="a/b c", Body=b"picture", ContentType="image/png")
    topic = aws.sns.create_topic(Name=aws.name())["TopicArn"]
    aws.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=aws.arn(queue), Attributes={"RawMessageDelivery": "true"})
    start_1.stop()

    start()
    aws = clients()
    aws.sns.publish(TopicArn=topic, Message="m")

    found = aws.s3.get_object(Bucket=bucket, Key="a/b c")
    assert ("image/png", b"picture") == (found["ContentType"], found["Body"].read())
    assert ["irs-x"] == [each["ID"] for each in aws.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]]
    assert ["m"] == [message["Body"] for message in aws.receive(queue, VisibilityTimeout=0)]
    assert [] == aws.receive(queue)
    assert ["m"] == [message["Body"] for message in aws.receive(dead)]


def test_a_kill_keeps_objects_and_says_that_queues_are_lost_until_they_are_restored(start: Start) -> None:
    first = start()
    aws = clients()
    bucket, queue = aws.bucket(), aws.queue()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"picture", ContentType="image/png", IfNoneMatch="*")
    aws.send(queue, "m")
    kill(first)

    second = start()
    aws = clients()

    assert (False, True) == (first.lost_queues and not second.lost_queues, second.lost_queues)
    assert first.endpoint == second.endpoint
    assert b"picture" == aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert [] == aws.sqs.list_queues().get("QueueUrls", [])
    # Whoever was to restore them may be killed before it is done.
    second.stop()
    third = start()
    assert third.lost_queues
    third.queues_restored()
    third.stop()
    assert not start().lost_queues


def test_a_kill_raises_no_message_that_was_done_since_the_last_stop(start: Start) -> None:
    first = start()
    aws = clients()
    queue = aws.queue()
    aws.send(queue, "done")
    first.stop()
    second = start()
    message = aws.receive(queue)[0]
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    kill(second)

    third = start()

    assert third.lost_queues
    assert [] == clients().sqs.list_queues().get("QueueUrls", [])


def test_a_start_whose_old_port_is_taken_takes_another_and_says_that_queues_are_lost(start: Start) -> None:
    first = start()
    queue = clients().queue()
    first.stop()

    with socket.create_server(("127.0.0.1", int(first.endpoint.rpartition(":")[2]))):
        second = start()

    assert first.endpoint != second.endpoint
    assert second.lost_queues
    assert first.environment["AWS_ACCESS_KEY_ID"] == second.environment["AWS_ACCESS_KEY_ID"]
    assert queue.rpartition("/")[2] not in str(clients().sqs.list_queues())


def test_a_first_start_has_lost_nothing(start: Start) -> None:
    assert not start().lost_queues


def test_an_endpoint_file_that_cannot_be_read_costs_new_keys_and_no_objects(start: Start, tmp_path: Path) -> None:
    first = start()
    aws = clients()
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"picture")
    first.stop()
    (tmp_path / "home/endpoint.json").write_text('{"port": ')

    second = start()

    assert first.environment["AWS_ACCESS_KEY_ID"] != second.environment["AWS_ACCESS_KEY_ID"]
    assert b"picture" == clients().s3.get_object(Bucket=bucket, Key="k")["Body"].read()
