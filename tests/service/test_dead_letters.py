"""The dead-letter queue on the embedded cloud: listed without taking, moved back on request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faults import Fault as Trouble
from faults import FaultProxy
from waiting import eventually

from irs import records
from irs.client.sender import ImageTask, send_tasks
from irs.cloud import Cloud
from irs.errors import MissingResource, QueueUnavailable
from irs.monitoring.dead_letters import DeadLetter, list_dead_letters, read_letter, record_poisoned, redrive
from irs.monitoring.janitor import Janitor
from irs.monitoring.status import count_queue
from irs.records import Fault, ImageFacts, Options, Record
from irs.results import RecordStore
from irs.results.news import NewsReader

JOB = "01hzxw5x9v8k7n6m5j4h3g2f1e"


def die(cloud: Cloud, *bodies: str, **arguments: Any) -> None:
    """Put messages where SQS moves what was received too often."""
    url = cloud.queue_url(cloud.settings.requests_dead_queue)
    for body in bodies:
        cloud.sqs().send_message(QueueUrl=url, MessageBody=body, **arguments)


def die_as_sent(cloud: Cloud, *numbers: int) -> None:
    """The same with messages as the client sends them."""
    # Tasks go to the queue of the settings: for once that is the one of the dead.
    dead = cloud.settings.model_copy(update={"requests_queue": cloud.settings.requests_dead_queue})
    tasks = [ImageTask(JOB, number, f"jobs/{JOB}/{number:06d}/a.png", f"ä {number}.png") for number in numbers]
    send_tasks(Cloud(dead), tasks, Options())


def fail(cloud: Cloud, number: int, code: str) -> str:
    """Store a failed record, as the worker does at the last receive."""
    task_id = records.task_id(JOB, number)
    facts = ImageFacts(name="a", key="k")
    RecordStore(cloud).put(Record(task_id=task_id, status="failed", image=facts, error=Fault(code=code, message="why")))
    return task_id


def depth(cloud: Cloud, *, dead: bool) -> tuple[int, int]:
    counts = count_queue(cloud, cloud.settings.requests_dead_queue if dead else cloud.settings.requests_queue)
    return counts.visible, counts.in_flight


def test_a_letter_tells_which_image_it_was_and_why_it_failed(cloud: Cloud) -> None:
    die_as_sent(cloud, 7)
    fail(cloud, 7, "internal")

    (letter,) = list_dead_letters(cloud)

    assert (f"{JOB}.000007", "irs.recognize", f"jobs/{JOB}/000007/a.png", "ä 7.png", "internal") == (
        letter.task_id,
        letter.task,
        letter.image,
        letter.name,
        letter.code,
    )
    assert letter.sent is not None


def test_listing_leaves_every_message_where_and_as_visible_as_it_was(cloud: Cloud) -> None:
    die_as_sent(cloud, *range(23))

    first, second = list_dead_letters(cloud), list_dead_letters(cloud)

    assert 23 == len({letter.task_id for letter in first}) == len(first)
    assert {letter.task_id for letter in first} == {letter.task_id for letter in second}
    assert (23, 0) == depth(cloud, dead=True)


def test_listing_shows_no_more_than_its_limit_and_hides_nothing(cloud: Cloud) -> None:
    die_as_sent(cloud, *range(15))

    assert 4 == len(list_dead_letters(cloud, limit=4))
    assert (15, 0) == depth(cloud, dead=True)


@pytest.mark.parametrize(
    "body",
    [
        *("", "{}", "[]", "null", "no json", '{"headers": 3}', '{"headers": {"id": 3}, "body": "[]"}'),
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_a_message_that_is_none_of_celerys_is_listed_too(body: str) -> None:
    assert DeadLetter(message_id="m") == read_letter({"MessageId": "m", "Body": body})


def test_redrive_moves_all_back_as_they_were_and_removes_their_failed_records(cloud: Cloud) -> None:
    die_as_sent(cloud, *range(12))
    failed = fail(cloud, 3, "internal")

    moved = redrive(cloud)

    assert 12 == len(moved)
    assert ((0, 0), (12, 0)) == (depth(cloud, dead=True), depth(cloud, dead=False))
    assert RecordStore(cloud).find(failed) is None
    got = cloud.sqs().receive_message(QueueUrl=cloud.queue_url(cloud.settings.requests_queue), MaxNumberOfMessages=1)
    body = json.loads(got["Messages"][0]["Body"])
    assert "irs.recognize" == body["headers"]["task"]


def test_redrive_of_one_code_leaves_the_others_and_their_records(cloud: Cloud) -> None:
    die_as_sent(cloud, 1, 2, 3)
    fail(cloud, 1, "internal")
    kept = fail(cloud, 2, "poisoned")

    moved = redrive(cloud, code="internal")

    assert [records.task_id(JOB, 1)] == [letter.task_id for letter in moved]
    assert ((2, 0), (1, 0)) == (depth(cloud, dead=True), depth(cloud, dead=False))
    assert RecordStore(cloud).find(kept) is not None


def test_redrive_never_removes_a_record_that_has_labels(cloud: Cloud) -> None:
    die_as_sent(cloud, 5)
    task_id = records.task_id(JOB, 5)
    RecordStore(cloud).put(Record(task_id=task_id, status="ok", image=ImageFacts(name="a", key="k")))

    redrive(cloud)

    record = RecordStore(cloud).find(task_id)
    assert record is not None
    assert "ok" == record.status


def test_redrive_keeps_a_message_that_nobody_understands(cloud: Cloud) -> None:
    die(cloud, "no json", MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}})

    redrive(cloud)

    url = cloud.queue_url(cloud.settings.requests_queue)
    (message,) = cloud.sqs().receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert ("no json", "b") == (message["Body"], message["MessageAttributes"]["a"]["StringValue"])


def test_redrive_broken_off_shows_the_rest_again_at_once(cloud: Cloud) -> None:
    die_as_sent(cloud, *range(5))

    def stop(_: DeadLetter) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redrive(cloud, on_moved=stop)

    assert ((4, 0), (1, 0)) == (depth(cloud, dead=True), depth(cloud, dead=False))


def test_a_letter_of_an_odd_id_hides_no_other(cloud: Cloud) -> None:
    headers = {"id": "\ud800", "task": "irs.recognize"}
    die(cloud, json.dumps({"headers": headers, "properties": {}, "body": json.dumps([["\ud800"], {}, {}])}))
    die_as_sent(cloud, 1)

    assert {"?", f"{JOB}.000001"} == {letter.task_id for letter in list_dead_letters(cloud)}
    assert {"?", f"{JOB}.000001"} == {letter.task_id for letter in record_poisoned(cloud)}


def test_redrive_answered_by_a_page_keeps_the_letter(cloud: Cloud) -> None:
    die_as_sent(cloud, 1)
    with FaultProxy(cloud.settings.endpoint_url) as proxy:
        proxy.fault = Trouble("html", frozenset({"SendMessage"}))

        with pytest.raises(QueueUnavailable):
            redrive(Cloud(cloud.settings.model_copy(update={"endpoint_url": proxy.endpoint})))

    assert ((1, 0), (0, 0)) == (depth(cloud, dead=True), depth(cloud, dead=False))


def test_redrive_without_a_request_queue_touches_nothing(cloud: Cloud) -> None:
    die_as_sent(cloud, 1)
    sqs = cloud.sqs()
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=cloud.settings.requests_queue)["QueueUrl"])

    def is_refused() -> bool:
        try:
            redrive(Cloud(cloud.settings))
        except MissingResource:
            return True
        return False

    assert eventually(is_refused)
    counts = count_queue(cloud, cloud.settings.requests_dead_queue)
    assert (1, 0) == (counts.visible, counts.in_flight)


def test_an_image_whose_workers_died_gets_its_record_and_stays_a_dead_letter(cloud: Cloud) -> None:
    die_as_sent(cloud, 1, 2, 3)
    fail(cloud, 2, "internal")
    RecordStore(cloud).put(Record(task_id=records.task_id(JOB, 3), status="ok", image=ImageFacts(name="a", key="k")))

    first, second = record_poisoned(cloud), record_poisoned(cloud)

    assert [records.task_id(JOB, 1)] == [letter.task_id for letter in first]
    assert [] == second
    record = RecordStore(cloud).get(records.task_id(JOB, 1))
    assert ("failed", "poisoned", "ä 1.png") == (record.status, record.error and record.error.code, record.image.name)
    assert (JOB, 1, cloud.settings.max_receives) == (record.job, record.number, record.receives)
    assert ["ok", "failed"] == [RecordStore(cloud).get(records.task_id(JOB, n)).status for n in (3, 2)]
    assert (3, 0) == depth(cloud, dead=True)


def test_the_news_of_a_poisoned_image_are_told(cloud: Cloud) -> None:
    die_as_sent(cloud, 1)

    record_poisoned(cloud)

    (news,) = NewsReader(cloud).receive(wait_s=5)
    assert (records.task_id(JOB, 1), "failed", "poisoned") == (news.task_id, news.status, news.error)


def test_an_image_of_a_cancelled_job_is_not_called_poisoned(cloud: Cloud) -> None:
    die_as_sent(cloud, 1)
    RecordStore(cloud).cancel_job(JOB)

    assert [] == record_poisoned(cloud)
    assert RecordStore(cloud).find(records.task_id(JOB, 1)) is None


def test_a_poisoned_image_is_tried_again_when_it_is_redriven_by_its_code(cloud: Cloud) -> None:
    die_as_sent(cloud, 1, 2)
    fail(cloud, 2, "internal")
    record_poisoned(cloud)

    moved = redrive(cloud, code="poisoned")

    assert [records.task_id(JOB, 1)] == [letter.task_id for letter in moved]
    assert RecordStore(cloud).find(records.task_id(JOB, 1)) is None
    assert (1, 1) == (depth(cloud, dead=False)[0], depth(cloud, dead=True)[0])


def test_what_is_no_image_task_gets_no_record(cloud: Cloud) -> None:
    die(cloud, "no json", json.dumps({"headers": {"id": "x", "task": "other"}, "body": "[]"}))

    assert [] == record_poisoned(cloud)


def test_janitor_tells_of_each_dead_image_once_and_asks_little_meanwhile(cloud: Cloud) -> None:
    janitor = Janitor(cloud)
    none = janitor.record_poisoned()
    die_as_sent(cloud, 4)

    assert () == none
    assert (records.task_id(JOB, 4),) == janitor.record_poisoned()
    assert () == janitor.record_poisoned()
