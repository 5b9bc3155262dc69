"""A job outlives its page, its connection and its server; and the page says how it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from browsing import CUT, Browsing, Visit
from serving import Site
from waiting import eventually
from webpages import Answers
from workers import LABELS

Photos = Callable[..., list[Path]]


def test_a_reload_brings_all_labels_back(visit: Visit, photos: Photos):
    visit.choose(photos(5))
    visit.until_finished()
    before = [(tile["number"], tile["label"]) for tile in visit.tiles()]

    visit.page.reload()

    visit.until(lambda: before == [(tile["number"], tile["label"]) for tile in visit.tiles()])
    visit.until(lambda: visit.pictures(5))


def test_two_browsers_follow_one_job_and_keep_jobs_apart(site: Site, browsing: Browsing, photos: Photos):
    one, other = browsing.open(site.url), browsing.open(site.url)
    one.choose(photos(4))
    other.choose(photos(2, first=40))
    one.until_finished()
    other.until_finished()

    guest = browsing.open(f"{site.url}/jobs/{one.job_id}")

    guest.until(lambda: len(guest.tiles("ok")) == 4)
    assert 2 == len(other.tiles("ok"))
    assert one.job_id != other.job_id


def test_two_processes_of_the_page_tell_one_job_and_outlive_each_other(site: Site, browsing: Browsing, photos: Photos):
    """The news of each result go to either process alone; sweeps find the rest."""
    with site.beside() as other:
        here = browsing.open(site.url)
        held = here.hold(r"/images/5\?")
        here.choose(photos(12))
        here.until(lambda: held and here.job_id)
        there = browsing.open(f"{other.url}/jobs/{here.job_id}")
        there.expect(*CUT)
        there.until(lambda: len(there.tiles("ok")) >= 5)

        held[0].continue_()

        for visit in (here, there):
            visit.until_finished()
            visit.until(lambda visit=visit: list(range(12)) == sorted(tile["number"] for tile in visit.tiles("ok")))


def test_an_answer_that_is_read_after_the_end_changes_nothing(idle: Site, browsing: Browsing, photos: Photos):
    """The stream may tell the end of a job before the answer to its closing is read; then nothing more comes."""
    visit = browsing.open(idle.url)
    visit.expect("404")
    late = visit.delay(r"/close$")
    visit.choose(photos(1))
    visit.until(lambda: late)
    Answers(idle.workers.cloud).answer(visit.job_id, 0)
    visit.until_finished()

    with visit.page.expect_event("requestfinished", lambda request: request.url.endswith("/close")):
        late[0]()
    visit.page.evaluate("new Promise((done) => setTimeout(done, 100))")

    assert "finished" == visit.stage
    assert visit.headline.startswith("1 recognised in")


def test_the_end_is_told_to_a_page_that_had_all_results_before(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)
    visit.expect("404")
    held = visit.hold(r"/close$")
    visit.choose(photos(1))
    visit.until(lambda: held)
    job = visit.job_id
    with idle.beside() as other:
        guest = browsing.open(f"{other.url}/jobs/{job}")
        # These answers hold no picture.
        guest.expect(*CUT, "404")
        Answers(idle.workers.cloud).answer(job, 0)
        guest.until(lambda: len(guest.tiles("ok")) == 1)

        other.kill()
        idle.ask("POST", f"/api/jobs/{job}/close", {"count": 1})
        other.start()

        guest.until_finished()


def test_the_page_says_which_model_serves_and_the_kinds_it_knows(site: Site, browsing: Browsing):
    visit = browsing.open(site.url)
    assert "It knows 10 kinds of things, and names nothing else." in visit.text(".intro")

    visit.page.click("#model summary")
    assert ("tiny", "10 kinds", "50 %") == tuple(visit.text(f"#model-{part}") for part in ("full", "kinds", "sure"))
    visit.page.click("#model-kinds")

    assert "tiny" == visit.text("h1")
    assert sorted(LABELS) == visit.page.locator(".kinds li").all_text_contents()


def test_a_page_without_a_worker_says_so_and_what_to_do(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)

    visit.choose(photos(2))

    visit.until(lambda: "No worker is running and none is starting. Start one with" in visit.text("#subline"))
    assert 2 == len(visit.tiles("waiting"))


def test_an_upload_goes_on_by_itself_when_the_connection_is_back(visit: Visit, photos: Photos):
    visit.expect(*CUT)
    held = visit.hold(r"/images/1\?")
    visit.choose(photos(6))
    # Another that arrived a moment later would call the connection found again.
    visit.until(lambda: held and 5 == len([tile for tile in visit.tiles() if tile["state"] in ("waiting", "ok")]))

    visit.page.context.set_offline(True)
    held[0].abort()
    visit.until(lambda: "Connection lost. Waiting to continue" in visit.banners)
    visit.page.unroute_all()
    visit.page.context.set_offline(False)

    visit.until_finished()
    visit.until(lambda: len(visit.tiles("ok")) == 6)
    # Banners are drawn a tenth of a second after tiles at most.
    visit.until(lambda: "Connection lost" not in visit.banners)


def test_a_service_that_is_too_busy_is_not_called_a_lost_connection(visit: Visit, photos: Photos):
    visit.expect("503")
    visit.page.route(re.compile(r"/api/jobs$"), lambda route: route.fulfill(status=503, json={"code": "busy"}))

    visit.choose(photos(1))

    visit.until(lambda: "The service cannot take images now. Waiting to continue…" in visit.banners)
    visit.page.unroute_all()
    visit.until_finished()
    visit.until(lambda: "" == visit.banners)


def test_a_proxy_whose_service_is_away_is_not_called_a_lost_connection(visit: Visit, photos: Photos):
    """It answers with a page of its own."""
    visit.expect("502")
    visit.page.route(re.compile(r"/api/jobs$"), lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))

    visit.choose(photos(1))

    visit.until(lambda: "Waiting to continue…" in visit.banners)
    assert "The service cannot take images now." in visit.banners
    visit.page.unroute_all()
    visit.until_finished()


def test_a_proxy_that_refuses_to_open_a_job_ends_the_waiting(visit: Visit, photos: Photos):
    visit.expect("403")
    visit.page.route(re.compile(r"/api/jobs$"), lambda route: route.fulfill(status=403, body="<h1>Forbidden</h1>"))

    visit.choose(photos(1))

    visit.until(lambda: "The job could not be opened." in visit.banners)
    assert 1 == len(visit.tiles("refused"))


def test_pictures_are_shown_though_the_script_that_makes_small_copies_did_not_come(visit: Visit, photos: Photos):
    visit.expect(*CUT)
    visit.page.route(re.compile(r"thumb\.worker\.js"), lambda route: route.abort(), times=1)

    visit.choose(photos(2))

    visit.until(lambda: visit.pictures(2))


def test_a_killed_server_loses_nothing_and_the_page_goes_on_alone(lonely: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(lonely.url)
    visit.expect(*CUT)
    visit.choose(photos(30))
    visit.until(lambda: len(visit.tiles("waiting")) >= 5)

    lonely.kill()
    visit.until(lambda: "Connection lost" in visit.banners)
    lonely.start()
    visit.until(lambda: len(visit.tiles("waiting")) == 30)
    lonely.workers.start()
    visit.until_answered(10)
    lonely.kill()
    lonely.start()

    visit.until_finished(within_s=90)
    assert list(range(30)) == sorted(tile["number"] for tile in visit.tiles("ok"))


def test_after_a_reload_the_same_folder_sends_only_what_is_missing(site: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(site.url)
    held = visit.hold(r"/images/[4-9]\?")
    folder = photos(8)[0].parent
    # What cannot be sent is not waited for.
    (folder / "notes.jpg").write_text("just a text")
    visit.choose_folder(folder)
    visit.until(lambda: len(held) == 3 and len(visit.tiles("ok")) == 4)
    visit.page.once("dialog", lambda dialog: dialog.accept())
    puts: list[str] = []
    visit.page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)

    visit.page.reload()
    visit.page.unroute_all()
    visit.until(lambda: "4 of 8 images arrived. Add the same folder again to send the rest." in visit.banners)
    visit.choose_folder(folder)

    visit.until_finished()
    assert 4 == len(puts)
    visit.until(lambda: list(range(8)) == sorted(tile["number"] for tile in visit.tiles("ok")))


def test_a_job_whose_sender_was_cut_off_before_its_end_is_closed_by_the_page(site: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(site.url)
    closes = visit.hold(r"/close$")
    visit.choose(photos(3))
    visit.until(lambda: closes and len(visit.tiles("ok")) == 3)

    visit.page.reload()
    visit.page.unroute_all()

    visit.until_finished()


def test_a_job_of_which_nothing_arrived_offers_no_rest_to_be_left_out(idle: Site, browsing: Browsing):
    job = idle.ask("POST", "/api/jobs", {"expected": 3})["id"]

    visit = browsing.open(f"{idle.url}/jobs/{job}")

    visit.until(lambda: "0 of 3 images arrived. Add the same folder again to send the rest." in visit.banners)
    assert "Leave the rest out" not in visit.banners


def test_a_cancelled_job_says_what_was_recognised(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)
    visit.choose(photos(3))
    visit.until(lambda: len(visit.tiles("waiting")) == 3)

    visit.page.click("#cancel button")

    visit.until(lambda: visit.headline == "Cancelled. 0 of 3 recognised.")
    visit.until(lambda: len(visit.tiles("cancelled")) == 3)


def test_cancelling_amid_an_upload_breaks_off_what_is_on_its_way_and_calls_it_no_failure(
    idle: Site, browsing: Browsing, photos: Photos
):
    visit = browsing.open(idle.url)
    # The uploads that are broken off.
    visit.expect(*CUT)
    held = visit.hold(r"/images/[2-9]\?")
    visit.choose(photos(8))
    visit.until(lambda: len(held) == 3 and len(visit.tiles("waiting")) >= 2)

    visit.page.click("#cancel button")

    visit.until(lambda: visit.headline == "Cancelled. 0 of 8 recognised.")
    visit.until(lambda: len(visit.tiles("cancelled")) == 8)
    visit.until(lambda: visit.text("#say") == "Cancelled. 0 of 8 recognised.")
    visit.until(lambda: "" == visit.banners)
    assert {"CancelledCancelled before it was recognised."} == {tile["text"].removesuffix(tile["name"]) for tile in visit.tiles()}
    visit.page.reload()
    visit.until(lambda: visit.headline == "Cancelled. 0 of 8 recognised.")


def test_a_job_that_is_cancelled_before_it_is_open_is_never_opened(visit: Visit, photos: Photos):
    visit.expect(*CUT)
    held = visit.hold(r"/api/jobs$")
    visit.choose(photos(2))
    visit.until(lambda: held)

    visit.page.click("#cancel button")
    held[0].continue_()

    visit.until(lambda: len(visit.tiles("cancelled")) == 2)
    visit.until(lambda: visit.headline == "Nothing was sent")
    assert "" == visit.job_id


def test_without_its_stream_the_page_says_so_and_asks_every_five_seconds(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)
    # These answers hold no picture.
    visit.expect(*CUT, "404")
    visit.page.route(re.compile(r"/events$"), lambda route: route.abort())
    visit.choose(photos(2))
    visit.until(lambda: visit.stage == "waiting_for_worker")

    Answers(idle.workers.cloud).answer(visit.job_id, 0)
    visit.until(lambda: "Live updates are interrupted; checking every 5 seconds." in visit.banners)
    visit.until(lambda: len(visit.tiles("ok")) == 1)
    visit.page.unroute_all()
    Answers(idle.workers.cloud).answer(visit.job_id, 1)

    visit.until_finished()
    visit.until(lambda: "" == visit.banners)


def test_without_its_stream_the_page_asks_only_for_what_it_does_not_know(idle: Site, browsing: Browsing, photos: Photos):
    """A record with its picture has 20 KB: a thousand of them every five seconds are more than a phone can bear."""
    visit = browsing.open(idle.url)
    visit.expect(*CUT, "404")
    visit.page.route(re.compile(r"/events$"), lambda route: route.abort())
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url) if "/results?" in request.url else None)
    visit.choose(photos(3))
    visit.until(lambda: visit.stage == "waiting_for_worker")
    for number in (0, 2):
        Answers(idle.workers.cloud).answer(visit.job_id, number)
    visit.until(lambda: len(visit.tiles("ok")) == 2)
    asked.clear()

    visit.until(lambda: asked)

    assert asked[0].endswith("&after=0")
    Answers(idle.workers.cloud).answer(visit.job_id, 1)
    visit.until_finished()


def test_an_answer_that_is_read_after_its_job_was_left_is_none_of_the_next(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)
    visit.expect(*CUT, "404")
    visit.page.route(re.compile(r"/events$"), lambda route: route.abort())
    visit.choose(photos(2))
    visit.until(lambda: visit.stage == "waiting_for_worker")
    late = visit.delay(r"/results\?")
    Answers(idle.workers.cloud).answer(visit.job_id, 0)
    visit.until(lambda: idle.ask("GET", f"/api/jobs/{visit.job_id}")["ok"] == 1)
    late.clear()
    visit.until(lambda: late)
    visit.page.click("#cancel button")
    visit.until(lambda: visit.stage == "cancelled")
    left = visit.job_id

    visit.choose(photos(1, "more", first=5))
    visit.until(lambda: visit.job_id not in ("", left) and visit.tiles("waiting"))
    answered = late[0]
    with visit.page.expect_event("requestfinished", lambda request: f"{left}/results?" in request.url):
        answered()
    visit.page.evaluate("new Promise((done) => setTimeout(done, 100))")

    assert ["photo 5.jpg"] == [tile["name"] for tile in visit.tiles()]
    assert "waiting" == visit.tiles()[0]["state"]


def test_the_model_is_named_when_a_job_ends_by_its_news_alone(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)
    visit.expect("404")
    assert "No worker yet" == visit.text("#model-name")
    visit.choose(photos(1))
    visit.until(lambda: visit.stage == "waiting_for_worker")

    Answers(idle.workers.cloud).answer(visit.job_id, 0)

    visit.until_finished()
    visit.until(lambda: visit.text("#model-name") == "tiny")


def test_recent_jobs_are_remembered_by_this_browser_and_forgotten_on_request(visit: Visit, site: Site, photos: Photos):
    visit.choose(photos(3))
    visit.until_finished()
    visit.page.goto(site.url)
    visit.until(lambda: "photo 0.jpg and 2 others" in visit.text("#recent"))

    visit.page.click("#forget-all")

    eventually(lambda: not visit.page.is_visible("#recent"))
    assert "[]" == visit.page.evaluate("localStorage.getItem('irs.jobs')")
