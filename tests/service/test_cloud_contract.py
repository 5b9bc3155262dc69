"""What we rely on of SQS: one truth table for the embedded cloud and for moto.

moto is the second opinion: where the two differ, one of them differs from AWS, and an ``xfail`` says so. It is
strict, so that an upstream fix is noticed.
"""

from __future__ import annotations

import time

import pytest
from awsclients import Aws
from contract import Background, both, on, refusal

MIB = 2**20


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
