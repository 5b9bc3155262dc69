"""The API of the page against the embedded cloud: what is acknowledged is stored and sent, and all else is refused."""

from __future__ import annotations

import base64
import contextlib
import csv
import html
import io
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from ulid import ULID
from waiting import eventually
from webpages import JPEG, Answers, WebPage, WebPages, record_of
from workers import picture

from irs import records
from irs.client import Client
from irs.cloud import Cloud
from irs.errors import NotFound
from irs.local import EmbeddedCloud
from irs.monitoring.status import count_queue
from irs.provision import provision
from irs.records import SCALER_STATE_KEY, Beat, Fault, ModelFacts, beat_key
from irs.settings import read_settings
from webui.openapi import OPERATIONS
from webui.server import allow_files
from webui.service import Cards, read_service


@pytest.fixture(scope="module")
def pages(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebPages]:
    """Processes of the page on a stack of the module's own; no worker runs there."""
    folder = tmp_path_factory.mktemp("webui")
    with pytest.MonkeyPatch.context() as patch:
        shared = {**embedded.environment, "IRS_ENDPOINT_URL": embedded.endpoint, "IRS_HOME": str(folder)}
        for name, value in {**shared, "IRS_STACK": f"t-{str(ULID()).lower()}", "IRS_MAX_BYTES": "200000"}.items():
            patch.setenv(name, value)
        cloud = Cloud(read_settings())
        provision(cloud)
        with WebPages(cloud, dict(os.environ), folder) as made:
            yield made


@pytest.fixture(scope="module")
def page(pages: WebPages) -> WebPage:
    return pages.start()


@pytest.fixture(scope="module")
def other(pages: WebPages) -> WebPage:
    """A second process on the same stack."""
    return pages.start(IRS_FLOWER_URL="http://127.0.0.1:5555")


@pytest.fixture(scope="module")
def strict(pages: WebPages) -> WebPage:
    """A process that has little patience."""
    return pages.start(IRS_WEB_HEADER_SECONDS="0.5", IRS_WEB_STALL_SECONDS="0.5", IRS_WEB_JOBS_PER_MINUTE="3")


@pytest.fixture(scope="module")
def cloud_(pages: WebPages) -> Cloud:
    return pages.cloud


def waiting(cloud: Cloud) -> int:
    """Tasks in the request queue."""
    return count_queue(cloud, cloud.settings.requests_queue).visible


def keys(cloud: Cloud, job: str) -> list[str]:
    return [one.key for one in cloud.input.list(records.job_prefix(job))]


def code(answer: Any) -> tuple[int, str]:
    assert "application/problem+json" == answer.headers["content-type"]
    said = answer.json
    assert {"type", "title", "status", "detail", "code", "instance"} <= set(said)
    assert f"/errors/{said['code']}" == said["type"]
    assert answer.headers["x-request-id"] == said["instance"]
    return answer.status, said["code"]


# Handing in


def test_an_image_is_stored_and_its_task_sent_when_its_put_is_answered(page: WebPage, cloud_: Cloud) -> None:
    job, before = page.open_job(expected=1, options={"top_k": 3}), waiting(cloud_)

    answer = page.put(job, 0, JPEG, name=quote("Bär/..\\<b>.jpg"))

    assert (201, {"number": 0, "status": "stored"}) == (answer.status, answer.json)
    assert [f"jobs/{job}/000000/b_.jpg"] == keys(cloud_, job)
    assert JPEG == cloud_.input.get(keys(cloud_, job)[0])
    assert before + 1 == waiting(cloud_)
    assert "Bär/..\\<b>.jpg" == page.ask("GET", f"/api/jobs/{job}/images").json["images"][0]["name"]


