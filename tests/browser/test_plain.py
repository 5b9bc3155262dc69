"""The same page without JavaScript: post, see, open, download, cancel."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import Browsing, Visit
from serving import Site
from waiting import eventually
from webpages import Answers, record_of
from workers import picture

from irs.records import Fault, Label, new_job_id

#: Of a job opened this minute, and of one of long ago.
NEW, OLD = new_job_id(), "01k9t3v6q8w0y2r4e6n8m1h3j5"
Photos = Callable[..., list[Path]]


def post(visit: Visit, paths: list[Path]) -> None:
    visit.choose(paths)
    visit.page.click("text=Recognise")
    visit.until(lambda: visit.job_id)


def until_finished(visit: Visit) -> None:
    # The page asks by itself every five seconds.
    visit.page.wait_for_selector("body[data-stage=finished]", timeout=60_000)


def reload_until_finished(visit: Visit) -> None:
    def is_finished() -> bool:
        visit.page.reload()
        return visit.stage == "finished"

    eventually(is_finished, within_s=60, every_s=0.2)


def test_a_form_is_answered_by_tiles_and_downloads_without_javascript(site: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(site.url, java_script_enabled=False)

    post(visit, photos(3))

    until_finished(visit)
    assert 3 == visit.page.locator(".cell[data-state=ok] .label").count()
    assert "3 recognised in" in (visit.page.text_content("#headline") or "")
    with visit.page.expect_download() as download:
        visit.page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))
    assert ["photo 0.jpg", "photo 1.jpg", "photo 2.jpg"] == [row["file"] for row in rows]


def test_a_tile_leads_to_a_page_of_its_own_without_javascript(site: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(site.url, java_script_enabled=False)
    post(visit, photos(2))
    reload_until_finished(visit)

    visit.page.click('.cell[data-n="1"] .tile')

    assert 5 == visit.page.locator(".likely tr").count()
    assert "photo 1.jpg" in (visit.page.text_content(".facts") or "")
    visit.page.click("text=All images")
    assert 2 == visit.page.locator(".cell").count()


def test_a_job_is_cancelled_by_a_form_without_javascript(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url, java_script_enabled=False)
    post(visit, photos(2))

    visit.page.click("#cancel button")

    assert "Cancelled. 0 of 2 recognised." == (visit.page.text_content("#headline") or "").strip()


def test_a_job_reads_the_same_with_javascript_and_without(idle: Site, browsing: Browsing):
    """Once said by the page's scripts, once by the server: web.md 5.1."""
    job = idle.workers.client.recognize([(f"{number}.jpg", picture(number)) for number in range(6)]).id
    answers, dog = Answers(idle.workers.cloud), Label(label="dog", wnid=None, confidence=0.97)
    for record in (
        record_of(job, 0, confidence=0.83),
        record_of(job, 1, confidence=0.999),
        record_of(job, 2, confidence=0.41, hedged=dog),
        record_of(job, 3, confidence=0.3),
        record_of(job, 4, status="failed", labels=(), error=Fault(code="damaged", message="It ends early.")),
        record_of(job, 5, labels=()),
    ):
        answers.store(record)
    told = [browsing.open(f"{idle.url}/jobs/{job}", java_script_enabled=is_on) for is_on in (True, False)]
    told[0].until(lambda: len(told[0].tiles("ok")) == 5)

    for visit in told:
        words = [" ".join(one.replace("\u00a0", " ").split()) for one in visit.page.locator(".words").all_inner_texts()]
        assert [
            "cat 83 % 0.jpg",
            "cat >99 % 1.jpg",
            "dog Not sure maybe cat 41 % 2.jpg",
            "cat? 30 % Not sure 3.jpg",
            "Failed The file is damaged. 4.jpg",
            "No label Nothing that is wanted is likely enough. 5.jpg",
        ] == words
        assert re.fullmatch(r"5 recognised in \d+ s\. 2 not sure, 1 failed\.", visit.headline)


def test_a_failed_image_says_what_is_wrong_and_what_to_do_to_one_who_knows_nothing_of_the_service(idle: Site, browsing: Browsing):
    job = idle.workers.client.recognize([("plan.png", picture(1))]).id
    reason = "The PNG file is damaged (broken PNG file (chunk b'IDAT')): hand in a whole copy."
    error = Fault(code="damaged", message=reason)
    Answers(idle.workers.cloud).store(record_of(job, 0, status="failed", labels=(), error=error))
    said = "The file is damaged. Part of it is missing or broken: add another copy."

    visit = browsing.open(f"{idle.url}/jobs/{job}#0")
    # There is no such picture.
    visit.expect("404")

    visit.until(lambda: reason in visit.text("#detail-facts"))
    assert said == visit.text("#detail-why")
    plain = browsing.open(f"{idle.url}/jobs/{job}/images/0", java_script_enabled=False)
    assert said == " ".join(plain.text(one) for one in (".mark", ".mark + p"))
    assert reason in plain.text(".facts")


@pytest.mark.parametrize(
    ("id", "title"), [(NEW, "There is no such job"), (OLD, "The job has expired")], ids=["unknown", "expired"]
)
def test_a_job_that_is_not_there_is_one_sentence_and_a_way_home(site: Site, browsing: Browsing, id: str, title: str):
    visit = browsing.open(f"{site.url}/jobs/{id}", java_script_enabled=False)
    visit.expect("404", "410")

    assert title == visit.page.text_content("h1")
    visit.page.click("main a")
    assert f"{site.url}/" == visit.page.url
