"""The drop box on the embedded cloud: S3's events, the bridge as a process, a real worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually
from workers import Workers, picture, workers_on_a_stack

from irs import records
from irs.cloud import Cloud
from irs.drops import Bridge, sync
from irs.errors import BadOptions
from irs.local import EmbeddedCloud, child

JSON = "application/json"


@pytest.fixture(scope="module")
def workers(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One worker; messages about files come back soon when a bridge dies with them."""
    with workers_on_a_stack(embedded, tmp_path_factory.mktemp("drops"), IRS_VISIBILITY_SECONDS="4") as made:
        made.start()
        yield made


class BridgeProcess:
    """``irs drops``, on and on; its log on standard output."""

    def __init__(self, workers: Workers) -> None:
        self.process = child.start(
            [sys.executable, "-m", "irs.cli", "drops"],
            environment=workers.environment,
            at_parents_end=signal.SIGKILL,
            stdin=subprocess.DEVNULL,
        )

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def bridge(workers: Workers) -> Iterator[BridgeProcess]:
    made = BridgeProcess(workers)
    yield made
    made.end()


def drop(cloud: Cloud, name: str, body: bytes) -> str:
    """Put a file into the drop box as any tool would; return the id of its task."""
    key = f"drop/{name}"
    put = cloud.client("s3").put_object(Bucket=cloud.settings.input_bucket, Key=key, Body=body)
    return records.drop_task_id(key, put["ETag"])


def results(cloud: Cloud, prefix: str) -> dict[str, dict[str, Any]]:
    """Results by name."""
    found = [one.key for one in cloud.output.list(f"results/{prefix}")]
    with ThreadPoolExecutor(16) as pool:
        bodies = pool.map(cloud.output.get, found)
    return {key.removeprefix("results/"): json.loads(body) for key, body in zip(found, bodies, strict=True)}


def queued(cloud: Cloud) -> list[str]:
    """Take the tasks that wait; return their ids."""
    url = cloud.queue_url(cloud.settings.requests_queue)
    ids: list[str] = []
    while got := cloud.sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        ids += [json.loads(message["Body"])["headers"]["id"] for message in got]
    return ids


def test_every_dropped_file_has_a_result_under_its_name_and_a_bad_one_its_code(workers: Workers, bridge: BridgeProcess) -> None:
    cloud = workers.cloud
    ids = {
        name: drop(cloud, f"kinds/{name}", body)
        for name, body in (
            ("cat.jpg", picture(1)),
            ("deep/er/cat.jpg", picture(2)),
            ("Bär & 1+1 = 2?.jpg", picture(3)),
            ("empty.jpg", b""),
            ("notes.txt", b"no picture at all, but words"),
            ("cut.jpg", picture(4)[:400]),
        )
    }

    found = eventually(lambda: len(results(cloud, "kinds/")) == len(ids) and results(cloud, "kinds/"), within_s=60, every_s=0.2)

    assert {f"kinds/{name}.json": id for name, id in ids.items()} == {name: one["task_id"] for name, one in found.items()}
    codes = {name: (one["error"] or {}).get("code") for name, one in found.items()}
    assert {
        "kinds/cat.jpg.json": None,
        "kinds/deep/er/cat.jpg.json": None,
        "kinds/Bär & 1+1 = 2?.jpg.json": None,
        "kinds/empty.jpg.json": "empty",
        "kinds/notes.txt.json": "not_an_image",
        "kinds/cut.jpg.json": "damaged",
    } == codes
    assert "kinds/deep/er/cat.jpg" == found["kinds/deep/er/cat.jpg.json"]["image"]["name"]
    assert json.loads(cloud.output.get(f"tasks/{ids['cat.jpg']}.json")) == found["kinds/cat.jpg.json"]


def test_a_result_is_replaced_when_its_file_is_dropped_again(workers: Workers, bridge: BridgeProcess) -> None:
    cloud = workers.cloud
    first = drop(cloud, "again/a.jpg", picture(10))
    eventually(lambda: results(cloud, "again/"), within_s=60, every_s=0.1)

    second = drop(cloud, "again/a.jpg", picture(11))

    eventually(lambda: results(cloud, "again/")["again/a.jpg.json"]["task_id"] == second, within_s=60, every_s=0.1)
    assert {f"tasks/{first}.json", f"tasks/{second}.json"} <= {one.key for one in cloud.output.list("tasks/")}


