"""Long polls of the embedded cloud: they wake at once, and end with who waits."""

from __future__ import annotations

import time
from statistics import median

import pytest
from awsclients import Aws
from rawhttp import begin

from irs.local import EmbeddedCloud


@pytest.mark.parametrize("polls", [1, 8])
def test_a_message_sent_after_a_polls_caller_left_goes_to_the_next_receive(embedded: EmbeddedCloud, aws: Aws, polls: int) -> None:
    queue = aws.queue()
    left = [begin(embedded, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=20, MaxNumberOfMessages=10) for _ in range(polls)]
    # Answered after the polls have begun: the embedded cloud serves in order of arrival.
    aws.counts(queue)
    for connection in left:
        connection.close()

    aws.send(queue, "1", "2")

    assert {"1", "2"} == {message["Body"] for message in aws.receive(queue)}


def test_a_poll_whose_caller_stays_is_answered_when_others_left(embedded: EmbeddedCloud, aws: Aws) -> None:
    queue = aws.queue()
    leaving, staying = (begin(embedded, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=20) for _ in range(2))
    aws.counts(queue)
    leaving.close()

    aws.send(queue, "m")
    body = staying.getresponse().read()
    staying.close()

    assert b'"Body": "m"' in body.replace(b'":"', b'": "')


def test_a_waiting_poll_is_woken_by_the_message_and_not_by_a_clock(embedded: EmbeddedCloud, aws: Aws) -> None:
    """A poll that looked ten times a second would be late by up to 100 ms, each time."""
    queue, round_trips_s, wakes_s = aws.queue(), [], []

    for number in range(20):
        poll = begin(embedded, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=20)
        begun = time.monotonic()
        aws.counts(queue)
        asked = time.monotonic()
        aws.send(queue, str(number))
        assert f'"{number}"' in poll.getresponse().read().decode()
        round_trips_s.append(asked - begun)
        wakes_s.append(time.monotonic() - asked)
        poll.close()

    assert median(wakes_s) < 0.02 + 5 * median(round_trips_s)


def test_a_waiting_poll_of_a_queue_that_is_deleted_ends_soon(embedded: EmbeddedCloud, aws: Aws) -> None:
    queue = aws.queue()
    poll = begin(embedded, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=20)
    aws.counts(queue)

    begun = time.monotonic()
    aws.sqs.delete_queue(QueueUrl=queue)
    status = poll.getresponse().status
    poll.close()

    assert 400 == status
    assert time.monotonic() - begun < 5
