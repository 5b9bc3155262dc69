"""Every way in: chooser, folder, drop, paste; and what is not taken says why."""

from __future__ import annotations

import re
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import Browsing, Visit
from PIL import Image
from playwright.sync_api import Route
from serving import Site
from webpages import Answers
from workers import LABELS, picture

Photos = Callable[..., list[Path]]


def test_chosen_images_get_a_label_each_without_a_reload(visit: Visit, photos: Photos):
    visit.choose(photos(3))

    visit.until_finished()
    assert {0, 1, 2} == {tile["number"] for tile in visit.tiles("ok")}
    assert all(any(label in tile["label"] for label in LABELS) for tile in visit.tiles())


def test_the_page_shows_all_chosen_images_before_the_first_is_sent(visit: Visit, photos: Photos):
    held = visit.hold(r"/api/jobs$")

    visit.choose(photos(5))

    visit.until(lambda: len(visit.tiles("queued")) == 5, within_s=10)
    visit.until(lambda: visit.headline == "0 of 5 sent")
    visit.until(lambda: len(held) == 1)


def test_a_chosen_folder_is_read_in_the_order_people_count(visit: Visit, photos: Photos):
    folder = photos(12)[0].parent
    (folder / "notes.txt").write_text("no picture")
    (folder / ".DS_Store").write_bytes(b"\0" * 8)

    visit.choose_folder(folder)

    visit.until_finished()
    visit.until(lambda: [f"photo {number}.jpg" for number in range(12)] == [tile["name"] for tile in visit.tiles()])
    assert "1 other file skipped" in visit.banners


def test_a_dropped_folder_is_read_to_its_end_beyond_the_hundred_entries_of_one_read(visit: Visit, photos: Photos):
    folder = photos(4, "many")[0].parent
    photos(2, "many/inner", first=500)
    for number in range(130):
        (folder / f"{number}.txt").write_text("no picture")
    visit.page.evaluate(
        """() => {
          window.said = new Set();
          const headline = document.getElementById("headline");
          new MutationObserver(() => window.said.add(headline.textContent)).observe(headline, { childList: true });
        }"""
    )

    visit.drop(folder)

    visit.until(lambda: len(visit.tiles()) == 6)
    assert "130 other files skipped." in visit.banners
    assert "Found 6 images" == [one for one in visit.page.evaluate("[...window.said]") if one.startswith("Found")][-1]
    visit.until_finished()
    assert 6 == len(visit.tiles("ok"))


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a.txt", "b.pdf"], "No pictures found. 2 other files skipped."), ([], "No pictures found.")],
    ids=["others", "empty"],
)
def test_a_dropped_folder_without_pictures_is_answered_all_the_same(visit: Visit, tmp_path: Path, names: list[str], said: str):
    (tmp_path / "papers").mkdir()
    for name in names:
        (tmp_path / "papers" / name).write_text("no picture")

    visit.drop(tmp_path / "papers")

    visit.until(lambda: said in visit.banners)
    assert visit.page.is_visible("#banners")
    visit.until(lambda: visit.headline == "Nothing was sent")


def test_a_file_of_a_dropped_folder_that_cannot_be_read_holds_up_no_other(visit: Visit, photos: Photos):
    folder = photos(3)[0].parent
    visit.page.evaluate(
        """() => {
          const original = DataTransferItem.prototype.webkitGetAsEntry;
          DataTransferItem.prototype.webkitGetAsEntry = function () {
            const folder = original.call(this);
            const reader = folder.createReader();
            folder.createReader = () => ({
              readEntries: (done, failed) => reader.readEntries((entries) => {
                for (const one of entries) if (one.name === "photo 0.jpg") one.file = (_, refuse) => refuse(new Error("gone"));
                done(entries);
              }, failed),
            });
            return folder;
          };
        }"""
    )

    visit.drop(folder)

    visit.until_finished()
    assert ["photo 1.jpg", "photo 2.jpg"] == [tile["name"] for tile in visit.tiles("ok")]
    assert "1 other file skipped." in visit.banners


