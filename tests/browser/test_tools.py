"""Find, show, sort, group, open, walk by keys: and the address remembers."""

from __future__ import annotations

import pytest
from browsing import Browsing, Visit
from playwright.sync_api import Browser
from serving import Site
from workers import picture


@pytest.fixture(scope="module")
def job(site: Site, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a finished job: eleven labels and one failure."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"photo {number}.jpg" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number) if number != 5 else picture(number)[:600])
    with Browsing(browser) as browsing:
        visit = browsing.open(site.url)
        visit.choose(paths)
        visit.until_finished()
        return visit.page.url


@pytest.fixture
def finished(job: str, browsing: Browsing) -> Visit:
    """A finished job, open and drawn."""
    visit = browsing.open(job)
    visit.until(lambda: len(visit.tiles()) == 12)
    visit.until(lambda: "(12)" in visit.text("#show option"))
    return visit


def names(visit: Visit) -> list[str]:
    return [tile["name"] for tile in visit.tiles()]


def test_find_shows_only_what_fits_and_the_address_keeps_it(finished: Visit):
    finished.page.fill("#find", "photo 1")

    finished.until(lambda: names(finished) == ["photo 1.jpg", "photo 10.jpg", "photo 11.jpg"])
    finished.page.reload()
    finished.until(lambda: names(finished) == ["photo 1.jpg", "photo 10.jpg", "photo 11.jpg"])
    assert "photo 1" == finished.page.input_value("#find")


def test_show_failed_leaves_the_failure_and_says_why(finished: Visit):
    finished.page.select_option("#show", "failed")

    finished.until(lambda: names(finished) == ["photo 5.jpg"])
    assert "The file is damaged." in finished.tiles()[0]["text"]
    assert finished.page.url.endswith("?show=failed")


def test_sort_by_name_counts_as_people_do_and_by_sureness_begins_with_the_least(finished: Visit):
    finished.page.select_option("#sort", "name")
    finished.until(lambda: names(finished) == [f"photo {number}.jpg" for number in range(12)])

    finished.page.select_option("#sort", "confidence")

    finished.until(lambda: "sort=confidence" in finished.page.url)
    shown = finished.page.evaluate("[...document.querySelectorAll('.cell meter')].map((meter) => meter.value)")
    assert sorted(shown) == shown


def test_groups_stand_by_size_with_what_failed_at_the_end(finished: Visit):
    finished.page.check("#group")

    finished.until(lambda: finished.page.locator("#groups section").count() > 0)
    heads = finished.page.evaluate(
        """[...document.querySelectorAll("#groups h3")]
          .map((one) => [one.firstChild.textContent, Number(one.lastChild.textContent)])"""
    )
    assert ["Failed", 1] == heads[-1]
    sizes = [count for _, count in heads[:-1]]
    assert sorted(sizes, reverse=True) == sizes
    assert 11 == sum(sizes)


def test_nothing_found_says_so_and_shows_all_on_request(finished: Visit):
    finished.page.fill("#find", "zebra crossing")
    finished.until(lambda: finished.page.is_visible("#none"))

    finished.page.click("#show-all")

    finished.until(lambda: len(finished.tiles()) == 12)


def test_keys_walk_the_grid_as_one_tab_stop_and_enter_opens(finished: Visit):
    page = finished.page
    assert 1 == page.locator('.tile[tabindex="0"]').count()
    page.focus('.cell[data-n="0"] .tile')

    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    below = page.evaluate("Number(document.activeElement.closest('.cell').dataset.n)")
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('.cell')].map((cell) => Math.round(cell.getBoundingClientRect().left))).size"
    )
    assert columns == below
    page.keyboard.press("Enter")

    finished.until(lambda: page.is_visible("#detail") and finished.text("#detail-facts").count(f"photo {below}.jpg"))


def test_the_detail_walks_what_is_shown_tells_the_file_and_gives_the_focus_back(finished: Visit):
    page = finished.page
    page.fill("#find", "photo 1")
    finished.until(lambda: len(finished.tiles()) == 3)

    page.click('.cell[data-n="1"] .tile')
    finished.until(lambda: page.locator("#detail-labels tr").count() == 5)
    assert "1 of 3" == finished.text("#detail-place")
    assert "JPEG, 96 × 72 px" in finished.text("#detail-facts")
    assert "model" in finished.text("#detail-timing")
    finished.until(lambda: "ms of a worker an image" in finished.text("#detail-facts"))
    page.keyboard.press("ArrowRight")

    finished.until(lambda: "photo 10.jpg" in finished.text("#detail-facts"))
    assert page.url.endswith("#10")
    page.keyboard.press("Escape")
    # The dialog is out of sight before it says that it closed.
    finished.until(lambda: page.evaluate("document.activeElement.closest('.cell')?.dataset.n") == "10")
    assert not page.is_visible("#detail")


def test_an_address_with_a_number_opens_that_image(job: str, browsing: Browsing):
    visit = browsing.open(f"{job}#5")

    visit.until(lambda: visit.page.is_visible("#detail") and "damaged" in visit.text("#detail-why"))
    assert "Failed" == visit.text("#detail-title")


def test_c_copies_the_label_and_the_button_the_address(job: str, browsing: Browsing):
    visit = browsing.open(job, permissions=["clipboard-read", "clipboard-write"])
    visit.until(lambda: len(visit.tiles("ok")) == 11)
    label = visit.tiles("ok")[0]["label"]
    visit.page.focus('.cell[data-n="0"] .tile')

    visit.page.keyboard.press("c")
    visit.until(lambda: visit.page.evaluate("navigator.clipboard.readText()") == label.rstrip("?"))

    visit.page.click("#copy-link")
    visit.until(lambda: visit.page.evaluate("navigator.clipboard.readText()") == visit.page.url)
    visit.until(lambda: "Link copied. Whoever has it can see the job." in visit.banners)


def test_where_the_browser_forbids_copying_the_text_is_shown(finished: Visit):
    """As on a page of plain HTTP that is not of this machine."""
    shown: list[str] = []
    finished.page.on("dialog", lambda dialog: (shown.append(dialog.default_value), dialog.dismiss()))
    finished.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('forbidden')); }")

    finished.page.click("#copy-link")

    finished.until(lambda: shown == [finished.page.url])
    assert "Link copied" not in finished.banners


def test_the_theme_is_kept_and_set_before_the_page_is_drawn(finished: Visit):
    finished.page.click(".menu summary")

    finished.page.check('input[name="theme"][value="dark"]')

    finished.page.reload()
    assert "dark" == finished.page.get_attribute("html", "data-theme")
    assert "rgb(18, 19, 22)" == finished.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
