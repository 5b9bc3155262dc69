"""The client on a real stack; records come from a thread that answers the messages, without a model."""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults import Fault, FaultProxy
from waiting import eventually

from irs import records
from irs.client import Client, Job, Progress
from irs.cloud import Cloud
from irs.errors import BadOptions, MissingResource, QueueUnavailable, RecognitionFailed, SetupError, Unreachable
from irs.records import ImageFacts, Label, Options, Record
from irs.results import RecordStore
from irs.settings import read_settings


@dataclass
class Answerer:
    """Answers task messages like a worker: the record first, the acknowledgement last."""

    cloud: Cloud
    messages: list[tuple[dict[str, Any], list[Any], dict[str, Any]]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        sqs, url = self.cloud.client("sqs"), self.cloud.queue_url(self.cloud.settings.requests_queue)
        store = RecordStore(self.cloud)
        while not self.ended.is_set():
            got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
            # Backwards: records do not come in order.
            for message in reversed(got):
                body = json.loads(message["Body"])
                args, kwargs, _ = json.loads(body["body"])
                self.messages.append((body["headers"], args, kwargs))
                store.put(self.answer(body["headers"]["id"], args[0], kwargs))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def answer(self, task_id: str, key: str, kwargs: dict[str, Any]) -> Record:
        job, number = records.split_task_id(task_id) or (None, None)
        body = b"" if key.startswith("s3://") else self.cloud.input.get(key)
        facts = ImageFacts(name=kwargs["name"], key=key, bytes=len(body))
        label = Label(label=body.decode(), wnid=None, confidence=0.9)
        return Record(task_id=task_id, job=job, number=number, status="ok", image=facts, labels=(label,))


@pytest.fixture
def answerer(cloud: Cloud) -> Iterator[Answerer]:
    made = Answerer(cloud)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.ended.set()
    thread.join()


@pytest.fixture
def client(cloud: Cloud) -> Client:
    return Client(cloud.settings)


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with FaultProxy(cloud.settings.endpoint_url) as made:
        yield made


def at(cloud: Cloud, endpoint: str) -> Client:
    return Client(read_settings(endpoint_url=endpoint, stack=cloud.settings.stack))


def words(found: list[Record]) -> list[str]:
    return [record.labels[0].label for record in found]


def test_client_answers_paths_bytes_open_files_and_named_bytes_in_the_given_order(
    client: Client, answerer: Answerer, tmp_path: Path
) -> None:
    photo = tmp_path / "Bär.jpg"
    photo.write_bytes(b"bear")

    job = client.recognize([photo, str(photo), b"bytes", io.BytesIO(b"stream"), ("cat.png", b"cat")])
    found = job.wait(timeout=30)

    assert ["bear", "bear", "bytes", "stream", "cat"] == words(found)
    assert ["Bär.jpg", "Bär.jpg", "image", "image", "cat.png"] == [record.image.name for record in found]
    assert [f"jobs/{job.id}/{n:06d}" for n in range(5)] == [record.image.key.rpartition("/")[0] for record in found]


def test_client_walks_folders_and_leaves_hidden_files_out(client: Client, answerer: Answerer, tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", ".hidden.jpg", "sub/a.jpg", ".git/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())

    found = client.recognize(tmp_path).wait(timeout=30)

    assert ["a.jpg", "b.jpg", "sub/a.jpg"] == words(found) == [record.image.name for record in found]


def test_client_sends_addresses_in_s3_as_they_are(client: Client, answerer: Answerer, cloud: Cloud) -> None:
    client.recognize("s3://elsewhere/a/cat.jpg").wait(timeout=30)

    assert [(["s3://elsewhere/a/cat.jpg"], "cat.jpg")] == [(args, kwargs["name"]) for _, args, kwargs in answerer.messages]
    assert [] == list(cloud.input.list("jobs/"))


def test_client_sends_the_options_that_differ_and_stores_them_with_the_job(
    client: Client, answerer: Answerer, cloud: Cloud
) -> None:
    job = client.recognize(("a.jpg", b"a"), top_k=3, include=["cat", "dog"])
    job.wait(timeout=30)

    options = Options(top_k=3, include=("cat", "dog"))
    store = RecordStore(cloud)
    headers, _, kwargs = answerer.messages[0]
    assert {"name": "a.jpg", "top_k": 3, "include": ["cat", "dog"]} == kwargs
    assert ("irs.recognize", records.task_id(job.id, 0)) == (headers["task"], headers["id"])
    opened, manifest = store.find_open(job.id), store.find_manifest(job.id)
    assert opened is not None
    assert manifest is not None
    assert (options, options, 1) == (opened.options, manifest.options, manifest.count)


def test_client_records_what_cannot_be_handed_in_and_answers_the_rest(cloud: Cloud, answerer: Answerer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.jpg").write_bytes(b"x" * 1001)
    (tmp_path / "empty.jpg").touch()
    client = Client(read_settings(endpoint_url=cloud.settings.endpoint_url, stack=cloud.settings.stack, max_bytes=1000))
    images = [tmp_path / "missing.jpg", tmp_path / "pipe", tmp_path / "large.jpg", tmp_path / "empty.jpg", b"fine", b"y" * 1001]

    found = client.recognize(images).wait(timeout=30)

    codes = [record.error.code if record.error else None for record in found]
    assert ["not_found", "not_an_image", "too_large", "empty", None, "too_large"] == codes
    assert found[0].error is not None
    assert f"{tmp_path}/missing.jpg is not there: check its name." == found[0].error.message


def test_job_gives_each_record_once_however_often_it_is_looped_over(client: Client, answerer: Answerer) -> None:
    job = client.recognize([b"%d" % n for n in range(150)])

    loops = [Counter(record.number for record in job) for _ in range(2)]

    assert [Counter(range(150))] * 2 == loops
    assert Progress(150, 150, 150) == job.progress()


def test_job_gives_records_before_all_are_there(client: Client, cloud: Cloud) -> None:
    job = client.recognize([b"a", b"b"])
    early = Record(task_id=records.task_id(job.id, 1), number=1, status="ok", image=ImageFacts(name=None, key="k"))
    RecordStore(cloud).put(early)

    first = next(iter(job))

    assert early == first == job.get_record(1)
    assert job.find_record(0) is None


def test_job_gives_all_others_when_objects_that_are_no_records_stand_among_them(client: Client, cloud: Cloud) -> None:
    job, store = client.recognize([b"a", b"b", b"c", b"d"]), RecordStore(cloud)
    others = [
        Record(task_id=records.task_id(job.id, n), job=job.id, number=n, status="ok", image=ImageFacts(name=None, key="k"))
        for n in (0, 2)
    ]
    broken, strange = (records.record_key(records.task_id(job.id, n)) for n in (1, 3))
    for record in others:
        store.put(record)
    cloud.output.put(broken, b'{"version": 1, "task_', content_type="application/json")
    # Another image's record copied here, and what was never an image of the job.
    cloud.output.put(strange, others[0].to_bytes(), content_type="application/json")
    for name in ("000007.json", "0000002.json", "notes.txt"):
        cloud.output.put(records.job_prefix(job.id) + name, b"[]", content_type="application/json")

    first, second, third, fourth = job.wait(timeout=30)

    assert others == [first, third]
    assert [(1, "failed", "internal"), (3, "failed", "internal")] == [
        (one.number, one.status, one.error and one.error.code) for one in (second, fourth)
    ]
    assert [True, True] == [key in str(one.error) for key, one in ((broken, second), (strange, fourth))]


def test_job_can_be_awaited_while_the_event_loop_goes_on(client: Client, answerer: Answerer) -> None:
    job = client.recognize([b"%d" % n for n in range(20)])
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def follow() -> set[str]:
        counting = asyncio.create_task(count_turns())
        found = {record.labels[0].label async for record in job}
        counting.cancel()
        return found

    found = asyncio.run(follow())

    assert {str(n) for n in range(20)} == found
    assert turns > 20


def test_job_is_found_by_its_id_from_elsewhere(client: Client, answerer: Answerer, cloud: Cloud) -> None:
    id = client.recognize([b"a", b"b"], top_k=2).id

    job = Client(cloud.settings).job(id)

    assert (2, Options(top_k=2)) == (job.count, job.options)
    assert ["a", "b"] == words(job.wait(timeout=30))


def test_job_still_open_ends_when_it_is_closed(client: Client, answerer: Answerer) -> None:
    opened = client.open(top_k=1)
    client.send([client.upload(opened.job, n, f"{n}.jpg", b"%d" % n) for n in range(3)], opened.options)
    job = client.job(opened.job)
    came = iter(job)
    first = [next(came).number, next(came).number, next(came).number]

    client.close(opened.job, 3)

    assert [0, 1, 2] == sorted(first)  # type: ignore[type-var]
    assert [] == list(came)
    assert 3 == job.count


def test_job_says_how_many_are_missing_when_the_time_is_over(client: Client) -> None:
    job = client.recognize([b"a", b"b"])

    with pytest.raises(TimeoutError, match=r"has 2 of 2 images without a record after 0\.3 s"):
        job.wait(timeout=0.3)


def test_job_calls_back_with_its_progress(client: Client, answerer: Answerer) -> None:
    told: list[Progress] = []

    job = client.recognize([b"%d" % n for n in range(30)], on_progress=told.append)
    handed_in = told[-1]
    job.wait(timeout=30)

    assert Progress(30, 30, 0) == handed_in
    assert [Progress(30, 30, n + 1) for n in range(30)] == told[-30:]


def test_waiting_costs_few_requests_for_many_images(cloud: Cloud, answerer: Answerer, proxy: FaultProxy) -> None:
    job = at(cloud, proxy.endpoint).recognize([b"%d" % n for n in range(200)])
    job.wait(timeout=60)

    before = proxy.requests["GET"]
    job.wait(timeout=60)

    # One LIST of all, one GET each, and a listing for each 64 at most.
    assert proxy.requests["GET"] - before <= 200 + 5
    assert proxy.requests["SendMessage"] == 0
    assert proxy.requests["SendMessageBatch"] <= 100


def test_handing_in_again_sends_only_what_has_no_record(client: Client, answerer: Answerer, cloud: Cloud) -> None:
    job = client.recognize([b"a", b"b"])
    job.wait(timeout=30)
    before = len(answerer.messages)

    again = client.recognize([b"a", b"b", b"c"], job=job.id)

    assert ["a", "b", "c"] == words(again.wait(timeout=30))
    assert 1 == len(answerer.messages) - before


def test_fewer_images_handed_in_again_hide_none_of_the_job(client: Client, answerer: Answerer) -> None:
    job = client.recognize([b"a", b"b", b"c"])
    job.wait(timeout=30)

    assert ["a", "b", "c"] == words(client.recognize([b"a"], job=job.id).wait(timeout=30))


def test_handing_in_survives_passing_faults(cloud: Cloud, answerer: Answerer, proxy: FaultProxy) -> None:
    def images() -> Iterator[bytes]:
        yield b"0"
        # The first contact is over: whether anything answers at all is another claim.
        proxy.fault = Fault("503", frozenset({"PUT", "GET", "SendMessageBatch"}), share=0.3)
        yield from (b"%d" % n for n in range(1, 60))

    found = at(cloud, proxy.endpoint).recognize(images()).wait(timeout=60)

    assert [str(n) for n in range(60)] == words(found)


def test_images_whose_send_was_answered_by_a_page_are_sent_again(cloud: Cloud, answerer: Answerer, proxy: FaultProxy) -> None:
    def images() -> Iterator[bytes]:
        proxy.fault = Fault("html", frozenset({"SendMessageBatch"}))
        yield b"0"
        eventually(lambda: proxy.requests["SendMessageBatch"] > 0)
        proxy.fault = None
        yield b"1"

    found = at(cloud, proxy.endpoint).recognize(images()).wait(timeout=15)

    assert ["0", "1"] == words(found)


def test_client_says_that_it_is_not_sqs_that_answers(cloud: Cloud, proxy: FaultProxy) -> None:
    proxy.fault = Fault("html", frozenset({"GetQueueUrl"}))

    with pytest.raises(Unreachable, match="what answers there is not SQS"):
        at(cloud, proxy.endpoint).recognize(b"a")


@pytest.mark.slow
def test_handing_in_that_breaks_off_names_the_job_to_go_on_with(cloud: Cloud, answerer: Answerer, proxy: FaultProxy) -> None:
    client = at(cloud, proxy.endpoint)
    proxy.fault = Fault("500", frozenset({"SendMessageBatch"}))
    with pytest.raises(QueueUnavailable) as caught:
        client.recognize([b"a", b"b"])
    proxy.fault = None

    (note,) = caught.value.__notes__
    id = note.split()[1]
    found = client.recognize([b"a", b"b"], job=id).wait(timeout=30)

    assert ["a", "b"] == words(found)


def test_client_works_in_many_threads_at_once(client: Client, answerer: Answerer) -> None:
    found: dict[int, list[str]] = {}

    def use(n: int) -> None:
        found[n] = words(client.recognize([b"%d-%d" % (n, k) for k in range(5)]).wait(timeout=60))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {n: [f"{n}-{k}" for k in range(5)] for n in range(6)} == found


def _in_child(job: Job, client: Client, answers: Any) -> None:
    answers.put([words(job.wait(timeout=30)), words(client.recognize([b"child"]).wait(timeout=30))])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_client_and_job_work_in_a_forked_child(client: Client, answerer: Answerer) -> None:
    job = client.recognize([b"parent"])
    job.wait(timeout=30)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()

    child = fork.Process(target=_in_child, args=(job, client, answers))
    child.start()
    got = answers.get(timeout=60)
    child.join(10)

    assert [["parent"], ["child"]] == got
    assert 0 == child.exitcode


def test_client_says_that_nothing_answers_at_the_endpoint(cloud: Cloud, proxy: FaultProxy) -> None:
    proxy.refuse()

    with pytest.raises(Unreachable, match=f"cannot be reached at {proxy.endpoint}"):
        at(cloud, proxy.endpoint).recognize([b"a"])
    with pytest.raises(Unreachable, match=f"cannot be reached at {proxy.endpoint}"):
        at(cloud, proxy.endpoint).job(records.new_job_id())


def test_client_says_that_the_queue_is_missing_before_anything_is_stored(client: Client, cloud: Cloud) -> None:
    cloud.sqs().delete_queue(QueueUrl=cloud.queue_url(cloud.settings.requests_queue))
    fresh = Client(read_settings(endpoint_url=cloud.settings.endpoint_url, stack=cloud.settings.stack, output_days=29))

    with pytest.raises(MissingResource, match="requests is not there: run `irs provision` first"):
        fresh.recognize([b"a"])

    assert [] == [*cloud.output.list("jobs/"), *cloud.input.list("jobs/")]


@pytest.mark.parametrize("kind", ["input", "output"])
def test_client_says_which_bucket_is_missing(cloud: Cloud, kind: str) -> None:
    settings = read_settings(
        endpoint_url=cloud.settings.endpoint_url, stack=cloud.settings.stack, **{f"{kind}_bucket": f"no-{kind}"}
    )

    with pytest.raises(MissingResource, match=f"Bucket no-{kind} is not there: run `irs provision` first"):
        Client(settings).recognize([b"a"])


def test_client_says_that_it_may_not_use_a_bucket(cloud: Cloud, proxy: FaultProxy) -> None:
    client = at(cloud, proxy.endpoint)
    proxy.fault = Fault("403", frozenset({"PUT"}))

    with pytest.raises(SetupError, match="These credentials may not use bucket"):
        client.recognize([b"a"])


def test_client_knows_no_job_of_that_id(client: Client) -> None:
    id = records.new_job_id()

    with pytest.raises(BadOptions, match=f"^job {id} is not known"):
        client.job(id)


@pytest.mark.parametrize(
    ("images", "said"), [([], "nothing to hand in"), ([7], "int is no image"), (io.StringIO("a"), "StringIO is no image")]
)
def test_client_says_what_is_no_image(client: Client, images: Any, said: str) -> None:
    with pytest.raises(BadOptions, match=said):
        client.recognize(images)


def test_hurried_recognize_returns_the_record_or_raises(client: Client, answerer: Answerer, tmp_path: Path) -> None:
    record = client.recognize_one(io.BytesIO(b"dog"), timeout=30)

    assert ["dog"] == words([record])
    with pytest.raises(RecognitionFailed, match="not_found"):
        client.recognize_one(tmp_path / "missing.jpg", timeout=30)
    with pytest.raises(BadOptions, match="takes one image"):
        client.recognize_one(tmp_path, timeout=30)


def test_plain_python_call_needs_no_torch(answerer: Answerer, stack_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(b"dog")
    program = (
        "import sys, irs\n"
        "label = irs.recognize('dog.jpg', timeout=30).labels[0].label\n"
        "print(label, *[m for m in ('torch', 'PIL', 'numpy') if m in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=stack_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ("dog\n", "") == (done.stdout, done.stderr)


def test_client_goes_where_its_settings_say_whatever_the_environment_does(
    answerer: Answerer, cloud: Cloud, stack_environment: dict[str, str]
) -> None:
    program = (
        "import sys\n"
        "from irs.client import Client\n"
        "from irs.settings import read_settings\n"
        "client = Client(read_settings(endpoint_url=sys.argv[1], stack=sys.argv[2]))\n"
        "print(client.recognize_one(b'dog', timeout=30).labels[0].label)\n"
    )
    # Nothing answers at port 9.
    elsewhere = {"IRS_STACK": "elsewhere", "IRS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}

    done = subprocess.run(
        [sys.executable, "-c", program, cloud.settings.endpoint_url, cloud.settings.stack],
        env=stack_environment | elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ("dog\n", "") == (done.stdout, done.stderr)


def test_generator_is_answered_while_it_still_yields(client: Client, answerer: Answerer, cloud: Cloud) -> None:
    def images() -> Iterator[bytes]:
        yield b"first"
        # The first is answered while the second is not there yet.
        eventually(lambda: answerer.messages)
        yield b"second"

    found = client.recognize(images()).wait(timeout=30)

    assert ["first", "second"] == words(found)
