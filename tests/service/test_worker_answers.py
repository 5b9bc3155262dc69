"""What one worker answers: to options, to repeats, to callers of every kind. One worker for all of them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator

import pytest
from PIL import Image
from waiting import eventually
from workers import LABELS, Workers, picture, workers_on_a_stack

from irs.local import EmbeddedCloud
from irs.records import Record
from irs.results.news import NewsReader

#: A Celery app of somebody else: kombu's own transport, no line of ours. Prints the ids of what it sent.
FOREIGN = """
import json, os, sys
from urllib.parse import quote
from celery import Celery, group

keys = [quote(os.environ[name], safe="") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
endpoint = os.environ["IRS_ENDPOINT_URL"].removeprefix("http://")
app = Celery("foreign", broker=f"sqs://{keys[0]}:{keys[1]}@{endpoint}//")
app.conf.update(
    task_default_queue=os.environ["IRS_STACK"] + "-requests",
    broker_transport_options={"region": "us-east-1", "is_secure": False},
)
recognize = app.signature("irs.recognize")
single = app.send_task("irs.recognize", [sys.argv[1]], {"name": "single.jpg", "top_k": 2})
many = group(recognize.clone(args=[key]) for key in sys.argv[2:]).apply_async()
assert not [name for name in sys.modules if name.split(".")[0] == "irs"]
print(json.dumps([single.id, *(one.id for one in many)]))
"""

#: Our own app: prints what get() returns of one call, and of a group.
OWN = """
import json, sys
from celery import group
from irs.tasks import recognize

single = recognize.delay(sys.argv[1], name="single.jpg").get(timeout=30)
many = group(recognize.s(key) for key in sys.argv[2:]).apply_async().get(timeout=30)
print(json.dumps([single, *many]))
"""


@pytest.fixture(scope="module")
def workers(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with workers_on_a_stack(embedded, tmp_path_factory.mktemp("answers")) as made:
        for bucket in ("album", "diary"):
            made.cloud.client("s3").create_bucket(Bucket=f"{made.cloud.settings.stack}-{bucket}")
        made.start(IRS_READABLE_BUCKETS=f"{made.cloud.settings.stack}-album")
        yield made


@pytest.fixture(scope="module")
def plain(workers: Workers) -> Record:
    """All labels of the picture that the options are asked of."""
    (record,) = workers.answer(picture(100), top_k=10)
    return record


def test_a_record_tells_all_that_is_known_of_its_image(workers: Workers, plain: Record) -> None:
    body = picture(101, "PNG", (300, 200))

    (record,) = workers.answered(workers.sent(body, names=("Bär.png",)))

    assert ("ok", None, 1, False) == (record.status, record.error, record.receives, record.cached)
    facts = record.image
    assert ("Bär.png", len(body), "PNG", 300, 200) == (facts.name, facts.bytes, facts.format, facts.width, facts.height)
    assert (record.job, 0) == (record.task_id.partition(".")[0], record.number)
    assert record.model is not None
    assert ("tiny", plain.model) == (record.model.name, record.model)
    assert "irs@w0" == record.worker
    timing = record.timing
    assert timing.submitted is not None
    steps = (timing.queued, timing.fetch, timing.decode, timing.batch, timing.model)
    assert all(step is not None and 0 <= step < 30 for step in steps), timing
    assert 5 == len(record.labels)
    confidences = [label.confidence for label in record.labels]
    assert sorted(confidences, reverse=True) == confidences


def test_confidences_of_all_labels_sum_to_one(plain: Record) -> None:
    assert set(LABELS) == {label.label for label in plain.labels}
    assert 1 == pytest.approx(sum(label.confidence for label in plain.labels), abs=1e-3)


@pytest.mark.parametrize("top_k", [1, 3, 100])
def test_top_k_labels_are_answered(workers: Workers, plain: Record, top_k: int) -> None:
    (record,) = workers.answer(picture(100), top_k=top_k)

    assert names(plain)[:top_k] == names(record)


def test_only_labels_of_the_confidence_asked_for_are_answered(workers: Workers, plain: Record) -> None:
    # Between two of them: the rounding of a repeat decides nothing.
    least = (plain.labels[3].confidence + plain.labels[4].confidence) / 2

    (record,) = workers.answer(picture(100), top_k=10, min_confidence=least)

    assert names(plain)[:4] == names(record)


def test_only_included_labels_and_wnids_are_answered_and_no_surer(workers: Workers, plain: Record) -> None:
    wanted = (plain.labels[7].label, plain.labels[4].wnid)

    (record,) = workers.answer(picture(100), include=wanted)

    assert [plain.labels[4].label, plain.labels[7].label] == names(record)
    confidences = [plain.labels[4].confidence, plain.labels[7].confidence]
    assert confidences == pytest.approx([label.confidence for label in record.labels], abs=1e-3)


def test_excluded_labels_and_wnids_are_not_answered(workers: Workers, plain: Record) -> None:
    (record,) = workers.answer(picture(100), top_k=10, exclude=(plain.labels[0].label, plain.labels[2].wnid))

    assert [name for place, name in enumerate(names(plain)) if place not in (0, 2)] == names(record)


def test_an_unknown_label_is_refused_with_the_nearest_one(workers: Workers) -> None:
    (record,) = workers.answer(picture(100), include=("gaot",))

    assert record.error is not None
    assert "bad_options" == record.error.code
    assert "has no label 'gaot', did you mean 'goat'?" in record.error.message


@pytest.mark.parametrize(("size", "expected"), [((1200, 800), (320, 213)), ((40, 30), (40, 30))])
def test_a_thumbnail_is_a_small_webp_in_the_record(workers: Workers, size: tuple[int, int], expected: tuple[int, int]) -> None:
    noise = os.urandom(3 * size[0] * size[1])
    stream = io.BytesIO()
    # Noise: nothing is harder to keep small.
    Image.frombytes("RGB", size, noise).save(stream, "JPEG", quality=90)

    (record,) = workers.answer(stream.getvalue(), thumbnail=320)

    assert record.thumbnail is not None
    assert len(record.thumbnail) <= 24 * 1024
    small = Image.open(io.BytesIO(base64.b64decode(record.thumbnail)))
    assert "WEBP" == small.format
    assert small.width <= expected[0]
    assert small.width / small.height == pytest.approx(expected[0] / expected[1], rel=0.05)


def test_a_thumbnail_is_of_the_side_asked_for(workers: Workers) -> None:
    (record,) = workers.answer(picture(102, size=(400, 300)), thumbnail=64)

    assert record.thumbnail is not None
    assert (64, 48) == Image.open(io.BytesIO(base64.b64decode(record.thumbnail))).size


def test_bytes_that_come_again_are_answered_alike_and_told_as_cached(workers: Workers) -> None:
    body = picture(103)
    (first,) = workers.answer(body)

    (again,) = workers.answer(body)

    assert (False, True) == (first.cached, again.cached)
    assert first.task_id != again.task_id
    assert names(first) == names(again)
    assert [label.confidence for label in first.labels] == pytest.approx([one.confidence for one in again.labels], abs=5e-4)
    assert (first.image.sha256, 96, 72) == (again.image.sha256, again.image.width, again.image.height)


def test_images_of_a_readable_bucket_are_answered_and_of_any_other_refused(workers: Workers) -> None:
    cloud = workers.cloud
    stack = cloud.settings.stack
    for bucket in ("album", "diary"):
        cloud.bucket(f"{stack}-{bucket}").put("one.jpg", picture(104), content_type="image/jpeg")

    found = workers.client.recognize([f"s3://{stack}-album/one.jpg", f"s3://{stack}-diary/one.jpg"]).wait(timeout=30)

    assert ["ok", "failed"] == [record.status for record in found]
    refused = found[1].error
    assert refused is not None
    assert "forbidden" == refused.code
    assert f"s3://{stack}-diary/one.jpg may not be read: name its bucket in IRS_READABLE_BUCKETS" in refused.message


def test_a_foreign_celery_app_is_answered_alone_and_in_a_group(workers: Workers) -> None:
    keys = stored(workers, 110, 4)

    ids = workers.ran(FOREIGN, *keys)

    found = workers.answered(ids)
    assert ["ok"] * 4 == [record.status for record in found]
    assert keys == [record.image.key for record in found]
    assert ("single.jpg", 2) == (found[0].image.name, len(found[0].labels))
    assert {(None, None)} == {(record.job, record.number) for record in found}
    eventually(workers.is_empty)


def test_our_own_celery_app_gets_the_records_alone_and_of_a_group(workers: Workers) -> None:
    keys = stored(workers, 120, 4)

    got = [Record.from_json(one) for one in workers.ran(OWN, *keys)]

    assert keys == [record.image.key for record in got]
    assert got == [workers.store.get(record.task_id) for record in got]
    eventually(workers.is_empty)


def test_news_of_each_record_come_once(workers: Workers) -> None:
    reader = NewsReader(workers.cloud)
    ids = workers.sent(picture(130), picture(131), b"no picture", names=("a.jpg", "b.jpg", "c.txt"))
    found = workers.answered(ids)

    told = list(reader.receive(wait_s=5))
    while more := reader.receive(wait_s=1):
        told += more

    # Those of the tests before may still wait.
    told = [item for item in told if item.task_id in ids]
    assert sorted(ids) == sorted(item.task_id for item in told)
    by_id = {item.task_id: item for item in told}
    for record in found:
        item = by_id[record.task_id]
        assert (record.status, record.image.name, record.sure) == (item.status, item.name, item.sure)
        assert (record.labels[0].label if record.labels else None) == item.label
        assert (record.error.code if record.error else None) == item.error


def names(record: Record) -> list[str]:
    return [label.label for label in record.labels]


def stored(workers: Workers, first_seed: int, count: int) -> list[str]:
    """Store pictures as a caller without our client does; return their keys."""
    keys = [f"mine/{seed}.jpg" for seed in range(first_seed, first_seed + count)]
    for seed, key in enumerate(keys, start=first_seed):
        workers.cloud.input.put(key, picture(seed), content_type="image/jpeg")
    return keys
