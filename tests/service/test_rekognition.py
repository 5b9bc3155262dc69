"""Rekognition's door: AWS's own SDKs, unmodified, through the real pipeline; `endpoint_url` alone is ours."""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from serving import Site, site_on_a_stack
from waiting import eventually
from workers import picture

from irs.cloud import Cloud
from irs.errors import StageTimeout
from irs.local import EmbeddedCloud
from irs.records import Options, read_tombstone_key
from irs.results import RecordStore
from webui.live import Live
from webui.metrics import Metrics
from webui.publish import Publisher
from webui.singles import Singles

TOKEN = "0123456789abcdef0123456789abcdef"
JS = Path(__file__).resolve().parents[1] / "js"
#: Of the photos: those whose labels the bundled model knows.
PHOTOS = 12


@pytest.fixture(scope="module")
def site(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page beside a worker with the bundled model, whose labels stand in a tree."""
    folder = tmp_path_factory.mktemp("rekognition")
    with site_on_a_stack(embedded, folder, model="imagenet200", IRS_MAX_BYTES="2000000") as made:
        made.workers.start()
        yield made


@pytest.fixture(scope="module")
def guarded(site: Site) -> Iterator[Site]:
    """A process of the page that asks for a token, as one that others can reach."""
    with site.beside(IRS_WEB_TOKEN=TOKEN) as made:
        yield made


@pytest.fixture(scope="module")
def known(shared: Path) -> dict[Path, str]:
    """Photos the bundled model can know, and their labels in its words."""
    from irs.models.choice import find_bundled

    folder = find_bundled("imagenet200")
    assert folder is not None
    read = [(folder / name).read_text().splitlines() for name in ("wnids.txt", "labels.txt")]
    words = dict(zip(*read, strict=True))
    rows = csv.DictReader((shared / "photos" / "labels.csv").read_text().splitlines())
    return dict([(shared / "photos" / row["file"], words[row["wnid"]]) for row in rows if row["wnid"] in words][:PHOTOS])


def rekognition(site: Site, secret: str = "any", **config: Any) -> Any:
    return boto3.client(
        "rekognition",
        endpoint_url=site.url,
        region_name="eu-central-1",
        aws_access_key_id="irs",
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def refusal(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(ClientError) as told:
        call()
    response = told.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_boto3_gets_right_labels_with_their_parents_for_photos(site: Site, known: dict[Path, str]) -> None:
    client = rekognition(site)

    def labels(photo: Path) -> list[dict[str, Any]]:
        return list(client.detect_labels(Image={"Bytes": photo.read_bytes()}, MinConfidence=5)["Labels"])

    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(known, pool.map(labels, known), strict=True))

    right = [photo for photo, label in known.items() if label in [one["Name"] for one in answers[photo]]]
    # As good as the model is: 79 % of what it knows at the first try, and labels above 5 % are several.
    assert len(right) >= 0.75 * len(known), {photo.name: [one["Name"] for one in answers[photo]] for photo in known}
    for found in answers.values():
        names = [one["Name"] for one in found]
        assert len(set(names)) == len(names)
        for one in found:
            # All ancestors are labels of their own, at least as likely.
            assert {parent["Name"] for parent in one["Parents"]} <= set(names)
            assert all(two["Confidence"] >= one["Confidence"] - 0.01 for two in found if {"Name": two["Name"]} in one["Parents"])
    assert any(one["Parents"] for found in answers.values() for one in found)


def test_what_was_asked_about_is_removed_once_it_is_answered(site: Site) -> None:
    answer = rekognition(site).detect_labels(Image={"Bytes": picture(1)}, MinConfidence=0, MaxLabels=3)

    assert 3 == len(answer["Labels"])
    assert answer["LabelModelVersion"].startswith("imagenet200 ")
    eventually(lambda: not list(site.workers.cloud.input.list("single/")), within_s=30)


def test_an_object_in_s3_is_answered_as_its_bytes_are(site: Site) -> None:
    cloud, client = site.workers.cloud, rekognition(site)
    body = picture(2)
    cloud.input.put("mine/a b.jpg", body, content_type="image/jpeg")
    stored = {"S3Object": {"Bucket": cloud.input.name, "Name": "mine/a b.jpg"}}

    of_object, of_bytes = (client.detect_labels(Image=image, MinConfidence=1)["Labels"] for image in (stored, {"Bytes": body}))

    assert of_object
    assert [one["Name"] for one in of_bytes] == [one["Name"] for one in of_object]
    # A worker keeps answers in half precision.
    confidences = [one["Confidence"] for one in of_object]
    assert confidences == pytest.approx([one["Confidence"] for one in of_bytes], abs=0.1)
    assert body == cloud.input.get("mine/a b.jpg")


def test_filters_choose_among_labels_and_parents(site: Site) -> None:
    client, image = rekognition(site), {"Bytes": picture(3)}

    def names(**filters: list[str]) -> set[str]:
        settings = {"GeneralLabels": filters}
        return {one["Name"] for one in client.detect_labels(Image=image, MinConfidence=0, Settings=settings)["Labels"]}

    assert "dog" in names(LabelInclusionFilters=["Dog"])
    assert "dog" not in names(LabelExclusionFilters=["Dog"])


@pytest.mark.parametrize(
    ("name", "image", "more"),
    [
        ("InvalidImageFormatException", {"Bytes": b"no picture at all"}, {}),
        ("InvalidImageFormatException", {"Bytes": picture(4)[:300]}, {}),
        ("ImageTooLargeException", {"Bytes": b"\xff\xd8\xff" + bytes(2_000_000)}, {}),
        ("ImageTooLargeException", {"Bytes": bytes(4_000_000)}, {}),
        ("InvalidS3ObjectException", {"S3Object": {"Bucket": "INPUT", "Name": "not/there.jpg"}}, {}),
        ("InvalidS3ObjectException", {"S3Object": {"Bucket": "somebody-elses", "Name": "a.jpg"}}, {}),
        ("InvalidParameterException", {}, {}),
        ("InvalidParameterException", {"Bytes": picture(5)}, {"MinConfidence": 101}),
        ("InvalidParameterException", {"Bytes": picture(5)}, {"Features": ["IMAGE_PROPERTIES"]}),
        (
            "InvalidParameterException",
            {"Bytes": picture(5)},
            {"Settings": {"GeneralLabels": {"LabelInclusionFilters": ["no such thing"]}}},
        ),
    ],
)
def test_boto3_raises_rekognitions_own_errors(site: Site, name: str, image: dict[str, Any], more: dict[str, Any]) -> None:
    if image.get("S3Object", {}).get("Bucket") == "INPUT":
        image = {"S3Object": {**image["S3Object"], "Bucket": site.workers.cloud.input.name}}
    client = rekognition(site, parameter_validation=False)

    assert (name, 400) == refusal(lambda: client.detect_labels(Image=image, **more))


def test_another_operation_of_rekognition_is_unknown(site: Site) -> None:
    client = rekognition(site)

    assert ("UnknownOperationException", 400) == refusal(lambda: client.detect_faces(Image={"Bytes": picture(1)}))


def test_where_a_token_is_asked_for_it_is_the_secret_key_of_the_signature(guarded: Site) -> None:
    answer = rekognition(guarded, TOKEN).detect_labels(Image={"Bytes": picture(6)}, MinConfidence=0, MaxLabels=1)

    assert 1 == len(answer["Labels"])
    wrong = rekognition(guarded, TOKEN[::-1])
    assert ("InvalidSignatureException", 400) == refusal(lambda: wrong.detect_labels(Image={"Bytes": picture(6)}))


def test_a_bearer_token_opens_the_door_too_and_nothing_else_is_opened_by_it(guarded: Site) -> None:
    body = json.dumps({"Image": {"Bytes": base64.b64encode(picture(7)).decode()}, "MinConfidence": 0}).encode()

    status, answer = posted(guarded, body, Authorization=f"Bearer {TOKEN}")
    unsigned, refused = posted(guarded, body)

    assert (200, True) == (status, bool(answer["Labels"]))
    assert (400, "MissingAuthenticationTokenException") == (unsigned, refused["__type"])
    # The header lets pass this one call alone.
    assert 401 == posted(guarded, b"{}", path="/api/jobs", kind="application/json")[0]


def test_a_browsers_call_from_another_site_is_refused(site: Site) -> None:
    assert 403 == posted(site, b"{}", Origin="https://evil.example")[0]


def test_a_small_answer_comes_in_one_piece(site: Site) -> None:
    at = urlsplit(site.url)
    body = b"{}"
    head = (
        f"POST / HTTP/1.1\r\nHost: {at.netloc}\r\nX-Amz-Target: RekognitionService.DetectLabels\r\n"
        f"Content-Type: application/x-amz-json-1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((at.hostname, at.port), timeout=30) as connection:
        for _ in range(20):
            connection.sendall(head.encode() + body)
            answer = connection.recv(65536)
            told, _, content = answer.partition(b"\r\n\r\n")

            assert b"400 Bad Request" in told
            assert f"content-length: {len(content)}".encode() in told.lower()


def test_the_javascript_sdk_gets_the_labels_that_boto3_gets(site: Site, known: dict[Path, str], tmp_path: Path) -> None:
    if shutil.which("node") is None or not (JS / "node_modules").is_dir():
        pytest.skip("The JavaScript SDK is not here: `npm ci --prefix tests/js` installs it.")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    missing = f"s3://{site.workers.cloud.input.name}/not/there.jpg"
    photos = list(known)[:4]

    ran = subprocess.run(
        ["node", str(JS / "detect_labels.mjs"), site.url, *map(str, photos), str(bad), missing],
        env={**os.environ, "AWS_ACCESS_KEY_ID": "irs", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    *answers, of_bad, of_missing = json.loads(ran.stdout)
    client = rekognition(site)
    expected = [client.detect_labels(Image={"Bytes": p.read_bytes()}, MaxLabels=10, MinConfidence=20)["Labels"] for p in photos]
    told = [[(one["Name"], one["Parents"]) for one in found["labels"]] for found in answers]
    assert [[(one["Name"], one["Parents"]) for one in labels] for labels in expected] == told
    assert ("InvalidImageFormatException", 400) == (of_bad["error"], of_bad["status"])
    assert ("InvalidS3ObjectException", 400) == (of_missing["error"], of_missing["status"])


def posted(
    site: Site, body: bytes, *, path: str = "/", kind: str = "application/x-amz-json-1.1", **headers: str
) -> tuple[int, Any]:
    import urllib.error
    import urllib.request

    told = {"X-Amz-Target": "RekognitionService.DetectLabels", "Content-Type": kind, **headers}
    request = urllib.request.Request(f"{site.url}{path}", body, told, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_call_that_no_worker_answers_in_time_is_cancelled(cloud: Cloud) -> None:
    async def ask() -> str:
        live, publisher = Live(cloud, Metrics(), news_wait_s=1), Publisher(cloud)
        singles = Singles(cloud, live, publisher)
        async with live.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            stored = await singles.store(picture(8))
            with pytest.raises(StageTimeout, match="No worker has answered"):
                await singles.ask(stored, Options(), within_s=1.0)
            await singles.forget(stored)
            tasks.cancel_scope.cancel()
        return stored.id

    id = anyio.run(ask)

    assert "cancelled" == RecordStore(cloud).get(id).status
    # Who receives the task later drops it.
    assert [id] == [told[1] for one in cloud.output.list("cancelled/") if (told := read_tombstone_key(one.key))]
    assert [] == list(cloud.input.list("single/"))