def test_a_hundred_files_have_a_hundred_results_when_bridges_are_killed_in_the_middle(workers: Workers) -> None:
    cloud = workers.cloud
    names = [f"{number:03d}.jpg" for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: drop(cloud, f"many/{name}", picture(1000 + int(name[:3]))), names))

    for least in (1, 30, 60):
        doomed = BridgeProcess(workers)
        eventually(lambda least=least: len(list(cloud.output.list("results/many/"))) >= least, within_s=60)
        assert -signal.SIGKILL == doomed.end()
    last = BridgeProcess(workers)
    try:
        eventually(lambda: len(list(cloud.output.list("results/many/"))) == 100, within_s=60, every_s=0.1)
    finally:
        last.end()

    found = results(cloud, "many/")
    assert {f"many/{name}.json" for name in names} == set(found)
    assert {"ok"} == {one["status"] for one in found.values()}


def test_a_bridge_that_is_told_to_end_ends_at_once(cloud: Cloud, stack_environment: dict[str, str]) -> None:
    process = child.start(
        [sys.executable, "-m", "irs.cli", "drops"],
        environment=stack_environment,
        at_parents_end=signal.SIGKILL,
        stdin=subprocess.DEVNULL,
    )
    drop(cloud, "a.jpg", b"x")
    url = cloud.queue_url(cloud.settings.requests_queue)
    eventually(lambda: cloud.sqs().receive_message(QueueUrl=url).get("Messages"), within_s=60)

    process.terminate()

    # Its long poll of 20 s is not waited for.
    assert 0 == process.wait(10)


def test_a_message_whose_task_could_not_be_sent_comes_back(cloud: Cloud) -> None:
    id = drop(cloud, "a.jpg", b"x")
    url = cloud.queue_url(cloud.settings.drops_queue)
    cloud.sqs().set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
    # A queue that is not there takes no task.
    lost = Cloud(cloud.settings.model_copy(update={"requests_queue": "not-there"}))
    failing, working = Bridge(lost), Bridge(cloud)

    eventually(lambda: failing.step(wait_s=1))
    assert 0 == failing.done.sent
    eventually(lambda: working.step(wait_s=1) and working.done.sent)

    assert [id] == queued(cloud)


def test_the_result_of_an_older_file_does_not_replace_that_of_a_newer_one(cloud: Cloud) -> None:
    older, newer = drop(cloud, "a.jpg", b"old"), drop(cloud, "a.jpg", b"new")
    bridge = Bridge(cloud)

    # The older one's answer comes last.
    for id in (newer, older):
        store_record(cloud, id, "drop/a.jpg")
        eventually(lambda: bridge.step(wait_s=1) == 0)

    assert newer == results(cloud, "")["a.jpg.json"]["task_id"]
    assert [older] == queued(cloud)


def test_a_file_whose_record_stands_gets_its_result_anew_and_no_task(cloud: Cloud) -> None:
    id = drop(cloud, "a.jpg", b"x")
    store_record(cloud, id, "drop/a.jpg")
    bridge = Bridge(cloud)

    eventually(lambda: bridge.step(wait_s=1) == 0)

    assert [] == queued(cloud)
    assert id == results(cloud, "")["a.jpg.json"]["task_id"]