def test_the_same_image_again_is_known_and_sent_only_once(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job()
    page.put(job, 0)
    before = waiting(cloud_)

    again = page.put(job, 0)

    assert (200, "known") == (again.status, again.json["status"])
    assert before == waiting(cloud_)


def test_other_bytes_under_a_number_are_refused(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job()
    page.put(job, 0)

    for name in ("a.jpg", "b.jpg"):
        assert (409, "image_taken") == code(page.put(job, 0, JPEG + b"other", name=name))

    assert 1 == len(keys(cloud_, job))


def test_a_repeat_at_another_process_sends_what_a_kill_may_have_kept_from_being_sent(
    page: WebPage, other: WebPage, cloud_: Cloud
) -> None:
    """Whoever stored the image may have died before its task was sent: nobody can know, so it is sent again."""
    job = page.open_job()
    cloud_.input.put(records.image_key(job, 0, "a.jpg"), JPEG, content_type="application/octet-stream")
    before = waiting(cloud_)

    again = other.put(job, 0, JPEG)

    assert 200 == again.status
    assert before + 1 == waiting(cloud_)
    assert (409, "image_taken") == code(other.put(job, 0, JPEG + b"other", name="z.jpg"))


def test_closing_a_job_sends_what_a_kill_may_have_kept_from_being_sent(
    pages: WebPages, page: WebPage, other: WebPage, cloud_: Cloud
) -> None:
    """Nobody repeats it where the browser was closed as well; what a process sent that lives is not sent again."""
    job = page.open_job()
    assert 201 == page.put(job, 0).status
    cloud_.input.put(records.image_key(job, 1, "a.jpg"), JPEG, content_type="application/octet-stream")
    before = waiting(cloud_)
    assert 200 == other.close_job(job, 2).status
    assert before == waiting(cloud_)

    killed = page.open_job()
    cloud_.input.put(records.image_key(killed, 0, "a.jpg"), JPEG, content_type="application/octet-stream")
    started = pages.start()
    assert 201 == started.put(killed, 1).status
    before = waiting(cloud_)

    assert 200 == started.close_job(killed, 2).status

    assert before + 1 == waiting(cloud_)
    # Told again it sends nothing more.
    assert 200 == started.close_job(killed, 2).status
    assert before + 1 == waiting(cloud_)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (422, "empty")),
        (b"hello, this is text", (422, "not_an_image")),
        (b"%PDF-1.7 a document", (422, "unsupported_format")),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", (422, "unsupported_format")),
        (b"\xff\xd8\xff" + b"x" * 200_000, (413, "too_large")),
    ],
)
def test_what_is_no_image_is_refused_with_a_record_and_holds_up_no_other(
    page: WebPage, cloud_: Cloud, body: bytes, expected: tuple[int, str]
) -> None:
    job = page.open_job()

    refused = page.ask("PUT", f"/api/jobs/{job}/images/0?name=bill.jpg", body)
    again = page.ask("PUT", f"/api/jobs/{job}/images/0?name=bill.jpg", body)

    assert expected == code(refused) == code(again)
    assert refused.json["has_record"]
    assert [] == keys(cloud_, job)
    assert 201 == page.put(job, 1).status
    assert (409, "image_taken") == code(page.put(job, 0))
    assert (200, 2, 1) == (page.close_job(job, 2).status, page.job(job)["arrived"], page.job(job)["failed"])
    (record,) = page.ask("GET", f"/api/jobs/{job}/results").json["results"]
    assert (0, "bill.jpg", expected[1]) == (record["number"], record["image"]["name"], record["error"]["code"])


