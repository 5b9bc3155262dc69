"""Long polls of the embedded cloud: they cost nothing while they wait, and end with who waits."""

from __future__ import annotations

import threading
import time
from pathlib import Path

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


def test_a_waiting_poll_is_woken_by_the_message_and_not_by_a_clock(aws: Aws) -> None:
    """A poll that looked ten times a second would take 50 ms a message, ten times a receive that finds one."""
    queue, rounds = aws.queue(), 20

    def receive_all() -> None:
        for _ in range(rounds):
            assert aws.receive(queue, wait_s=20)
            seen.release()

    begun = time.monotonic()
    for number in range(rounds):
        aws.send(queue, str(number))
        aws.receive(queue)
    found_s = time.monotonic() - begun

    seen = threading.Semaphore(1)
    poller = threading.Thread(target=receive_all)
    poller.start()
    begun = time.monotonic()
    for number in range(rounds):
        assert seen.acquire(timeout=30)
        aws.send(queue, str(number))
    poller.join(30)
    woken_s = time.monotonic() - begun

    assert woken_s < 5 * found_s + 0.2


def test_idle_polls_cost_the_embedded_cloud_almost_no_cpu(embedded: EmbeddedCloud, aws: Aws) -> None:
    """A hundred polls that looked ten times a second would take a thousand looks in the second measured here."""
    queue = aws.queue()
    aws.send(queue, *(str(number) for number in range(200)), DelaySeconds=900)
    waiting = [begin(embedded, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=3) for _ in range(100)]
    aws.counts(queue)

    def cpu_ticks() -> int:
        fields = Path(f"/proc/{embedded.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = cpu_ticks()
    for connection in waiting:
        assert 200 == connection.getresponse().status
        connection.close()

    # 100 polls, 3 looks each, at 200 messages: hundredths of a second of CPU, of three on the clock.
    assert cpu_ticks() - before < 100