def test_a_look_finds_files_whose_events_were_lost_and_only_when_nothing_is_on_its_way(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.put_bucket_notification_configuration(Bucket=cloud.settings.input_bucket, NotificationConfiguration={})
    s3.put_bucket_notification_configuration(Bucket=cloud.settings.output_bucket, NotificationConfiguration={})
    cloud.sqs().purge_queue(QueueUrl=cloud.queue_url(cloud.settings.drops_queue))
    ids = [drop(cloud, name, name.encode()) for name in ("a.jpg", "b.jpg")]
    store_record(cloud, ids[1], "drop/b.jpg")
    bridge, later = Bridge(cloud), datetime.now(UTC) + timedelta(minutes=1)

    assert 0 == bridge.look()
    assert 2 == bridge.look(now=later)
    # Now a task waits: whoever holds it will answer.
    assert 0 == bridge.look(now=later)
    assert [ids[0]] == queued(cloud)
    assert ["b.jpg.json"] == list(results(cloud, ""))


@pytest.mark.parametrize("body", ["no JSON", "[]", '{"Records": [{}]}', '{"Records": 7}'])
def test_a_message_that_is_none_of_s3_is_dropped_and_holds_up_no_other(cloud: Cloud, body: str) -> None:
    url = cloud.queue_url(cloud.settings.drops_queue)
    cloud.sqs().send_message(QueueUrl=url, MessageBody=body)
    id = drop(cloud, "a.jpg", b"x")
    bridge = Bridge(cloud)

    eventually(lambda: bridge.step(wait_s=1) == 0)

    assert [id] == queued(cloud)


def test_a_folder_of_the_drop_box_and_a_plain_call_are_no_dropped_files(cloud: Cloud) -> None:
    cloud.client("s3").put_object(Bucket=cloud.settings.input_bucket, Key="drop/folder/", Body=b"")
    store_record(cloud, "0a7c0000-1111-4222-8333-444455556666", "jobs/x.jpg")
    store_record(cloud, "f" * 64, "jobs/x.jpg")
    bridge = Bridge(cloud)

    eventually(lambda: bridge.step(wait_s=1) == 0)

    assert [] == queued(cloud)
    assert {} == results(cloud, "")


def test_sync_sends_what_is_new_and_nothing_twice(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    files = {"a.jpg": b"a", "deep/b.png": b"b", "notes.csv": b"1,2", ".hidden.jpg": b"h", "empty.jpg": b""}
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)

    first, second = sync(cloud, tmp_path, prefix="mine/"), sync(cloud, tmp_path, prefix="mine")
    (tmp_path / "a.jpg").write_bytes(b"A")
    third = sync(cloud, tmp_path, prefix="mine")

    assert (["a.jpg", "deep/b.png"], [], ["empty.jpg"]) == (first.sent, first.known, list(first.refused))
    assert ([], ["a.jpg", "deep/b.png"]) == (second.sent, second.known)
    assert (["a.jpg"], ["deep/b.png"]) == (third.sent, third.known)
    assert ["drop/mine/a.jpg", "drop/mine/deep/b.png"] == [one.key for one in cloud.input.list("drop/")]
    assert b"A" == cloud.input.get("drop/mine/a.jpg")


def test_sync_sends_no_file_again_that_expired_after_it_was_answered(cloud: Cloud, tmp_path: Path) -> None:
    for name in ("answered.jpg", "expired.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    sync(cloud, tmp_path)
    etag = cloud.client("s3").head_object(Bucket=cloud.settings.input_bucket, Key="drop/answered.jpg")["ETag"]
    id = records.drop_task_id("drop/answered.jpg", etag)
    store_record(cloud, id, "drop/answered.jpg")
    cloud.output.put("results/answered.jpg.json", b"{}", content_type=JSON)
    for name in ("answered.jpg", "expired.jpg"):
        cloud.input.delete(f"drop/{name}")

    done = sync(cloud, tmp_path)

    assert (["expired.jpg"], ["answered.jpg"]) == (done.sent, done.known)


def test_sync_tells_same_bytes_also_where_the_etag_is_no_digest_of_them(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    s3, bucket = cloud.client("s3"), cloud.settings.input_bucket
    upload = s3.create_multipart_upload(Bucket=bucket, Key="drop/a.jpg", Metadata={"irs-md5": "900150983cd24fb0d6963f7d28e17f72"})
    part = {"Bucket": bucket, "Key": "drop/a.jpg", "UploadId": upload["UploadId"]}
    etag = s3.upload_part(**part, PartNumber=1, Body=b"abc")["ETag"]
    s3.complete_multipart_upload(**part, MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]})

    done = sync(cloud, tmp_path)

    assert ([], ["a.jpg"]) == (done.sent, done.known)


def test_a_dry_sync_sends_nothing_and_a_file_is_no_folder(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")

    assert ["a.jpg"] == sync(cloud, tmp_path, dry_run=True).sent
    assert [] == list(cloud.input.list("drop/"))
    with pytest.raises(BadOptions, match="is no folder"):
        sync(cloud, tmp_path / "a.jpg")


def store_record(cloud: Cloud, task_id: str, key: str) -> None:
    record = records.Record(task_id=task_id, status="ok", image=records.ImageFacts(name=None, key=key))
    cloud.output.put(records.record_key(task_id), record.to_bytes(), content_type=JSON)