def test_a_pasted_picture_is_recognised(visit: Visit):
    visit.page.evaluate(
        """(text) => {
          const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
          dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        b64encode(picture(77)).decode(),
    )

    visit.until_finished()
    assert ["pasted.jpg"] == [tile["name"] for tile in visit.tiles("ok")]


def test_a_file_that_is_no_image_says_so_and_holds_up_no_other(visit: Visit, photos: Photos, tmp_path: Path):
    bill, nothing = tmp_path / "bill.jpg", tmp_path / "nothing.jpg"
    bill.write_bytes(b"%PDF-1.7 " + b"x" * 400)
    nothing.write_bytes(b"")

    visit.choose([*photos(2), bill, nothing])

    visit.until_finished()
    refused = {tile["name"]: tile["text"] for tile in visit.tiles("refused")}
    assert "This is a PDF, not an image." in refused["bill.jpg"]
    assert "The file is empty." in refused["nothing.jpg"]
    assert 2 == len(visit.tiles("ok"))
    assert "2 files could not be sent" in visit.banners


def test_where_nothing_can_be_sent_there_is_no_job_to_cancel_or_to_share(visit: Visit, tmp_path: Path):
    (tmp_path / "notes.jpg").write_text("just a text")

    visit.choose([tmp_path / "notes.jpg"])

    visit.until(lambda: visit.headline == "Nothing was sent")
    assert "This is a text, not an image." in visit.tiles("refused")[0]["text"]
    assert (False, False) == tuple(visit.page.is_visible(one) for one in ("#cancel", "#copy-link"))
    assert "" == visit.job_id


@pytest.mark.parametrize("is_told_first", [False, True])
def test_a_file_that_the_service_refuses_fails_and_holds_up_no_other(visit: Visit, photos: Photos, is_told_first: bool):
    """What the page lets pass and the service does not: its number has a record, and leaves no gap."""
    visit.expect("422")
    answers: list[Callable[[], None]] = []

    def send_another(route: Route) -> None:
        answer = route.fetch(post_data=b"%PDF-1.7 a document")
        answers.append(lambda: route.fulfill(response=answer))

    visit.page.route(re.compile(r"/images/1\?"), send_another)

    visit.choose(photos(3))

    if is_told_first:
        # By the stream, from its record, before the upload is answered.
        visit.until(lambda: visit.tiles("failed"))
    visit.until(lambda: answers)
    answers[0]()
    visit.until_finished()
    visit.until(lambda: [1] == [tile["number"] for tile in visit.tiles("failed")])
    assert 2 == len(visit.tiles("ok"))
    assert "PDF" in visit.tiles("failed")[0]["text"]


def test_a_file_that_a_proxy_finds_too_large_says_so_and_holds_up_no_other(visit: Visit, photos: Photos):
    """nginx takes 1 MB by itself, and answers with a page of its own."""
    visit.expect("413")
    visit.page.route(re.compile(r"photo%201"), lambda route: route.fulfill(status=413, body="<h1>Too large</h1>"))

    visit.choose(photos(3))

    visit.until_finished()
    visit.until(lambda: ["photo 1.jpg"] == [tile["name"] for tile in visit.tiles("failed")])
    assert "The file is too large." in visit.tiles("failed")[0]["text"]
    assert 2 == len(visit.tiles("ok"))


def test_what_another_tab_is_sending_is_not_left_out_for_a_file_that_is_refused_here(site: Site, visit: Visit, photos: Photos):
    visit.expect("413", "409")
    visit.page.route(re.compile(r"photo%201"), lambda route: route.fulfill(status=413, body="<h1>Too large</h1>"))
    held, closes = visit.hold(r"photo%202"), visit.hold(r"/close$")
    visit.choose(photos(3))
    visit.until(lambda: held and "refused" in [tile["state"] for tile in visit.tiles()])

    def send_from_another_tab(number: int) -> None:
        visit.page.evaluate(
            "([address, bytes]) => fetch(address, { method: 'PUT', body: new Uint8Array(bytes) })",
            [f"/api/jobs/{visit.job_id}/images/{number}?name=other.jpg", list(picture(10 + number))],
        )

    send_from_another_tab(2)
    send_from_another_tab(5)
    held.pop().continue_()
    # Its number was taken: it goes on with another, beside the other tab's fifth.
    visit.until(lambda: held)
    held.pop().continue_()
    visit.until(lambda: closes)
    with visit.page.expect_event("requestfinished", lambda request: request.url.endswith("/close")):
        visit.page.unroute_all()
    send_from_another_tab(4)

    visit.until(lambda: visit.stage == "finished")
    assert 5 == site.ask("GET", f"/api/jobs/{visit.job_id}")["ok"]


def test_an_image_that_was_recognised_though_its_upload_was_refused_has_no_fault(idle: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(idle.url)
    # These answers hold no picture.
    visit.expect("422", "404")

    def refuse(route: Route) -> None:
        route.fetch(post_data=picture(0))
        route.fulfill(status=422, json={"code": "not_an_image", "has_record": True})

    visit.page.route(re.compile(r"/images/0\?"), refuse)
    visit.choose(photos(1))
    visit.until(lambda: visit.tiles("refused"))
    # What the page knows by itself is looked at.
    visit.page.route(re.compile(r"/results\?"), lambda route: route.fulfill(status=404, json={}))

    Answers(idle.workers.cloud).answer(visit.job_id, 0)
    visit.until(lambda: visit.tiles("ok"))
    visit.page.click(".tile")

    visit.until(lambda: "photo 0.jpg" in visit.text("#detail-facts"))
    assert "not_an_image" not in visit.text("#detail-facts")


def test_a_file_that_is_gone_when_its_turn_comes_fails_and_holds_up_no_other(visit: Visit, photos: Photos):
    visit.expect("ERR_FILE_NOT_FOUND", "ERR_UPLOAD_FILE_CHANGED", "ERR_ACCESS_DENIED")
    held = visit.hold(r"/api/jobs$")
    paths = photos(3)
    visit.choose(paths)
    visit.until(lambda: held)

    paths[1].unlink()
    held[0].continue_()

    visit.until_finished()
    visit.until(lambda: [1] == [tile["number"] for tile in visit.tiles("failed")])
    assert "The file can no longer be read" in visit.tiles("failed")[0]["text"]
    assert 2 == len(visit.tiles("ok"))


def test_a_phone_offers_its_camera_and_no_folder(site: Site, browsing: Browsing, photos: Photos):
    visit = browsing.open(site.url, size="phone", has_touch=True, is_mobile=True)
    assert visit.page.is_visible("#pick-photo")
    assert not visit.page.is_visible("#pick-folder")
    assert ("environment", "image/*") == tuple(visit.page.get_attribute("#pick-photo", name) for name in ("capture", "accept"))

    visit.choose(photos(1), chooser="#pick-photo")

    visit.until_finished()
    assert 1 == len(visit.tiles("ok"))


def test_a_picture_that_is_stored_on_its_side_is_shown_upright_at_once(visit: Visit, tmp_path: Path):
    """Phones store a portrait on its side and say so in EXIF: the copy made in the page goes by that."""
    stored = Image.new("RGB", (600, 300), "red")
    stored.paste("blue", (300, 0, 600, 300))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "portrait.jpg", exif=exif)
    visit.hold(r"/api/jobs$")

    visit.choose([tmp_path / "portrait.jpg"])

    visit.until(lambda: visit.pictures(1))
    width, height, top, bottom = visit.page.evaluate(
        """() => {
          const image = document.querySelector(".shot img");
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const context = canvas.getContext("2d", { willReadFrequently: true });
          context.drawImage(image, 0, 0);
          const red = (y) => context.getImageData(canvas.width / 2, y * canvas.height, 1, 1).data[0];
          return [canvas.width, canvas.height, red(0.1), red(0.9)];
        }"""
    )
    assert abs(height - 2 * width) <= 2
    assert (True, True) == (top > 200, bottom < 60)


def test_neither_names_nor_labels_of_users_reach_the_logs(site: Site, browsing: Browsing, photos: Photos, tmp_path: Path):
    named, broken = tmp_path / "Anna am Strand.jpg", tmp_path / "Annas Rechnung.jpg"
    named.write_bytes(picture(41))
    broken.write_bytes(picture(42)[:700])
    visit = browsing.open(site.url)

    visit.choose([named, broken])

    visit.until_finished()
    label = visit.tiles("ok")[0]["label"].rstrip("?")
    for said in (site.said, site.workers.started[0].said):
        assert "Anna" not in said
        assert not re.search(rf"\b{label}\b", said)


def test_a_damaged_image_fails_alone_and_is_tried_again_as_a_job_of_its_own(visit: Visit, photos: Photos, tmp_path: Path):
    # Its key holds another name.
    damaged = tmp_path / "Schäden 1.jpg"
    damaged.write_bytes(picture(9)[:700])
    visit.choose([*photos(2), damaged])
    visit.until_finished()
    visit.until(lambda: "1 image could not be recognised" in visit.banners)
    first = visit.job_id

    visit.page.click("text=Try again")

    visit.until(lambda: visit.job_id not in ("", first))
    visit.until_finished()
    visit.until(lambda: ["Schäden 1.jpg"] == [tile["name"] for tile in visit.tiles("failed")])


def test_images_added_while_the_job_is_open_join_it_and_known_files_are_asked_about(visit: Visit, photos: Photos):
    some = photos(4)
    held = visit.hold(r"/images/3\?")
    visit.choose(some)
    visit.until(lambda: held)
    first = visit.job_id

    visit.choose([*photos(2, first=50), some[0]])

    visit.until(lambda: "1 file is already here" in visit.banners)
    held[0].continue_()
    visit.until_finished()
    assert first == visit.job_id
    assert 6 == len(visit.tiles("ok"))
    assert [6] == visit.page.evaluate("JSON.parse(localStorage.getItem('irs.jobs')).map((job) => job.count)")


def test_a_file_that_stands_twice_in_one_folder_is_asked_about(visit: Visit, photos: Photos):
    first = photos(3, "album/one")[0]
    other = first.parent.parent / "two"
    other.mkdir()
    shutil.copy2(first, other)

    visit.choose_folder(first.parent.parent)

    visit.until(lambda: "1 file is already here" in visit.banners)
    visit.until_finished()
    assert 3 == len(visit.tiles("ok"))


def test_the_screen_is_kept_awake_again_when_the_page_is_looked_at_again(visit: Visit, photos: Photos):
    """Browsers take the lock from a page that is hidden."""
    visit.page.evaluate(
        """() => {
          window.locks = [];
          navigator.wakeLock.request = async () => {
            const lock = { released: false, release() { this.released = true; } };
            window.locks.push(lock);
            return lock;
          };
        }"""
    )
    held = visit.hold(r"/images/0\?")
    visit.choose(photos(1))
    visit.until(lambda: held)
    look = "() => document.dispatchEvent(new Event('visibilitychange'))"

    visit.page.evaluate(look)
    assert 1 == visit.page.evaluate("window.locks.length")
    visit.page.evaluate("window.locks[0].released = true")
    visit.page.evaluate(look)
    visit.until(lambda: visit.page.evaluate("window.locks.length") == 2)

    held[0].continue_()
    visit.until_finished()
    visit.until(lambda: visit.page.evaluate("window.locks.every((lock) => lock.released)"))


def test_leaving_is_warned_of_while_images_are_on_their_way_and_only_then(visit: Visit, photos: Photos):
    warnings: list[str] = []
    visit.page.on("dialog", lambda dialog: (warnings.append(dialog.type), dialog.dismiss()))
    held = visit.hold(r"/images/1\?")
    visit.choose(photos(2))
    visit.until(lambda: held)
    # Chromium asks only whoever has touched the page.
    visit.page.click("h1")

    visit.page.evaluate("setTimeout(() => location.reload())")
    visit.until(lambda: warnings == ["beforeunload"])
    held[0].continue_()
    visit.until_finished()

    visit.page.reload()
    visit.until(lambda: len(visit.tiles("ok")) == 2)
    assert ["beforeunload"] == warnings


def test_images_added_to_a_finished_job_begin_another(visit: Visit, photos: Photos):
    visit.choose(photos(1))
    visit.until_finished()
    first = visit.job_id

    visit.choose(photos(2, first=60))

    visit.until(lambda: visit.job_id != first)
    visit.until_finished()
    visit.until(lambda: len(visit.tiles("ok")) == 2)


def test_other_files_beside_those_that_begin_another_job_are_told_as_skipped(visit: Visit, photos: Photos, tmp_path: Path):
    visit.choose(photos(1))
    visit.until_finished()
    folder = photos(1, "more", first=1)[0].parent
    (folder / "notes.txt").write_text("just a text")

    visit.choose_folder(folder)

    visit.until_finished()
    assert "1 other file skipped." in visit.banners


def test_a_hostile_name_is_shown_as_text(site: Site, browsing: Browsing, tmp_path: Path):
    name = "<img src=x onerror=alert(1)>\u202egpj.exe.jpg"
    (tmp_path / name).write_bytes(picture(3))
    visit = browsing.open(site.url)

    visit.choose([tmp_path / name])

    visit.until_finished()
    assert ["<img src=x onerror=alert(1)>\ufffdgpj.exe.jpg"] == [tile["name"] for tile in visit.tiles()]


def test_two_hundred_images_all_settle(visit: Visit, photos: Photos):
    visit.choose(photos(200))

    visit.until_finished(within_s=100)
    visit.until(lambda: len(visit.tiles("ok")) == 200)
    visit.until(lambda: visit.headline.startswith("200 recognised in"))