def test_no_image_under_the_number_of_one_that_is_stored_changes_nothing(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job()
    page.put(job, 0)

    refused = page.ask("PUT", f"/api/jobs/{job}/images/0", b"hello, this is text")

    assert (422, False) == (refused.status, refused.json["has_record"])
    assert (1, 0) == (len(keys(cloud_, job)), page.job(job)["failed"])


def test_an_image_of_unknown_length_is_refused(page: WebPage) -> None:
    job = page.open_job()
    connection = page.connect()
    connection.request("PUT", f"/api/jobs/{job}/images/0", iter([JPEG]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)

    assert 411 == connection.getresponse().status
    connection.close()


def test_an_over_long_image_is_refused_before_a_byte_of_it_is_sent(page: WebPage) -> None:
    job = page.open_job()
    with socket.create_connection((page.host, page.port), timeout=10) as client:
        head = f"PUT /api/jobs/{job}/images/0 HTTP/1.1\r\nHost: {page.host}\r\nContent-Length: 999999999\r\n"
        client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())

        assert b"413" in client.recv(100).split(b"\r\n")[0]


def test_an_upload_that_breaks_off_stores_nothing(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job()
    with socket.create_connection((page.host, page.port), timeout=10) as client:
        head = f"PUT /api/jobs/{job}/images/0?name=a.jpg HTTP/1.1\r\nHost: {page.host}\r\nContent-Length: 100000\r\n\r\n"
        client.sendall(head.encode() + JPEG)

    eventually(lambda: 0 == page.metric("irs_web_held_bytes"))
    assert [] == keys(cloud_, job)


# Closing


def test_a_job_closes_when_all_its_images_have_arrived(page: WebPage) -> None:
    job = page.open_job()
    for number in (0, 2):
        page.put(job, number)

    missing = page.close_job(job, 3)
    assert (409, "job_unfilled") == code(missing)
    assert [1] == missing.json["missing"]
    assert (409, "job_unfilled") == code(page.close_job(job, 1))

    page.put(job, 1)
    closed = page.close_job(job, 3)
    assert (200, 3, "waiting_for_worker") == (closed.status, closed.json["count"], closed.json["stage"])
    assert 200 == page.close_job(job, 3).status
    assert (409, "job_closed") == code(page.close_job(job, 2))
    assert (409, "job_closed") == code(page.put(job, 3))
    assert 200 == page.put(job, 2).status


def test_what_never_arrived_is_left_out_on_request_and_fails_by_itself(page: WebPage) -> None:
    """The sender is gone with images on their way: the job can be closed all the same."""
    job = page.open_job(expected=6)
    for number in (0, 4):
        page.put(job, number)

    closed = page.ask("POST", f"/api/jobs/{job}/close", {"count": 5, "leave_out": True})

    assert (200, 5, 3) == (closed.status, closed.json["count"], closed.json["failed"])
    results = page.ask("GET", f"/api/jobs/{job}/results").json["results"]
    assert [(1, "not_found"), (2, "not_found"), (3, "not_found")] == [(one["number"], one["error"]["code"]) for one in results]


def test_an_idempotency_key_opens_one_job_at_any_process(page: WebPage, other: WebPage) -> None:
    body = {"expected": 2, "options": {"top_k": 2}}

    first = page.ask("POST", "/api/jobs", body, Idempotency_Key="one")
    again = other.ask("POST", "/api/jobs", body, Idempotency_Key="one")
    differing = page.ask("POST", "/api/jobs", {"options": {"top_k": 3}}, Idempotency_Key="one")

    assert (201, first.json["id"]) == (again.status, again.json["id"])
    assert f"/api/jobs/{first.json['id']}" == first.headers["location"]
    assert (422, "bad_options") == code(differing)
    assert first.json["id"] != page.ask("POST", "/api/jobs", body, Idempotency_Key="two").json["id"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"options": {"top_k": 0}}, (422, "bad_options")),
        ({"options": {"colour": "red"}}, (422, "bad_options")),
        ({"expected": 3000}, (422, "too_many_images")),
        ({"expected": -1}, (400, "bad_request")),
        ({"unknown": 1}, (400, "bad_request")),
        ({"images": [{}]}, (400, "bad_request")),
        ({"images": [{"s3": "s3://secrets/a.jpg"}]}, (403, "forbidden")),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_words(page: WebPage, body: dict[str, Any], expected: tuple[int, str]) -> None:
    assert expected == code(page.ask("POST", "/api/jobs", body))


def test_json_needs_its_content_type(page: WebPage) -> None:
    assert (415, "unsupported_media_type") == code(page.ask("POST", "/api/jobs", b"{}", Content_Type="text/plain"))
    assert (400, "bad_request") == code(page.ask("POST", "/api/jobs", b"{", Content_Type="application/json"))


def test_a_job_of_images_that_are_stored_is_filled_and_closed(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job()
    page.put(job, 0)
    before = waiting(cloud_)

    again = page.ask("POST", "/api/jobs", {"images": [{"key": keys(cloud_, job)[0], "name": "Bär.jpg"}]}).json

    assert (1, 1, "waiting_for_worker") == (again["count"], again["arrived"], again["stage"])
    assert before + 1 == waiting(cloud_)


def test_a_form_becomes_a_job_and_says_which_files_it_refused(page: WebPage, cloud_: Cloud) -> None:
    form = b""
    for name, value in (("top_k", b"2"), ("thumbnail", b"320")):
        form += b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
    for name, body in (("a.jpg", JPEG), ("notes.txt", b"just text"), ("a.jpg", JPEG + b"2")):
        form += b'--b\r\nContent-Disposition: form-data; name="images"; filename="%b"\r\n\r\n%b\r\n' % (name.encode(), body)

    answer = page.ask("POST", "/api/jobs", form + b"--b--\r\n", Content_Type="multipart/form-data; boundary=b")

    job, refused = answer.json["job"], answer.json["refused"]
    assert (201, 3, 3, 1) == (answer.status, job["count"], job["arrived"], job["failed"])
    assert (2, 320) == (job["options"]["top_k"], job["options"]["thumbnail"])
    assert [(1, "notes.txt", "not_an_image")] == [(one["number"], one["name"], one["code"]) for one in refused]
    assert ["000000", "000002"] == [key.split("/")[2] for key in keys(cloud_, job["id"])]
    assert "not_an_image" == page.ask("GET", f"/api/jobs/{job['id']}/results").json["results"][0]["error"]["code"]


# Reading


@pytest.fixture(scope="module")
def answered(page: WebPage, cloud_: Cloud) -> str:
    """A job of five images: three sure, one not, one failed; the first has a thumbnail."""
    job = page.open_job(expected=5)
    for number in range(5):
        page.put(job, number, picture(number))
    page.close_job(job, 5)
    answers = Answers(cloud_)
    small = base64.b64encode(picture(9, "WEBP", (32, 24))).decode()
    for record in (
        record_of(job, 0, thumbnail=small),
        record_of(job, 1),
        record_of(job, 2, confidence=0.3),
        record_of(job, 3, status="failed", labels=(), error=Fault(code="damaged", message="It ends early.")),
        record_of(job, 4),
    ):
        answers.store(record)
    eventually(lambda: "finished" == page.job(job)["stage"])
    return job


def test_a_job_tells_its_counts_at_any_process(other: WebPage, answered: str) -> None:
    view = other.job(answered)

    assert {"count": 5, "expected": 5, "arrived": 5, "done": 5, "ok": 4, "failed": 1, "cancelled": 0, "unsure": 1} == {
        name: view[name] for name in ("count", "expected", "arrived", "done", "ok", "failed", "cancelled", "unsure")
    }
    assert ("finished", {"name": "tiny", "digest": "sha256:0"}) == (view["stage"], view["model"])
    created, ended, expires = (datetime.fromisoformat(view[name]) for name in ("created", "finished_at", "expires_at"))
    # S3 tells whole seconds.
    assert (UTC, True) == (created.tzinfo, created < ended + timedelta(seconds=1))
    assert timedelta(days=30) == expires - created


def test_a_job_that_has_not_changed_is_not_sent_again(page: WebPage, answered: str) -> None:
    etag = page.ask("GET", f"/api/jobs/{answered}").headers["etag"]

    assert 304 == page.ask("GET", f"/api/jobs/{answered}", If_None_Match=etag).status


def test_results_come_by_pages_and_by_status(page: WebPage, answered: str) -> None:
    def numbers(query: str) -> tuple[list[int], int | None]:
        said = page.ask("GET", f"/api/jobs/{answered}/results?{query}").json
        return [one["number"] for one in said["results"]], said["next"]

    assert ([0, 1], 1) == numbers("limit=2")
    assert ([2, 3], 3) == numbers("limit=2&after=1")
    assert ([4], None) == numbers("limit=2&after=3")
    assert ([3], None) == numbers("status=failed")
    assert ([2], None) == numbers("status=unsure")
    assert (400, "bad_request") == code(page.ask("GET", f"/api/jobs/{answered}/results?status=lost"))
    assert (400, "bad_request") == code(page.ask("GET", f"/api/jobs/{answered}/results?limit=x"))


def test_results_are_downloaded_whole_in_each_form(page: WebPage, answered: str) -> None:
    csv_ = page.ask("GET", f"/api/jobs/{answered}/results.csv")
    json_ = page.ask("GET", f"/api/jobs/{answered}/results.json")
    lines = page.ask("GET", f"/api/jobs/{answered}/results", Accept="application/x-ndjson").body.splitlines()

    assert "0" == csv_.headers["x-missing-results"]
    assert f'attachment; filename="irs-{answered}.csv"' == csv_.headers["content-disposition"]
    assert ["cat", "cat", "cat", "", "cat"] == [
        row["label"] for row in csv.DictReader(io.StringIO(csv_.body.decode("utf-8-sig")))
    ]
    assert list(range(5)) == [one["number"] for one in json_.json["results"]] == [json.loads(line)["number"] for line in lines]
    assert answered == json_.json["job"]["id"]


def test_a_download_before_the_end_says_how_many_are_missing(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job(expected=2)
    for number in range(2):
        page.put(job, number)
    Answers(cloud_).store(record_of(job, 0))

    assert "1" == page.ask("GET", f"/api/jobs/{job}/results.ndjson").headers["x-missing-results"]


def test_a_thumbnail_is_kept_for_a_year(page: WebPage, answered: str) -> None:
    found = page.ask("GET", f"/api/jobs/{answered}/images/0/thumbnail")

    assert (200, "image/webp") == (found.status, found.headers["content-type"])
    assert "immutable" in found.headers["cache-control"]
    assert 304 == page.ask("GET", f"/api/jobs/{answered}/images/0/thumbnail", If_None_Match=found.headers["etag"]).status
    assert (404, "not_found") == code(page.ask("GET", f"/api/jobs/{answered}/images/1/thumbnail"))
    assert (404, "not_found") == code(page.ask("GET", f"/api/jobs/{answered}/images/9/thumbnail"))


def test_an_original_comes_back_as_it_was_handed_in(page: WebPage, answered: str) -> None:
    found = page.ask("GET", f"/api/jobs/{answered}/images/2/original")

    assert (picture(2), "image/jpeg") == (found.body, found.headers["content-type"])
    assert "inline; filename*=UTF-8''a.jpg" == found.headers["content-disposition"]
    assert "sandbox; default-src 'none'" == found.headers["content-security-policy"]
    assert (404, "not_found") == code(page.ask("GET", f"/api/jobs/{answered}/images/9/original"))


@pytest.mark.parametrize(
    "body", [b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"<html><script>alert(1)</script>"]
)
def test_a_users_file_is_never_served_as_a_document(page: WebPage, cloud_: Cloud, body: bytes) -> None:
    """Past the page's own door: other clients store what they like."""
    client = Client(cloud_.settings)
    job = client.open().job
    client.upload(job, 0, "x.html", body)

    found = page.ask("GET", f"/api/jobs/{job}/images/0/original")

    assert "application/octet-stream" == found.headers["content-type"]
    assert found.headers["content-disposition"].startswith("attachment;")
    assert "sandbox; default-src 'none'" == found.headers["content-security-policy"]
    assert "nosniff" == found.headers["x-content-type-options"]


@pytest.mark.parametrize(
    "name", ["a\r\nX-Evil: 1.jpg", '"; filename="evil.exe', "../../../etc/passwd", "x\u202egpj.exe", "/" * 9]
)
def test_a_hostile_name_leaves_its_line_its_folder_and_its_header_alone(page: WebPage, cloud_: Cloud, name: str) -> None:
    job = page.open_job(expected=1)
    assert 201 == page.put(job, 0, name=quote(name, safe="")).status

    found = page.ask("GET", f"/api/jobs/{job}/images/0/original")
    shown = page.ask("GET", f"/jobs/{job}", Accept="text/html").body.decode()

    (key,) = keys(cloud_, job)
    assert re.fullmatch(rf"jobs/{job}/000000/[A-Za-z0-9._-]+", key)
    assert f"inline; filename*=UTF-8''{quote(name, safe='')}" == found.headers["content-disposition"]
    assert "x-evil" not in found.headers
    assert html.escape(re.sub("[\r\n\u202e]", "\ufffd", name)) in shown.replace("&#34;", "&quot;")
    assert "\u202e" not in shown


def test_a_thumbnail_that_is_no_picture_is_not_served(page: WebPage, cloud_: Cloud) -> None:
    job = page.open_job(expected=1)
    page.put(job, 0)
    small = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode()
    Answers(cloud_).store(record_of(job, 0, thumbnail=small))

    assert (404, "not_found") == code(page.ask("GET", f"/api/jobs/{job}/images/0/thumbnail"))


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/samples/..%2f..%2f__init__.py"]
)
def test_no_address_leads_out_of_the_folders_of_the_page(page: WebPage, path: str) -> None:
    assert 404 == page.ask("GET", path).status


# Cancelling


def test_a_cancelled_job_is_told_to_workers_and_readers_and_takes_no_more(page: WebPage, other: WebPage, cloud_: Cloud) -> None:
    job = page.open_job(expected=3)
    for number in range(3):
        page.put(job, number)
    Answers(cloud_).store(record_of(job, 0))

    answer = page.ask("DELETE", f"/api/jobs/{job}")
    again = page.ask("DELETE", f"/api/jobs/{job}")

    assert (202, "cancelled", 1, 2) == (answer.status, answer.json["stage"], answer.json["ok"], answer.json["cancelled"])
    assert 202 == again.status
    assert 1 == len([one for one in cloud_.output.list("cancelled/") if one.key.endswith(f".{job}")])
    assert b"" == cloud_.output.get(f"jobs/{job}/cancelled")
    assert (409, "cancelled") == code(page.put(job, 3))
    assert "cancelled" == other.job(job)["stage"]


def test_each_image_of_a_cancelled_job_without_a_record_reads_as_cancelled(page: WebPage, other: WebPage, cloud_: Cloud) -> None:
    job = page.open_job(expected=3)
    for number in range(3):
        page.put(job, number)
    Answers(cloud_).store(record_of(job, 1))
    page.ask("DELETE", f"/api/jobs/{job}")

    told = other.ask("GET", f"/api/jobs/{job}/results").json["results"]
    cancelled = other.ask("GET", f"/api/jobs/{job}/results?status=cancelled").json["results"]

    assert [(0, "cancelled"), (1, "ok"), (2, "cancelled")] == [(each["number"], each["status"]) for each in told]
    assert [0, 2] == [each["number"] for each in cancelled]
    assert all(each["image"]["key"].startswith(f"jobs/{job}/") for each in cancelled)


def test_a_finished_job_stays_finished_when_it_is_cancelled(page: WebPage, cloud_: Cloud, answered: str) -> None:
    assert "finished" == page.ask("DELETE", f"/api/jobs/{answered}").json["stage"]
    with pytest.raises(NotFound):
        cloud_.output.get(f"jobs/{answered}/cancelled")


# What is not there


def test_a_job_that_never_was_or_has_expired_is_told_apart(page: WebPage) -> None:
    old = str(ULID.from_timestamp(1_000_000_000.0)).lower()

    assert (404, "job_not_found") == code(page.ask("GET", f"/api/jobs/{records.new_job_id()}"))
    assert (404, "job_not_found") == code(page.ask("GET", "/api/jobs/.."))
    expired = page.ask("GET", f"/api/jobs/{old}")
    assert (410, "job_expired") == code(expired)
    assert "This job expired on 9 October 2001: results are kept for 30 days." == expired.json["detail"]
    assert (404, "not_found") == code(page.ask("GET", "/api/nothing"))
    assert (405, "method_not_allowed") == code(page.ask("PATCH", "/api/jobs"))


def test_every_operation_of_the_description_has_a_route(page: WebPage) -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{id}", records.new_job_id()).replace("{n}", "0")

        said = page.ask(operation.method, path).body

        assert b"There is nothing at" not in said, path
    assert {operation.path for operation in OPERATIONS} == set(page.ask("GET", "/openapi.json").json["paths"])


# The service


def test_the_status_tells_workers_and_how_long_a_start_takes(other: WebPage, cloud_: Cloud) -> None:
    def beat(name: str, phase: Any, ready_after_s: float) -> None:
        made = Beat(
            instance=name,
            boot="b",
            host="h",
            pid=1,
            phase=phase,
            at=time.time(),
            started=0,
            ready_after_s=ready_after_s,
            model=ModelFacts(name="tiny", digest="sha256:0"),
        )
        cloud_.output.put(beat_key(name), made.to_bytes(), content_type="application/json")

    for name, phase, took_s in (("a", "ready", 4.0), ("b", "busy", 6.0), ("c", "warming", 5.0), ("d", "stopped", 8.0)):
        beat(name, phase, took_s)

    said = other.ask("GET", "/api/status").json

    assert {"ready": 1, "busy": 1, "starting": 1} == said["workers"]
    assert ("tiny", 5.5, "http://127.0.0.1:5555") == (said["model"]["name"], said["typical_start_s"], said["flower_url"])
    assert {"max_bytes": 200_000, "max_images": 2000} == said["limits"]
    assert {"visible", "in_flight", "delayed"} == set(said["queue"])
    assert "HEIC" in said["formats"]
    assert '<a href="http://127.0.0.1:5555">Flower</a>' in other.ask("GET", "/").body.decode()


def test_while_the_next_worker_starts_the_last_ones_model_is_told(cloud: Cloud) -> None:
    served = ModelFacts(name="tiny", digest="sha256:0")
    for name, phase, model in (("a", "stopped", served), ("b", "starting", None)):
        made = Beat(instance=name, boot="b", host="h", pid=1, phase=phase, at=time.time(), started=0, model=model)
        cloud.output.put(beat_key(name), made.to_bytes(), content_type="application/json")

    assert served == read_service(cloud, Cards(cloud)).model


def test_a_start_takes_as_long_as_the_scaler_has_measured_from_the_launch_on(page: WebPage, cloud_: Cloud) -> None:
    """A worker's own count begins when its process does: of a machine that boots it knows nothing."""
    said = {"wall": time.time(), "kind": "idle-zero", "reason": "-", "policy": "balanced", "cap": 1, "numbers": {"boot_s": 42.04}}
    money = {"day": "2026-01-01", "usd": 0, "instance_s": 0}
    state = {"said": said, "lease": {"holder": "somebody", "epoch": 1}, "money": money}
    cloud_.output.put(SCALER_STATE_KEY, json.dumps(state).encode(), content_type="application/json")
    try:
        # Kept for five seconds.
        eventually(lambda: page.ask("GET", "/api/status").json["scaled"])
        assert 42.0 == page.ask("GET", "/api/status").json["typical_start_s"]
    finally:
        cloud_.output.delete(SCALER_STATE_KEY)


def test_probes_and_metrics_answer(page: WebPage) -> None:
    assert (200, b"ok\n") == (page.ask("GET", "/readyz").status, page.ask("GET", "/healthz").body)
    assert page.metric("irs_web_requests_total") > 0


def test_a_page_without_its_buckets_is_alive_and_not_ready(pages: WebPages) -> None:
    lost = pages.start(IRS_OUTPUT_BUCKET="not-there")

    assert 200 == lost.ask("GET", "/healthz").status
    answer = lost.ask("GET", "/readyz")
    assert (503, True) == (answer.status, b"not-there" in answer.body)


# Limits


def test_jobs_of_one_address_are_held_to_a_rate(strict: WebPage) -> None:
    opened = [strict.ask("POST", "/api/jobs", {}) for _ in range(4)]

    refused = opened[-1]
    assert {201, 429} == {answer.status for answer in opened}

    assert (429, "too_many_jobs") == code(refused)
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_a_connection_on_which_no_request_comes_is_closed(strict: WebPage) -> None:
    for sent in (b"", b"GET / HTT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        with socket.create_connection((strict.host, strict.port), timeout=10) as client:
            client.sendall(sent)
            if sent.endswith(b"\r\n\r\n"):
                said = b""
                # Head and body may come together, or one after the other.
                while not said.endswith(b"\r\n\r\nok\n"):
                    more = client.recv(4096)
                    assert more, said
                    said += more
                assert b"200" in said.split(b"\r\n")[0]
                client.sendall(b"GET / HTT")

            assert b"" == client.recv(4096)


def test_an_upload_that_stalls_is_told_so_and_gives_its_room_back(page: WebPage, strict: WebPage) -> None:
    job = page.open_job()
    with socket.create_connection((strict.host, strict.port), timeout=10) as client:
        head = f"PUT /api/jobs/{job}/images/0 HTTP/1.1\r\nHost: {strict.host}\r\nContent-Length: 100000\r\n\r\n"
        client.sendall(head.encode() + JPEG)

        assert b"408" in client.recv(4096).split(b"\r\n")[0]

    eventually(lambda: 0 == strict.metric("irs_web_held_bytes"))


def test_beyond_a_thousand_connections_one_is_told_to_come_later(page: WebPage) -> None:
    allow_files(2000)
    with contextlib.ExitStack() as held:
        for _ in range(1000):
            held.enter_context(socket.create_connection((page.host, page.port), timeout=10))

        assert 503 == page.ask("GET", "/healthz").status

    eventually(lambda: 200 == page.ask("GET", "/healthz").status)


# Who may, and under which path


def test_behind_a_proxy_and_a_token_each_address_has_its_path_and_no_log_has_the_token(pages: WebPages) -> None:
    token = "a-token-that-stands-in-no-log-at-all"
    closed = pages.start(IRS_WEB_ROOT_PATH="/photos", IRS_WEB_TOKEN=token)
    bearer = {"Authorization": f"Bearer {token}"}
    form = {"Content_Type": "application/x-www-form-urlencoded"}

    assert (401, "unauthorized") == (closed.ask("GET", "/metrics").status, closed.ask("GET", "/metrics").json["code"])
    away = closed.ask("GET", "/jobs/x?show=failed", Accept="text/html")
    assert (303, "/photos/login?next=/jobs/x%3Fshow%3Dfailed") == (away.status, away.headers["location"])
    signed_in = closed.ask("POST", "/login", f"token={token}&next=/jobs/x%3Fshow%3Dfailed".encode(), **form)
    assert (303, "/photos/jobs/x?show=failed") == (signed_in.status, signed_in.headers["location"])
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    tried = [closed.ask("POST", "/login", b"token=wrong", **form) for _ in range(5)]
    assert [303] * 4 + [429] == [answer.status for answer in tried]
    assert 1 <= int(tried[-1].headers["retry-after"]) <= 60

    opened = closed.ask("POST", "/api/jobs", {"expected": 1}, **bearer)
    job = opened.json["id"]
    assert f"/photos/api/jobs/{job}" == opened.headers["location"]
    assert 201 == closed.ask("PUT", f"/api/jobs/{job}/images/0", JPEG, **bearer).status
    assert "/photos/errors/job_not_found" == closed.ask("GET", "/api/jobs/x", **bearer).json["type"]
    for path in ("/", f"/jobs/{job}", "/model", "/api", "/login"):
        shown = closed.ask("GET", path, Cookie=cookie, Accept="text/html")
        led = re.findall(r'(?:href|src|action|data-src)="(/[^"]*)"', shown.body.decode())
        assert (200, True) == (shown.status, len(led) > 5), path
        assert [] == [one for one in led if not one.startswith("/photos/")], path
    assert 200 == closed.ask("GET", "/static/page.css").status
    assert token not in closed.said
    assert token not in str([answer.headers.items() for answer in (away, signed_in, opened, *tried)])
